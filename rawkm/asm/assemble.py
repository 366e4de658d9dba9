"""Instructions to bytes: labels become distances, maps become fds."""

from __future__ import annotations

import struct
import sys

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label, map_name, number
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal, TypeAlias

    from rawkm.asm.insn import Item as Item
    from rawkm.asm.insn import Symbol

    ByteOrder: TypeAlias = Literal["little", "big"]

SLOTS = {"little": struct.Struct("<BBhi"), "big": struct.Struct(">BBhi")}


def encode(items: Iterable[Item], *, maps: Mapping[str, int] | None = None, byteorder: ByteOrder = sys.byteorder) -> bytes:
    """The bytes of a program as PROG_LOAD wants them, eight per slot.

    ``maps``: the fd of each map that is referred to by name. ``byteorder``: that of the machine that will
    run it; on a big-endian one the registers trade places in their byte too.

    Raises AssembleError, with the line of the culprit, for a label that is unknown, defined twice, out of a
    jump's reach, or jumped to though no instruction follows it, and for a map that is not in ``maps``.
    """
    program = tuple(items)
    slots = _label_slots(program)
    pack = SLOTS[byteorder].pack
    dst_shift, src_shift = (0, 4) if byteorder == "little" else (4, 0)
    out = bytearray()
    for insn in program:
        if not isinstance(insn, Insn):
            continue
        off, imm = insn.off, insn.imm
        if insn.target is not None:
            off, imm = _resolve(insn, len(out) // 8, slots)
        if insn.symbol is not None:
            imm |= _map_fd(insn, maps)
        registers = insn.dst << dst_shift | insn.src << src_shift
        if insn.slots == 1:
            out += pack(insn.opcode, registers, off, imm)
        else:
            lo = ((imm & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
            out += pack(insn.opcode, registers, off, lo)
            out += pack(0, 0, 0, imm >> 32)
    return bytes(out)


def locate(items: Iterable[Item]) -> list[Insn]:
    """The instruction in each slot of the encoded program; the two slots of ld_imm64 hold the same one.

    A verifier's instruction number is an index into this list.
    """
    return [item for item in items if isinstance(item, Insn) for _ in range(item.slots)]


def map_refs(items: Iterable[Item]) -> list[Symbol]:
    """The maps that a program refers to by name, each once, in the order of first use.

    Where a map's name and an object of that name are both used, the object is given. Two different objects
    of one name raise AssembleError.
    """
    found: dict[str, Symbol] = {}
    for item in items:
        if not isinstance(item, Insn) or item.symbol is None:
            continue
        symbol, name = item.symbol, map_name(item.symbol, item.loc)
        known = found.get(name)
        if known is None or isinstance(known, str):
            found[name] = symbol
        elif not isinstance(symbol, str) and symbol != known:
            raise AssembleError(f"two different maps are named {name!r}", src_loc=item.loc)
    return list(found.values())


def _label_slots(program: tuple[Item, ...]) -> dict[str, int]:
    """The slot that each label stands before."""
    labels: dict[str, Label] = {}
    slots: dict[str, int] = {}
    slot = 0
    for index, item in enumerate(program):
        if isinstance(item, Insn):
            slot += item.slots
        elif isinstance(item, Label):
            if item.name in labels:
                text = f"label {item.name!r} is defined twice{_first(labels[item.name])}"
                raise AssembleError(text, src_loc=item.loc)
            labels[item.name] = item
            slots[item.name] = slot
        else:
            raise AssembleError(f"item {index} is neither an instruction nor a label: {item!r}")
    for item in program:
        if isinstance(item, Insn) and item.target is not None and slots.get(item.target) == slot:
            text = f"no instruction follows label {item.target!r}, where {item!r} goes"
            raise AssembleError(text, src_loc=labels[item.target].loc)
    return slots


def _resolve(insn: Insn, slot: int, slots: dict[str, int]) -> tuple[int, int]:
    """(off, imm) of an instruction with a label. Distances count from the slot after its first."""
    target = slots.get(insn.target or "")
    if target is None:
        raise AssembleError(f"no label {insn.target!r} in this program", src_loc=insn.loc)
    distance = target - slot - 1
    if opcodes.target_field(insn.opcode, insn.src) == "imm":
        # The upper half of func_ptr's imm stays 0 even where the distance is negative.
        return insn.off, distance & 0xFFFFFFFF if insn.slots == 2 else distance
    low, high = opcodes.S16
    if not low <= distance <= high:
        text = f"label {insn.target!r} is {distance} slots away; a jump reaches {low}..{high}, Gotol further"
        raise AssembleError(text, src_loc=insn.loc)
    return distance, insn.imm


def _map_fd(insn: Insn, maps: Mapping[str, int] | None) -> int:
    name = insn.symbol_name or ""
    if maps is None or name not in maps:
        raise AssembleError(f"no map {name!r} was given for this program", src_loc=insn.loc)
    return number(maps[name], 0, opcodes.S32[1], f"the fd of map {name!r}", insn.loc)


def _first(label: Label) -> str:
    return "" if label.loc is None else f", first at {label.loc[0]}:{label.loc[1]}"
