"""Decoded BTF types: plain values, made on demand."""

from __future__ import annotations

from rawkm.btf.kinds import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Type:
    """What every type has: its id, kind and name ("" if it has none)."""

    __slots__ = ("id", "kind", "name")

    def __init__(self, id: int, kind: int, name: str) -> None:
        self.id = id
        self.kind = kind
        self.name = name

    def __repr__(self) -> str:
        kind = NAMES[self.kind] if self.kind < len(NAMES) else f"kind {self.kind}"
        return f"<{kind} {self.name or '(anonymous)'}, id {self.id}>"


class Int(Type):
    """INT: ``size`` in bytes, ``bits`` in use, ``signed``."""

    __slots__ = ("bits", "signed", "size")

    def __init__(self, id: int, kind: int, name: str, size: int, encoding: int) -> None:
        super().__init__(id, kind, name)
        self.size = size
        self.bits = encoding & 0xFF
        self.signed = bool(encoding >> 24 & 1)


class Float(Type):
    """FLOAT."""

    __slots__ = ("size",)

    def __init__(self, id: int, kind: int, name: str, size: int) -> None:
        super().__init__(id, kind, name)
        self.size = size


class Ref(Type):
    """A type about another: PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG, FUNC, VAR, DECL_TAG.

    ``extra``: the linkage of FUNC and VAR; the member or argument index of a DECL_TAG, 0xFFFFFFFF for the
    whole.
    """

    __slots__ = ("extra", "type")

    def __init__(self, id: int, kind: int, name: str, type: int, extra: int = 0) -> None:
        super().__init__(id, kind, name)
        self.type = type
        self.extra = extra


class Fwd(Type):
    """FWD: a struct or union whose body is elsewhere."""

    __slots__ = ("is_union",)

    def __init__(self, id: int, kind: int, name: str, is_union: bool) -> None:
        super().__init__(id, kind, name)
        self.is_union = is_union


class Array(Type):
    """ARRAY of ``count`` times ``type``."""

    __slots__ = ("count", "index_type", "type")

    def __init__(self, id: int, kind: int, name: str, type: int, index_type: int, count: int) -> None:
        super().__init__(id, kind, name)
        self.type = type
        self.index_type = index_type
        self.count = count


class Member:
    """One member of a struct or union; ``bits`` is 0 unless it is a bit-field."""

    __slots__ = ("bit_offset", "bits", "name", "type")

    def __init__(self, name: str, type: int, bit_offset: int, bits: int) -> None:
        self.name = name
        self.type = type
        self.bit_offset = bit_offset
        self.bits = bits

    def __repr__(self) -> str:
        width = f":{self.bits}" if self.bits else ""
        return f"<member {self.name or '(anonymous)'}{width} at bit {self.bit_offset}, type {self.type}>"


class Composite(Type):
    """STRUCT or UNION."""

    __slots__ = ("members", "size")

    def __init__(self, id: int, kind: int, name: str, size: int, members: Sequence[Member]) -> None:
        super().__init__(id, kind, name)
        self.size = size
        self.members = tuple(members)


class Enum(Type):
    """ENUM or ENUM64: ``values`` are (name, value)."""

    __slots__ = ("signed", "size", "values")

    def __init__(self, id: int, kind: int, name: str, size: int, signed: bool, values: Sequence[tuple[str, int]]) -> None:
        super().__init__(id, kind, name)
        self.size = size
        self.signed = signed
        self.values = tuple(values)


class Proto(Type):
    """FUNC_PROTO: ``type`` is what it returns (0: void), ``params``: (name, type id), ("", 0) for varargs."""

    __slots__ = ("params", "type")

    def __init__(self, id: int, kind: int, name: str, type: int, params: Sequence[tuple[str, int]]) -> None:
        super().__init__(id, kind, name)
        self.type = type
        self.params = tuple(params)


class Section(Type):
    """DATASEC: ``variables`` are (type id, offset, size)."""

    __slots__ = ("size", "variables")

    def __init__(self, id: int, kind: int, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> None:
        super().__init__(id, kind, name)
        self.size = size
        self.variables = tuple(variables)
