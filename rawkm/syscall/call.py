"""One call through the seam, as an observer sees it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from rawkm.syscall.kernel import Value
    from rawkm.uapi.layout import Layout
else:
    Protocol = object


class Call:
    """One system call as it is really made, or, with ``seam``, something else that comes from outside of the process.

    ``args``: the arguments by name, as values (constants and what is elided as text); for bpf and perf_event_open, ``layout`` and
    ``attr`` (the bytes as sent, addresses included), ``memory`` (pointer field → what it points to, where it stays until after
    the call), ``info`` (of OBJ_GET_INFO_BY_FD: the layout of the struct that is filled in, whose pointers' memory is under
    "info.info.PATH"); then ``attr_after``, ``result``, ``errno`` (0 on success), ``value`` (what else came back) and ``seconds``.
    ``note``: something that the arguments do not show.
    """

    __slots__ = (
        "args",
        "attr",
        "attr_after",
        "errno",
        "info",
        "layout",
        "memory",
        "name",
        "note",
        "result",
        "seam",
        "seconds",
        "value",
    )

    def __init__(
        self,
        name: str,
        args: Mapping[str, object] | None = None,
        *,
        layout: Layout | None = None,
        attr: bytes = b"",
        memory: Mapping[str, Value] | None = None,
        info: Layout | None = None,
        seam: bool = False,
    ) -> None:
        self.name = name
        self.args = args or {}
        self.layout = layout
        self.attr = attr
        self.memory = memory or {}
        self.info = info
        self.seam = seam
        self.attr_after = attr
        self.result = 0
        self.errno = 0
        self.value: Any = None
        self.seconds = 0.0
        self.note = ""


class Observer(Protocol):
    """Told of every system call before (``enter``) and after (``leave``) it is made, and of what else passes the seam."""

    def enter(self, call: Call) -> None: ...
    def leave(self, call: Call) -> None: ...
    def passed(self, call: Call) -> None:
        """Something that is no system call, with its ``value``."""


class Observers:
    """Several as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def enter(self, call: Call) -> None:
        for observer in self._observers:
            observer.enter(call)

    def leave(self, call: Call) -> None:
        for observer in self._observers:
            observer.leave(call)

    def passed(self, call: Call) -> None:
        for observer in self._observers:
            observer.passed(call)
