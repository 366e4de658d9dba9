"""The assembler on whatever instructions, programs and bytes hypothesis can think of."""

from __future__ import annotations

import struct
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawkm import asm
from rawkm.asm import Insn, Item, decode, encode, label, locate
from rawkm.asm.opcodes import LD_IMM64, Form, find_form, forms, stack_argument, target_field
from rawkm.errors import AssembleError, DisassembleError

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
    dst = draw(REGISTERS) if form.dst is None else form.dst
    src = draw(REGISTERS) if form.src is None else form.src
    off = draw(S16) if form.off is None else form.off
    if off and draw(st.booleans()) and stack_argument(form.opcode, *((11, src) if off < 0 else (dst, 11)), off):
        dst, src = (11, src) if off < 0 else (dst, 11)
    return Insn(form.opcode, dst=dst, src=src, off=off, imm=imm)


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


NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["r1", "w10", "pc", "ll", "map", "kfunc", "f", "1", ".x", "a b"])


@st.composite
def named_programs(draw: st.DrawFn) -> list[Item]:
    """A program with labels and maps of any name."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    program: list[Item] = [label(name) for name in names]
    for _ in range(draw(st.integers(0, 12))):
        name = draw(st.sampled_from(names) | NAMES)
        insn: st.SearchStrategy[Insn] = insns() | st.sampled_from(
            [asm.map_ptr(1, name), asm.map_value(2, name), asm.map_value(2, name, offset=2**32 - 1)]
        )
        if name in names:
            targets = [asm.Ja(name), asm.JEq.imm(1, -5, name), asm.call_sub(name), asm.func_ptr(3, name), asm.Gotol(name)]
            insn |= st.sampled_from(targets)
        program.append(draw(insn))
    return program


@given(program=st.lists(insns(), max_size=12))
def test_text_comes_back(program: list[Insn]) -> None:
    assert asm.parse(asm.format(program)) == program


@given(program=named_programs())
def test_text_with_names_comes_back(program: list[Item]) -> None:
    assert asm.parse(asm.format(program)) == program
    assert asm.parse(asm.format(program, helpers=True)) == program


@given(raw=ANY_SLOTS, order=ORDERS)
def test_any_bytes_come_back_through_text(raw: bytes, order: ByteOrder) -> None:
    program = decode(raw, byteorder=order)
    assert asm.parse(asm.format(program)) == program
    for text in (asm.format(program), asm.format(program, labels=True, helpers=True)):
        assert encode(asm.parse(text), byteorder=order) == raw


@given(program=named_programs())
def test_layout_means_nothing(program: list[Item]) -> None:
    text = asm.format(program)
    assert asm.parse(" " + text.replace("\n", "  \n ")) == program
    assert asm.parse(text.replace("\n", " # 5\n")) == program
    if '"' not in text:
        assert asm.parse(text.replace("\n", ";")) == program
        assert asm.parse(text.replace(" ", "\t")) == program


PIECES = st.sampled_from(
    [
        "r1",
        "w2",
        "r11",
        "=",
        "+=",
        "(",
        ")",
        "*",
        "u32",
        "u64",
        "lock",
        "if",
        "goto",
        "call",
        "ll",
        ";",
        ":",
        "#",
        "//",
        "/*",
        "*/",
        '"',
        "\\",
        "0x5",
        "-1",
        "08",
        "1b",
        "1f",
        "1:",
        ".insn",
        ".map",
        "a",
        ",",
        "[",
        "]",
        "&",
        "exit",
        "(b7)",
        "(18)",
        "pc+1",
        "kfunc",
        "skb",
        "ld_pseudo",
        "bf",
        "21",
        "00",
        "00",
        "00",
        "00",
        "00",
        "00",
        "00",
        "<x>",
        "\t",
        "\n",
    ]
)


@settings(max_examples=300)
@given(text=st.text(max_size=40) | st.lists(PIECES, max_size=14).map(" ".join) | st.lists(PIECES, max_size=14).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (asm.parse, asm.parse_file):
        try:
            read(text)
        except AssembleError as error:
            assert error.src_loc is not None


@given(program=named_programs() | st.lists(insns(), max_size=12))
def test_lint_takes_everything(program: list[Item]) -> None:
    findings = asm.lint(program)
    size = len(locate(program))
    assert all(0 <= finding.index <= size for finding in findings)
    assert [finding.index for finding in findings] == sorted(finding.index for finding in findings)


@given(raw=ANY_SLOTS)
def test_lint_takes_any_bytes(raw: bytes) -> None:
    asm.lint(decode(raw), type="kprobe")


def test_offsets_at_their_ends() -> None:
    for distance in (32767, 32766, 1, 0):
        filler: list[Item] = [asm.Mov.imm(0, 0)] * distance
        over = [asm.JEq.imm(1, 0, "end"), *filler, label("end"), asm.exit_()]
        assert asm.decode(encode(over))[0] == asm.JEq.imm(1, 0, distance)
        back = [label("top"), *filler, asm.JEq.imm(1, 0, "top")]
        assert asm.decode(encode(back))[-1] == asm.JEq.imm(1, 0, -distance - 1)
        assert encode(asm.parse(asm.format(over))) == encode(over)
    with pytest.raises(AssembleError, match="is 32768 slots away"):
        encode([asm.JEq.imm(1, 0, "end"), *[asm.exit_()] * 32768, label("end"), asm.exit_()])
    with pytest.raises(AssembleError, match="is -32769 slots away"):
        encode([label("top"), *[asm.exit_()] * 32768, asm.JEq.imm(1, 0, "top")])


def test_a_million_instructions() -> None:
    body: list[Item] = [asm.Add.imm(1, 1), asm.store(10, -8, 1, asm.DW), asm.JEq.imm(2, 5, "end")] * 10
    program = [asm.Gotol("end"), *[asm.Mov.imm(0, 1)] * 999_900, *body, label("end"), asm.Mov.imm(0, 0), asm.exit_()]
    raw = encode(program)
    assert len(raw) == 8 * (len(program) - 1)
    assert raw[:8] == encode([asm.Gotol(999_930)])
    again = asm.decode(raw)
    text = asm.format(again)
    assert encode(asm.parse(text)) == raw
    assert [finding for finding in asm.lint(again) if finding.code != "unreachable"] == []
