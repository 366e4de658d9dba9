"""One declaration: offsets, stores and decoding of small records, by hand; errors."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from rawkm.asm import DW, R1, R9, R10, B, H, W, encode, store
from rawkm.buffers import Batch, Schema
from rawkm.errors import SchemaError, UsageError

MIXED = Schema("Mixed", flag="u8", size="u32", name="char[5]", port="u16", when="u64", last="i8")


def test_layout_by_hand() -> None:
    assert {field: MIXED.offset(field) for field in MIXED.fields} == {
        "flag": 0, "size": 4, "name": 8, "port": 14, "when": 16, "last": 24,
    }  # fmt: skip
    assert MIXED.size == 32
    assert MIXED.format == "B3xI5s1xHQb7x"
    assert repr(MIXED) == "<Schema Mixed: flag, size, name, port, when, last; 32 bytes>"


def test_size_is_a_multiple_of_8() -> None:
    assert Schema("One", a="u8").size == 8
    assert Schema("Nine", a="u64", b="u8").size == 16
    assert Schema("Text", a="char[17]").size == 24


def test_store_makes_the_field() -> None:
    assert encode([MIXED.store(R10, "when", R1, at=-32)]) == encode([store(R10, -16, R1, DW)])
    assert encode([MIXED.store(R9, "size", R1)]) == encode([store(R9, 4, R1, W)])
    assert encode([MIXED.store(R9, "port", R1)]) == encode([store(R9, 14, R1, H)])
    assert encode([MIXED.store(R9, "last", R1)]) == encode([store(R9, 24, R1, B)])


def test_any_name_is_a_field_name() -> None:
    assert Schema("Odd", name="u64", self="u32").fields == ("name", "self")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Schema("Empty"), "Empty has no fields"),
        (lambda: Schema("A", b="int"), "A.b has the type 'int'"),
        (lambda: Schema("A", b="u128"), "the types are u8"),
        (lambda: Schema("A", b="char"), "char"),
        (lambda: Schema("A", b="char[0]"), "char"),
        (lambda: Schema("A", b="char[]"), "char"),
        (lambda: Schema("A", b="char[-1]"), "char"),
        (lambda: Schema("A", b="char[²]"), "char"),
        (lambda: Schema("A", b="char[4]]"), "char"),
        (lambda: MIXED.offset("nme"), "Mixed has no field 'nme', only flag, size, name, port, when, last"),
        (lambda: MIXED.store(R9, "other", R1), "no field 'other'"),
        (lambda: MIXED.store(R9, "name", R1), "Mixed.name is an array"),
        (lambda: Batch(MIXED, b"", stride=40, skip=8).column("x"), "no field 'x'"),
    ],
)
def test_errors(make: Callable[[], object], words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        make()
    assert words in str(caught.value)
    assert isinstance(caught.value, UsageError)


def test_batch_by_hand() -> None:
    first = struct.pack("=8x" + MIXED.format, 1, 2, b"abc", 3, 4, -5)
    second = struct.pack("=8x" + MIXED.format, 255, 2**32 - 1, b"\xffzzzz", 65535, 2**64 - 1, -128)
    batch = Batch(MIXED, first + second, stride=40, skip=8, lost=3)
    assert len(batch) == 2
    assert batch.lost == 3
    assert list(batch.rows()) == [
        (1, 2, b"abc\0\0", 3, 4, -5),
        (255, 2**32 - 1, b"\xffzzzz", 65535, 2**64 - 1, -128),
    ]
    assert batch.column("name") == [b"abc\0\0", b"\xffzzzz"]
    assert batch.column("last") == [-5, -128]
    assert batch.column("when") == [4, 2**64 - 1]


def test_an_empty_batch() -> None:
    batch = Batch(MIXED, b"", stride=48, skip=12)
    assert len(batch) == 0
    assert list(batch.rows()) == []
    assert all(batch.column(field) == [] for field in MIXED.fields)
