"""The text of one instruction as its shape, the text without its operands, and their values.

Every form of the table is rendered once with sample operands; the shape of that leads from then on to the
form. So what a form prints is what is read, without a grammar of its own.
"""

from __future__ import annotations

import re

from rawkm.asm import opcodes
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from rawkm.asm.opcodes import Form

    Fields: TypeAlias = tuple[int, int, int, int, int]

# A register, or a number with the sign that may stand before it, at some distance.
_OPERAND = re.compile(r"(\b[rRwW](?:1[01]|[0-9])\b|(?:[-+]\s*)?\b(?:0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)\b)", re.ASCII)
_split: Callable[[str], list[str]] = _OPERAND.split
# White space that separates no two words.
_SPACE = re.compile(r"(?<!\w)\s+|\s+(?!\w)")

# What stands for an operand in a shape; none of them is in a text that means something.
_REGISTER, _HALF, _NUMBER, _SIGNED = "\1", "\2", "\3", "\4"
_KINDS = {"r": _REGISTER, "R": _REGISTER, "w": _HALF, "W": _HALF, "+": _SIGNED, "-": _SIGNED}
_PLACEHOLDER = re.compile(r"\{(\w+)\}|\b0x[0-9a-f]+|\b[rw]0\b|\b[rw]\{(\w+)\}")


class _Operands(dict[str, "tuple[str, int]"]):
    """(kind, value) of each operand met."""

    def __missing__(self, text: str) -> tuple[str, int]:
        kind = _KINDS.get(text[0], _NUMBER)
        if kind in (_REGISTER, _HALF):
            found = kind, int(text[1:])
        else:
            found = kind, integer(text)
        if len(self) < 1 << 16:
            self[text] = found
        return found


class _Between(dict[str, str]):
    """What stands between operands, without the white space that means nothing."""

    def __missing__(self, text: str) -> str:
        found = _SPACE.sub("", text)
        if len(self) < 1 << 12:
            self[text] = found
        return found


_operands = _Operands()
_between = _Between()


def integer(text: str) -> int:
    """A number as LLVM reads it: 0x, 0b, 0 for octal; white space after the sign."""
    digits = "".join(text.split()) if " " in text or "\t" in text else text
    try:
        return int(digits, 0)
    except ValueError:
        pass
    try:
        return int(digits, 8)
    except ValueError:
        raise AssembleError(f"{text!r} is no number") from None


def shape(text: str) -> tuple[str, list[int]]:
    """The shape of a text, and the values of its operands."""
    pieces = _split(text)
    key = _between[pieces[0]]
    values: list[int] = []
    for at in range(1, len(pieces), 2):
        kind, value = _operands[pieces[at]]
        values.append(value)
        key += kind + _between[pieces[at + 1]]
    return key, values


class Candidate:
    """How the operands of a shape become the fields of an instruction of one form."""

    __slots__ = ("_base", "_count", "_dst", "_imm", "_more", "_off", "_range", "_src", "opcode")

    def __init__(self, form: Form, roles: list[str | int]) -> None:
        self.opcode = form.opcode
        self._base = (form.dst or 0, form.src or 0, form.off or 0, form.imm or 0)
        self._count = len(roles)
        jump = opcodes.target_field(form.opcode, form.src or 0)
        names = {"jump": "off" if jump == "off" else "distance", "index": "off", "sum": "imm"}
        # Where each field is among the operands, -1 for nowhere; what is more than that.
        at: dict[str, int] = {}
        self._more: list[tuple[int, str | int]] = []
        for index, role in enumerate(roles):
            field = role if isinstance(role, int) else names.get(role, role)
            if field in ("dst", "src", "off", "imm") and field not in at:
                at[str(field)] = index
            else:
                self._more.append((index, field))
        self._dst, self._src = at.get("dst", -1), at.get("src", -1)
        self._off, self._imm = at.get("off", -1), at.get("imm", -1)
        wide = form.opcode == opcodes.LD_IMM64
        self._range = opcodes.ANY64 if wide else opcodes.ANY32

    def fields(self, values: list[int]) -> Fields | None:
        """The fields, None where fixed operands are others. Raises AssembleError for what is out of range."""
        if len(values) != self._count:
            return None
        dst, src, off, imm = self._base
        if self._dst >= 0:
            dst = values[self._dst]
        if self._src >= 0:
            src = values[self._src]
        if self._off >= 0:
            off = values[self._off]
            if not -0x8000 <= off <= 0x7FFF:
                raise AssembleError(f"offset {off} is outside -32768..32767")
        if self._imm >= 0:
            imm = values[self._imm]
            if not -0x80000000 <= imm <= 0x7FFFFFFF:
                low, high = self._range
                if not low <= imm <= high:
                    raise AssembleError(f"immediate {imm} is outside {low}..{high}")
                if imm > high >> 1:
                    imm -= high + 1
        for at, role in self._more:
            value = values[at]
            if isinstance(role, int):
                if value != role:
                    return None
            elif role in ("dst", "src"):
                # Some name a register twice.
                if value != (dst if role == "dst" else src):
                    raise AssembleError(f"registers {dst if role == 'dst' else src} and {value} must be the same")
            elif role == "distance":
                imm = _within("distance", value, opcodes.S32)
            else:
                half = _within("half of the constant", value, opcodes.ANY32) & 0xFFFFFFFF
                imm |= half if role == "lo" else half << 32
                imm = imm - (1 << 64) if imm >> 63 == 1 else imm
        if (dst > 10 or src > 10) and not opcodes.stack_argument(self.opcode, dst, src, off):
            text = "r11 is only for arguments on the stack: *(u64 *)(r11 - 8) = r1, r1 = *(u64 *)(r11 + 8)"
            raise AssembleError(text)
        return self.opcode, dst, src, off, imm


def _within(what: str, value: int, limits: tuple[int, int]) -> int:
    if not limits[0] <= value <= limits[1]:
        raise AssembleError(f"{what} {value} is outside {limits[0]}..{limits[1]}")
    return value


_table: dict[str, tuple[Candidate, ...]] = {}
# Where the verifier's opcode in parentheses says what else would be read otherwise.
_by_opcode: dict[tuple[int, str], tuple[Candidate, ...]] = {}


def read(text: str, opcode: int | None = None) -> Fields | None:
    """The fields of an instruction from its text without names, None where it is no instruction.

    ``opcode``: that of the verifier's ``(xx)`` before it.
    """
    if not _table:
        _fill()
    key, values = shape(text)
    found = _table.get(key, ())
    if opcode is not None:
        found = tuple(one for one in found if one.opcode == opcode) or _by_opcode.get((opcode, key), ())
    for candidate in found:
        fields = candidate.fields(values)
        if fields is not None:
            return fields
    return None


def _fill() -> None:
    for form in opcodes.forms():
        for text in (form.text, *_others(form)):
            for key, roles in _samples(text):
                _table[key] = (*_table.get(key, ()), Candidate(form, roles))
        if form.opcode == opcodes.LD_IMM64 and form.src == opcodes.VALUE:
            # The verifier leaves out the ll.
            for key, roles in _samples(form.text.removesuffix(" ll")):
                _by_opcode[form.opcode, key] = (Candidate(form, roles),)


def _samples(text: str) -> Iterator[tuple[str, list[str | int]]]:
    """The shapes of a form's text, and the role or the only value of each operand."""
    roles: list[str | int] = []
    for found in _PLACEHOLDER.finditer(text):
        name = found[1] or found[2]
        if name is None:
            roles.append(int(found[0], 16) if found[0][1] == "x" else 0)
        else:
            roles.append(name)
    signs = {"{off}": ["+1"], "{sum}": ["+1"]}
    if "pc{jump}" in text:
        signs["{jump}"] = ["+1"]
    shown = [text.replace("{dst}", "1").replace("{src}", "2")]
    for place in ("{imm}", "{jump}", "{off}", "{sum}", "{lo}", "{hi}", "{index}"):
        if place in text:
            shown = [one.replace(place, sample) for one in shown for sample in signs.get(place, ["1", "-1"])]
    for one in dict.fromkeys(shown):
        key, values = shape(one)
        assert len(values) == len(roles), (text, one)
        yield key, roles


def _others(form: Form) -> Iterator[str]:
    """What else is read as this form: the verifier's spelling, and LLVM's for old processors."""
    text = form.text
    if "{jump}" in text and "pc{jump}" not in text:
        yield text.replace("{jump}", "pc{jump}")
    cls, mode = form.opcode & 7, form.opcode & 0xE0
    if cls not in (opcodes.LDX, opcodes.STX):
        return
    plain = text.replace("w{", "r{").replace("w0", "r0")
    if plain != text:
        yield plain
    if mode != opcodes.ATOMIC or (form.imm or 0) & ~opcodes.FETCH in (
        opcodes.LOAD_ACQUIRE,
        opcodes.STORE_RELEASE,
    ):
        return
    bits = "64" if plain == text else ""
    size = "u64" if bits else "u32"
    if form.imm == opcodes.XCHG:
        yield f"r{{src}} = atomic{bits}_xchg(({size} *)(r{{dst}} {{off}}), r{{src}})"
    elif form.imm == opcodes.CMPXCHG:
        yield f"r0 = atomic{bits}_cmpxchg(({size} *)(r{{dst}} {{off}}), r0, r{{src}})"
    elif "_fetch_" in plain and bits:
        yield plain.replace("atomic_fetch_", "atomic64_fetch_")
