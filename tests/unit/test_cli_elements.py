"""Maps and records as text and JSON."""

from __future__ import annotations

import json
import struct
import sys

import pytest

from rawkm.cli import elements
from rawkm.maps import Map, MapSpec
from rawkm.uapi.constants import MapType


class Fixed(Map):
    """A map whose elements are given."""

    __slots__ = ("_items",)

    def __init__(self, type: int, items: list[tuple[bytes, bytes]], *, key: int, value: int, entries: int = 8) -> None:
        super().__init__(Cpus(), -1, MapSpec("m", type, key=key, value=value, max_entries=entries))  # type: ignore[arg-type]
        self._items = items

    def items(self):  # type: ignore[no-untyped-def]
        return iter(self._items)


class Cpus:
    def read_file(self, path: str) -> bytes:
        assert path == "/sys/devices/system/cpu/possible"
        return b"0-2\n"


def u64(*values: int) -> bytes:
    return struct.pack(f"={len(values)}Q", *values)


def test_numbers_by_size_and_functions_by_name() -> None:
    m = Fixed(MapType.HASH, [(u64(7), u64(1)), (u64(0xFFFFFFFF81000010), u64(5)), (u64(1 << 63), u64(5))], key=8, value=8)
    assert list(elements.as_text(m, {0xFFFFFFFF81000010: "tcp\x1b_v4"})) == [
        "m: 3 elements of 8",
        "  8000000000000000  5",
        "  ffffffff81000010 tcp\\x1b_v4  5",
        "  7  1",
    ]
    rows = [json.loads(line) for line in elements.as_json(m, {7: "seven"})]
    assert rows[-1] == {"type": "element", "map": "m", "key": u64(7).hex(), "function": "seven", "value": u64(1).hex()}


def test_arrays_without_what_is_zero() -> None:
    items = [(struct.pack("=I", i), struct.pack("=I", i % 2 * i)) for i in range(4)]
    m = Fixed(MapType.ARRAY, items, key=4, value=4, entries=4)
    assert list(elements.as_text(m, {})) == ["m: 2 elements of 4, the others are 0", "  1  1", "  3  3"]


def test_per_cpu_values() -> None:
    m = Fixed(MapType.PERCPU_HASH, [(b"k", u64(1, 0, 3)), (b"l", u64(0, 0, 0))], key=1, value=4)
    assert list(elements.as_text(m, {})) == ["m: 2 elements of 8", f"  {ord('k')}  4  (0:1 2:3)", f"  {ord('l')}  0"]
    rows = [json.loads(line) for line in elements.as_json(m, {})]
    assert rows[0]["value"] == ["01000000", "00000000", "03000000"] or sys.byteorder == "big"


def test_bytes() -> None:
    m = Fixed(MapType.HASH, [(b"abc", bytes(range(5)))], key=3, value=5)
    assert list(elements.as_text(m, {}))[1:] == ["  61 62 63  00 01 02 03 04"]
    long = Fixed(MapType.PERCPU_HASH, [(b"abc", b"\x01".ljust(32) + bytes(32) + b"\x02".ljust(32))], key=3, value=30)
    lines = list(elements.as_text(long, {}))
    assert lines[1] == "  61 62 63  cpu 0"
    assert lines[4] == "  61 62 63  cpu 2"
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"", []),
        (b"A\n\x7f", ["00000000  41 0a 7f                                          |A..|"]),
        (bytes(17), ["00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
                     "00000010  00                                                |.|"]),
    ],
)  # fmt: skip
def test_hexdump(data: bytes, rows: list[str]) -> None:
    assert elements.hexdump(data) == rows
