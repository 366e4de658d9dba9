"""Whatever bytes come, BTF answers or says BTFError; what was built is read back."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from rawkm.btf import ENUM, FUNC, STRUCT, UNION, Btf, Composite, kinds
from rawkm.btf.build import Builder
from rawkm.errors import BTFError

identifiers = st.text("abcdefgh_", min_size=1, max_size=6)
words = st.integers(0, 2**32 - 1)


def interrogate(data: bytes, base: Btf | None = None) -> None:
    """Ask everything; only BTFError may come out."""
    try:
        btf = Btf(data, base)
    except BTFError:
        return
    ids = range(btf.last_id + 2)
    questions: list[Callable[[], object]] = [
        *(lambda id=id: btf.type(id) for id in ids),
        *(lambda id=id: repr(btf.type(id)) for id in ids),
        *(lambda id=id: btf.resolve(id) for id in ids),
        *(lambda id=id: btf.sizeof(id) for id in ids),
        *(lambda id=id: btf.flatten(id) for id in ids),
        *(lambda id=id: btf.member_offset(id, "a.b") for id in ids),
        *(lambda id=id: btf.enum_values(id) for id in ids),
        *(lambda id=id: btf.func_args(id) for id in ids),
        lambda: list(btf.functions()),
        lambda: list(btf.of_kind(STRUCT, UNION)),
        lambda: btf.find("a", STRUCT),
        lambda: btf.find("", FUNC),
        lambda: btf.composite("a"),
        lambda: btf.enum_values("a"),
        lambda: btf.func_args("a"),
    ]
    for question in questions:
        try:
            question()
        except BTFError as error:
            assert str(error)


def container(types: bytes, strings: bytes, size: int = 24, extra: bytes = b"") -> bytes:
    types = types[: len(types) // 4 * 4]
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, size, 0, len(types), len(types), len(strings)) + extra + types + strings


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    interrogate(data)
    interrogate(struct.pack("=HB", 0xEB9F, 1) + data)


@given(st.lists(words, min_size=5, max_size=5), st.binary(max_size=100))
def test_any_header(fields: list[int], data: bytes) -> None:
    interrogate(struct.pack("=HBB5I", 0xEB9F, 1, 0, *fields) + data)
    interrogate(struct.pack("=HBB5I", 0xEB9F, 1, 0, 24, *(field % 128 for field in fields[1:])) + data + b"\0")


@st.composite
def hostile_types(draw: st.DrawFn) -> bytes:
    """Types of the right length with references that may lead anywhere, also in circles."""
    out = b""
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(sorted(kinds.TRAILING)))
        fixed, each = kinds.TRAILING[kind]
        vlen = draw(st.integers(0, 3))
        info = draw(st.sampled_from([0, 1 << 31])) | kind << 24 | vlen
        count = fixed + (0 if kind == FUNC else each * vlen)
        rest = draw(st.lists(st.integers(0, 14) | words, min_size=count + 2, max_size=count + 2))
        out += struct.pack(f"={3 + count}I", rest[0], info, rest[1], *rest[2:])
    return out


@given(hostile_types())
def test_any_references(types: bytes) -> None:
    strings = b"\0a\0b\0c\xff\0dd\0"
    interrogate(container(types, strings))
    base = Btf(container(struct.pack("=IIII", 1, 1 << 24, 4, 32), b"\0a\0"))
    interrogate(container(types, b"x\0y\0"), base)


@given(st.data())
def test_any_damage_to_good_data(data: st.DataObject) -> None:
    b = Builder()
    number = b.integer("int", 4)
    inner = b.composite("", 8, [("a", number, 0, 0), ("b", number, 32, 0)])
    b.composite("a", 16, [("", inner, 0, 0), ("c", b.array(number, number, 2), 64, 0)])
    b.func("a", b.proto(number, [("x", number)]))
    b.enum("a", [("A", 1)])
    good = b.build()
    at = data.draw(st.integers(0, len(good) - 1))
    interrogate(good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :])
    interrogate(good[:at])


@settings(max_examples=50)
@given(
    st.dictionaries(identifiers, st.lists(st.tuples(identifiers, st.sampled_from([1, 2, 4, 8])), max_size=8), max_size=6),
    st.lists(identifiers, max_size=8),
    st.dictionaries(identifiers, st.integers(-(2**31), 2**31 - 1), max_size=5),
)
def test_what_was_built_is_read(structs: dict[str, list[tuple[str, int]]], functions: list[str], values: dict[str, int]) -> None:
    b = Builder()
    integers = {size: b.integer(f"u{size * 8}", size) for size in (1, 2, 4, 8)}
    expected: dict[str, dict[str, tuple[int, int]]] = {}
    for name, members in structs.items():
        at, placed = 0, []
        flat: dict[str, tuple[int, int]] = {}
        for member, size in members:
            at += -at % size
            placed.append((member, integers[size], at * 8, 0))
            flat.setdefault(member, (at, size))
            at += size
        b.composite(name, at, placed)
        expected[name] = flat
    proto = b.proto(0, [])
    for function in functions:
        b.func(function, proto)
    b.enum("numbers", [(name, value & 0xFFFFFFFF) for name, value in values.items()], signed=True)
    btf = Btf(b.build())
    for name, flat in expected.items():
        found = btf.resolve(btf.find(name, STRUCT))
        assert isinstance(found, Composite)
        assert btf.flatten(name) == flat
        for member, (offset, _) in flat.items():
            assert btf.member_offset(name, member) == offset
    assert list(btf.functions()) == [function.encode() for function in functions]
    for function in functions:
        assert len(btf.find_all(function, FUNC)) == functions.count(function)
    assert btf.enum_values("numbers") == values
    assert btf.find("numbers", ENUM)
