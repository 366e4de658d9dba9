"""A BTF object: types by id and by name, and the questions that a tracer has."""

from __future__ import annotations

import sys
from bisect import bisect_left

from rawkm.btf.kinds import (
    ARRAY,
    DATASEC,
    DECL_TAG,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FUNC_PROTO,
    FWD,
    INT,
    KIND_FLAG,
    KIND_MASK,
    KIND_SHIFT,
    MODIFIERS,
    NAMES,
    PTR,
    STRUCT,
    TYPEDEF,
    UNION,
    VAR,
    VLEN_MASK,
)
from rawkm.btf.sections import Sections
from rawkm.btf.types import Array, Composite, Enum, Float, Fwd, Int, Member, Proto, Ref, Section, Type
from rawkm.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# How far a chain of references, or a nest of anonymous structs, is followed, and how many members one
# question looks at: damaged data may well be circular. The kernel stops at 32 references.
_MAX_DEPTH = 32
_MAX_MEMBERS = 1 << 18
_POINTER_SIZE = 8


class Place:
    """Where a member is: ``bit_offset`` in the outermost type, ``bits`` (0: no bit-field), ``type`` id."""

    __slots__ = ("bit_offset", "bits", "type")

    def __init__(self, bit_offset: int, bits: int, type: int) -> None:
        self.bit_offset = bit_offset
        self.bits = bits
        self.type = type


class Btf:
    """The types of a kernel image or, with `base` (vmlinux), of a module, which go on where the base ends.

    `data` is the content of a file in /sys/kernel/btf, or of a .BTF section. Opening it walks over all types
    once; each is decoded when asked for. Damaged data raises BTFError, here or when it is come across, and
    nothing else.
    """

    __slots__ = ("_decoded", "_infos", "_places", "_sections", "_string_base", "base", "first_id")

    def __init__(self, data: bytes | bytearray | memoryview, base: Btf | None = None) -> None:
        self.base = base
        self.first_id = 1 if base is None else base.last_id + 1
        self._string_base = 0 if base is None else base.string_end
        self._sections = Sections(data if isinstance(data, bytes) else bytes(data), split=base is not None)
        self._places, self._infos = self._sections.index()
        self._decoded: dict[int, Type] = {}

    def __repr__(self) -> str:
        return f"<Btf of {len(self._places)} types from id {self.first_id}>"

    @property
    def last_id(self) -> int:
        """The highest id; a BTF on top of this one goes on behind it."""
        return self.first_id + len(self._places) - 1

    @property
    def string_end(self) -> int:
        """Where the strings of a BTF on top of this one begin."""
        start, end = self._sections.strings
        return self._string_base + end - start

    # -- types by id and name --------------------------------------------------------------------------------

    def type(self, id: int) -> Type:
        """The type with this id; 0 is void. Raises BTFError if there is none."""
        if id == 0:
            return Type(0, 0, "")
        if id < self.first_id and self.base is not None:
            return self.base.type(id)
        if not self.first_id <= id <= self.last_id:
            raise BTFError(f"there is no BTF type {id}: the last is {self.last_id}")
        found = self._decoded.get(id)
        if found is None:
            found = self._decoded[id] = self._decode(id)
        return found

    def find_all(self, name: str, kind: int) -> list[int]:
        """The ids of all types of this kind and name: of static functions there may be several."""
        found = [] if self.base is None else self.base.find_all(name, kind)
        data, words, places = self._sections.data, self._sections.words, self._places
        start, end = self._sections.types
        for offset in self._name_offsets(name):
            # Look for the offset's bytes anywhere in the section, then see whether a type begins there:
            # searching bytes is C's work, looking at 127 thousand types is Python's.
            for at in _occurrences(data, offset.to_bytes(4, sys.byteorder), start, end):
                info_at, odd = divmod(at - start + 4, 4)
                index = bisect_left(places, info_at)
                if odd or index == len(places) or places[index] != info_at:
                    continue
                if words[info_at] >> KIND_SHIFT & KIND_MASK == kind:
                    found.append(self.first_id + index)
        return sorted(found)

    def find(self, name: str, kind: int) -> int:
        """The id of the (first) type of this kind and name. Raises BTFError if there is none."""
        found = self.find_all(name, kind)
        if not found:
            raise BTFError(f"there is no {NAMES[kind]} {name} in this BTF")
        return found[0]

    def of_kind(self, *kinds: int) -> Iterator[int]:
        """The ids of all types of some kinds; of a split BTF only its own."""
        words, infos = self._sections.words, self._infos_of(*kinds)
        return (id for id, place in enumerate(self._places, self.first_id) if words[place] in infos)

    def functions(self) -> Iterator[bytes]:
        """The names of all functions, with repetitions; of a split BTF only its own."""
        words, infos, data = self._sections.words, self._infos_of(FUNC), self._sections.data
        offsets = [words[place - 1] for place in self._places if words[place] in infos]
        if self.base is not None:
            return (self._raw_name(offset) for offset in offsets)
        start, end = self._sections.strings
        find = data.index
        if offsets and max(offsets) >= end - start:
            raise BTFError("a BTF function's name lies behind the string section")
        return iter([data[start + offset : find(b"\0", start + offset)] for offset in offsets])

    def function_ids(self) -> dict[bytes, list[int]]:
        """Name → the ids of the functions that have it; of a split BTF only its own."""
        words, infos = self._sections.words, self._infos_of(FUNC)
        places = self._places
        ids = [id for id, place in enumerate(places, self.first_id) if words[place] in infos]
        found: dict[bytes, list[int]] = {}
        for id, name in zip(ids, self.functions(), strict=True):
            found.setdefault(name, []).append(id)
        return found

    # -- layout ----------------------------------------------------------------------------------------------

    def resolve(self, id: int) -> Type:
        """The type behind typedefs, const, volatile, restrict and type tags."""
        for _ in range(_MAX_DEPTH):
            found = self.type(id)
            if not isinstance(found, Ref) or found.kind not in MODIFIERS:
                return found
            id = found.type
        raise BTFError(f"BTF type {id} is a modifier of itself, or of too many others")

    def sizeof(self, id: int) -> int:
        """Bytes. Raises BTFError for types without a size: functions, void, forward declarations."""
        count = 1
        for _ in range(_MAX_DEPTH):
            found = self.resolve(id)
            if isinstance(found, Array):
                count *= found.count
                id = found.type
            elif isinstance(found, Int | Float | Composite | Enum | Section):
                return count * found.size
            elif found.kind == PTR:
                return count * _POINTER_SIZE
            elif isinstance(found, Ref) and found.kind == VAR:
                id = found.type
            else:
                raise BTFError(f"BTF type {id} ({found!r}) has no size")
        raise BTFError(f"BTF type {id} is an array of itself, or of too many dimensions")

    def composite(self, name: str) -> Composite:
        """The struct, union, or typedef of one, of this name."""
        for kind in (STRUCT, UNION, TYPEDEF):
            for id in self.find_all(name, kind):
                found = self.resolve(id)
                if isinstance(found, Composite):
                    return found
        raise BTFError(f"there is no struct or union {name} in this BTF")

    def member(self, type: str | int, path: str) -> Place:
        """Where `path` is in a struct or union: dotted, through named and anonymous members.

        Raises BTFError if the type or the member does not exist.
        """
        outer: Type = self.composite(type) if isinstance(type, str) else self.resolve(type)
        place = Place(0, 0, outer.id)
        for name in path.split("."):
            inner = self.resolve(place.type)
            found = None
            if isinstance(inner, Composite):
                found = self._member(inner, name, _MAX_DEPTH, [_MAX_MEMBERS])
            if found is None:
                raise BTFError(f"{outer.name or f'type {outer.id}'} has no member {path}")
            place = Place(place.bit_offset + found.bit_offset, found.bits, found.type)
        return place

    def member_offset(self, type: str | int, path: str) -> int:
        """The offset in bytes. Raises BTFError as member() does, and for a bit-field inside a byte."""
        bits = self.member(type, path).bit_offset
        if bits % 8:
            raise BTFError(f"{path} is a bit-field that begins inside a byte")
        return bits // 8

    def flatten(self, type: str | int) -> dict[str, tuple[int, int]]:
        """Every member that is no struct or union itself, by dotted path: (offset, size) in bytes.

        Anonymous members add nothing to the path. Arrays are one member. A bit-field has the offset of its
        first byte and the number of bytes that it touches.
        """
        found = {}
        for path, place in self.leaves(type).items():
            size = (place.bit_offset % 8 + place.bits + 7) // 8 if place.bits else self.sizeof(place.type)
            found[path] = (place.bit_offset // 8, size)
        return found

    def leaves(self, type: str | int) -> dict[str, Place]:
        """The members that flatten() lists, by dotted path, with their types and the bits of bit-fields."""
        outer: Type = self.composite(type) if isinstance(type, str) else self.resolve(type)
        if not isinstance(outer, Composite):
            raise BTFError(f"BTF type {outer.id} ({outer!r}) has no members")
        found: dict[str, Place] = {}
        self._leaves(outer, "", 0, _MAX_DEPTH, found, [_MAX_MEMBERS])
        return found

    # -- enums and functions ---------------------------------------------------------------------------------

    def enum_values(self, type: str | int) -> dict[str, int]:
        """Name → value of an enum, by its name or id."""
        if isinstance(type, str):
            ids = self.find_all(type, ENUM) + self.find_all(type, ENUM64)
            if not ids:
                raise BTFError(f"there is no enum {type} in this BTF")
            type = ids[0]
        found = self.resolve(type)
        if not isinstance(found, Enum):
            raise BTFError(f"BTF type {type} ({found!r}) is no enum")
        return dict(found.values)

    def prototype(self, function: str | int) -> Proto:
        """The prototype of a function, by its name or the id of its FUNC."""
        found = self.type(self.find(function, FUNC) if isinstance(function, str) else function)
        proto = self.type(found.type) if isinstance(found, Ref) and found.kind == FUNC else found
        if not isinstance(proto, Proto):
            raise BTFError(f"BTF type {found.id} ({found!r}) is no function with a prototype")
        return proto

    def is_variadic(self, function: int) -> bool:
        """Whether the FUNC with this id takes a variable number of arguments. Decodes nothing: it is asked for thousands."""
        words = self._sections.words
        proto = words[self._places[function - self.first_id] + 1] - self.first_id
        if not 0 <= proto < len(self._places):
            return self.func_args(function)[-1:] == (("", 0),)
        at = self._places[proto]
        count = words[at] & VLEN_MASK
        return count > 0 and not words[at + 2 * count] and not words[at + 2 * count + 1]

    def func_args(self, function: str | int) -> tuple[tuple[str, int], ...]:
        """(name, type id) of each argument; the varargs of a C function are a last ("", 0)."""
        return self.prototype(function).params

    # -- inside ----------------------------------------------------------------------------------------------

    def _decode(self, id: int) -> Type:
        words, at = self._sections.words, self._places[id - self.first_id]
        name, info, third = self._name(words[at - 1]), words[at], words[at + 1]
        kind, flag = info >> KIND_SHIFT & KIND_MASK, bool(info & KIND_FLAG)
        count = 0 if kind == FUNC else info & VLEN_MASK
        at += 2
        if kind == INT:
            return Int(id, kind, name, third, words[at])
        if kind in (STRUCT, UNION):
            return Composite(id, kind, name, third, self._members(at, count, flag))
        if kind == ARRAY:
            return Array(id, kind, name, words[at], words[at + 1], words[at + 2])
        if kind in (ENUM, ENUM64):
            return Enum(id, kind, name, third, flag, self._enumerators(kind, at, count, flag))
        if kind == FWD:
            return Fwd(id, kind, name, flag)
        if kind == FUNC_PROTO:
            params = [(self._name(words[i]), words[i + 1]) for i in range(at, at + 2 * count, 2)]
            return Proto(id, kind, name, third, params)
        if kind == DATASEC:
            variables = [(words[i], words[i + 1], words[i + 2]) for i in range(at, at + 3 * count, 3)]
            return Section(id, kind, name, third, variables)
        if kind == FLOAT:
            return Float(id, kind, name, third)
        if kind in (VAR, DECL_TAG):
            return Ref(id, kind, name, third, words[at])
        if kind == FUNC:
            return Ref(id, kind, name, third, info & VLEN_MASK)
        if kind == PTR or kind in MODIFIERS:
            return Ref(id, kind, name, third)
        return Type(id, kind, name)

    def _members(self, at: int, count: int, flag: bool) -> list[Member]:
        words = self._sections.words
        members = []
        for i in range(at, at + 3 * count, 3):
            offset = words[i + 2]
            # With the kind flag the upper byte is the width of a bit-field.
            bit_offset, bits = (offset & 0xFFFFFF, offset >> 24) if flag else (offset, 0)
            members.append(Member(self._name(words[i]), words[i + 1], bit_offset, bits))
        return members

    def _enumerators(self, kind: int, at: int, count: int, signed: bool) -> list[tuple[str, int]]:
        words = self._sections.words
        values = []
        step, bits = (3, 64) if kind == ENUM64 else (2, 32)
        for i in range(at, at + step * count, step):
            value = words[i + 1] | (words[i + 2] << 32 if kind == ENUM64 else 0)
            if signed and value >> (bits - 1):
                value -= 1 << bits
            values.append((self._name(words[i]), value))
        return values

    def _member(self, composite: Composite, name: str, depth: int, budget: list[int]) -> Place | None:
        """A direct member, or one of an anonymous struct or union among the members."""
        _spend(len(composite.members), depth, budget)
        for member in composite.members:
            if member.name == name:
                return Place(member.bit_offset, member.bits, member.type)
        for member in composite.members:
            if not member.name:
                inner = self.resolve(member.type)
                found = self._member(inner, name, depth - 1, budget) if isinstance(inner, Composite) else None
                if found is not None:
                    return Place(member.bit_offset + found.bit_offset, found.bits, found.type)
        return None

    def _leaves(
        self, composite: Composite, prefix: str, bits: int, depth: int, found: dict[str, Place], budget: list[int]
    ) -> None:
        _spend(len(composite.members), depth, budget)
        for member in composite.members:
            inner = self.resolve(member.type)
            at = bits + member.bit_offset
            path = prefix + member.name
            if isinstance(inner, Composite):
                self._leaves(inner, f"{path}." if member.name else prefix, at, depth - 1, found, budget)
            elif member.name:
                found.setdefault(path, Place(at, member.bits, member.type))

    def _infos_of(self, *kinds: int) -> set[int]:
        return {info for info in self._infos if info >> KIND_SHIFT & KIND_MASK in kinds}

    def _raw_name(self, offset: int) -> bytes:
        if offset < self._string_base and self.base is not None:
            return self.base._raw_name(offset)
        start, end = self._sections.strings
        start += offset - self._string_base
        if start >= end:
            raise BTFError(f"a BTF name at {offset} lies behind the string section")
        data = self._sections.data
        return data[start : data.index(b"\0", start)]

    def _name(self, offset: int) -> str:
        return self._raw_name(offset).decode("utf-8", "surrogateescape") if offset else ""

    def _name_offsets(self, name: str) -> list[int]:
        """The offsets of this name in the string sections.

        As a string of its own or, where a linker merged tails and there is none, as the end of others.
        """
        try:
            raw = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return []
        if not raw or b"\0" in raw:
            return []
        data = self._sections.data
        start, end = self._sections.strings
        own = [start] if data.startswith(raw + b"\0", start, end) else []
        own += [at + 1 for at in _occurrences(data, b"\0" + raw + b"\0", start, end)]
        own = own or list(_occurrences(data, raw + b"\0", start, end))
        base = [] if self.base is None else self.base._name_offsets(name)
        return base + [at - start + self._string_base for at in own]


def _occurrences(data: bytes, needle: bytes, start: int, end: int) -> Iterator[int]:
    at = data.find(needle, start, end)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1, end)


def _spend(members: int, depth: int, budget: list[int]) -> None:
    budget[0] -= members + 1
    if depth <= 0 or budget[0] < 0:
        raise BTFError("a BTF struct is nested in itself, or too deeply")
