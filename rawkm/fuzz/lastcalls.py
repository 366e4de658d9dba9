"""The flight recorder: each example is written down before it runs, so that what a machine did last is known when it died.

A file survives a crash of this process, not one of the machine. A guest writes to its standard error instead, which the host
keeps: a pipe is waited for until its reader has taken everything.
"""

from __future__ import annotations

import os
from time import monotonic

from rawkm.errors import SyscallError
from rawkm.syscall import pipes

_PATIENCE = 1.0


class LastCalls:
    """``path``: what to append to; created where it does not exist. One line for each example."""

    __slots__ = ("_fd", "_pipe")

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise SyscallError(f"openat({path})", err.errno or 0) from None
        self._pipe = os.fstat(self._fd).st_mode & 0o170000 == 0o010000

    def write(self, line: str) -> None:
        os.write(self._fd, f"last: {line}\n".encode())
        if self._pipe:
            deadline = monotonic() + _PATIENCE
            while pipes.unread(self._fd) and monotonic() < deadline:
                os.sched_yield()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
