"""A schema is the C struct of its fields, whatever they are, and decodes what C code would have written."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rawkm.buffers import Batch, Schema

C_TYPES: dict[str, Any] = {
    "u8": ctypes.c_uint8,
    "u16": ctypes.c_uint16,
    "u32": ctypes.c_uint32,
    "u64": ctypes.c_uint64,
    "i8": ctypes.c_int8,
    "i16": ctypes.c_int16,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
}
KINDS = st.sampled_from(list(C_TYPES)) | st.integers(1, 40).map(lambda n: f"char[{n}]")
NAMES = st.sampled_from("abcdefghijklmnopqrstuvwxyz")
FIELDS = st.lists(st.tuples(NAMES, KINDS), min_size=1, max_size=12, unique_by=lambda pair: pair[0]).map(dict)
#: (the buffer's header, what follows the record) as the ring buffer and the perf buffer have them.
WRAPPINGS = st.sampled_from([(8, 0), (12, 4), (0, 0)])


def c_struct(fields: dict[str, str]) -> Any:
    # c_ubyte arrays, as c_char arrays end at a NUL when read.
    members = [(name, C_TYPES[kind] if kind in C_TYPES else ctypes.c_ubyte * int(kind[5:-1])) for name, kind in fields.items()]
    return type("Record", (ctypes.Structure,), {"_fields_": members})


def values(kind: str) -> st.SearchStrategy[int | bytes]:
    if kind not in C_TYPES:
        length = int(kind[5:-1])
        return st.binary(min_size=length, max_size=length)
    bits = int(kind[1:])
    if kind[0] == "u":
        return st.integers(0, 2**bits - 1)
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@given(FIELDS)
def test_layout_is_cs(fields: dict[str, str]) -> None:
    schema, record = Schema("Record", **fields), c_struct(fields)
    assert [schema.offset(name) for name in fields] == [getattr(record, name).offset for name in fields]
    assert schema.size == -(-ctypes.sizeof(record) // 8) * 8
    assert struct.calcsize("=" + schema.format) == schema.size
    assert schema.fields == tuple(fields)


@given(st.data(), FIELDS, WRAPPINGS, st.integers(0, 5))
def test_rows_and_columns_are_what_c_wrote(
    data: st.DataObject, fields: dict[str, str], wrapping: tuple[int, int], count: int
) -> None:
    schema, record = Schema("Record", **fields), c_struct(fields)
    skip, after = wrapping
    junk = data.draw(st.binary(min_size=64, max_size=64))
    written: list[tuple[int | bytes, ...]] = []
    raw = b""
    for _ in range(count):
        row = tuple(data.draw(values(kind)) for kind in fields.values())
        c = record()
        ctypes.memmove(ctypes.addressof(c), junk, min(len(junk), ctypes.sizeof(c)))
        for name, value in zip(fields, row, strict=True):
            setattr(c, name, type(getattr(c, name))(*value) if isinstance(value, bytes) else value)
        raw += junk[:skip] + bytes(c).ljust(schema.size, b"\xaa") + junk[:after]
        written.append(row)
    batch = Batch(schema, raw, stride=skip + schema.size + after, skip=skip)
    assert len(batch) == count
    assert list(batch.rows()) == written
    for index, name in enumerate(fields):
        assert batch.column(name) == [row[index] for row in written], name
