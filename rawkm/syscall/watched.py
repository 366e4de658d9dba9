"""Mapped memory whose every access is told to an observer: what a load saw is as much an input as what a call returned."""

from __future__ import annotations

from rawkm.syscall.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Memory
    from rawkm.syscall.live import LiveKernel


class WatchedMemory:
    """As in ``kernel.Memory``, over ``real``.

    Loads and reads are told with what they saw, stores with what they stored. What was written through ``view`` is told as a
    whole when the region is closed.
    """

    def __init__(self, kernel: LiveKernel, name: str, real: Memory) -> None:
        self._kernel = kernel
        self._name = name
        self._real = real
        self._filled = False
        self._open = True

    @property
    def view(self) -> memoryview:
        if not self._filled:
            self._filled = True
            self._kernel._begun(self._name, self._real)
        return self._real.view

    def read(self, offset: int, length: int) -> memoryview:
        args = {"mem": self._name, "offset": offset, "length": length}
        return memoryview(self._kernel._passed("read", args, lambda: bytes(self._real.read(offset, length)), bytes(length)))

    def load_u32(self, offset: int) -> int:
        args = {"mem": self._name, "offset": offset, "size": 4}
        return self._kernel._passed("load", args, lambda: self._real.load_u32(offset), 0)

    def load_u64(self, offset: int) -> int:
        args = {"mem": self._name, "offset": offset, "size": 8}
        return self._kernel._passed("load", args, lambda: self._real.load_u64(offset), 0)

    def store_u64(self, offset: int, value: int) -> None:
        args = {"mem": self._name, "offset": offset, "value": value}
        self._kernel._passed("store", args, lambda: self._real.store_u64(offset, value), None)

    def fence(self) -> None:
        self._real.fence()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._filled:
            self._kernel._filled(self._name, bytes(self._real.view))
        self._kernel._watched(Call("munmap", {"mem": self._name}), self._real.close)

    def __enter__(self) -> WatchedMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
