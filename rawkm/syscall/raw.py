"""bpf(2) as bytes: any command, any attr of any size, for callers that mean to send what no layout would."""

from __future__ import annotations

import ctypes
import mmap
from sys import byteorder

from rawkm.errors import UsageError
from rawkm.syscall import nr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_ZEROS_MAX = 1 << 16
# (bytes, how many): what a call can hold at a time; more, or larger, gets a mapping of its own.
_SLOTS = ((_PAGE, 48), (17 * _PAGE, 6))


class Address(int):
    """An address as it stands, whatever is there."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Address({int(self):#x})"


class Block:
    """Memory that a call points to: ``data``, in which ``pointers`` (offset → Block, At, Address) hold addresses.

    Its last byte is the last of a page with nothing mapped behind it: whoever goes too far gets EFAULT, always. The kernel may
    write into ``data``; what it wrote stays there.
    """

    __slots__ = ("data", "pointers")

    def __init__(self, data: bytes | bytearray, pointers: Mapping[int, Block | At | Address] | None = None) -> None:
        self.data = bytearray(data)
        self.pointers = dict(pointers or {})


class At:
    """A place in a block: memory that several pointers share."""

    __slots__ = ("block", "offset")

    def __init__(self, block: Block, offset: int = 0) -> None:
        self.block = block
        self.offset = offset


class RawBpf:
    """The call itself. ``call`` returns what the kernel said; it raises nothing for what the kernel refuses."""

    __slots__ = ("_arena", "_number", "_syscall")

    def __init__(self) -> None:
        self._number = nr.numbers()[0]
        self._arena = _Arena()
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p, ctypes.c_ulong] * 2

    def call(
        self,
        cmd: int,
        attr: bytearray | Address,
        size: int | None = None,
        pointers: Mapping[int, Block | At | Address] | None = None,
        *,
        room: int | None = None,
    ) -> int:
        """bpf(cmd, attr, size): the result, or minus the errno. The kernel's writes are left in ``attr`` and in the blocks.

        ``size``: what the kernel is told, default the length of ``attr``. ``room``: how much memory there is, by default as much
        as the kernel is told (up to 64 KiB), with zeros behind ``attr``; nothing is mapped behind that. ``pointers``: offset in
        ``attr`` → the memory whose address is put there. Pointer fields hold addresses afterwards.
        """
        return self.prepare(cmd, attr, size, pointers, room=room).send()

    def prepare(
        self,
        cmd: int,
        attr: bytearray | Address,
        size: int | None = None,
        pointers: Mapping[int, Block | At | Address] | None = None,
        *,
        room: int | None = None,
        common: Block | Address | None = None,
        common_size: int | None = None,
    ) -> Prepared:
        """The same, up to the call itself. Of one RawBpf only the last one prepared may be sent, and only once.

        ``common``: the struct bpf_common_attr of Linux 7.2, read when ``cmd`` has Cmd.COMMON_ATTRS set.
        """
        arena = self._arena
        arena.clear()
        made = Prepared(self, cmd)
        if isinstance(attr, Address):
            made.address, made.size = int(attr), 0 if size is None else size
        else:
            made.size = len(attr) if size is None else size
            if room is None:
                room = min(max(made.size, len(attr)), _ZEROS_MAX)
            data = attr if len(attr) >= room else attr.ljust(room, b"\0")
            made.address, made.view = arena.put(data[:room], pointers)
            made.attr = attr
        if common is not None:
            made.common = arena.address(common)
        made.common_size = len(common.data) if common_size is None and isinstance(common, Block) else common_size or 0
        return made

    def close(self) -> None:
        """Unmaps the memory."""
        self._arena.close()


class Prepared:
    """A call whose memory is in its place. ``sent``: the bytes of the attr, addresses included; None for a bad address."""

    __slots__ = ("_raw", "address", "attr", "cmd", "common", "common_size", "size", "view")

    def __init__(self, raw: RawBpf, cmd: int) -> None:
        self._raw = raw
        self.cmd = cmd
        self.attr: bytearray | None = None
        self.view: memoryview | None = None
        self.address = self.common = 0
        self.size = self.common_size = 0

    @property
    def sent(self) -> bytes | None:
        return None if self.view is None else bytes(self.view)

    def regions(self) -> list[tuple[int, bytes, bool]]:
        """(address, bytes, True) of all memory that the call points to."""
        return [(address, bytes(view), True) for _, address, view in self._raw._arena.placed()]

    def send(self) -> int:
        """The result, or minus the errno."""
        raw = self._raw
        result: int = raw._syscall(raw._number, self.cmd, self.address, self.size, self.common, self.common_size)
        error = ctypes.get_errno() if result < 0 else 0
        if self.view is not None and self.attr is not None:
            kept = len(self.attr)
            self.attr[:] = bytes(self.view[:kept]).ljust(kept, b"\0")
        raw._arena.copy_back()
        raw._arena.clear()
        self.view = None
        return -error if error else result


class _Arena:
    """Pieces of memory, each followed by a page that is not accessible. Made once: a call would wait for mmap(2) otherwise."""

    def __init__(self) -> None:
        self._free: list[list[tuple[int, memoryview]]] = []
        self._next = [0] * len(_SLOTS)
        self._maps: list[mmap.mmap] = []
        self._own: list[mmap.mmap] = []
        self._placed: dict[int, tuple[Block, int, memoryview]] = {}
        for size, count in _SLOTS:
            area, base = _mapping(size, count)
            view = memoryview(area)
            self._maps.append(area)
            stride = size + _PAGE
            self._free.append([(base + i * stride, view[i * stride : i * stride + size]) for i in range(count)])

    def address(self, what: Block | At | Address) -> int:
        """Where this is, once it is put somewhere."""
        if isinstance(what, Address):
            return int(what)
        if isinstance(what, At):
            return self.address(what.block) + what.offset
        known = self._placed.get(id(what))
        if known is None:
            address, view = self.put(what.data, what.pointers)
            known = self._placed[id(what)] = what, address, view
        return known[1]

    def put(self, data: bytes | bytearray, pointers: Mapping[int, Block | At | Address] | None) -> tuple[int, memoryview]:
        """(address, the memory) of a piece that holds ``data`` with the addresses of what it points to."""
        size = len(data)
        base, slot = self._slot(size)
        room = len(slot)
        view = slot[room - size :]
        view[:] = data
        if pointers:
            for offset, target in pointers.items():
                if offset >= size:
                    continue
                word = self.address(target).to_bytes(8, byteorder)
                view[offset : offset + 8] = word[: size - offset]
        return base + room - size, view

    def placed(self) -> Iterable[tuple[Block, int, memoryview]]:
        """The blocks that are in their places: block, address, memory."""
        return self._placed.values()

    def copy_back(self) -> None:
        """What the kernel left in the blocks."""
        for block, _, view in self._placed.values():
            block.data[:] = view

    def clear(self) -> None:
        self._placed = {}
        self._next = [0] * len(_SLOTS)
        while self._own:
            _close(self._own.pop())

    def close(self) -> None:
        self.clear()
        self._free = []
        while self._maps:
            _close(self._maps.pop())

    def _slot(self, size: int) -> tuple[int, memoryview]:
        for n, (room, count) in enumerate(_SLOTS):
            at = self._next[n]
            if size <= room and at < count:
                self._next[n] = at + 1
                return self._free[n][at]
        area, base = _mapping(-(-size // _PAGE) * _PAGE or _PAGE, 1)
        self._own.append(area)
        return base, memoryview(area)[: len(area) - _PAGE]


def _mapping(size: int, count: int) -> tuple[mmap.mmap, int]:
    """``count`` pieces of ``size`` bytes, each with an inaccessible page behind it: the mapping and its address."""
    stride = size + _PAGE
    area = mmap.mmap(-1, stride * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    for i in range(count):
        if libc.mprotect(ctypes.c_void_p(base + i * stride + size), ctypes.c_size_t(_PAGE), _PROT_NONE) != 0:
            raise UsageError("mprotect(2) refused an inaccessible page")
    return area, base


def _close(area: mmap.mmap) -> None:
    try:
        area.close()
    except BufferError:
        # A view of it is still held; the pages go when that does.
        pass
