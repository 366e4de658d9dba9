"""As much of ELF64 as the runner needs: sections by name, the shared libraries a file asks for.

Format: System V ABI (gABI), chapters 4 and 5. Little endian only, as every machine of the matrix is.
"""

from __future__ import annotations

import struct

from .errors import VMError

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_DYN = struct.Struct("<qQ")

_SHT_NOBITS = 8
_DT_NEEDED = 1


def is_elf(data: bytes) -> bool:
    """Whether *data* begins like an ELF64 little-endian file."""
    return data[:6] == b"\x7fELF\x02\x01"


def sections(data: bytes) -> dict[str, bytes]:
    """Every section with content, by name (of several with one name, the last)."""
    if not is_elf(data):
        raise VMError("This is not a 64-bit little-endian ELF file.")
    header = _EHDR.unpack_from(data)
    offset, entry_size, count, names_index = header[6], header[11], header[12], header[13]
    headers = [_SHDR.unpack_from(data, offset + i * entry_size) for i in range(count)]
    if not headers:
        return {}
    names = _content(data, headers[names_index])
    return {_string(names, head[0]): _content(data, head) for head in headers}


def needed(data: bytes) -> list[str]:
    """The DT_NEEDED names of a dynamically linked file, empty for a static one."""
    found = sections(data)
    strings = found.get(".dynstr", b"")
    entries = _DYN.iter_unpack(found.get(".dynamic", b""))
    return [_string(strings, value) for tag, value in entries if tag == _DT_NEEDED]


def _content(data: bytes, header: tuple[int, ...]) -> bytes:
    _name, kind, _flags, _addr, offset, size, *_rest = header
    return b"" if kind == _SHT_NOBITS else data[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
