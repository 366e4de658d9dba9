"""SIGINT and SIGTERM as a fd and a flag."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType

    from rawkm.syscall.live import LiveKernel
else:
    # The C module behind signal: the enums that signal makes of it take as long to import as matching a list of functions.
    import _signal as signal


class CaughtSignals:
    """As in ``kernel.Signals``."""

    def __init__(self, kernel: LiveKernel) -> None:
        self._kernel = kernel
        self._caught = False
        self._wake = -1
        self._before: dict[int, signal._HANDLER] = {}
        self.fd = kernel._passed("signals", {}, self._install, 1)

    @property
    def caught(self) -> bool:
        return self._kernel._passed("signalled", {}, lambda: self._caught, False)

    def close(self) -> None:
        self._kernel._passed("no signals", {}, self._restore, None)

    def _install(self) -> int:
        fd, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return fd

    def _restore(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._wake)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._caught = True
        signal.signal(number, signal.SIG_DFL)
