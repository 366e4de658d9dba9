"""One recorded call, its memory and its fds."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rawkm.uapi.fields import Definition


class Pointee:
    """What a pointer pointed to: ``data``, or for an array of C strings ``items`` (without their NULs).

    ``address``: where; None where that was left out. ``size``: its size in bytes, more than ``len(data)`` where only the
    beginning was kept. ``error``: "" or why it could not be read ("EFAULT"; "redacted" for what was left out).
    """

    __slots__ = ("address", "data", "error", "items", "size")

    def __init__(
        self,
        data: bytes | None = None,
        *,
        items: list[bytes] | None = None,
        address: int | None = None,
        size: int | None = None,
        error: str = "",
    ) -> None:
        self.data = data
        self.items = items
        self.address = address
        self.size = (0 if data is None else len(data)) if size is None else size
        self.error = error

    def _key(self) -> tuple[object, ...]:
        return (self.data, self.items, self.address, self.size, self.error)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pointee) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Pointee({self.data!r}, items={self.items!r}, address={self.address!r}, size={self.size}, error={self.error!r})"


class Fd:
    """What a number in a call stands for. ``name``: "prog#1", or "fd 7" where nobody saw it made.

    ``number``: as it was sent; ``made_by``: the number of the call that made it, None where that is not recorded.
    """

    __slots__ = ("made_by", "name", "number")

    def __init__(self, name: str, number: int, made_by: int | None = None) -> None:
        self.name = name
        self.number = number
        self.made_by = made_by

    @property
    def kind(self) -> str:
        """ "map", "prog", "link", "btf", "event", "file", …; "fd" where that is not known."""
        return self.name.partition("#")[0] if "#" in self.name else "fd"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fd) and (self.name, self.number, self.made_by) == (other.name, other.number, other.made_by)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Fd({self.name!r}, {self.number}, made_by={self.made_by})"


class Call:
    """One call, as the format (see the package) has it.

    ``number``: its place among the calls of the recording, from 1 (set by the Reader). ``kind``: "call", or "seam" for what is no
    system call. ``command``, ``size``, ``attr``, ``common``: of bpf; ``attr`` of perf_event_open, too. ``args``: the other
    arguments by name. ``memory``, ``outputs``: Pointee by path, before and after. ``fds``: Fd by place; ``makes``: the Fd that
    came back. ``attr_after`` is ``attr`` where the kernel changed nothing. ``info``: of OBJ_GET_INFO_BY_FD the name of the
    definition that the caller took the struct for ("link_info.kprobe_multi"), or "".
    """

    __slots__ = (
        "args",
        "attr",
        "attr_after",
        "command",
        "common",
        "common_after",
        "common_size",
        "errno",
        "fds",
        "info",
        "kind",
        "makes",
        "memory",
        "name",
        "note",
        "number",
        "outputs",
        "pid",
        "result",
        "seconds",
        "size",
        "tid",
        "value",
    )

    def __init__(
        self,
        name: str,
        *,
        kind: str = "call",
        pid: int = 0,
        tid: int = 0,
        command: int = -1,
        size: int = 0,
        attr: bytes = b"",
        common: bytes = b"",
        common_size: int = 0,
        args: Mapping[str, Any] | None = None,
        memory: Mapping[str, Pointee] | None = None,
        fds: Mapping[str, Fd] | None = None,
        attr_after: bytes | None = None,
        common_after: bytes | None = None,
        outputs: Mapping[str, Pointee] | None = None,
        result: int = 0,
        errno: int = 0,
        makes: Fd | None = None,
        value: Any = None,
        seconds: float = 0.0,
        note: str = "",
        info: str = "",
    ) -> None:
        self.number = 0
        self.name = name
        self.kind = kind
        self.pid = pid
        self.tid = tid
        self.command = command
        self.size = size
        self.attr = attr
        self.common = common
        self.common_size = common_size
        self.args = dict(args or {})
        self.memory = dict(memory or {})
        self.fds = dict(fds or {})
        self.attr_after = attr if attr_after is None else attr_after
        self.common_after = common if common_after is None else common_after
        self.outputs = dict(outputs or {})
        self.result = result
        self.errno = errno
        self.makes = makes
        self.value = value
        self.seconds = seconds
        self.note = note
        self.info = info

    @property
    def definition(self) -> Definition | None:
        """The layout of ``attr``; None for a call without one, or a command that is not known. Imports construct."""
        from rawkm.errors import UsageError
        from rawkm.uapi import layouts

        if self.name == "perf_event_open":
            return layouts.named("perf_event_attr.kprobe" if "kprobe_func" in self.memory else "perf_event_attr")
        if self.name != "bpf":
            return None
        try:
            return layouts.for_attr(self.command, self.attr)
        except UsageError:
            return None

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__ if name != "number")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{name}={getattr(self, name)!r}" for name in self.__slots__ if name not in ("name", "number")]
        return f"Call({self.name!r}, {', '.join(parts)})"
