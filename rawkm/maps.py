"""BPF maps: the specification, an inert value, and the live map, which owns an fd."""

from __future__ import annotations

import sys
from errno import E2BIG, EINVAL, ENOENT, ENOMEM, ENOSPC

from rawkm.errors import SyscallError, UsageError
from rawkm.handle import Handle
from rawkm.host import cpus, memlock
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi import packed
from rawkm.uapi.constants import MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rawkm.syscall.kernel import Kernel, Memory, Value

    Data = bytes | bytearray | memoryview | int

_ENOTSUPP = 524
_PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)
_BATCH = 4096
# What the buffers of one batch may take, unless a single element takes more.
_BATCH_BYTES = 1 << 22

_CREATE_HINTS = {
    E2BIG: "a key, a value or the whole map is larger than this kernel allows",
    EINVAL: "this kernel does not know the map type or a flag, or a size is wrong for the type",
    ENOMEM: "there is not enough memory for a map of this size",
}


class MapSpec:
    """A map to be: ``key`` and ``value`` in bytes, ``type`` a MapType, ``flags`` of MapFlag.

    ``name``: at most 15 of [A-Za-z0-9_.]; programs refer to the map by it.
    """

    __slots__ = ("flags", "key", "max_entries", "name", "type", "value")

    def __init__(self, name: str, type: int, *, key: int = 0, value: int = 0, max_entries: int = 0, flags: int = 0) -> None:
        if len(name) > 15 or not all(c.isascii() and (c.isalnum() or c in "_.") for c in name):
            raise UsageError(f"a map cannot be named {name!r}: at most 15 of A-Z a-z 0-9 _ .")
        self.name = name
        self.type = type
        self.key = key
        self.value = value
        self.max_entries = max_entries
        self.flags = flags

    def __repr__(self) -> str:
        return (
            f"MapSpec({self.name!r}, {self.type}, key={self.key}, value={self.value}, "
            f"max_entries={self.max_entries}, flags={self.flags:#x})"
        )

    def create(self, kernel: Kernel) -> Map:
        """BPF_MAP_CREATE. Raises SyscallError: EPERM without CAP_BPF, EINVAL for a type that the kernel does not have, …

        Raises UsageError for a ring buffer whose size is not a power of two of whole pages (``buffers.ring_size`` makes one).
        """
        size = self.max_entries
        if self.type == MapType.RINGBUF and (size < PAGE_SIZE or size & (size - 1)):
            raise UsageError(f"the ring buffer {self.name} cannot have {size} bytes: a power of two, {PAGE_SIZE} or more")
        values: dict[str, Value] = {
            "map_type": self.type,
            "key_size": self.key,
            "value_size": self.value,
            "max_entries": self.max_entries,
            "map_flags": self.flags,
            "map_name": self.name.encode(),
        }
        try:
            fd = memlock.with_room(kernel, lambda: kernel.bpf(packed.MAP_CREATE, values)).ret
        except SyscallError as err:
            why = _CREATE_HINTS.get(err.errno, "")
            err.hint = f"the map {self.name}{': ' if why else ''}{why}"
            raise
        return Map(kernel, fd, self)


class Map(Handle):
    """A live map. Keys and values are bytes, or ints in the machine's byte order; what does not fit raises UsageError.

    An int is the value of every CPU of a per-CPU map; as bytes its value is one slot per possible CPU (``value_size``).
    """

    __slots__ = ("_value_size", "spec")

    def __init__(self, kernel: Kernel, fd: int, spec: MapSpec) -> None:
        super().__init__(kernel, fd)
        self.spec = spec
        self._value_size = 0

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def value_size(self) -> int:
        """Bytes of one value as system calls see it: for per-CPU maps, one 8-byte-aligned slot per possible CPU."""
        if self._value_size == 0:
            size = self.spec.value
            if self.spec.type in _PER_CPU:
                size = (size + 7 & ~7) * len(cpus.possible(self.kernel))
            self._value_size = size
        return self._value_size

    def lookup(self, key: Data) -> bytes | None:
        """The value, None when the key is not there."""
        value = bytearray(self.value_size)
        try:
            self.kernel.bpf(packed.MAP_LOOKUP_ELEM, {"map_fd": self.fd, "key": self._key(key), "value": value})
        except SyscallError as err:
            if err.errno == ENOENT:
                return None
            raise
        return bytes(value)

    def update(self, key: Data, value: Data, *, flags: int = 0) -> None:
        """Stores; ``flags`` of MapUpdate. Raises SyscallError: E2BIG for a full map, EEXIST and ENOENT as the flags ask."""
        values: dict[str, Value] = {"map_fd": self.fd, "key": self._key(key), "value": self._value(value), "flags": flags}
        self.kernel.bpf(packed.MAP_UPDATE_ELEM, values)

    def delete(self, key: Data) -> bool:
        """Whether the key was there."""
        try:
            self.kernel.bpf(packed.MAP_DELETE_ELEM, {"map_fd": self.fd, "key": self._key(key)})
        except SyscallError as err:
            if err.errno == ENOENT:
                return False
            raise
        return True

    def keys(self) -> Iterator[bytes]:
        """The keys, in the kernel's order. A key deleted meanwhile makes a hash start over: keys may come twice."""
        key: bytes | None = None
        while True:
            after = bytearray(self.spec.key)
            try:
                self.kernel.bpf(packed.MAP_GET_NEXT_KEY, {"map_fd": self.fd, "key": key, "next_key": after})
            except SyscallError as err:
                if err.errno == ENOENT:
                    return
                raise
            key = bytes(after)
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value), by batches where the kernel can (hash 5.6, array 5.6, per-CPU array 5.13), else one by one."""
        begun = False
        try:
            for keys, values in self.lookup_batch():
                begun = True
                width, size = self.spec.key, self.value_size
                for i in range(len(keys) // width):
                    yield keys[i * width : (i + 1) * width], values[i * size : (i + 1) * size]
        except SyscallError as err:
            if begun or err.errno not in (_ENOTSUPP, EINVAL):
                raise
            for key in self.keys():
                value = self.lookup(key)
                if value is not None:
                    yield key, value

    def lookup_batch(self, count: int = _BATCH) -> Iterator[tuple[bytes, bytes]]:
        """(keys, values) of up to ``count`` elements a call (fewer where they are large), each as one run of bytes.

        Raises SyscallError: 524 (ENOTSUPP) or EINVAL where the map or the kernel has no batches.
        """
        if count < 1:
            raise UsageError(f"a batch holds at least one element, not {count}")
        # One more than there are, and the call that takes the last one also says that it is the last one.
        count = max(1, min(count, self.spec.max_entries + 1, _BATCH_BYTES // max(self.spec.key + self.value_size, 1)))
        position: bytes | None = None
        # Hash maps store a 32-bit bucket number as the position, arrays a key.
        step = bytearray(max(self.spec.key, 4))
        while True:
            keys, values = bytearray(count * self.spec.key), bytearray(count * self.value_size)
            attr: dict[str, Value] = {
                "batch.in_batch": position,
                "batch.out_batch": step,
                "batch.keys": keys,
                "batch.values": values,
                "batch.count": count,
                "batch.map_fd": self.fd,
            }
            try:
                got, last = self.kernel.bpf(packed.MAP_LOOKUP_BATCH, attr)["batch.count"], False
            except SyscallError as err:
                if err.errno == ENOSPC:
                    # One bucket holds more than the whole batch.
                    count *= 2
                    continue
                if err.errno != ENOENT:
                    raise
                # The end; what the last batch holds comes with the error.
                got, last = int(packed.MAP_LOOKUP_BATCH.unpack(err.attr_after)["batch.count"]), True
            if got:
                yield bytes(keys[: got * self.spec.key]), bytes(values[: got * self.value_size])
            if last:
                return
            position = bytes(step)

    def update_batch(self, items: Mapping[int, Data] | Mapping[bytes, Data]) -> None:
        """Stores all ``items`` in one call where the kernel can, else one by one.

        Raises SyscallError: E2BIG when they do not all fit; the first ones are stored then.
        """
        if not items:
            return
        keys = b"".join(self._key(key) for key in items)
        values = b"".join(self._value(value) for value in items.values())
        attr: dict[str, Value] = {"batch.keys": keys, "batch.values": values, "batch.count": len(items), "batch.map_fd": self.fd}
        try:
            self.kernel.bpf(packed.MAP_UPDATE_BATCH, attr)
        except SyscallError as err:
            if err.errno not in (_ENOTSUPP, EINVAL):
                raise
            for key, value in items.items():
                self.update(key, value)

    def mmap(self, *, writable: bool = True) -> Memory:
        """The values of an array map with MapFlag.MMAPABLE (Linux 5.5), each rounded up to 8 bytes."""
        if not self.spec.flags & MapFlag.MMAPABLE:
            raise UsageError(f"the map {self.name} was not made with MapFlag.MMAPABLE")
        length = (self.spec.value + 7 & ~7) * self.spec.max_entries
        return self.kernel.mmap(self.fd, length, writable=writable)

    def info(self) -> dict[str, int | bytes]:
        """The fields of bpf_map_info that this kernel fills in."""
        return self.kernel.obj_info(self.fd, packed.MAP_INFO)[0]

    def _key(self, key: Data) -> bytes:
        return self._bytes("key", key, self.spec.key)

    def _value(self, value: Data) -> bytes:
        if isinstance(value, int) and self.spec.type in _PER_CPU:
            slot = self.spec.value + 7 & ~7
            one = self._bytes("value", value, self.spec.value)
            return one.ljust(slot, b"\0") * (self.value_size // slot)
        return self._bytes("value", value, self.value_size)

    def _bytes(self, what: str, data: Data, size: int) -> bytes:
        if isinstance(data, int):
            try:
                return data.to_bytes(size, sys.byteorder)
            except OverflowError:
                raise UsageError(f"{data} does not fit the {size}-byte {what} of the map {self.name}") from None
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UsageError(f"the {what} of the map {self.name} takes bytes or an int, not {type(data).__name__}")
        raw = bytes(data)
        if len(raw) != size:
            raise UsageError(f"the map {self.name} has a {what} of {size} bytes, not {len(raw)}")
        return raw


__all__ = ["Map", "MapSpec"]
