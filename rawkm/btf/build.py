"""Writing BTF: what BTF_LOAD takes, one type after the other."""

from __future__ import annotations

import struct

from rawkm.btf.kinds import (
    ARRAY,
    DATASEC,
    DECL_TAG,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FUNC_PROTO,
    FWD,
    INT,
    KIND_FLAG,
    KIND_SHIFT,
    STRUCT,
    UNION,
    VAR,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.btf.btf import Btf


class Builder:
    """Types in the order of their ids; each method adds one and returns its id.

    With `base`, ids and strings go on where the base's end, as those of a module do.
    """

    def __init__(self, base: Btf | None = None) -> None:
        self._next_id = 1 if base is None else base.last_id + 1
        self._string_base = 0 if base is None else base.string_end
        self._strings = bytearray() if base is not None else bytearray(b"\0")
        self._offsets: dict[str, int] = {"": 0}
        self._types = bytearray()

    def integer(self, name: str, size: int, *, signed: bool = False) -> int:
        return self._type(name, INT, size, words=[signed << 24 | size * 8])

    def floating(self, name: str, size: int) -> int:
        return self._type(name, FLOAT, size)

    def array(self, type: int, index_type: int, count: int) -> int:
        return self._type("", ARRAY, 0, words=[type, index_type, count])

    def ref(self, kind: int, type: int, name: str = "") -> int:
        """PTR, TYPEDEF, VOLATILE, CONST, RESTRICT or TYPE_TAG."""
        return self._type(name, kind, type)

    def fwd(self, name: str, *, union: bool = False) -> int:
        return self._type(name, FWD, 0, flag=union)

    def composite(self, name: str, size: int, members: Sequence[tuple[str, int, int, int]], *, union: bool = False) -> int:
        """STRUCT or UNION; members are (name, type id, bit offset, bits of a bit-field or 0)."""
        flag = any(bits for *_, bits in members)
        words = []
        for member, type, offset, bits in members:
            words += [self._string(member), type, bits << 24 | offset]
        return self._type(name, UNION if union else STRUCT, size, len(members), words=words, flag=flag)

    def enum(
        self,
        name: str,
        values: Sequence[tuple[str, int]],
        *,
        size: int = 4,
        signed: bool = False,
        wide: bool = False,
    ) -> int:
        """ENUM, or with `wide` ENUM64."""
        words = []
        for value, number in values:
            words.append(self._string(value))
            words += [number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF][: 2 if wide else 1]
        return self._type(name, ENUM64 if wide else ENUM, size, len(values), words=words, flag=signed)

    def proto(self, returns: int, params: Sequence[tuple[str, int]]) -> int:
        words = [word for param, type in params for word in (self._string(param), type)]
        return self._type("", FUNC_PROTO, returns, len(params), words=words)

    def func(self, name: str, proto: int, *, linkage: int = 1) -> int:
        return self._type(name, FUNC, proto, linkage)

    def var(self, name: str, type: int, *, linkage: int = 1) -> int:
        return self._type(name, VAR, type, words=[linkage])

    def section(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """DATASEC; variables are (id of a VAR, offset, size)."""
        words = [word for variable in variables for word in variable]
        return self._type(name, DATASEC, size, len(variables), words=words)

    def decl_tag(self, name: str, type: int, component: int = -1) -> int:
        return self._type(name, DECL_TAG, type, words=[component & 0xFFFFFFFF])

    def build(self) -> bytes:
        """The whole object, with the 24-byte header that every kernel reads."""
        header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self._types), len(self._types), len(self._strings))
        return header + bytes(self._types) + bytes(self._strings)

    def _type(
        self,
        name: str,
        kind: int,
        third: int,
        vlen: int = 0,
        *,
        words: Sequence[int] = (),
        flag: bool = False,
    ) -> int:
        info = (KIND_FLAG if flag else 0) | kind << KIND_SHIFT | vlen
        self._types += struct.pack(f"={3 + len(words)}I", self._string(name), info, third, *words)
        self._next_id += 1
        return self._next_id - 1

    def _string(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = self._string_base + len(self._strings)
            self._strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return self._offsets[text]
