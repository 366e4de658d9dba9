"""Instructions with what is known of the names behind their numbers: of an object file, or of a loaded program."""

from __future__ import annotations

import sys

from rawkm.asm import opcodes
from rawkm.asm.assemble import encode
from rawkm.asm.disassemble import decode
from rawkm.asm.insn import Insn, Label, checked
from rawkm.asm.text import format_insn, helper_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.asm.assemble import ByteOrder
    from rawkm.asm.insn import Item


class Code:
    """A run of instructions. ``raw``: its bytes; ``functions``: (slot, name) of those that begin in it.

    ``notes``: a comment at a slot. ``meant``: the instruction that stands for the one at a slot once its names
    have been put in: a map by name, a distance, a helper's number.
    """

    __slots__ = ("byteorder", "functions", "meant", "name", "notes", "raw")

    def __init__(self, name: str, raw: bytes, byteorder: ByteOrder = sys.byteorder) -> None:
        self.name = name
        self.raw = raw
        self.byteorder = byteorder
        self.functions: list[tuple[int, str]] = []
        self.notes: dict[int, str] = {}
        self.meant: dict[int, Insn] = {}

    def __repr__(self) -> str:
        return f"<Code {self.name!r}, {len(self.raw) // 8} slots>"

    def insns(self) -> list[Insn]:
        """As the bytes have them. Raises DisassembleError for half an instruction at the end."""
        return decode(self.raw, byteorder=self.byteorder)

    def items(self) -> list[Item]:
        """As they are meant, with functions as labels; a note where there is nothing better is a comment."""
        begins = self._begins(unique=True)
        items: list[Item] = []
        after = 0
        for slot, insn in self._slots():
            items += [Label(name, loc=("", 0)) for name in begins.get(slot, ())]
            if slot < after:
                continue  # the second half of what is one instruction now
            item = self.meant.get(slot, insn)
            note = self.notes.get(slot)
            if item is insn and note is not None:
                item = checked(insn.opcode, insn.dst, insn.src, insn.off, insn.imm, raw=insn.raw, comment=note)
            items.append(item)
            after = slot + item.slots
        return items

    def listing(self) -> str:
        """As the bytes have them, a line each as ``llvm-objdump -d`` prints it, which ``parse`` takes back.

        The slot, the bytes, the text, the slot that it jumps to, and the note, or else the name of the helper.
        """
        begins, helpers = self._begins(unique=False), helper_names()
        lines: list[str] = []
        for slot, insn in self._slots():
            lines += [f"{8 * slot:016x} <{name}>:" for name in begins.get(slot, ())]
            pairs = encode([insn], byteorder=self.byteorder).hex(" ")
            text = "<unknown>" if insn.raw else format_insn(insn) + _target(insn, slot)
            note = self.notes.get(slot)
            if note is None and (insn.opcode, insn.src, insn.raw) == (opcodes.CALL, opcodes.CALL_HELPER, False):
                note = helpers.get(insn.imm)
            lines.append(f"{slot:8}:\t{pairs}\t{text}{'' if note is None else f'  # {note}'}")
        return "\n".join([*lines, ""])

    def _slots(self) -> Iterator[tuple[int, Insn]]:
        slot = 0
        for insn in self.insns():
            yield slot, insn
            slot += insn.slots

    def _begins(self, *, unique: bool) -> dict[int, list[str]]:
        """The names of the functions that begin at a slot; a label must be ``unique``."""
        begins: dict[int, list[str]] = {}
        taken: set[str] = set()
        for slot, name in self.functions:
            if not unique or name not in taken:
                begins.setdefault(slot, []).append(name)
                taken.add(name)
        return begins


def _target(insn: Insn, slot: int) -> str:
    field = opcodes.target_field(insn.opcode, insn.src)
    if not field:
        return ""
    distance = insn.off if field == "off" else ((insn.imm & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return f" <{slot + 1 + distance}>"
