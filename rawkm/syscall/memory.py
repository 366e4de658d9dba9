"""Mapped memory, and the ordering that shared rings need."""

from __future__ import annotations

import mmap
import os
from _thread import allocate_lock

__all__ = ["PAGE_SIZE", "MappedMemory"]

PAGE_SIZE = mmap.PAGESIZE

# x86-64 and s390x keep loads in order with loads, and stores behind earlier loads and stores: plain accesses are enough there.
_ORDERED = os.uname().machine in ("x86_64", "s390x")
_lock = allocate_lock()


class MappedMemory:
    """A MAP_SHARED mapping of ``length`` bytes of ``fd``. It outlives the fd.

    The word accessors copy eight (four) aligned bytes with one fixed-size memcpy, which compilers turn into a single load or
    store; slices of ``view`` carry no such promise.
    """

    __slots__ = ("_map", "_u32", "_u64", "view")

    def __init__(self, fd: int, length: int, offset: int, writable: bool) -> None:
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, length, mmap.MAP_SHARED, prot, offset=offset)
        self.view = memoryview(self._map)
        self._u64 = self.view[: length & ~7].cast("Q")
        self._u32 = self.view[: length & ~3].cast("I")

    def read(self, offset: int, length: int) -> memoryview:
        """The pages themselves, not a copy."""
        return self.view[offset : offset + length]

    def load_u32(self, offset: int) -> int:
        return self._u32[offset >> 2]

    def load_u64(self, offset: int) -> int:
        return self._u64[offset >> 3]

    def store_u64(self, offset: int, value: int) -> None:
        self._u64[offset >> 3] = value

    def fence(self) -> None:
        """Orders the accesses before it with those after it, on machines that do not do so by themselves.

        Taking a lock and releasing it would not do: earlier accesses may sink into it, later ones rise into it. Releasing
        it and taking it again is a store-release followed by a load-acquire, which nothing passes: what Python can do
        without C.
        """
        if not _ORDERED:
            _lock.acquire()
            _lock.release()
            _lock.acquire()
            _lock.release()

    def __enter__(self) -> MappedMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps. Slices of ``view`` that somebody still holds keep the pages alive (and never dangle)."""
        for what in (self._u64.release, self._u32.release, self.view.release, self._map.close):
            try:
                what()
            except BufferError:
                # Something still points in here: the pages go when it does.
                pass
