"""Bytes to instructions."""

from __future__ import annotations

import sys

from rawkm.asm import opcodes
from rawkm.asm.assemble import SLOTS
from rawkm.asm.insn import checked
from rawkm.errors import DisassembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm.assemble import ByteOrder
    from rawkm.asm.insn import Insn


def decode(raw: bytes, *, strict: bool = False, byteorder: ByteOrder = sys.byteorder) -> list[Insn]:
    """The instructions of a program; jumps keep their distances, maps their fds.

    A slot that is no instruction (unknown opcode, reserved bits set, a register that does not exist, half
    an ld_imm64) becomes a raw Insn, so that ``encode(decode(raw)) == raw`` for whatever bytes. With
    ``strict`` such a slot raises DisassembleError. A length that is no multiple of 8 always does.
    """
    if len(raw) % 8:
        raise DisassembleError(f"{len(raw)} bytes are not a whole number of 8-byte instructions")
    raw = bytes(raw)
    unpack = SLOTS[byteorder].unpack_from
    swapped = byteorder == "big"
    program: list[Insn] = []
    append = program.append
    # Equal slots become one and the same Insn: they cannot be changed, and programs repeat themselves.
    seen: dict[bytes, Insn] = {}
    end = len(raw)
    at = 0
    while at < end:
        word = raw[at : at + 8]
        insn = seen.get(word)
        if insn is not None:
            append(insn)
            at += 8
            continue
        opcode, registers, off, imm = unpack(raw, at)
        dst, src = registers & 15, registers >> 4
        if swapped:
            dst, src = src, dst
        if opcode == opcodes.LD_IMM64:
            # Its second slot has nothing but the upper half of imm.
            if at + 8 < end and (second := unpack(raw, at + 8))[:3] == (0, 0, 0):
                both = second[3] << 32 | imm & 0xFFFFFFFF
                if opcodes.find_form(opcode, dst, src, off, both):
                    append(checked(opcode, dst, src, off, both))
                    at += 16
                    continue
            invalid = True
        else:
            invalid = opcodes.find_form(opcode, dst, src, off, imm) is None
        if invalid and strict:
            fields = f"opcode {opcode:#04x}, dst {dst}, src {src}, off {off}, imm {imm}"
            raise DisassembleError(f"slot {at // 8} is no instruction: {fields}")
        insn = checked(opcode, dst, src, off, imm, raw=invalid)
        if opcode != opcodes.LD_IMM64:
            seen[word] = insn
        append(insn)
        at += 8
    return program
