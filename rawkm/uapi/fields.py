"""The vocabulary of the definitions: what the header does not say about the members of a struct.

A definition names the members of a struct by the UAPI's dotted paths, with their roles and first kernels:

    define("MAP_FREEZE", "", field("map_fd", FD, since="5.2"), …)

Where they are, how long and of which type comes from rawkm.uapi.tables, which is generated; holes are what they
leave between them. All becomes a construct Struct, in which holes are members like any other, so that parsing
and building keep their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import construct

from rawkm.errors import UsageError
from rawkm.uapi import tables
from rawkm.uapi.constants import Cmd
from rawkm.uapi.layout import Layout

Kind = Literal["plain", "hex", "version", "fd", "pointer", "size", "count", "flags", "enum", "name", "bytes", "hole"]
Direction = Literal["in", "out", "inout"]
#: What is behind a pointer; cstrs is an array of pointers to C strings.
Target = Literal["bytes", "cstr", "cstrs", "u64s", "u32s", "insns", "log"]

_INTEGERS = {
    ("u", 1): construct.Int8un,
    ("u", 2): construct.Int16un,
    ("u", 4): construct.Int32un,
    ("u", 8): construct.Int64un,
    ("s", 4): construct.Int32sn,
    ("s", 8): construct.Int64sn,
}
# construct's native integers are "=L" for four bytes: say them as layout.py does.
_CODES = {"B": "B", "H": "H", "L": "I", "Q": "Q", "l": "i", "q": "q"}


@dataclass(frozen=True, slots=True)
class Role:
    """What the kernel takes a field for.

    ``names``: the namespace of flags or of an enum. ``direction`` and ``target``: of a pointer. ``of``: for a
    pointer the path of its size or count, for a size or count the path of what it measures; "" where nothing
    in the struct says it.
    """

    kind: Kind
    names: type | None = None
    direction: Direction = "in"
    target: Target = "bytes"
    of: str = ""


#: A number shown in decimal, one shown in hexadecimal, and a LINUX_VERSION_CODE.
PLAIN = Role("plain")
HEX = Role("hex")
VERSION = Role("version")
FD = Role("fd")


def flags(names: type) -> Role:
    """A sum of flags of a namespace of constants."""
    return Role("flags", names)


def enum(names: type) -> Role:
    """One value of a namespace of constants."""
    return Role("enum", names)


def size_of(path: str) -> Role:
    """The size in bytes of what the pointer `path` points to."""
    return Role("size", of=path)


def count_of(path: str) -> Role:
    """The number of elements of what the pointer `path` points to."""
    return Role("count", of=path)


class Field(construct.Subconstruct):  # type: ignore[misc]  # construct has no types
    """A member with its role, its first kernel, and its other names: name → first kernel of union members."""

    def __init__(self, subcon: Any, role: Role, since: str, also: Mapping[str, str] | None = None) -> None:
        super().__init__(subcon)
        self.flagbuildnone = True
        self.role = role
        self.since = since
        self.also = dict(also or {})

    def _build(self, obj: Any, stream: Any, context: Any, path: Any) -> Any:
        return self.subcon._build(0 if obj is None else obj, stream, context, path)

    @property
    def code(self) -> str:
        """The member in the letters of the `struct` module."""
        return _CODES[self.subcon.fmtstr[1:]]


class Chars(Field):
    """A character array: any bytes; building pads with NULs."""

    def _build(self, obj: Any, stream: Any, context: Any, path: Any) -> Any:
        raw = obj or b""
        size = self.subcon.sizeof()
        if len(raw) > size:
            raise construct.StreamError(f"at most {size} bytes, not {len(raw)}", path=path)
        return self.subcon._build(bytes(raw).ljust(size, b"\0"), stream, context, path)

    @property
    def code(self) -> str:
        return f"{self.subcon.sizeof()}s"


class Hole(Chars):
    """Bytes that no field covers."""

    @property
    def code(self) -> str:
        return f"{self.subcon.sizeof()}x"


@dataclass(frozen=True, slots=True)
class Note:
    """What a definition says of a member. ``place``: its (offset, size) where the tables do not have it."""

    path: str
    role: Role
    since: str
    also: Mapping[str, str]
    place: tuple[int, int] | None = None


def field(path: str, role: Role = PLAIN, *, since: str, also: Mapping[str, str] | None = None) -> Note:
    """A number or an array. `also`: the other members at its place, each with its first kernel."""
    return Note(path, role, since, also or {})


def ptr(
    path: str,
    direction: Direction,
    target: Target = "bytes",
    *,
    since: str,
    of: str = "",
    also: Mapping[str, str] | None = None,
) -> Note:
    """A pointer in 64 bits. `of`: the path of its size (bytes, log) or of its count (everything else)."""
    return Note(path, Role("pointer", direction=direction, target=target, of=of), since, also or {})


def word(path: str, struct: str, first: str, size: int, role: Role = PLAIN, *, since: str) -> Note:
    """A word of bit-fields, which has no name in C: the `size` bytes that begin with the bit-field `first`."""
    at = next(bit for name, bit, _ in tables.BITS[struct] if name == first)
    return Note(path, role, since, {}, (at // 8, size))


@dataclass(frozen=True, slots=True)
class Member:
    """A field or hole at its place. ``also``: its other names, each with its first kernel."""

    path: str
    offset: int
    size: int
    role: Role
    since: str
    also: Mapping[str, str]


_Placed = tuple[Member, Field]


class Definition(Layout):
    """A Layout with the construct Struct that it comes from.

    ``struct`` parses and builds whole structs, holes included; ``members`` lists fields and holes in order;
    ``reads`` is the end of the last field that the command takes notice of: the kernel wants zeros behind it.
    """

    __slots__ = ("members", "reads", "struct")

    def __init__(self, command: str, variant: str, name: str, cmd: int, placed: list[_Placed], last: str = "") -> None:
        members = tuple(member for member, _ in placed)
        self.struct = construct.Struct(*(member.path / subcon for member, subcon in placed))
        self.members = members
        end = members[-1].offset + members[-1].size
        self.reads = next((m.offset + m.size for m in members if m.path == last), end)
        fields = [member for member in members if member.role.kind != "hole"]
        super().__init__(
            command,
            variant,
            cmd,
            name,
            end,
            "=" + "".join(subcon.code for _, subcon in placed),
            tuple(member.path for member in fields),
            tuple((m.path, pointer_kind(m.role)) for m in fields if m.role.kind == "pointer"),
            tuple((other, member.path) for member in fields for other in member.also),
        )

    def parse(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """Field → value, by construct; missing bytes of short data are read as 0."""
        parsed = self.struct.parse(bytes(data[: self.size]).ljust(self.size, b"\0"))
        return {path: parsed[path] for path in self.fields}

    def build(self, values: dict[str, Any]) -> bytes:
        """The bytes with these fields, by construct; the rest is zero. Raises UsageError, as pack() does."""
        resolved: dict[str, Any] = {}
        aliases = dict(self.aliases)
        for name, value in values.items():
            path = aliases.get(name, name)
            if path not in self.fields:
                raise UsageError(f"{self.name} has no field {name!r}")
            if resolved.setdefault(path, value) != value:
                raise UsageError(f"{self.name}: {name} and {path} are one place with two values")
        try:
            built: bytes = self.struct.build(resolved)
        except construct.ConstructError as error:
            raise UsageError(f"{self.name}: {error}") from None
        return built


def pointer_kind(role: Role) -> str:
    """The `kind` of Layout.pointers: how a caller of the hot path passes this pointer's memory."""
    if role.direction == "in" and role.target in ("cstr", "cstrs", "u64s", "u32s"):
        return role.target
    return role.direction


def define(command: str, variant: str, *notes: Note, last: str = "", whole: bool = True) -> Definition:
    """The struct of one command of bpf(2), or one variant of it.

    `last`: the last field that the command reads, where it shares a longer struct with others. Without `whole`,
    members of the struct may be missing: they are other variants'.
    """
    name = command.lower() + (f".{variant}" if variant else "")
    group = next(group for group in tables.ATTR if any(path == notes[0].path for path, *_ in group))
    placed = _place(name, notes, group, 0, whole)
    return Definition(command, variant, name, getattr(Cmd, command), placed, last)


def define_struct(command: str, variant: str, *notes: Note, whole: bool = True) -> Definition:
    """A struct that is no attr, in its full size: `command` is its C name without `bpf_`."""
    name = command + (f".{variant}" if variant else "")
    size, group = tables.STRUCTS[c_name(command)]
    return Definition(command, variant, name, -1, _place(name, notes, group, size, whole))


def c_name(command: str) -> str:
    """The C tag of a struct that is no attr."""
    return command if command in tables.STRUCTS else f"bpf_{command}"


def _place(name: str, notes: tuple[Note, ...], group: tables.Members, size: int, whole: bool) -> list[_Placed]:
    """The members in the order of their places, with the holes between them, and up to `size`."""
    known = {path: (offset, length, type) for path, offset, length, type in group}
    left = dict(known)
    placed: list[_Placed] = []
    for note in notes:
        place = known[note.path] if note.place is None else (*note.place, "u")
        for path in (note.path, *note.also):
            if left.pop(path, place) != place:
                raise AssertionError(f"{name}: {path} is not at the place of {note.path}")
        placed.append(_member(note, *place))
    if whole and left:
        raise AssertionError(f"{name}: nothing is said about {', '.join(left)}")
    placed.sort(key=lambda item: item[0].offset)
    out: list[_Placed] = []
    at = 0
    for member, subcon in placed:
        if member.offset < at:
            raise AssertionError(f"{name}: {member.path} at {member.offset} lies in the member before it")
        if member.offset > at:
            out.append(_hole(at, member.offset))
        out.append((member, subcon))
        at = member.offset + member.size
    return [*out, _hole(at, size)] if at < size else out


def _member(note: Note, offset: int, size: int, type: str) -> _Placed:
    role = note.role
    if type in "cb":
        role = Role("name" if type == "c" else "bytes")
        subcon: Field = Chars(construct.Bytes(size), role, note.since)
    else:
        subcon = Field(_INTEGERS[type, size], role, note.since, note.also)
    return Member(note.path, offset, size, role, note.since, note.also), subcon


def _hole(start: int, end: int) -> _Placed:
    role = Role("hole")
    subcon = Hole(construct.Bytes(end - start), role, "")
    return Member(f"(hole at {start})", start, end - start, role, "", {}), subcon
