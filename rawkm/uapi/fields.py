"""The vocabulary of the definitions: a member of a struct, and the role that the kernel gives it.

A definition is a construct Struct whose members are `Field`s, named by the UAPI's dotted paths:

    define("MAP_FREEZE", "", u32("map_fd", FD, since="5.2"), …)

Sizes and offsets come from construct alone. Holes are members like any other, so that parsing and building
keep their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import construct

from rawkm.errors import UsageError
from rawkm.uapi.constants import Cmd
from rawkm.uapi.layout import Layout

Kind = Literal["plain", "hex", "version", "fd", "pointer", "size", "count", "flags", "enum", "name", "bytes", "hole"]
Direction = Literal["in", "out", "inout"]
#: What is behind a pointer; cstrs is an array of pointers to C strings.
Target = Literal["bytes", "cstr", "cstrs", "u64s", "u32s", "insns", "log"]

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


def u64(path: str, role: Role = PLAIN, *, since: str, also: Mapping[str, str] | None = None) -> Any:
    return path / Field(construct.Int64un, role, since, also)


def u32(path: str, role: Role = PLAIN, *, since: str, also: Mapping[str, str] | None = None) -> Any:
    return path / Field(construct.Int32un, role, since, also)


def s32(path: str, role: Role = PLAIN, *, since: str, also: Mapping[str, str] | None = None) -> Any:
    return path / Field(construct.Int32sn, role, since, also)


def u16(path: str, role: Role = PLAIN, *, since: str, also: Mapping[str, str] | None = None) -> Any:
    return path / Field(construct.Int16un, role, since, also)


def chars(path: str, size: int, *, since: str) -> Any:
    """A NUL-terminated name in a fixed array."""
    return path / Chars(construct.Bytes(size), Role("name"), since)


def raw(path: str, size: int, *, since: str) -> Any:
    """A fixed array of bytes that are no text."""
    return path / Chars(construct.Bytes(size), Role("bytes"), since)


def hole(size: int) -> Any:
    return "" / Hole(construct.Bytes(size), Role("hole"), "")


def ptr(
    path: str,
    direction: Direction,
    target: Target = "bytes",
    *,
    since: str,
    of: str = "",
    also: Mapping[str, str] | None = None,
) -> Any:
    """A pointer in 64 bits. `of`: the path of its size (bytes, log) or of its count (everything else)."""
    role = Role("pointer", direction=direction, target=target, of=of)
    return path / Field(construct.Int64un, role, since, also)


@dataclass(frozen=True, slots=True)
class Member:
    """A field or hole at its place. ``also``: its other names, each with its first kernel."""

    path: str
    offset: int
    size: int
    role: Role
    since: str
    also: Mapping[str, str]


class Definition(Layout):
    """A Layout with the construct Struct that it comes from.

    ``struct`` parses and builds whole structs, holes included; ``members`` lists fields and holes in order;
    ``reads`` is the end of the last field that the command takes notice of: the kernel wants zeros behind it.
    """

    __slots__ = ("members", "reads", "struct")

    def __init__(self, command: str, variant: str, name: str, cmd: int, members: tuple[Any, ...], last: str = "") -> None:
        at = 0
        named, placed, codes = [], [], []
        for renamed in members:
            field: Field = renamed.subcon
            size: int = field.sizeof()
            path = renamed.name or f"(hole at {at})"
            named.append(path / field)
            placed.append(Member(path, at, size, field.role, field.since, field.also))
            codes.append(field.code)
            if field.role.kind != "hole" and at % min(size, 8) and not field.code.endswith("s"):
                raise AssertionError(f"{name}: {path} at {at} is not aligned; a hole is missing")
            at += size
        self.struct = construct.Struct(*named)
        self.members = tuple(placed)
        self.reads = next((m.offset + m.size for m in placed if m.path == last), at)
        fields = [member for member in placed if member.role.kind != "hole"]
        super().__init__(
            command,
            variant,
            cmd,
            name,
            at,
            "=" + "".join(codes),
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


def define(command: str, variant: str, *members: Any, last: str = "") -> Definition:
    """The struct of one command of bpf(2), or one variant of it.

    `last`: the last field that the command reads, where it shares a longer struct with others.
    """
    name = command.lower() + (f".{variant}" if variant else "")
    return Definition(command, variant, name, getattr(Cmd, command), members, last)


def define_struct(command: str, variant: str, *members: Any) -> Definition:
    """A struct that is no attr: `command` is its C name without `bpf_`."""
    name = command + (f".{variant}" if variant else "")
    return Definition(command, variant, name, -1, members)
