"""Writes every call, and everything else that a run depends on, to a recording (see rawkm.recording)."""

from __future__ import annotations

import os

from rawkm.errors import RawkmError
from rawkm.recording import Header, Writer
from rawkm.recording.header import RUN
from rawkm.recording.names import Names
from rawkm.syscall.convert import Converter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm import recording
    from rawkm.syscall.call import Call


class Recorder:
    """An observer that writes to ``path``, line by line: what a killed run leaves is whole.

    Calls that a forked child makes go to the same file, with its pid. Raises RawkmError when it cannot be written.
    """

    def __init__(self, path: str, argv: Sequence[str], *, redact: bool = False, tool: str = "rawkm") -> None:
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            # It may hold addresses, and what only root can read.
            self._fd = os.open(path, flags, 0o600)
        except OSError as err:
            raise RawkmError(f"the recording {path} cannot be made: {err.strerror}") from None
        self._pid = os.getpid()
        self._converter = Converter(Names())
        self._made: recording.Call | None = None
        self._writer = Writer(self._write, Header(RUN, argv, redacted=redact, tool=tool))

    def enter(self, call: Call) -> None:
        self._made = self._converter.before(call)

    def leave(self, call: Call) -> None:
        assert self._made is not None
        self._put(self._converter.after(call, self._made))

    def passed(self, call: Call) -> None:
        self._put(self._converter.after(call, self._converter.before(call)))

    def end(self, status: int, out: bytes, err: bytes) -> None:
        """The run is over."""
        self._writer.end(status, out, err)
        os.close(self._fd)

    def _put(self, made: recording.Call) -> None:
        pid = os.getpid()
        if pid != self._pid:
            made.pid = pid
        self._writer.call(made)

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as err:
            raise RawkmError(f"the recording {self._path} cannot be written: {err.strerror}") from None
