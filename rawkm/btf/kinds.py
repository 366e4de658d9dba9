"""The kinds of BTF types (include/uapi/linux/btf.h) and how many words follow struct btf_type."""

from __future__ import annotations

INT = 1
PTR = 2
ARRAY = 3
STRUCT = 4
UNION = 5
ENUM = 6
FWD = 7
TYPEDEF = 8
VOLATILE = 9
CONST = 10
RESTRICT = 11
FUNC = 12
FUNC_PROTO = 13
VAR = 14
DATASEC = 15
FLOAT = 16  # 5.13
DECL_TAG = 17  # 5.16
TYPE_TAG = 18  # 5.17
ENUM64 = 19  # 6.0

NAMES = (
    "void",
    "int",
    "pointer",
    "array",
    "struct",
    "union",
    "enum",
    "forward declaration",
    "typedef",
    "volatile",
    "const",
    "restrict",
    "function",
    "function prototype",
    "variable",
    "section",
    "float",
    "declaration tag",
    "type tag",
    "64-bit enum",
)

#: Kinds that stand for another type without changing its layout.
MODIFIERS = frozenset((TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG))

#: kind → (words that always follow, words per element).
TRAILING = {
    INT: (1, 0),
    PTR: (0, 0),
    ARRAY: (3, 0),
    STRUCT: (0, 3),
    UNION: (0, 3),
    ENUM: (0, 2),
    FWD: (0, 0),
    TYPEDEF: (0, 0),
    VOLATILE: (0, 0),
    CONST: (0, 0),
    RESTRICT: (0, 0),
    FUNC: (0, 0),  # its vlen is the linkage
    FUNC_PROTO: (0, 2),
    VAR: (1, 0),
    DATASEC: (0, 3),
    FLOAT: (0, 0),
    DECL_TAG: (1, 0),
    TYPE_TAG: (0, 0),
    ENUM64: (0, 3),
}

# btf_type.info. Up to 7.0 vlen had 16 bits and kind 5; the bits that 7.1 gave them were always zero before,
# so the wider masks read both.
VLEN_MASK = 0xFFFFFF
KIND_SHIFT = 24
KIND_MASK = 0x7F
KIND_FLAG = 1 << 31
