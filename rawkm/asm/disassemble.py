"""Bytes to instructions."""

from __future__ import annotations

import sys

from rawkm.asm import opcodes
from rawkm.asm.assemble import SLOTS
from rawkm.asm.insn import decoded
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
    dst_shift, src_shift = (0, 4) if byteorder == "little" else (4, 0)
    slots = list(SLOTS[byteorder].iter_unpack(raw))
    program: list[Insn] = []
    index = 0
    while index < len(slots):
        opcode, registers, off, imm = slots[index]
        dst, src = registers >> dst_shift & 15, registers >> src_shift & 15
        size = 1
        if opcode == opcodes.LD_IMM64:
            # Its second slot has nothing but the upper half of imm.
            size = 2 if index + 1 < len(slots) and slots[index + 1][:3] == (0, 0, 0) else 0
            if size:
                imm = slots[index + 1][3] << 32 | imm & 0xFFFFFFFF
        if size and opcodes.find_form(opcode, dst, src, off, imm):
            program.append(decoded(opcode, dst, src, off, imm, False))
            index += size
            continue
        imm = slots[index][3]
        if strict:
            fields = f"opcode {opcode:#04x}, dst {dst}, src {src}, off {off}, imm {imm}"
            raise DisassembleError(f"slot {index} is no instruction: {fields}")
        program.append(decoded(opcode, dst, src, off, imm, True))
        index += 1
    return program
