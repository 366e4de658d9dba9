"""The elements of a map, and bytes of unknown meaning, as text and as JSON."""

from __future__ import annotations

import sys

from rawkm.cli.output import count_of, json_line, plain
from rawkm.errors import SyscallError
from rawkm.host import cpus
from rawkm.uapi.constants import MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rawkm.maps import Map

_PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
PRINTED = (*_PER_CPU, *_ARRAYS, MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE)
# Sizes that are shown as numbers.
_NUMBERS = (1, 2, 4, 8)
# More bytes than this stand on lines of their own.
_INLINE = 24


class Element:
    """``values``: one, or that of each possible CPU."""

    __slots__ = ("key", "values")

    def __init__(self, key: bytes, values: list[bytes]) -> None:
        self.key = key
        self.values = values

    @property
    def total(self) -> int:
        return sum(int.from_bytes(value, sys.byteorder) for value in self.values)


def elements(m: Map) -> list[Element]:
    """All there are, the largest numbers first; of an array those that are not zero, in order. Raises SyscallError."""
    found = []
    size, slot = m.spec.value, m.spec.value + 7 & ~7
    per_cpu = m.spec.type in _PER_CPU
    for key, value in m.items():
        if m.spec.type in _ARRAYS and not any(value):
            continue
        values = [value[at : at + size] for at in range(0, len(value), slot)] if per_cpu else [value[:size]]
        found.append(Element(key, values))
    found.sort(key=lambda element: int.from_bytes(element.key, sys.byteorder))
    if size in _NUMBERS and m.spec.type not in _ARRAYS:
        found.sort(key=lambda element: -element.total)
    return found


def as_text(m: Map, names: Mapping[int, str]) -> Iterator[str]:
    """The map as a table. ``names``: of functions, by the addresses that 8-byte keys may be."""
    try:
        found = elements(m)
    except SyscallError as err:
        yield f"{m.name}: {err}"
        return
    yield f"{m.name}: {count_of(len(found), 'element')} of {m.spec.max_entries:,}{_zeros(m)}"
    numbers = m.spec.value in _NUMBERS
    for element in found:
        key = _key(element.key, names)
        if not numbers:
            yield from _bytes_of(m, element, key)
        elif m.spec.type in _PER_CPU:
            each = [int.from_bytes(value, sys.byteorder) for value in element.values]
            parts = " ".join(f"{cpu}:{value}" for cpu, value in zip(cpus.possible(m.kernel), each, strict=True) if value)
            yield f"  {key}  {sum(each)}  ({parts})" if parts else f"  {key}  0"
        else:
            yield f"  {key}  {element.total}"


def as_json(m: Map, names: Mapping[int, str]) -> Iterator[str]:
    """A line per element: keys and values as hexadecimal digits in the order of memory. Raises SyscallError."""
    for element in elements(m):
        values = [value.hex() for value in element.values]
        yield json_line(
            {
                "type": "element",
                "map": m.name,
                "key": element.key.hex(),
                "function": names.get(int.from_bytes(element.key, sys.byteorder)) if len(element.key) == 8 else None,
                "value": values if m.spec.type in _PER_CPU else values[0],
            }
        )


def hexdump(data: bytes) -> list[str]:
    """Rows of 16 bytes, as ``hexdump -C`` prints them."""
    rows = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        pairs = f"{row[:8].hex(' '):23}  {row[8:].hex(' '):23}"
        rows.append(f"{at:08x}  {pairs}  |{''.join(chr(c) if 32 <= c < 127 else '.' for c in row)}|")
    return rows


def _zeros(m: Map) -> str:
    return ", the others are 0" if m.spec.type in _ARRAYS and m.spec.max_entries > 1 else ""


def _key(key: bytes, names: Mapping[int, str]) -> str:
    if len(key) not in _NUMBERS:
        return key.hex(" ")
    number = int.from_bytes(key, sys.byteorder)
    if len(key) == 8 and number in names:
        return f"{number:016x} {plain(names[number])}"
    # Kernel addresses read better in hex.
    return str(number) if number < 1 << 48 else f"{number:016x}"


def _bytes_of(m: Map, element: Element, key: str) -> Iterator[str]:
    for cpu, value in zip(cpus.possible(m.kernel) if m.spec.type in _PER_CPU else [-1], element.values, strict=True):
        if cpu >= 0 and not any(value):
            continue
        where = f"  {key}" if cpu < 0 else f"  {key}  cpu {cpu}"
        if len(value) <= _INLINE:
            yield f"{where}  {value.hex(' ')}"
        else:
            yield where
            yield from (f"    {row}" for row in hexdump(value))
