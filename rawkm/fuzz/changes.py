"""What can be changed in a valid call: every place of an attr, and for each the values that kernels trip over.

A change is drawn in two choices, the place and the value, so that a failure shrinks to one of each.
"""

from __future__ import annotations

from rawkm.fuzz.attr import ATTR_ROOM, COMMAND, ROOM, SIZE, WHOLE, Attr, Change, Fd, Mem, Within, byte_at, fit, members
from rawkm.fuzz.objects import CLOSED, FILES, OBJECTS
from rawkm.syscall.raw import Address
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from rawkm.fuzz.attr import Value
    from rawkm.fuzz.source import Source
    from rawkm.uapi.fields import Definition, Member

    T = TypeVar("T")

#: Nothing of a process is ever at these: below mmap_min_addr, at the end of user space, and the kernel's half.
BAD_ADDRESSES = tuple(
    map(
        Address,
        (1, 0xFFF0, 0x7FFF_FFFF_F000, 0x8000_0000_0000, 0xFFFF_8880_0000_0000, 0xFFFF_FFFF_FFFF_F000, 0xFFFF_FFFF_FFFF_FFFF),
    )
)
#: Where user memory may be: an address that is no bad one must not be made up.
USER = range(0x1_0000, 0x7FFF_FFFF_F000)

# As many alternatives there are when it is asked whether to change one thing more.
_NEVER = 12

_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    4095,
    4096,
    4097,
)
_LARGE = (0xFFFF, 0x10000, 0xFFFFF, 0x100000, 0x100001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_LONG = (0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF)
_LAST_SIZE = 4097
#: Every command that there is, and some that there are not.
_COMMANDS: tuple[int, ...] = (*range(Cmd.PROG_ASSOC_STRUCT_OPS + 1), 39, 40, 0x7FFFFFFF)
_NAMES = (
    b"",
    b"a",
    b"a.b_C1",
    b"fifteen_letters",
    b"sixteen_letters_",
    b"a-b",
    b"a b",
    b"a\0b",
    b"\xff\xfe",
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0x",
)
_STRINGS = (
    b"\0",
    b"a\0",
    b"\xff" * 7 + b"\0",
    b"x" * 127 + b"\0",
    b"x" * 511 + b"\0",
    b"x" * 512 + b"\0",
    b"no_end",
    b"%s%n\n\0",
)

_PLACES: dict[str, tuple[str, ...]] = {}


def places(layout: Definition) -> tuple[str, ...]:
    """Every place where a call of this layout can be changed: fields, bytes of holes, the tail, and the rest."""
    found = _PLACES.get(layout.name)
    if found is None:
        holes = [byte_at(m.offset + i) for m in layout.members if m.role.kind == "hole" for i in range(m.size)]
        tail = [
            byte_at(at)
            for at in sorted({layout.reads, layout.size, layout.size + 3, 119, 120, 143, 144, 151, 152, 167, 168, 4095})
        ]
        rest = [byte_at(m.offset) for m in layout.members if m.offset >= layout.reads and m.role.kind != "hole"]
        extra = [at for at in dict.fromkeys((*holes, *rest, *tail)) if _offset(at) >= layout.size or at in holes or at in rest]
        found = _PLACES[layout.name] = (*layout.fields, *extra, SIZE, ROOM, WHOLE, COMMAND)
    return found


def change(source: Source, attr: Attr, place: str | None = None) -> Change:
    """One change of a call."""
    if place is None:
        place = source.pick(places(attr.layout))
    return Change(place, _value(source, attr, place))


def changed(source: Source, attr: Attr) -> Attr:
    """The call with one change mostly, with none or with up to three now and then."""
    made: list[Change] = []
    # Asked before each of them and behind the last, not once for all: any of them can be left out when a failure is made smaller,
    # since what was enough for a later one is enough for an earlier one.
    for least in (1, 8, 9, _NEVER):
        if source.below(_NEVER) < least:
            break
        made.append(change(source, attr))
    return attr.with_changes(*made)


def _offset(place: str) -> int:
    return int(place.rpartition(" ")[2])


def _value(source: Source, attr: Attr, place: str) -> Value:
    member = members(attr.layout).get(place)
    if member is None:
        return _special(source, attr, place)
    kind = member.role.kind
    valid = attr.valid.get(place, 0)
    if kind == "pointer":
        return _pointer(source, attr, place, valid)
    if kind == "fd":
        return _fd(source, attr, member)
    if kind in ("name", "bytes"):
        return source.pick(_NAMES)[: member.size] if source.below(4) < 3 else source.data(member.size)
    number = valid if isinstance(valid, int) else 0
    if kind == "flags" and member.role.names is not None:
        value = _flag(source, member, number)
    elif kind == "enum" and member.role.names is not None:
        value = _enum(source, member)
    else:
        value = _number(source, member, number)
    return fit(attr.layout, place, value)


def _special(source: Source, attr: Attr, place: str) -> Value:
    layout = attr.layout
    if place == SIZE:
        sizes: tuple[int, ...] = (
            layout.size,
            layout.reads,
            0,
            1,
            3,
            4,
            ATTR_ROOM,
            ATTR_ROOM + 1,
            4096,
            4097,
            0x10000,
            0x7FFFFFFF,
            0xFFFFFFFF,
        )
        return source.pick(sizes) if source.below(3) == 0 else source.below(_LAST_SIZE + 1 if source.one_in(4) else ATTR_ROOM + 8)
    if place == ROOM:
        return source.below(layout.size)
    if place == COMMAND:
        return source.pick(_COMMANDS)
    if place == WHOLE:
        return source.pick((Address(0), *BAD_ADDRESSES)) if source.below(3) == 0 else source.data(source.between(1, layout.size))
    return source.pick((1, 0x80, 0xFF))


def _number(source: Source, member: Member, valid: int) -> int:
    numbers: tuple[int, ...] = (*_NUMBERS, *_LARGE, *(_LONG if member.size == 8 else ()))
    how = source.below(8)
    if how < 4:
        return source.pick(numbers)
    if how < 6:
        return max(0, valid + source.pick((1, -1, valid, 8, -8)))
    if how < 7:
        return valid ^ 1 << source.below(8 * member.size)
    return int.from_bytes(source.data(member.size), "little")


def _flag(source: Source, member: Member, valid: int) -> int:
    how = source.below(8)
    if how < 6:
        return valid ^ (1 << source.below(20 if member.size == 4 and how < 4 else 8 * member.size))
    if how < 7:
        return source.pick((0, 0xFFFFFFFF, (1 << 8 * member.size) - 1))
    return int.from_bytes(source.data(member.size), "little")


def _enum(source: Source, member: Member) -> int:
    assert member.role.names is not None
    values = sorted({v for n, v in vars(member.role.names).items() if type(v) is int and n[0] != "_"})
    if source.below(8) < 6:
        return source.pick(values)
    return source.pick((values[-1] + 1, values[-1] + 2, 99, 255, 256, 0x7FFFFFFF, 0xFFFFFFFF))


_FDS = (CLOSED, *FILES, *OBJECTS)


def _fd(source: Source, attr: Attr, member: Member) -> Value:
    if source.below(6) < 5:
        return Fd(source.pick(_FDS))
    return fit(attr.layout, member.path, source.pick((0, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 20)))


def _pointer(source: Source, attr: Attr, place: str, valid: Value) -> Value:
    member = members(attr.layout)[place]
    if member.path.endswith("cookie"):
        return _number(source, member, 0)
    how = source.below(10)
    if how == 0 or (how == 1 and not isinstance(valid, Mem)):
        return None
    if how <= 2:
        return source.pick(BAD_ADDRESSES)
    if how == 3:
        others = [path for path, value in attr.valid.items() if isinstance(value, Mem) and path != place]
        if others:
            return Within(source.pick(others), source.pick((0, 1, 4, 8)))
    if member.role.target in ("cstr", "cstrs"):
        return Mem(source.pick(_STRINGS)) if member.role.target == "cstr" else _strings(source, valid)
    if not isinstance(valid, Mem):
        return Mem(bytes(source.pick((4, 8, 16, 1, 64))))
    size = len(valid.data)
    if how < 7:
        new = source.pick((size - 1, size - 4, size - 8, size // 2, 0, size + 1, size + 8))
        return Mem(valid.data[: max(new, 0)].ljust(max(new, 0), b"\0"), _kept(valid.pointers, new), _kept(valid.fds, new))
    if how < 9 and size:
        data = bytearray(valid.data)
        at = source.below(size)
        data[at] ^= source.pick((1, 0x80, 0xFF, 1 << source.below(8)))
        return Mem(bytes(data), valid.pointers, valid.fds)
    return Mem(source.data(source.pick((size, 8, 16))))


def _strings(source: Source, valid: Value) -> Mem:
    """Names of functions, one of them odd: unknown, twice the same, too long, without an end, at a bad address."""
    known = dict(valid.pointers) if isinstance(valid, Mem) else {}
    n = max(len(known), 1)
    at = 8 * source.below(n)
    odd: Mem | Address = source.pick(
        (Address(0), BAD_ADDRESSES[0], BAD_ADDRESSES[4], *(Mem(text) for text in _STRINGS), *(known.values()))
    )
    return Mem(bytes(8 * n), {**known, at: odd})


def _kept(places: dict[int, T], size: int) -> dict[int, T]:
    return {at: value for at, value in places.items() if at + 4 <= size}


# -- classes of values ---------------------------------------------------------------------------------------------------------


def class_of(attr: Attr, change: Change) -> str:
    """The class of a change's value, for coverage: "0", "one bit", "a fd of link/iter", "too short", …"""
    value = change.value
    if value is None:
        return "NULL"
    if isinstance(value, Fd):
        return f"a fd: {value.name.partition('/')[0] if value.name != CLOSED else 'closed'}"
    if isinstance(value, Address):
        return "a bad address"
    if isinstance(value, Within):
        return "other memory"
    valid = attr.valid.get(change.place)
    if isinstance(value, Mem):
        if not isinstance(valid, Mem):
            return "memory"
        if len(value.data) != len(valid.data):
            return "too short" if len(value.data) < len(valid.data) else "too long"
        return "other bytes"
    if isinstance(value, bytes):
        return "bytes"
    return _class_of_number(attr.layout, change.place, value, valid if isinstance(valid, int) else 0)


def _class_of_number(layout: Definition, place: str, value: int, valid: int) -> str:
    if value == valid:
        return "as it was"
    member = members(layout).get(place)
    kind = "plain" if member is None else member.role.kind
    if kind == "flags":
        bits = value ^ valid
        return f"bit {bits.bit_length() - 1}" if bits & (bits - 1) == 0 else "bits"
    if kind == "enum" and member is not None and member.role.names is not None:
        return str(value) if value in vars(member.role.names).values() else "no such"
    if place == COMMAND:
        return "other command"
    if value in (0, 1):
        return str(value)
    if value < 0 or value >= 1 << 31:
        return "sign bit"
    if value < 256:
        return "< 256"
    return "< 2^16" if value < 1 << 16 else "large"
