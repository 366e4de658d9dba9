"""epoll(7), level-triggered for reading."""

from __future__ import annotations

import select
from errno import EINTR

from rawkm.errors import SyscallError
from rawkm.syscall.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.live import LiveKernel


class EpollPoller:
    """As in ``kernel.Poller``."""

    def __init__(self, kernel: LiveKernel) -> None:
        self._kernel = kernel
        self._epoll: select.epoll | None = None
        self._fd = kernel._watched(Call("epoll_create1", {"flags": "EPOLL_CLOEXEC"}), self._create)

    def add(self, fd: int) -> None:
        args = {"epoll_fd": self._fd, "op": "EPOLL_CTL_ADD", "fd": fd, "event": "{events=EPOLLIN}"}
        self._kernel._watched(Call("epoll_ctl", args), lambda: self._real.register(fd, select.EPOLLIN))

    def wait(self, timeout: float | None) -> list[int]:
        """The fds with something to read, at the latest after ``timeout`` seconds (None: for ever)."""
        call = Call("epoll_wait", {"epoll_fd": self._fd, "events": "...", "timeout": timeout})
        try:
            return self._kernel._watched(call, lambda: [fd for fd, _ in self._real.poll(timeout)])
        except SyscallError as err:
            if err.errno == EINTR:
                return []
            raise

    def close(self) -> None:
        if self._fd >= 0:
            self._kernel._watched(Call("close", {"fd": self._fd}), self._close)
            self._fd = -1

    def _close(self) -> None:
        self._real.close()

    def _create(self) -> int:
        self._epoll = select.epoll()
        return self._epoll.fileno()

    @property
    def _real(self) -> select.epoll:
        assert self._epoll is not None
        return self._epoll
