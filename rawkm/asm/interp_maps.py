"""Models of maps and of the helpers that work on them, for ``rawkm.asm.interp``.

A model is one map with its contents, as programs and as system calls see it. Sources: kernel/bpf/{arraymap,hashtab,
queue_stack_maps,helpers}.c.
"""

# ruff: noqa: ARG002 (every kind of map takes what one of them needs)

from __future__ import annotations

import sys
from errno import E2BIG, EEXIST, EFAULT, EINVAL, ENOENT

from rawkm.errors import InterpreterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rawkm.asm.interp import Machine, Memory, Region

BPF_ANY, BPF_NOEXIST, BPF_EXIST = range(3)  # include/uapi/linux/bpf.h


class _Handle:
    """What a map's own address leads to: nothing that a program may read."""

    def __init__(self, base: int, model: MapModel) -> None:
        self.base = base
        self.model = model

    def load(self, offset: int, size: int) -> int:
        raise InterpreterError("a map's struct is read")

    def store(self, offset: int, size: int, value: int) -> None:
        raise InterpreterError("a map's struct is written to")


class MapModel:
    """``key`` and ``value`` in bytes."""

    def __init__(self, key: int, value: int, max_entries: int) -> None:
        self.key = key
        self.value = value
        self.max_entries = max_entries
        self._handle: _Handle | None = None

    def address(self, memory: Memory) -> int:
        """The map's address in this memory, that of its struct."""
        if self._handle is None:
            self._handle = memory.add(lambda base: _Handle(base, self))
        return self._handle.base

    def value_address(self, memory: Memory, offset: int) -> int:
        raise InterpreterError("this kind of map has no address of its value")

    def lookup(self, memory: Memory, key: bytes) -> int:
        raise InterpreterError("this kind of map has no lookup")

    def update(self, memory: Memory, key: bytes, value: bytes, flags: int) -> int:
        raise InterpreterError("this kind of map has no update")

    def delete(self, key: bytes) -> int:
        raise InterpreterError("this kind of map has no delete")

    def push(self, value: bytes, flags: int) -> int:
        raise InterpreterError("this kind of map has no push")

    def take(self, remove: bool) -> bytes | None:
        raise InterpreterError("this kind of map has no pop")

    def contents(self) -> dict[bytes, bytes]:
        """Key → value."""
        raise InterpreterError("this kind of map has no keys")


class ArrayModel(MapModel):
    """An array; also a per-CPU one as its program sees it on one CPU."""

    def __init__(self, value: int, max_entries: int, *, direct: bool = True) -> None:
        super().__init__(4, value, max_entries)
        self.direct = direct
        self.values = [bytearray(value) for _ in range(max_entries)]
        self._regions: dict[int, Region] = {}

    def value_address(self, memory: Memory, offset: int) -> int:
        if not self.direct or self.max_entries != 1 or offset >= self.value:
            raise InterpreterError("no address of a value in this map")
        return self._region(memory, 0).base + offset

    def _region(self, memory: Memory, index: int) -> Region:
        if index not in self._regions:
            self._regions[index] = memory.room(self.values[index])
        return self._regions[index]

    def _index(self, key: bytes) -> int:
        return int.from_bytes(key, sys.byteorder)

    def lookup(self, memory: Memory, key: bytes) -> int:
        index = self._index(key)
        return self._region(memory, index).base if index < self.max_entries else 0

    def update(self, memory: Memory, key: bytes, value: bytes, flags: int) -> int:
        if flags > BPF_EXIST:
            return -EINVAL
        index = self._index(key)
        if index >= self.max_entries:
            return -E2BIG
        if flags == BPF_NOEXIST:
            return -EEXIST
        self.values[index][:] = value
        return 0

    def delete(self, key: bytes) -> int:
        return -EINVAL

    def contents(self) -> dict[bytes, bytes]:
        return {index.to_bytes(4, sys.byteorder): bytes(value) for index, value in enumerate(self.values)}


class HashModel(MapModel):
    """A hash that is preallocated; with ``percpu``, a per-CPU one as its program sees it on one CPU."""

    def __init__(self, key: int, value: int, max_entries: int, *, percpu: bool = False) -> None:
        super().__init__(key, value, max_entries)
        self.percpu = percpu
        self.regions: dict[bytes, Region] = {}

    def lookup(self, memory: Memory, key: bytes) -> int:
        region = self.regions.get(key)
        return 0 if region is None else region.base

    def update(self, memory: Memory, key: bytes, value: bytes, flags: int) -> int:
        if flags > BPF_EXIST:
            return -EINVAL
        there = key in self.regions
        if flags == BPF_NOEXIST and there:
            return -EEXIST
        if flags == BPF_EXIST and not there:
            return -ENOENT
        if not there and len(self.regions) >= self.max_entries:
            return -E2BIG
        if there and self.percpu:
            self.regions[key].data[:] = value
        else:
            # Another element: what pointed to the old one does not see it.
            self.regions[key] = memory.room(bytearray(value))
        return 0

    def delete(self, key: bytes) -> int:
        return 0 if self.regions.pop(key, None) is not None else -ENOENT

    def contents(self) -> dict[bytes, bytes]:
        return {key: bytes(region.data) for key, region in self.regions.items()}


class QueueModel(MapModel):
    """A queue, or a stack with ``last``."""

    def __init__(self, value: int, max_entries: int, *, last: bool = False) -> None:
        super().__init__(0, value, max_entries)
        self.last = last
        self.values: list[bytes] = []

    def push(self, value: bytes, flags: int) -> int:
        if flags not in (BPF_ANY, BPF_EXIST):
            return -EINVAL
        if len(self.values) >= self.max_entries:
            if flags != BPF_EXIST:
                return -E2BIG
            del self.values[0]
        self.values.append(value)
        return 0

    def take(self, remove: bool) -> bytes | None:
        if not self.values:
            return None
        at = -1 if self.last else 0
        value = self.values[at]
        if remove:
            del self.values[at]
        return value


# -- helpers -------------------------------------------------------------------------------------------------------------------


def _map(machine: Machine, address: int) -> MapModel:
    handle = machine.memory.regions.get(address >> 32)
    if not isinstance(handle, _Handle) or handle.base != address:
        raise InterpreterError(f"{address:#x} is no map")
    return handle.model


def lookup(machine: Machine, r: list[Any]) -> int:
    model = _map(machine, r[1])
    return model.lookup(machine.memory, machine.memory.read(r[2], model.key))


def update(machine: Machine, r: list[Any]) -> int:
    model = _map(machine, r[1])
    key, value = machine.memory.read(r[2], model.key), machine.memory.read(r[3], model.value)
    return model.update(machine.memory, key, value, r[4] + 0)


def delete(machine: Machine, r: list[Any]) -> int:
    model = _map(machine, r[1])
    return model.delete(machine.memory.read(r[2], model.key))


def push(machine: Machine, r: list[Any]) -> int:
    model = _map(machine, r[1])
    return model.push(machine.memory.read(r[2], model.value), r[3] + 0)


def _take(remove: bool) -> Callable[[Machine, list[Any]], int]:
    def take(machine: Machine, r: list[Any]) -> int:
        model = _map(machine, r[1])
        value = model.take(remove)
        # What there was not is zeros.
        machine.memory.write(r[2], bytes(model.value) if value is None else value)
        return -ENOENT if value is None else 0

    return take


def load_packet(machine: Machine, r: list[Any]) -> int:
    """skb_load_bytes(ctx, offset, to, len): beyond the end -EFAULT and zeros."""
    offset, to, size = r[2] & 0xFFFFFFFF, r[3], r[4] & 0xFFFFFFFF
    packet = machine.packet
    if packet is None:
        raise InterpreterError("a program without a packet")
    inside = offset <= 0x7FFFFFFF and offset + size <= len(packet.data)
    machine.memory.write(to, bytes(packet.data[offset : offset + size]) if inside else bytes(size))
    return 0 if inside else -EFAULT


# Numbers from include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER.
HELPERS: dict[int, Callable[[Machine, list[Any]], int]] = {
    1: lookup,
    2: update,
    3: delete,
    26: load_packet,
    87: push,
    88: _take(True),
    89: _take(False),
}
