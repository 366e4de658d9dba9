"""The assembler on whatever instructions, programs and bytes hypothesis can think of."""

from __future__ import annotations

import struct
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from rawkm import asm
from rawkm.asm import Insn, Item, decode, encode, label, locate
from rawkm.asm.opcodes import LD_IMM64, Form, find_form, forms, target_field
from rawkm.errors import DisassembleError

ByteOrder = Literal["little", "big"]

ORDERS: st.SearchStrategy[ByteOrder] = st.sampled_from(["little", "big"])
U32 = st.integers(0, 2**32 - 1)
S32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)])
S16 = st.integers(-(2**15), 2**15 - 1) | st.sampled_from([0, 1, -1, 2**15 - 1, -(2**15)])
REGISTERS = st.integers(0, 10)


@st.composite
def insns(draw: st.DrawFn) -> Insn:
    """A valid instruction without label or map name."""
    form: Form = draw(st.sampled_from(forms()))
    imm = form.imm
    if imm is None:
        imm = draw(S32)
        if form.opcode == LD_IMM64:
            hi = draw(U32) if form.hi is None else form.hi
            imm = hi << 32 | imm & 0xFFFFFFFF
    return Insn(
        form.opcode,
        dst=draw(REGISTERS) if form.dst is None else form.dst,
        src=draw(REGISTERS) if form.src is None else form.src,
        off=draw(S16) if form.off is None else form.off,
        imm=imm,
    )


@st.composite
def almost_programs(draw: st.DrawFn) -> bytes:
    """Bytes of a valid program with some of them changed, so that each field gets to be wrong alone."""
    raw = bytearray(encode(draw(st.lists(insns(), min_size=1, max_size=8)), byteorder="little"))
    for _ in range(draw(st.integers(0, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[draw(st.sampled_from([0, 8])) :])


ANY_SLOTS = st.binary(max_size=80).map(lambda raw: raw[: len(raw) // 8 * 8]) | almost_programs()


@given(raw=ANY_SLOTS, order=ORDERS)
def test_any_bytes_come_back(raw: bytes, order: ByteOrder) -> None:
    program = decode(raw, byteorder=order)
    assert encode(program, byteorder=order) == raw
    assert len(locate(program)) == len(raw) // 8


@given(raw=ANY_SLOTS, order=ORDERS)
def test_any_bytes_come_back_through_repr(raw: bytes, order: ByteOrder) -> None:
    program = decode(raw, byteorder=order)
    assert eval(repr(program), vars(asm) | {"decode": decode}) == program


@given(raw=ANY_SLOTS, order=ORDERS)
def test_strict_takes_just_what_has_no_raw_instruction(raw: bytes, order: ByteOrder) -> None:
    program = decode(raw, byteorder=order)
    try:
        strict = decode(raw, strict=True, byteorder=order)
    except DisassembleError:
        assert any(insn.raw for insn in program)
    else:
        assert strict == program
        assert not any(insn.raw for insn in program)


@given(raw=st.binary(max_size=40), strict=st.booleans())
def test_nothing_but_disassemble_error(raw: bytes, strict: bool) -> None:
    try:
        decode(raw, strict=strict)
    except DisassembleError:
        assert strict or len(raw) % 8


@given(program=st.lists(insns(), max_size=12), order=ORDERS)
def test_instructions_come_back(program: list[Insn], order: ByteOrder) -> None:
    assert decode(encode(program, byteorder=order), strict=True, byteorder=order) == program


@given(insn=insns())
def test_fields_lie_where_struct_bpf_insn_has_them(insn: Insn) -> None:
    low = (insn.imm + 2**31) % 2**32 - 2**31
    for order, first, second in (("<", insn.dst, insn.src), (">", insn.src, insn.dst)):
        raw = struct.pack(order + "BBhi", insn.opcode, first | second << 4, insn.off, low)
        if insn.slots == 2:
            raw += struct.pack(order + "iI", 0, insn.imm >> 32 & 0xFFFFFFFF)
        assert encode([insn], byteorder="little" if order == "<" else "big") == raw


@given(insn=insns())
def test_every_instruction_has_its_form(insn: Insn) -> None:
    form = find_form(insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
    assert form is not None
    assert form.opcode == insn.opcode


TARGETED = [form for form in forms() if target_field(form.opcode, form.src or 0)]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[Item], list[Insn]]:
    """The same program twice: with labels, and with the distances that a naive model gives."""
    size = draw(st.integers(1, 30))
    body: list[Insn | None] = [draw(st.none() | insns()) for _ in range(size)]  # None: a jump, made below
    jumps = {
        at: (draw(st.sampled_from(TARGETED)), draw(st.integers(0, size - 1))) for at, insn in enumerate(body) if insn is None
    }
    starts = [0]
    for at in range(size):
        insn = body[at]
        wide = jumps[at][0].opcode == LD_IMM64 if insn is None else insn.opcode == LD_IMM64
        starts.append(starts[-1] + 1 + wide)
    targets = {to for _, to in jumps.values()}
    with_labels: list[Item] = []
    with_distances: list[Insn] = []
    for at in range(size):
        if at in targets:
            with_labels.append(label(f"to{at}"))
        insn = body[at]
        if insn is not None:
            with_labels.append(insn)
            with_distances.append(insn)
            continue
        form, to = jumps[at]
        distance = starts[to] - (starts[at] + 1)
        dst = 1 if form.dst is None else form.dst
        src = 2 if form.src is None else form.src
        with_labels.append(Insn(form.opcode, dst=dst, src=src, target=f"to{to}"))
        if form.off is None:
            with_distances.append(Insn(form.opcode, dst=dst, src=src, off=distance))
        else:
            imm = distance % 2**32 if form.opcode == LD_IMM64 else distance
            with_distances.append(Insn(form.opcode, dst=dst, src=src, imm=imm))
    return with_labels, with_distances


@settings(max_examples=200)
@given(programs=labelled())
def test_labels_are_distances(programs: tuple[list[Item], list[Insn]]) -> None:
    with_labels, with_distances = programs
    assert encode(with_labels) == encode(with_distances)
    assert [insn.opcode for insn in locate(with_labels)] == [insn.opcode for insn in locate(with_distances)]


@given(insn=insns())
def test_equal_means_equal_hash(insn: Insn) -> None:
    again = Insn(insn.opcode, dst=insn.dst, src=insn.src, off=insn.off, imm=insn.imm, comment="again")
    assert again == insn
    assert hash(again) == hash(insn)
    assert again != Insn(insn.opcode, dst=insn.dst, src=insn.src, off=insn.off ^ 1, imm=insn.imm)
