"""Recorded calls (``.rkm``) as calls to change: what other programs send is a better start than what anyone thinks up."""

from __future__ import annotations

from rawkm.errors import SyscallError
from rawkm.fuzz.attr import Attr, Fd, Mem, members
from rawkm.fuzz.objects import CLOSED, OBJECTS, strings
from rawkm.recording import Reader
from rawkm.uapi import layouts
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.fuzz.attr import Value
    from rawkm.recording import Call
    from rawkm.recording import Fd as RecordedFd
    from rawkm.uapi.fields import Definition

# What stands for an object of which nobody saw the making, or of a type that the pool has none of.
_ANY = {
    "map": "map/hash",
    "prog": "prog/socket_filter",
    "link": "link/raw_tracepoint",
    "btf": "btf/small",
    "event": "perf/software",
}
_OUT_BYTES = 4096


def calls_of(path: str) -> list[Attr]:
    """Every call of bpf(2) in a recording whose layout is known, once. Its fds become those of the pool's objects that are most
    like what they were. Raises SyscallError where the file cannot be read, RecordingError where it is damaged."""
    try:
        with open(path, "rb") as file:
            calls = list(Reader(file).calls())
    except OSError as err:
        raise SyscallError(f"openat({path})", err.errno or 0) from None
    made = {call.number: name for call in calls if (name := _like(call)) is not None}
    found: dict[tuple[str, str], Attr] = {}
    for call in calls:
        if call.name == "bpf" and call.definition is not None:
            attr = _attr(call, call.definition, made)
            found.setdefault((attr.name, attr.describe()), attr)
    return list(found.values())


def _like(call: Call) -> str | None:
    """The pool's object of the type that the call makes."""
    wanted = {Cmd.MAP_CREATE: ("map", "map_type"), Cmd.PROG_LOAD: ("prog", "prog_type")}.get(call.command)
    if call.name != "bpf" or wanted is None or call.definition is None:
        return None
    kind, field = wanted
    values = call.definition.unpack(call.attr)
    same = [name for name, made in OBJECTS.items() if name.startswith(f"{kind}/") and made.make.valid[field] == values[field]]
    attach_type = values.get("expected_attach_type", 0)
    exact = [name for name in same if OBJECTS[name].make.valid.get("expected_attach_type", 0) == attach_type]
    return next(iter((*exact, *same)), None)


def _attr(call: Call, definition: Definition, made: dict[int, str]) -> Attr:
    layout = layouts.named(definition.name)
    values: dict[str, Value] = {}
    for path, value in layout.unpack(call.attr).items():
        kind = members(layout)[path].role.kind
        if kind == "pointer":
            if value:
                values[path] = _memory(call, path, made)
        elif kind == "fd" and path in call.fds:
            values[path] = Fd(_name(call.fds[path], made))
        elif value not in (0, b"") and (not isinstance(value, bytes) or any(value)):
            values[path] = value
    return Attr(layout, values)


def _memory(call: Call, path: str, made: dict[int, str]) -> Value:
    pointee = call.memory.get(path) or call.outputs.get(path)
    if pointee is None:
        return Mem(bytes(_OUT_BYTES))
    if pointee.items is not None:
        return strings(*pointee.items)
    data = pointee.data or b""
    fds = {int(place.rpartition("@")[2]): Fd(_name(fd, made)) for place, fd in call.fds.items() if place.startswith(f"{path}@")}
    size = max(len(data), min(pointee.size or 0, 1 << 16))
    # A C string ends in a NUL that recordings leave out.
    return Mem(data.ljust(size, b"\0") + (b"\0" if members(call_layout(call))[path].role.target == "cstr" else b""), fds=fds)


def call_layout(call: Call) -> Definition:
    """The layout of a call that has one."""
    assert call.definition is not None
    return layouts.named(call.definition.name)


def _name(fd: RecordedFd, made: dict[int, str]) -> str:
    return made.get(fd.made_by or 0, _ANY.get(fd.kind, CLOSED))
