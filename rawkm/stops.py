"""What ends a trace: a signal, the time, the command, the process watched; and waiting for the first of them."""

from __future__ import annotations

import os
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
    from types import FrameType

    from rawkm.command import Command
    from rawkm.syscall.kernel import Kernel, Poller
else:
    # The C module behind signal: the enums that signal makes of it take as long to import as matching a list of functions.
    import _signal as signal

# epoll cannot tell the sleeper about a ring whose first record is still being written, and a perf buffer wakes late: look anyway.
_LOOK_EVERY = 0.1


class Stops:
    """Catches SIGINT and SIGTERM from ``with`` on; a second signal of a kind acts as if rawkm did not catch it.

    ``signalled``: a signal has come.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.signalled = False
        self._deadline: float | None = None
        self._command: Command | None = None
        self._pid_fd = -1
        self._poller: Poller | None = None
        self._wake_r, self._wake_w = -1, -1
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Stops:
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._poller is not None:
            self._poller.close()
        for fd in (self._wake_r, self._wake_w, self._pid_fd):
            if fd >= 0:
                os.close(fd)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.signalled = True
        signal.signal(number, signal.SIG_DFL)

    def watch(self, *, seconds: float | None, command: Command | None, pid: int | None, fds: Iterable[int] = ()) -> None:
        """Starts the clock: ``seconds`` from now, the end of ``command``, that of the process ``pid``.

        ``fds``: what may bring data.
        """
        self._poller = self._kernel.poller()
        self._poller.add(self._wake_r)
        for fd in fds:
            self._poller.add(fd)
        if seconds is not None:
            self._deadline = monotonic() + seconds
        if command is not None:
            self._command = command
            self._poller.add(command.fd)
        if pid is not None:
            try:
                self._pid_fd = os.pidfd_open(pid)
            except ProcessLookupError:
                # It has ended while we attached.
                self._deadline = 0.0
            else:
                self._poller.add(self._pid_fd)

    def wait(self, until: float | None = None) -> bool:
        """Sleeps until there may be data, ``until`` (monotonic seconds) or a reason to stop; whether there is one."""
        assert self._poller is not None
        now = monotonic()
        limits = [limit - now for limit in (self._deadline, until) if limit is not None]
        ready = self._poller.wait(max(0.0, min([_LOOK_EVERY, *limits])))
        if self.signalled or (self._pid_fd >= 0 and self._pid_fd in ready):
            return True
        if self._command is not None and self._command.ended():
            return True
        return self._deadline is not None and monotonic() >= self._deadline
