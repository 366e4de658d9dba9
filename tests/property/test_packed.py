"""construct and the generated formats agree: the same bytes for any values, the same values for any bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rawkm.uapi import annotate, layouts, packed
from rawkm.uapi.constants import Cmd
from rawkm.uapi.fields import Definition
from rawkm.uapi.layout import Layout

# A definition is a Layout, too: of those that are not in packed.py it packs itself.
PACKED: dict[str, Layout] = {definition.name: definition for definition in layouts.DEFINITIONS}
PACKED.update((layout.name, layout) for layout in vars(packed).values() if isinstance(layout, Layout))
RANGES = {
    "I": (0, 2**32 - 1),
    "Q": (0, 2**64 - 1),
    "H": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "q": (-(2**63), 2**63 - 1),
}

definitions = st.sampled_from(layouts.DEFINITIONS)


@st.composite
def filled(draw: Any) -> tuple[Definition, dict[str, int | bytes]]:
    """A definition and values for some of its fields, some of them by another name."""
    definition: Definition = draw(definitions)
    values: dict[str, int | bytes] = {}
    for member in definition.members:
        if member.role.kind == "hole" or draw(st.booleans()):
            continue
        path = draw(st.sampled_from((member.path, *member.also)))
        if member.role.kind in ("name", "bytes"):
            values[path] = draw(st.binary(max_size=member.size))
        else:
            code = next(c for p, c in zip(definition.fields, codes(definition.format), strict=True) if p == member.path)
            values[path] = draw(st.integers(*RANGES[code]))
    return definition, values


def codes(format: str) -> list[str]:
    """One letter per field; written differently from the code under test."""
    out = []
    digits = ""
    for char in format[1:]:
        if char.isdigit():
            digits += char
        elif char == "x":
            digits = ""
        else:
            out += [char] if char == "s" else [char] * int(digits or 1)
            digits = ""
    return out


@given(filled())
def test_building_is_packing(case: tuple[Definition, dict[str, int | bytes]]) -> None:
    definition, values = case
    built = definition.build(values)
    assert built == PACKED[definition.name].pack(values)
    assert len(built) == definition.size


@given(definitions, st.binary(max_size=1200))
def test_parsing_is_unpacking(definition: Definition, data: bytes) -> None:
    assert definition.parse(data) == PACKED[definition.name].unpack(data)


@given(definitions, st.data())
def test_construct_keeps_every_byte(definition: Definition, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=definition.size, max_size=definition.size))
    assert definition.struct.build(definition.struct.parse(raw)) == raw


@given(definitions, st.data())
def test_packing_undoes_unpacking(definition: Definition, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=definition.size, max_size=definition.size))
    layout = PACKED[definition.name]
    again = layout.pack(layout.unpack(raw))
    for member in definition.members:
        place = slice(member.offset, member.offset + member.size)
        assert again[place] == (bytes(member.size) if member.role.kind == "hole" else raw[place]), member.path


@given(
    st.integers(0, 40) | st.sampled_from([Cmd.LINK_CREATE, 4711, 1 << 16]),
    st.binary(max_size=200),
    st.integers(0, 4096),
)
def test_annotations_cover_every_byte_once(cmd: int, data: bytes, size: int) -> None:
    for raw in (data, data.ljust(size, b"\0")):
        rows = annotate.annotate(cmd, raw)
        at = 0
        for row in rows:
            assert row.offset == at
            assert row.size == len(row.raw) > 0
            at += row.size
            assert row.text.isprintable()
        assert at == len(raw)
        assert b"".join(row.raw for row in rows) == raw
        assert annotate.inline(cmd, raw).isprintable()


@given(definitions, st.data())
def test_offsets_are_where_the_bytes_go(definition: Definition, data: st.DataObject) -> None:
    layout = PACKED[definition.name]
    path = data.draw(st.sampled_from([*layout.fields, *(alias for alias, _ in layout.aliases)]))
    offset, size = layout.offset(path)
    full = definition.build({path: _ones(definition, path, size)})
    assert full == bytes(offset) + b"\xff" * size + bytes(layout.size - offset - size)


def _ones(definition: Definition, path: str, size: int) -> int | bytes:
    """The value whose bytes are all 0xff in this field."""
    canonical = dict(definition.aliases).get(path, path)
    code = codes(definition.format)[definition.fields.index(canonical)]
    if code == "s":
        return b"\xff" * size
    return -1 if code.islower() else RANGES[code][1]
