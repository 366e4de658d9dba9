"""The bytes of an attr, every one of them, and what they say: as a table, and as strace prints a call.

`annotate()` and `annotate_struct()` give rows that cover the data without a gap; `table()` prints them under
each other; `inline()` is strace's one-line form. None of them raises on hostile data.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rawkm.errors import UsageError
from rawkm.uapi import layouts, names
from rawkm.uapi.fields import Definition, Member, Role
from rawkm.uapi.layout import Layout

Bytes = bytes | bytearray | memoryview

#: How much of an array, and how many bytes of a buffer, inline() shows.
MAX_ITEMS = 8
MAX_BYTES = 32

_HEX_SEPARATOR, _HEX_PREFIX = " ", "\\x"
_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field, hole or tail.

    ``kind`` is the role's kind, or "tail" for bytes behind the layout. ``value`` is the number, or the bytes
    of arrays, holes and tails; where the data ends inside the field the missing bytes count as zero, as they
    do for the kernel.
    """

    offset: int
    size: int
    path: str
    raw: bytes
    value: int | bytes
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A pointee that is a struct itself, for inline(): the info struct behind ``info.info``."""

    layout: str
    data: Bytes
    pointees: Mapping[str, object] | None = None
    after: Bytes | None = None
    notes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A pointee that inline() shows by this text: one that could not be read."""

    text: str


def annotate(cmd: int, data: Bytes) -> list[Row]:
    """Rows that cover every byte of an attr once, in order. Of an unknown command all bytes are tail."""
    try:
        definition = layouts.for_attr(cmd, data)
    except UsageError:
        return _tail(bytes(data), 0)
    return annotate_struct(definition, data)


def annotate_struct(layout: Layout | str, data: Bytes) -> list[Row]:
    """The same for a struct whose layout is known: an info struct, perf_event_attr."""
    data = bytes(data)
    definition = _definition(layout)
    rows = []
    for member in definition.members:
        raw = data[member.offset : member.offset + member.size]
        if not raw:
            break
        value = _value(definition, member, data)
        text = _text(member.role, value)
        if len(raw) < member.size:
            text += f" (cut off: {len(raw)} of {member.size} bytes)"
        rows.append(Row(member.offset, len(raw), member.path, raw, value, member.role.kind, text))
    return rows + _tail(data, definition.size)


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The rows as lines: offset, hex bytes (eight to a line), field, text."""
    for row in rows:
        label = f"{row.path} = {row.text}"
        for at in range(0, row.size, 8):
            yield f"{row.offset + at:4}  {row.raw[at : at + 8].hex(' '):23}  {label}".rstrip()
            label = ""


def inline(
    cmd: int,
    data: Bytes,
    pointees: Mapping[str, object] | None = None,
    *,
    after: Bytes | None = None,
    notes: Mapping[str, str] | None = None,
    full: bool = False,
) -> str:
    """An attr as strace prints it: `{link_create={prog_fd=4, …, kprobe_multi={flags=0, …}}}`.

    `pointees` has what pointer fields point to, by path: bytes, str, a list of those or of ints, Nested or Verbatim; None for
    NULL. Without it a pointer is an address. Non-zero bytes that no field covers follow as `extra_data`, zero ones are left out.
    `after`: the attr after the call; what changed is shown as `before => after`. `notes`: path → what follows the value.
    `full`: nothing is abbreviated.
    """
    try:
        definition = layouts.for_attr(cmd, data)
    except UsageError:
        return quote_hex(bytes(data))
    return inline_struct(definition, data, pointees, after=after, notes=notes, full=full)


def inline_struct(
    layout: Layout | str,
    data: Bytes,
    pointees: Mapping[str, object] | None = None,
    *,
    after: Bytes | None = None,
    outputs: Mapping[str, object] | None = None,
    fds: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    full: bool = False,
) -> str:
    """The same for a struct whose layout is known.

    `after`, `outputs`: the struct, and what pointers point to, after the call: what differs is shown as `before => after`.
    `fds`: names to show instead of numbers, by path; `notes`: what to show behind values. `full`: nothing is abbreviated.
    """
    data = bytes(data)
    definition = _definition(layout)
    values = definition.unpack(data)
    changed = definition.unpack(after) if after is not None and bytes(after) != data else values
    size = len(data)
    items: list[tuple[tuple[str, ...], str]] = []
    for member, parents, last in _members(definition):
        if member.offset >= size:
            break
        if member.role.kind == "hole":
            raw = data[member.offset : member.offset + member.size]
            if any(raw):
                items.append(((), _extra(raw, member.offset)))
            continue
        value, now = values[member.path], changed[member.path]
        if member.offset >= definition.reads and not (any(value) if isinstance(value, bytes) else value):
            continue
        if fds and member.path in fds:
            shown = fds[member.path]
        else:
            shown = _shown(member, value, pointees, full) if pointees else _text(member.role, value)
        if outputs and member.role.kind == "pointer":
            shown += "".join(
                f" => {pointee_text(member.role, outputs[path], full=full)}" for path in _paths(member) if path in outputs
            )
        elif now != value:
            shown += f" => {_text(member.role, now)}"
        if notes and member.path in notes:
            shown += notes[member.path]
        items.append((parents, last + shown))
    if any(tail := data[definition.size :]):
        items.append(((), _extra(tail, definition.size)))
    return _braces(items)


@cache
def _members(definition: Definition) -> list[tuple[Member, tuple[str, ...], str]]:
    """The members, the structs that each is in, and how its text begins."""
    return [(m, tuple(m.path.split(".")[:-1]), f"{m.path.rpartition('.')[2]}=") for m in definition.members]


def value_text(definition: Definition, path: str, values: Mapping[str, int | bytes]) -> str:
    """One field as inline() shows it."""
    member = next(m for m in definition.members if m.path == path)
    return _text(member.role, values[path])


def quote(raw: bytes) -> str:
    """A C string literal, as strace escapes it: octal, three digits where a digit follows."""
    out = []
    for i, byte in enumerate(raw):
        if byte in _ESCAPES:
            out.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            out.append(chr(byte))
        else:
            digit_follows = i + 1 < len(raw) and 48 <= raw[i + 1] <= 57
            out.append(f"\\{byte:03o}" if digit_follows else f"\\{byte:o}")
    return '"' + "".join(out) + '"'


def quote_hex(raw: bytes) -> str:
    """A C string literal of bytes that are no text."""
    return f'"\\x{raw.hex(_HEX_SEPARATOR).replace(_HEX_SEPARATOR, _HEX_PREFIX)}"' if raw else '""'


def _definition(layout: Layout | str) -> Definition:
    if isinstance(layout, Definition):
        return layout
    return layouts.named(layout if isinstance(layout, str) else layout.name)


def _tail(data: bytes, start: int) -> list[Row]:
    tail = data[start:]
    if not tail:
        return []
    text = quote_hex(tail) if any(tail) else f"{len(tail)} zero bytes"
    return [Row(start, len(tail), "(tail)", tail, tail, "tail", text)]


def _value(definition: Definition, member: Member, data: bytes) -> int | bytes:
    raw = data[member.offset : member.offset + member.size].ljust(member.size, b"\0")
    if member.role.kind in ("hole", "name", "bytes"):
        return raw
    number: int = definition.struct.subcons[definition.members.index(member)].parse(raw)
    return number


def _text(role: Role, value: int | bytes) -> str:
    """One value as strace prints it."""
    if isinstance(value, bytes):
        return _array_text(role, value)
    match role.kind:
        case "flags":
            assert role.names
            return names.flags(role.names, value)
        case "enum":
            assert role.names
            return names.name(role.names, value)
        case "pointer":
            return f"{value:#x}" if value else "NULL"
        case "hex":
            return _hex(value)
        case "fd":
            # Declared unsigned, meant as int.
            return str(value - (1 << 32) if value >> 31 > 0 else value)
        case "version":
            return f"KERNEL_VERSION({value >> 16}, {value >> 8 & 255}, {value & 255})"
        case _:
            return str(value)


def _array_text(role: Role, value: bytes) -> str:
    if role.kind != "name":
        return quote_hex(value)
    text, _, rest = value.partition(b"\0")
    # What follows the NUL is not part of the name: hide it only if it is nothing.
    return quote(value if any(rest) else text)


def _hex(value: int) -> str:
    return f"{value:#x}" if value else "0"


def _extra(raw: bytes, offset: int) -> str:
    end = f" /* bytes {offset}..{offset + len(raw) - 1} */"
    return f"extra_data={_buffer(raw)}{end}"


def _braces(items: list[tuple[tuple[str, ...], str]]) -> str:
    """Nest `a.b.c` items into `{a={b={c}}}`; consecutive ones share their braces."""
    out = []
    opened: tuple[str, ...] = ()
    lead = "{"
    for parents, text in items:
        if parents == opened:
            out.append(lead + text)
        else:
            common = 0
            while common < min(len(parents), len(opened)) and parents[common] == opened[common]:
                common += 1
            closing = "}" * (len(opened) - common)
            out.append(closing + lead + "".join([f"{name}={{" for name in parents[common:]]) + text)
            opened = parents
        lead = ", "
    return "".join(out) + "}" * (len(opened) + 1) if out else "{}"


def _paths(member: Member) -> tuple[str, ...]:
    return (member.path, *member.also)


def _shown(member: Member, value: int | bytes, pointees: Mapping[str, object], full: bool) -> str:
    """A field, or what it points to."""
    if member.role.kind == "pointer":
        for path in _paths(member):
            if path in pointees:
                pointee = pointees[path]
                return "NULL" if pointee is None else pointee_text(member.role, pointee, full=full)
    return _text(member.role, value)


def pointee_text(role: Role, pointee: object, *, full: bool = False) -> str:
    """What a pointer of this role points to."""
    if isinstance(pointee, Verbatim):
        return pointee.text
    if isinstance(pointee, Nested):
        return inline_struct(pointee.layout, pointee.data, pointee.pointees, after=pointee.after, notes=pointee.notes, full=full)
    if isinstance(pointee, bytearray | memoryview | array):
        pointee = memoryview(pointee).tobytes()
    if isinstance(pointee, str):
        pointee = pointee.encode("utf-8", "backslashreplace")
    if isinstance(pointee, bytes):
        if role.target == "insns":
            return insns(pointee, full=full)
        if role.target in ("u64s", "u32s"):
            return _integers(role, pointee, full)
        if role.target in ("cstr", "log"):
            return _buffer(pointee.partition(b"\0")[0], text=True, full=full)
        return _buffer(pointee, full=full)
    if isinstance(pointee, Sequence):
        items = pointee if full else pointee[:MAX_ITEMS]
        return _array([_item(role, item, full) for item in items], len(pointee))
    if isinstance(pointee, int):
        return _hex(pointee)
    return f"/* {type(pointee).__name__} */"


def _item(role: Role, item: object, full: bool) -> str:
    if isinstance(item, int):
        return str(item) if role.target == "u32s" else _hex(item)
    return pointee_text(_STRING, item, full=full)


_STRING = Role("pointer", target="cstr")


def _integers(role: Role, raw: bytes, full: bool) -> str:
    size = 4 if role.target == "u32s" else 8
    usable = len(raw) - len(raw) % size
    shown = usable if full else min(usable, MAX_ITEMS * size)
    items = [_item(role, n, full) for n in memoryview(raw[:shown]).cast("I" if size == 4 else "Q")]
    if usable == len(raw):
        return _array(items, usable // size)
    return _array([*items, _buffer(raw[usable:])] if shown == usable else items, usable // size + 1)


def insns(raw: bytes, names: Mapping[int, str] | None = None, *, full: bool = False) -> str:
    """Instruction slots in strace's field names; the disassembler knows more. ``names``: of immediates, by the slot's offset."""
    shown = len(raw) if full else min(MAX_ITEMS * 8, len(raw))
    return _array([_insn(raw[at : at + 8], (names or {}).get(at, "")) for at in range(0, shown, 8)], len(raw) + 7 >> 3)


def _insn(raw: bytes, name: str) -> str:
    if len(raw) < 8:
        return quote_hex(raw)
    code, registers, off, imm = struct.unpack("=BBhI", raw)
    low, high = registers & 15, registers >> 4
    dst, src = (low, high) if sys.byteorder == "little" else (high, low)
    return f"{{code={code:#04x}, dst_reg={dst}, src_reg={src}, off={off}, imm={name or _hex(imm)}}}"


def _array(items: list[str], count: int) -> str:
    """`count`: how many there are, of which only the first may be shown."""
    if count <= len(items):
        return f"[{', '.join(items)}]"
    return f"[{', '.join(items[:MAX_ITEMS])}, ... /* {count} in all */]"


def _buffer(raw: bytes, *, text: bool = False, full: bool = False) -> str:
    limit = len(raw) if full else MAX_BYTES * 8 if text else MAX_BYTES
    shown = (quote if text else quote_hex)(raw[:limit])
    return shown if len(raw) <= limit else f"{shown}... /* {len(raw)} bytes */"
