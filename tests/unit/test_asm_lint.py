"""What lint finds; whether it is right is asked of the verifier in tests/kernel."""

from __future__ import annotations

import pytest

from rawkm import asm
from rawkm.asm import Insn

# (text, [(slot, line, level, code)]), of a kprobe program.
CASES: dict[str, tuple[str, list[tuple[int, int, str, str]]]] = {
    "fine": ("r0 = 0\nexit", []),
    "nothing": ("# nothing", [(0, 0, "error", "empty")]),
    "no label": ("goto a\nexit", [(0, 1, "error", "label")]),
    "two labels": ("a: exit\na: exit", [(1, 2, "error", "label")]),
    "fall through": ("r0 = 0", [(0, 1, "error", "fall-through")]),
    "fall through a wide constant": ("r0 = 0 ll", [(0, 1, "error", "fall-through")]),
    "fall through into a subprogram": (
        "r0 = 0\ncall f\nif r0 == 0 goto +0\nf: r0 = 0\nexit",
        [(2, 3, "error", "fall-through"), (2, 3, "error", "jump-range")],
    ),
    "unreachable": ("r0 = 0\nexit\nr0 = 1\nr0 = 2\nexit", [(2, 3, "error", "unreachable")]),
    "behind a jump": ("r0 = 0\ngoto a\nr0 = 1\na: exit", [(2, 3, "error", "unreachable")]),
    "out of range": ("r0 = 0\ngoto +5\nexit", [(1, 2, "error", "jump-range")]),
    "before the start": ("r0 = 0\nif r0 == 0 goto -3\nexit", [(1, 2, "error", "jump-range")]),
    "call out of range": ("call pc+7\nr0 = 0\nexit", [(0, 1, "error", "jump-range")]),
    "the middle": ("goto +1\nr0 = 1 ll\nexit", [(0, 1, "error", "jump-middle")]),
    "a call of the middle": ("call pc+1\nr0 = 1 ll\nexit", [(0, 1, "error", "jump-middle")]),
    "into a subprogram": (
        "r0 = 0\nif r0 == 0 goto a\ncall f\nexit\nf: r0 = 0\na: exit",
        [(1, 2, "error", "jump-range")],
    ),
    "unset": ("r0 = r3\nexit", [(0, 1, "error", "unset")]),
    "unset, told once": ("r0 = r3\nr0 = r3\nexit", [(0, 1, "error", "unset")]),
    "set on one way": ("if r1 == 0 goto a\nr3 = 1\na: r0 = r3\nexit", []),
    "unset on both": ("if r1 == 0 goto a\nr4 = 1\na: r0 = r3\nexit", [(2, 3, "error", "unset")]),
    "unset where it may not get": (
        "r0 = 0\nif r0 == 0 goto a\nr0 = r3\na: exit",
        [(2, 3, "warning", "unset")],
    ),
    "lost in a call": ("call 5\nr0 = r1\nexit", [(1, 2, "error", "unset")]),
    "kept over a call": ("r6 = r1\ncall 5\nr0 = r6\nexit", []),
    "no result": ("r1 = 0\nexit", [(1, 2, "error", "unset")]),
    "no result of a subprogram": ("call f\nr0 = 0\nexit\nf: exit", []),
    "a subprogram's arguments": ("call f\nr0 = 0\nexit\nf: r0 = r1\nr0 = r2\nexit", [(4, 5, "error", "unset")]),
    "a subprogram's saved registers": ("r6 = 1\ncall f\nr0 = r6\nexit\nf: r0 = r6\nexit", [(4, 5, "error", "unset")]),
    "a callback's arguments": (
        "r2 = &f ll\nr1 = 1\nr3 = 0\nr4 = 0\ncall 181\nr0 = 0\nexit\nf: r0 = r2\nr0 = r6\nexit",
        [(9, 9, "warning", "unset")],
    ),
    "a loop": ("r0 = 0\na: r0 += 1\nr0 += r4\nif r0 < 9 goto a\nexit", [(2, 3, "error", "unset")]),
    "two ways to fail": (
        "if r1 == 0 goto a\nr0 = r3\nexit\na: r0 = r4\nexit",
        [(1, 2, "error", "unset"), (3, 4, "error", "unset")],
    ),
    "never back from a kernel function": (
        "call kfunc(1)\ncall f\nr0 = r3\nexit\nf: call kfunc(2)\nr0 = 0\nexit",
        [(2, 3, "warning", "unset")],
    ),
    "code that BTF may name": ("r0 = 0\ncall kfunc(1)\nexit\nr0 = 1\nexit", [(3, 4, "warning", "unreachable")]),
    "behind gotox": ("r2 = t[0] ll\nr2 = *(u64 *)(r2 + 0)\ngotox r2\nr0 = 0\nexit", []),
    "r10": ("r10 += 8\nr0 = 0\nexit", [(0, 1, "error", "r10")]),
    "r10 loaded": ("r10 = *(u64 *)(r1 + 0)\nr0 = 0\nexit", [(0, 1, "error", "r10")]),
    "r10 fetched": ("*(u64 *)(r10 - 8) = 0\nr10 = xchg_64(r10 - 8, r10)\nr0 = 0\nexit", [(1, 2, "error", "r10")]),
    "stack above": ("*(u64 *)(r10 - 4) = 0\nr0 = 0\nexit", [(0, 1, "error", "stack")]),
    "stack below": ("*(u8 *)(r10 - 513) = 0\nr0 = 0\nexit", [(0, 1, "error", "stack")]),
    "stack, both ends": ("*(u8 *)(r10 - 1) = 0\n*(u64 *)(r10 - 512) = 0\nr0 = 0\nexit", []),
    "stack, loaded": ("r0 = *(u32 *)(r10 + 0)\nexit", [(0, 1, "error", "stack")]),
    "stack, acquired": ("r0 = load_acquire((u64 *)(r10 - 520))\nexit", [(0, 1, "error", "stack")]),
    "shift": ("r0 = 1\nr0 <<= 64\nw0 >>= 32\nexit", [(1, 2, "error", "operand"), (2, 3, "warning", "operand")]),
    "division": ("r0 = 1\nr0 /= 0\nexit", [(1, 2, "error", "operand")]),
    "reserved": (".insn 0xb7, r0, r1, 0, 0\nexit", [(0, 1, "error", "reserved")]),
    "no register": ("r0 = 0\n.insn 0xb7, r12, r0, 0, 0\nexit", [(1, 2, "error", "reserved")]),
    "exit with an offset": ("r0 = 0\n.insn 0x95, r0, r0, 5, 0", []),
    "opcode": ("r0 = 0\n.insn 0xff, r0, r0, 0, 0\nexit", [(1, 2, "error", "opcode"), (1, 2, "error", "reserved")]),
    "callx": ("r0 = 0\ncallx r1\nexit", [(1, 2, "error", "opcode")]),
    "half": ("r0 = 0\n.insn 0x18, r0, r0, 0, 0\nexit", [(1, 2, "error", "reserved")]),
    "packet without context": ("r0 = *(u8 *)skb[4]\nexit", [(0, 1, "error", "unset")]),
    "compare and exchange": ("*(u64 *)(r10 - 8) = 0\nr0 = cmpxchg_64(r10 - 8, r0, r1)\nexit", [(1, 2, "error", "unset")]),
    "may_goto": ("r0 = 0\nmay_goto a\nr0 = r5\na: exit", [(2, 3, "warning", "unset")]),
}


@pytest.mark.parametrize("name", CASES)
def test_findings(name: str) -> None:
    text, expected = CASES[name]
    findings = asm.lint(asm.parse(text, file="f.s"), type="kprobe")
    found = [(one.index, one.line or 0, one.level, one.code) for one in findings]
    assert sorted(found) == sorted(expected), [str(one) for one in findings]


def test_a_type_that_is_not_known_is_given_the_benefit_of_the_doubt() -> None:
    for text in ("r0 = r2\nexit", "r1 = 0\nexit"):
        program = asm.parse(text)
        assert [one.level for one in asm.lint(program, type="kprobe")] == ["error"]
        assert [one.level for one in asm.lint(program)] == ["warning"]
        assert [one.level for one in asm.lint(program, type="ext")] == ["warning"]
    assert [one.level for one in asm.lint(asm.parse("r0 = r6\nexit"))] == ["error"]


def test_a_finding_is_a_sentence() -> None:
    (finding,) = asm.lint(asm.parse("\ncall 5\nr0 = r1\nexit", file="f.s"), type="kprobe")
    words = "R1 is read, but not set on any way here; calls lose R1 to R5"
    assert str(finding) == f"f.s:3: error: instruction 1: {words} [unset]"
    assert finding.loc == ("f.s", 3)
    (finding,) = asm.lint(asm.decode(bytes.fromhex("9500000000000000"), byteorder="little"), type="kprobe")
    assert str(finding) == "error: instruction 0: R0, the result, is not set [unset]"
    assert finding.line is None


def test_too_long() -> None:
    nop = asm.Mov.imm(0, 0)
    assert [one.code for one in asm.lint([nop] * 1_000_000 + [asm.exit_()])] == ["too-long"]
    assert asm.lint([nop] * 999_999 + [asm.exit_()]) == []


def test_raw_instructions_do_not_confuse_it() -> None:
    # A pair of slots that only its first half keeps from being ld_imm64 counts as one.
    pair = [Insn(0x18, dst=1, off=5, raw=True), Insn(0, raw=True)]
    findings = asm.lint([asm.Mov.imm(0, 0), asm.JEq.imm(0, 0, 2), *pair, asm.exit_()], type="kprobe")
    assert [(one.index, one.level, one.code) for one in findings] == [(2, "warning", "reserved")]
