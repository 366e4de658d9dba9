"""What ends a trace: a signal, the time, the command, the process watched; and waiting for the first of them."""

from __future__ import annotations

from errno import ESRCH

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawkm.syscall.kernel import Child, Kernel, Poller, Signals

# epoll cannot tell the sleeper about a ring whose first record is still being written, and a perf buffer wakes late: look anyway.
_LOOK_EVERY = 0.1


class Stops:
    """Catches SIGINT and SIGTERM from ``with`` on; a second signal of a kind acts as if rawkm did not catch it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._deadline: float | None = None
        self._command: Child | None = None
        self._pid_fd = -1
        self._poller: Poller | None = None
        self._signals: Signals | None = None

    def __enter__(self) -> Stops:
        self._signals = self._kernel.signals()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._signals is not None:
            self._signals.close()
        if self._poller is not None:
            self._poller.close()
        if self._pid_fd >= 0:
            self._kernel.close(self._pid_fd)

    @property
    def signalled(self) -> bool:
        """A signal has come."""
        return self._signals is not None and self._signals.caught

    def watch(self, *, seconds: float | None, command: Child | None, pid: int | None, fds: Iterable[int] = ()) -> None:
        """Starts the clock: ``seconds`` from now, the end of ``command``, that of the process ``pid``.

        ``fds``: what may bring data.
        """
        assert self._signals is not None
        self._poller = self._kernel.poller()
        self._poller.add(self._signals.fd)
        for fd in fds:
            self._poller.add(fd)
        if seconds is not None:
            self._deadline = self._kernel.monotonic() + seconds
        if command is not None:
            self._command = command
            self._poller.add(command.fd)
        if pid is not None:
            try:
                self._pid_fd = self._kernel.pidfd_open(pid)
            except SyscallError as err:
                if err.errno != ESRCH:
                    raise
                # It has ended while we attached.
                self._deadline = 0.0
            else:
                self._poller.add(self._pid_fd)

    def wait(self, until: float | None = None) -> bool:
        """Sleeps until there may be data, ``until`` (monotonic seconds) or a reason to stop; whether there is one."""
        assert self._poller is not None
        now = self._kernel.monotonic()
        limits = [limit - now for limit in (self._deadline, until) if limit is not None]
        ready = self._poller.wait(max(0.0, min([_LOOK_EVERY, *limits])))
        if self.signalled or (self._pid_fd >= 0 and self._pid_fd in ready):
            return True
        if self._command is not None and self._command.ended():
            return True
        return self._deadline is not None and self._kernel.monotonic() >= self._deadline
