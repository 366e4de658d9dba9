"""BTF, the kernel's description of its own types: a parser and the questions that a tracer has.

Pure: bytes in, answers out. The format is documented in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

from rawkm.btf.btf import Btf, Place
from rawkm.btf.kinds import ENUM, ENUM64, FUNC, FUNC_PROTO, INT, STRUCT, TYPEDEF, UNION, VAR
from rawkm.btf.types import Array, Composite, Enum, Float, Fwd, Int, Member, Proto, Ref, Section, Type

__all__ = [
    "ENUM",
    "ENUM64",
    "FUNC",
    "FUNC_PROTO",
    "INT",
    "STRUCT",
    "TYPEDEF",
    "UNION",
    "VAR",
    "Array",
    "Btf",
    "Composite",
    "Enum",
    "Float",
    "Fwd",
    "Int",
    "Member",
    "Place",
    "Proto",
    "Ref",
    "Section",
    "Type",
]
