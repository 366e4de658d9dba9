"""One declaration of a record gives the stores that a program fills it with and the decoder that reads it back."""

from __future__ import annotations

import struct

from rawkm.asm import store
from rawkm.errors import SchemaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.asm import Insn

# type: (struct format, size)
_SCALARS = {
    "u8": ("B", 1),
    "u16": ("H", 2),
    "u32": ("I", 4),
    "u64": ("Q", 8),
    "i8": ("b", 1),
    "i16": ("h", 2),
    "i32": ("i", 4),
    "i64": ("q", 8),
}


class Schema:
    """A record: fields in order, laid out as C does (each aligned to its size), padded to a multiple of 8 bytes.

    Types: u8 … u64, i8 … i64, and ``char[N]``, which decodes to N bytes.
    ``Schema("Hit", ts="u64", comm="char[16]")``. Raises SchemaError for no fields and for any other type.
    """

    __slots__ = ("_offsets", "fields", "format", "name", "size")

    def __init__(self, name: str, /, **fields: str) -> None:
        if not fields:
            raise SchemaError(f"the record {name} has no fields")
        self.name = name
        self.fields = tuple(fields)
        self._offsets: dict[str, tuple[int, int, str]] = {}
        parts = []
        at = 0
        for field, kind in fields.items():
            code, size, align = _parse(name, field, kind)
            pad = -at % align
            parts.append(f"{pad}x{code}" if pad else code)
            self._offsets[field] = (at + pad, size, code)
            at += pad + size
        self.size = at + 7 & ~7
        self.format = "".join(parts) + (f"{self.size - at}x" if self.size > at else "")

    def __repr__(self) -> str:
        return f"<Schema {self.name}: {', '.join(self.fields)}; {self.size} bytes>"

    def offset(self, field: str) -> int:
        """Bytes from the start of the record."""
        return self._field(field)[0]

    def store(self, base: int, field: str, src: int, *, at: int = 0) -> Insn:
        """The instruction that stores register ``src`` to ``field`` of the record at ``base + at``."""
        offset, size, code = self._field(field)
        if code.endswith("s"):
            raise SchemaError(f"{self.name}.{field} is an array: a helper fills it, no store does")
        return store(base, at + offset, src, size)

    def _field(self, field: str) -> tuple[int, int, str]:
        try:
            return self._offsets[field]
        except KeyError:
            raise SchemaError(f"the record {self.name} has no field {field!r}, only {', '.join(self.fields)}") from None


def _parse(name: str, field: str, kind: str) -> tuple[str, int, int]:
    """(struct format, size, alignment)."""
    if kind in _SCALARS:
        code, size = _SCALARS[kind]
        return code, size, size
    length = kind[5:-1] if kind.startswith("char[") and kind.endswith("]") else ""
    if not (length.isascii() and length.isdigit()) or int(length) == 0:
        raise SchemaError(f"{name}.{field} has the type {kind!r}; the types are {', '.join(_SCALARS)} and char[N]")
    return f"{length}s", int(length), 1


class Batch:
    """Records read in one go: ``len()``, ``rows()``, ``column()``. ``lost``: records that the kernel said it dropped before them.

    ``data`` holds them one after the other, ``stride`` bytes each, of which the first ``skip`` are the buffer's own header.
    """

    __slots__ = ("data", "lost", "schema", "skip", "stride")

    def __init__(self, schema: Schema, data: bytes, *, stride: int, skip: int, lost: int = 0) -> None:
        self.schema = schema
        self.data = data
        self.stride = stride
        self.skip = skip
        self.lost = lost

    def __len__(self) -> int:
        return len(self.data) // self.stride

    def rows(self) -> Iterator[tuple[int | bytes, ...]]:
        """A tuple per record, in the order of the schema's fields, decoded by one pass over all of them."""
        pad = self.stride - self.skip - self.schema.size
        return struct.iter_unpack(f"={self.skip}x{self.schema.format}{pad}x", self.data)

    def column(self, field: str) -> list[int] | list[bytes]:
        """One field of every record, without touching the others."""
        offset, size, code = self.schema._field(field)
        before = self.skip + offset
        if code.endswith("s"):
            each = struct.iter_unpack(f"={before}x{code}{self.stride - before - size}x", self.data)
            return [value for (value,) in each]
        # Records are a multiple of 8 bytes long, so the field recurs every so many words of its own size. Where
        # the first is not a whole number of them from the start (a perf record's payload is at 12), begin later.
        shift = before % size
        end = shift + (len(self.data) - shift) // size * size
        view = memoryview(self.data)[shift:end]
        words: memoryview[int] = view.cast(code)  # type: ignore[call-overload]  # a format of _SCALARS
        return words[before // size :: self.stride // size].tolist()
