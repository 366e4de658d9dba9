"""Text beyond what LLVM's own tools can be asked about: names, the verifier's spelling, errors with their line."""

from __future__ import annotations

import pytest

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R10,
    R11,
    B,
    Gotol,
    Insn,
    Item,
    Ja,
    JEq,
    JEq32,
    JSGt,
    MayGoto,
    Mov,
    Mov32,
    Neg,
    SDiv,
    W,
    addr_space_cast,
    atomic_add,
    atomic_cmpxchg,
    atomic_or,
    atomic_xchg,
    bswap,
    call,
    call_sub,
    exit_,
    func_ptr,
    gotox,
    kfunc,
    ksym,
    label,
    ld_imm64,
    load,
    load_abs,
    load_acquire,
    load_ind,
    load_signed,
    map_idx_value,
    map_ptr,
    map_value,
    store,
    store_imm,
    store_release,
    to_be,
)
from rawkm.errors import AssembleError

# (text as it is printed, instruction), where LLVM 19 has another text or none.
PRINTED: list[tuple[str, Insn]] = [
    ("call pc+0x3", call_sub(3)),
    ("call pc-0x1", call_sub(-1)),
    ("call kfunc(0x1234)", kfunc(0x1234)),
    ("call kfunc(0x1234, 0x2)", kfunc(0x1234, fd_index=2)),
    ("gotox r1", gotox(R1)),
    ("w1 = load_acquire((u32 *)(r2 + 0x8))", load_acquire(R1, R2, 8, W)),
    ("store_release((u64 *)(r2 - 0x8), r1)", store_release(R2, -8, R1, DW)),
    ("*(u64 *)(r11 - 0x8) = r1", store(R11, -8, R1, DW)),
    ("*(u64 *)(r11 - 0x10) = 0x5", store_imm(R11, -16, 5, DW)),
    ("r1 = *(u64 *)(r11 + 0x8)", load(R1, R11, 8, DW)),
    ("r0 = *(u8 *)skb[r1 + 0x4]", load_ind(R1, 4, B)),
    ("r0 = *(u8 *)skb[r1 - 0x4]", load_ind(R1, -4, B)),
    ("ld_pseudo r1, 0x1, 0x7", map_ptr(R1, 7)),
    ("ld_pseudo r1, 0x2, 0x7, 0x8", map_value(R1, 7, offset=8)),
    ("ld_pseudo r1, 0x3, 0x7, 0x9", ksym(R1, 7, btf_fd=9)),
    ("ld_pseudo r1, 0x4, 0xfffffffd", func_ptr(R1, -3)),
    ("ld_pseudo r1, 0x6, 0x1, 0xffffffff", map_idx_value(R1, 1, offset=2**32 - 1)),
    ("r1 = counts ll", map_ptr(R1, "counts")),
    ("r1 = counts[0x0] ll", map_value(R1, "counts")),
    ("r1 = counts[0x8] ll", map_value(R1, "counts", offset=8)),
    ('r1 = "r2" ll', map_ptr(R1, "r2")),
    ('r1 = "a \\"map\\"\\\\\\n"[0x1] ll', map_value(R1, 'a "map"\\\n', offset=1)),
    (".insn 0xff, r1, r15, -0x1, 0x5", Insn(0xFF, dst=1, src=15, off=-1, imm=5, raw=True)),
]


@pytest.mark.parametrize(("text", "insn"), PRINTED, ids=[text for text, _ in PRINTED])
def test_printed_and_read_back(text: str, insn: Insn) -> None:
    assert asm.format([insn]) == text + "\n"
    assert asm.format_insn(insn) == text
    assert asm.parse(text) == [insn]


def test_labels() -> None:
    program = [
        label("top"), JEq.imm(R1, 5, "out"), Gotol("top"), MayGoto("out"), call_sub("sub"),
        func_ptr(R1, "sub"), label("out"), exit_(), label("sub"), label("or so"), Ja("or so"),
    ]  # fmt: skip
    text = asm.format(program)
    assert text.splitlines() == [
        "top:", "\tif r1 == 0x5 goto out", "\tgotol top", "\tmay_goto out", "\tcall sub", "\tr1 = &sub ll",
        "out:", "\texit", "sub:", '"or so":', '\tgoto "or so"',
    ]  # fmt: skip
    assert asm.parse(text) == program


def test_labels_for_distances() -> None:
    program = [Ja(1), ld_imm64(R1, 1), call_sub(1), Ja(-5), func_ptr(R2, -2), Ja(-2), exit_(), Ja(1)]
    assert asm.format(program, labels=True).splitlines() == [
        "l_0:",
        "\tgoto +0x1",  # into the middle of ld_imm64, where no label can be
        "\tr1 = 0x1 ll",
        "\tcall func_5",
        "func_4:",
        "\tgoto l_0",
        "func_5:",
        "\tr2 = &func_4 ll",
        "\tgoto -0x2",
        "\texit",
        "\tgoto +0x1",
    ]
    for distances in (program, [Ja(0), exit_()], [call_sub(0), exit_(), exit_()]):
        again = asm.parse(asm.format(distances, labels=True))
        assert asm.encode(again) == asm.encode(distances)
    named = asm.format([label("l_1"), Ja(0), exit_()], labels=True)
    assert named == "l_1:\n\tgoto l_1_\nl_1_:\n\texit\n"
    kept = asm.format([Ja(0), label("here"), exit_()], labels=True)
    assert kept == "\tgoto here\nhere:\n\texit\n"


def test_a_name_is_a_label_before_it_is_anything_else() -> None:
    assert asm.parse("call f\nf: exit") == [call_sub("f"), label("f"), exit_()]
    assert asm.parse("call ktime_get_ns") == asm.parse("call bpf_ktime_get_ns") == [call(5)]
    assert asm.parse("call ktime_get_ns\nktime_get_ns: exit")[0] == call_sub("ktime_get_ns")
    assert asm.parse("r1 = f ll\nf: exit")[0] == asm.parse("r1 = &f ll\nf: exit")[0] == func_ptr(R1, "f")
    assert asm.parse("r1 = map(f) ll\nf: exit")[0] == map_ptr(R1, "f")
    assert asm.parse_file(".map f type=hash\nr1 = f ll\nf: exit").insns[0] == map_ptr(R1, "f")
    both: list[Item] = [map_ptr(R1, "f"), map_value(R1, "f", offset=4), label("f"), exit_()]
    assert asm.parse(asm.format(both)) == both


def test_helpers_and_kernel_functions_by_name() -> None:
    program = [call(5), call(1), call(9999)]
    text = asm.format(program, helpers=True)
    assert text == "call bpf_ktime_get_ns\ncall bpf_map_lookup_elem\ncall 0x270f\n"
    assert asm.parse(text) == program
    own: list[Item] = [call(5), label("bpf_ktime_get_ns"), exit_()]
    assert asm.parse(asm.format(own, helpers=True)) == own
    found = {"bpf_x": 77}.__getitem__
    assert asm.parse("call bpf_x\ncall kfunc(bpf_x)\ncall kfunc(bpf_x, 3)", kfuncs=found) == [
        kfunc(77),
        kfunc(77),
        kfunc(77, fd_index=3),
    ]
    with pytest.raises(AssembleError, match=r"x\.s:2: 'bpf_x' is neither a label nor a helper"):
        asm.parse("exit\ncall bpf_x", file="x.s")


# As kernel/bpf/disasm.c of Linux 6.18 prints them.
VERIFIER: list[tuple[str, Insn]] = [
    ("(7a) *(u64 *)(r10 -8) = 272", store_imm(R10, -8, 272, DW)),
    ("(63) *(u32 *)(r10 -4) = r1", store(R10, -4, R1, W)),
    ("(61) r1 = *(u32 *)(r1 +0)", load(R1, R1, 0, W)),
    ("(81) r1 = *(s32 *)(r2 +4)", load_signed(R1, R2, 4, W)),
    ("(bc) w1 = w2", Mov32.reg(R1, R2)),
    ("(bf) r1 = (s8)r2", Mov.signed(R1, R2, 8)),
    ("(b7) r1 = 17", Mov.imm(R1, 17)),
    ("(18) r1 = 0x11", ld_imm64(R1, 17)),
    ("(18) r1 = 0xffff888100000000", ld_imm64(R1, 0xFFFF888100000000)),
    ("(3f) r1 s/= r2", SDiv.reg(R1, R2)),
    ("(87) r1 = -r1", Neg(R1)),
    ("(dc) r1 = be16 r1", to_be(R1, 16)),
    ("(d7) r1 = bswap32 r1", bswap(R1, 32)),
    ("(15) if r1 == 0x0 goto pc+3", JEq.imm(R1, 0, 3)),
    ("(16) if w1 == 0xffffffff goto pc-3", JEq32.imm(R1, -1, -3)),
    ("(6d) if r1 s> r2 goto pc+1", JSGt.reg(R1, R2, 1)),
    ("(05) goto pc+5", Ja(5)),
    ("(06) gotol pc+70000", Gotol(70000)),
    ("(e5) may_goto pc+2", MayGoto(2)),
    ("(85) call bpf_map_lookup_elem#1", call(1)),
    ("(85) call unknown#9999", call(9999)),
    ("(85) call bpf_rcu_read_lock#12345", kfunc(12345)),
    ("(85) call pc+5", call_sub(5)),
    ("(db) lock *(u64 *)(r10 -8) += r1", atomic_add(R10, -8, R1, DW)),
    ("(c3) lock *(u32 *)(r10 -8) |= r1", atomic_or(R10, -8, R1, W)),
    ("(db) r1 = atomic64_fetch_add((u64 *)(r10 -8), r1)", atomic_add(R10, -8, R1, DW, fetch=True)),
    ("(c3) r1 = atomic_fetch_or((u32 *)(r10 -8), r1)", atomic_or(R10, -8, R1, W, fetch=True)),
    ("(db) r1 = atomic64_xchg((u64 *)(r10 -8), r1)", atomic_xchg(R10, -8, R1, DW)),
    ("(c3) r1 = atomic_xchg((u32 *)(r10 -8), r1)", atomic_xchg(R10, -8, R1, W)),
    ("(db) r0 = atomic64_cmpxchg((u64 *)(r10 -8), r0, r1)", atomic_cmpxchg(R10, -8, R1, DW)),
    ("(c3) r0 = atomic_cmpxchg((u32 *)(r10 -8), r0, r1)", atomic_cmpxchg(R10, -8, R1, W)),
    ("(c3) r1 = load_acquire((u32 *)(r2 +8))", load_acquire(R1, R2, 8, W)),
    ("(db) store_release((u64 *)(r2 +8), r1)", store_release(R2, 8, R1, DW)),
    ("(bf) r1 = addr_space_cast(r2, 0, 1)", addr_space_cast(R1, R2, 0, 1)),
    ("(30) r0 = *(u8 *)skb[4]", load_abs(4, B)),
    ("(50) r0 = *(u8 *)skb[r1 + 4]", load_ind(R1, 4, B)),
    ("(95) exit", exit_()),
]


@pytest.mark.parametrize(("text", "insn"), VERIFIER, ids=[text for text, _ in VERIFIER])
def test_the_verifiers_spelling(text: str, insn: Insn) -> None:
    assert asm.parse(text) == [insn]
    (whole,) = asm.parse(f"12: {text}    ; R1_w=0x11 fp-8=mmmm????")
    assert whole == insn
    assert isinstance(whole, Insn)
    assert whole.comment == "R1_w=0x11 fp-8=mmmm????"
    if not text.startswith("(18)") and "unknown" not in text:
        assert asm.parse(text[5:]) == [insn]


def test_without_the_opcode_llvms_reading_wins() -> None:
    assert asm.parse("r1 = 0x11") == [Mov.imm(R1, 17)]
    with pytest.raises(AssembleError, match="opcode 0x18 is not: r1 = r2"):
        asm.parse("(18) r1 = r2")
    with pytest.raises(AssembleError, match="opcode 0xb7 is not"):
        asm.parse("(b7) if r1 == 0 goto pc+1")


def test_objdumps_bytes_say_what_its_text_leaves_out() -> None:
    lines = """
x.o:\tfile format elf64-bpf

Disassembly of section .text:

0000000000000000 <main>:
       0:\t85 10 00 00 05 00 00 00\tcall 0x5
       1:\t18 21 00 00 07 00 00 00 00 00 00 00 08 00 00 00\tld_pseudo\tr1, 0x2, 0x7
       3:\tff 20 02 00 05 00 00 00\t<unknown>
       4:\t05 00 ff ff 00 00 00 00\tgoto -0x1 <main+0x20>
       5:\tgoto -0x1 <main+0x20>
"""
    raw = Insn(0xFF, src=2, off=2, imm=5, raw=True)
    assert asm.parse(lines) == [call_sub(5), map_value(R1, 7, offset=8), raw, Ja(-1), Ja(-1)]
    with pytest.raises(AssembleError, match=r"<text>:1: the bytes .* are not: r2 = 0x5"):
        asm.parse("0: b7 01 00 00 05 00 00 00 r2 = 0x5")


def test_statements_comments_and_numbered_labels() -> None:
    text = """
# a comment; r1 = 1
a: b: r1 = 1; r2 = "x;y" ll ; exit // the end
/* two
lines */ r3 = 3
; source line
r0 = 0 # zero
1: goto 1b; goto 1f
1: exit
"""
    program = asm.parse(text, file="f.s")
    assert program[:7] == [
        label("a"), label("b"), Mov.imm(R1, 1), map_ptr(R2, "x;y"), exit_(), Mov.imm(R3, 3), Mov.imm(R0, 0),
    ]  # fmt: skip
    assert [item.loc for item in program[:7]] == [("f.s", line) for line in (3, 3, 3, 3, 3, 5, 7)]
    assert asm.encode(program[7:]) == asm.encode([Ja(-1), Ja(0), exit_()])
    zero = program[6]
    assert isinstance(zero, Insn)
    assert zero.comment == "zero"


def test_comments_are_printed() -> None:
    insn = Insn(0x95, comment="two\n  lines # of it")
    assert asm.format([insn, exit_()]) == "exit  # two lines # of it\nexit\n"
    (again, _) = asm.parse(asm.format([insn, exit_()]))
    assert isinstance(again, Insn)
    assert again.comment == "two lines # of it"


def test_the_same_line_twice_has_two_origins() -> None:
    first, second = asm.parse("exit\nexit", file="f.s")
    assert (first.loc, second.loc) == (("f.s", 1), ("f.s", 2))


WRONG = {
    "frob": "no instruction: frob",
    "r1 = 0x123456789": r"immediate 4886718345 is outside -2147483648\.\.4294967295",
    "r1 = 0x1ffffffffffffffff ll": "immediate .* is outside",
    "r1 = be16 r2": "registers 1 and 2 must be the same",
    "r0 = atomic_fetch_add((u64 *)(r10 - 8), r5)": "registers 0 and 5 must be the same",
    "r1 += r11": "r11 is only for arguments on the stack",
    "*(u64 *)(r11 + 8) = r1": "r11 is only for arguments",
    "if r1 == r2 goto +40000": r"offset 40000 is outside -32768\.\.32767",
    "gotol +4294967295": "distance 4294967295 is outside",
    "r1 = *(u32 *)(r6 + 0x8000)": "offset 32768 is outside",
    "ld_pseudo r1, 7, 5": "no instruction",
    "ld_pseudo r1, 2, 0x100000000": "half of the constant",
    "r1 = w2": "no instruction",
    "r0 = addr_space_cast(r1, 0, 0)": "no instruction",
    "goto 1b": "there is no label 1 before this",
    "r1 = 08": "'08' is no number",
    "got o +1": "no instruction",
    "r1 = *(u32 *)(r1)": "no instruction",
    '"': "no instruction",
    '"": exit': "a name in quotes that is empty",
    "r1 = \1": "no instruction",
    "\1": "no instruction",
    "(b7)": "no instruction",
    "(05) call f": "opcode 0x05 is not: call f",
    "r1 = *(u64 *)(r11 + 0)": "r11 is only for arguments",
    "r1 = *(u32 *)(r11 + 8)": "r11 is only for arguments",
    "5": "no instruction",
    "1: 2: exit": "no instruction",
    "r1 = &f[8] ll": "a subprogram's address has no offset",
    ".insn 0x100, r0, r0, 0, 0": "opcode 256 is outside",
    ".insn 0x5, r0, r0, 0x8000, 0": "offset 32768 is outside",
    ".insn 0x5, r16, r0, 0, 0": "no instruction",
    ".frob": "no directive: .frob",
    ".license GPL": ".license belongs into a file that is a whole program",
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_say_the_line(text: str) -> None:
    with pytest.raises(AssembleError, match=f"f.s:3: {WRONG[text]}") as caught:
        asm.parse(f"exit\n\n{text}\nexit", file="f.s")
    assert caught.value.src_loc == ("f.s", 3)


def test_what_has_no_text() -> None:
    with pytest.raises(AssembleError, match="there is no text for"):
        asm.format([Insn(0x1D, dst=1, src=2, imm=5, target="x")])
    wrong: list[Item] = [5]  # type: ignore[list-item]
    with pytest.raises(AssembleError, match="item 0 is neither an instruction nor a label"):
        asm.format(wrong)


FILE = """
.license "Dual MIT/GPL"   # with a comment
.name count_ip
.type kprobe
.attach trace_kprobe_multi
.section "kprobe.multi/tcp_*", "ax"
.map counts, type=percpu_hash, key=8, value=0x10, max_entries=65536, flags=0x1
.map "a ring" type=27 max_entries=4096
.globl main
.type main,@function
main:
    r1 = counts ll
    exit
"""


def test_a_file_is_a_whole_program() -> None:
    source = asm.parse_file(FILE, file="f.s")
    assert source.insns == [label("main"), map_ptr(R1, "counts"), exit_()]
    assert source.maps == (
        asm.MapDecl("counts", "percpu_hash", key=8, value=16, max_entries=65536, flags=1),
        asm.MapDecl("a ring", 27, max_entries=4096),
    )
    assert source.maps[0].loc == ("f.s", 7)
    assert (source.license, source.name, source.type) == ("Dual MIT/GPL", "count_ip", "kprobe")
    assert (source.attach, source.section) == ("trace_kprobe_multi", "kprobe.multi/tcp_*")
    empty = asm.parse_file("exit")
    assert (empty.license, empty.type, empty.maps) == ("", "", ())


WRONG_FILES = {
    ".map": ".map takes a name first",
    ".map type=hash": ".map takes a name first",
    ".map a": "map 'a' needs a type",
    ".map a size=4": "flags, each with a value, not size=4",
    ".map a type=hash key": "not key",
    ".map a type=hash key=-1": "key -1 is outside",
    ".map a type=hash key=x": "'x' is no number",
    ".map a type=hash; .map a type=hash": "map 'a' is declared twice",
    ".type": ".type takes one word",
    ".type a b": ".type takes one word",
    ".license GPL; .license MIT": "a second .license: 'MIT' after 'GPL'",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_directives_that_make_no_sense(text: str) -> None:
    with pytest.raises(AssembleError, match=f"f.s:2: .*{WRONG_FILES[text]}"):
        asm.parse_file(f"exit\n{text}", file="f.s")
