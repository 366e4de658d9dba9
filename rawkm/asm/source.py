"""Instructions as the DSL code that makes them."""

from __future__ import annotations

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Reg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm.opcodes import Form


def dsl(insn: Insn, symbol: str = "") -> str:
    """The expression, in terms of the names in ``rawkm.asm``, that makes an equal instruction.

    A map is shown by its name, or as ``symbol``, an expression. What the DSL would refuse is shown as a plain ``Insn(…)``.
    """
    form = None if insn.raw else opcodes.find_form(insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
    if form is None or not _accepted(insn, form):
        return _plain(insn, symbol)
    field = opcodes.target_field(insn.opcode, insn.src)
    lo = _signed32(insn.imm)
    return form.dsl.format(
        dst=Reg(insn.dst),
        src=Reg(insn.src),
        off=insn.off,
        imm=_constant(insn.imm) if insn.slots == 2 else insn.imm,
        jump=repr(insn.target) if insn.target is not None else insn.off if field == "off" else lo,
        symbol=symbol or (repr(insn.symbol_name) if insn.symbol is not None else lo),
        lo=lo,
        hi=insn.imm >> 32 & 0xFFFFFFFF,
    )


def _accepted(insn: Insn, form: Form) -> bool:
    """Whether the DSL takes the immediate; the encoding alone allows more."""
    if insn.opcode == opcodes.LD_IMM64:
        # fds, ids and indexes are not negative.
        if insn.src in (opcodes.VALUE, opcodes.FUNC):
            return True
        return _signed32(insn.imm) >= 0 and (insn.src != opcodes.BTF_ID or insn.imm >= 0)
    if insn.opcode == opcodes.CALL:
        return insn.src == opcodes.CALL_SUB or insn.imm >= 0
    low, high = opcodes.imm_range(insn.opcode)
    return form.imm is not None or low <= insn.imm <= high


def _constant(value: int) -> str:
    # Kernel addresses read better in hex.
    return str(value) if -0x10000 <= value <= opcodes.S32[1] else hex(value & opcodes.ANY64[1])


def _plain(insn: Insn, symbol: str = "") -> str:
    shown = [f"{insn.opcode:#04x}"]
    shown += [f"{name}={value}" for name in ("dst", "src", "off", "imm") if (value := getattr(insn, name))]
    if insn.target is not None:
        shown.append(f"target={insn.target!r}")
    if insn.symbol is not None:
        shown.append(f"symbol={symbol or repr(insn.symbol_name)}")
    if insn.raw:
        shown.append("raw=True")
    return f"Insn({', '.join(shown)})"


def _signed32(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
