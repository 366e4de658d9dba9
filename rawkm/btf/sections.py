"""The container: header, type section, string section, and the places of all types."""

from __future__ import annotations

import struct

from rawkm.btf.kinds import FUNC, KIND_MASK, KIND_SHIFT, TRAILING, VLEN_MASK
from rawkm.errors import BTFError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_LAYOUT_IN_HEADER = struct.Struct("=II")  # layout_off, layout_len: in headers of 32 bytes (7.1)
_LAYOUT = struct.Struct("=BBH")  # info_sz, elem_sz, flags: one per kind


class Sections:
    """Where the sections of one BTF object are, checked to lie inside its bytes.

    ``types`` and ``strings`` are (start, end) in ``data``; ``words`` is the type section as 32-bit words;
    ``trailing`` the kinds that can be stepped over, those of the object's own layout section included.
    """

    __slots__ = ("data", "strings", "trailing", "types", "words")

    def __init__(self, data: bytes, *, split: bool) -> None:
        if len(data) < _HEADER.size:
            raise BTFError(f"BTF data of {len(data)} bytes is shorter than its header")
        magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            other = " (the other byte order)" if magic == 0x9FEB else ""
            raise BTFError(f"not BTF data: it begins with {magic:#06x}, not 0xeb9f{other}")
        if version != 1:
            raise BTFError(f"BTF version {version} is not known, only version 1")
        if not _HEADER.size <= header <= len(data):
            raise BTFError(f"a BTF header of {header} bytes in {len(data)} bytes of data")
        if type_size % 4:
            raise BTFError(f"a BTF type section of {type_size} bytes, no multiple of 4")
        self.data = data
        self.types = _place(data, header + type_at, type_size, "type")
        self.strings = _place(data, header + string_at, string_size, "string")
        self.words = memoryview(data)[slice(*self.types)].cast("I")
        first, last = (data[at : at + 1] for at in (self.strings[0], self.strings[1] - 1))
        # The strings of a split BTF go on where its base's end, so only the base's begin with the empty name.
        if not (split and not string_size) and (last != b"\0" or (not split and first != b"\0")):
            raise BTFError("the BTF string section does not begin and end with a NUL")
        self.trailing = dict(TRAILING)
        if header >= _HEADER.size + _LAYOUT_IN_HEADER.size:
            at, size = _LAYOUT_IN_HEADER.unpack_from(data, _HEADER.size)
            self._read_layout(*_place(data, header + at, size, "layout"))

    def _read_layout(self, start: int, end: int) -> None:
        """Kinds newer than this parser: how long they are is all that is needed to step over them."""
        entries = self.data[start : end - (end - start) % _LAYOUT.size]
        for kind, (info, element, _) in enumerate(_LAYOUT.iter_unpack(entries)):
            if kind and kind not in self.trailing and info % 4 == 0 and element % 4 == 0:
                self.trailing[kind] = (info // 4, element // 4)

    def index(self) -> tuple[list[int], dict[int, int]]:
        """The place of each type's `info` word in ``words``, by id, and every `info` that occurs.

        The loop that decides how long opening a vmlinux BTF takes: 127 thousand types. An `info` word says
        how long its type is, and there are only some hundred different ones.
        """
        words = self.words
        places: list[int] = []
        lengths: dict[int, int] = {}
        append = places.append
        at, end = 1, len(words) + 1
        while at < end:
            try:
                while True:
                    length = lengths[words[at]]
                    append(at)
                    at += length
            except IndexError:
                break
            except KeyError:
                lengths[words[at]] = self._length(words[at], len(places) + 1)
        if at != end:
            raise BTFError(f"the last BTF type ({len(places)}) ends behind the type section")
        return places, lengths

    def _length(self, info: int, number: int) -> int:
        kind = info >> KIND_SHIFT & KIND_MASK
        if kind not in self.trailing:
            raise BTFError(f"BTF type {number} is of the unknown kind {kind}")
        fixed, each = self.trailing[kind]
        return 3 + fixed + (0 if kind == FUNC else each * (info & VLEN_MASK))


def _place(data: bytes, start: int, size: int, what: str) -> tuple[int, int]:
    end = start + size
    if end > len(data):
        raise BTFError(f"the BTF {what} section ({start} to {end}) ends behind the data ({len(data)} bytes)")
    return start, end
