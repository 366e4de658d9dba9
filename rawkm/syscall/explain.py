"""Every system call as it is made, in strace's style, with every byte of its attr and of what it points to.

An observer of the live kernel: it sees what is really sent, addresses included. Imports construct: loaded only when asked for.
"""

from __future__ import annotations

from rawkm.recording import show
from rawkm.recording.names import Names
from rawkm.syscall.convert import Converter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rawkm import recording
    from rawkm.syscall.call import Call


class Explainer:
    """Prints on ``out`` each call, beginning before it is made, then every byte of it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._converter = Converter(Names())
        self._made: recording.Call | None = None

    def enter(self, call: Call) -> None:
        self._made = self._converter.before(call)
        # The rest is known when the kernel has written back what it changes.
        self._out.write(f"{call.name}(")
        self._out.flush()

    def leave(self, call: Call) -> None:
        assert self._made is not None
        made = self._converter.after(call, self._made)
        self._out.write(f"{show.arguments(made)}){show.outcome(made)}\n")
        for line in show.detail(made):
            self._out.write(f"    {line}\n")
        self._out.flush()

    def passed(self, call: Call) -> None:
        """What is no system call is not shown."""
