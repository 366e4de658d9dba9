"""The first line of a recording."""

from __future__ import annotations

import os
import sys

from rawkm.errors import RecordingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

VERSION = 1
RUN, AUDIT, CALLS = "run", "audit", "calls"


class Header:
    """``kind``: RUN, AUDIT or CALLS; ``argv``: the command, without its own --record.

    ``kernel`` (release), ``machine``, ``order`` ("little" or "big") and ``page`` (bytes) are of the machine that it was made on;
    by default of this one.
    """

    __slots__ = ("argv", "kernel", "kind", "machine", "order", "page", "redacted", "tool")

    def __init__(
        self,
        kind: str,
        argv: Sequence[str] = (),
        *,
        tool: str = "rawkm",
        kernel: str = "",
        machine: str = "",
        order: str = sys.byteorder,
        page: int = 0,
        redacted: bool = False,
    ) -> None:
        self.kind = kind
        self.argv = list(argv)
        self.tool = tool
        self.kernel = kernel or os.uname().release
        self.machine = machine or os.uname().machine
        self.order = order
        self.page = page or os.sysconf("SC_PAGE_SIZE")
        self.redacted = redacted

    def as_json(self) -> dict[str, Any]:
        return {"t": "head", "rkm": VERSION, **{name: getattr(self, name) for name in _KEYS}}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Header:
        """Raises RecordingError for a line that is none, or of a version that is not known."""
        version = line.get("rkm")
        if line.get("t") != "head" or type(version) is not int:
            raise RecordingError("this is no recording: its first line does not say so")
        if version != VERSION:
            raise RecordingError(f"this recording has version {version} of the format; this rawkm reads version {VERSION}")
        for key, kinds in _KEYS.items():
            if type(line.get(key)) is not kinds:
                raise RecordingError(f"line 1: {key!r} is missing or has the wrong type")
        argv = line["argv"]
        if not all(type(word) is str for word in argv):
            raise RecordingError("line 1: 'argv' is no list of words")
        if line["order"] not in ("little", "big"):
            raise RecordingError(f"line 1: there is no byte order {line['order']!r}")
        return cls(line["kind"], argv, **{key: line[key] for key in _KEYS if key not in ("kind", "argv")})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]


_KEYS: dict[str, type] = {
    "kind": str,
    "argv": list,
    "tool": str,
    "kernel": str,
    "machine": str,
    "order": str,
    "page": int,
    "redacted": bool,
}
