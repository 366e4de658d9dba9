"""What the kernel's objects are called: by kind and id, which stay true wherever an fd is passed on to."""

from __future__ import annotations

from rawkm.audit.raw import Fact, RawCall
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.uapi.layout import Layout

#: The commands that make something that was not there, and what it is.
MAKES = {
    Cmd.MAP_CREATE: "map",
    Cmd.PROG_LOAD: "prog",
    Cmd.BTF_LOAD: "btf",
    Cmd.LINK_CREATE: "link",
    Cmd.RAW_TRACEPOINT_OPEN: "link",
    Cmd.ITER_CREATE: "iter",
    Cmd.TOKEN_CREATE: "token",
}
#: Those that give it a name, and where.
NAMED_BY = {Cmd.MAP_CREATE: "map_name", Cmd.PROG_LOAD: "prog_name"}
_INFO_NAMES = {"map": "name", "prog": "name"}


def text(raw: bytes) -> str:
    """Up to the NUL, as text that is safe on a terminal."""
    found = raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return found if found.isprintable() else found.encode("unicode_escape").decode()


class Objects:
    """Names of objects, learned from the calls that make them or ask for their names."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], str] = {}

    def learn(self, call: RawCall, layout: Layout, values: Mapping[str, int | bytes], info: Mapping[str, int | bytes]) -> None:
        """``info``: the struct that OBJ_GET_INFO_BY_FD has filled, else nothing."""
        made = call.facts.get("")
        if made is not None:
            named_by = NAMED_BY.get(layout.cmd)
            if named_by is not None:
                self._name(made, text(_bytes(values[named_by])))
        asked = call.facts.get("info.bpf_fd")
        if asked is not None and asked.kind in _INFO_NAMES and info:
            self._name(asked, text(_bytes(info[_INFO_NAMES[asked.kind]])))

    def _name(self, fact: Fact, name: str) -> None:
        if name:
            self._names[fact.kind, fact.id] = name

    def name(self, fact: Fact) -> str:
        """The object's name, "" where it has none or nobody has said it."""
        return self._names.get((fact.kind, fact.id), "")

    def label(self, fact: Fact) -> str:
        """'map "counts"', 'link 12'."""
        name = self.name(fact)
        if name:
            return f'{fact.kind} "{name}"'
        # Of an id below 0 nobody knows the real one.
        return f"{fact.kind} {fact.id}" if fact.id > 0 else fact.kind


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
