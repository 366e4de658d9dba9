"""Lint against the verifier: what has an error is refused, whatever else may be."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest

from rawkm import asm
from rawkm.asm import Insn, Item
from rawkm.asm.opcodes import LD_IMM64, Form, forms
from rawkm.uapi.constants import ProgType
from tests.kernel.test_asm_kernel import Rejected, load_program

# Those that need nothing but their instructions; what their context holds and what they may return differs.
TYPES = ("SOCKET_FILTER", "KPROBE", "SCHED_CLS", "TRACEPOINT", "XDP", "PERF_EVENT", "CGROUP_SKB", "RAW_TRACEPOINT", "SOCK_OPS")


def accepted(raw: bytes, type: str) -> bool:
    try:
        os.close(load_program(raw, getattr(ProgType, type)))
    except Rejected:
        return False
    return True


def errors(program: Sequence[Item], type: str) -> list[asm.Finding]:
    return [finding for finding in asm.lint(program, type=type.lower()) if finding.level == "error"]


def check(program: Sequence[Item], type: str = "SOCKET_FILTER") -> tuple[bool, bool]:
    """(has lint an error, does the kernel take it), which are never both true."""
    raw = asm.encode(program)
    # What lint sees in the bytes and what it sees in the program must be the same.
    refused = bool(errors(program, type))
    assert bool(errors(asm.decode(raw), type)) == refused
    taken = accepted(raw, type)
    assert not (refused and taken), "\n".join([type, asm.format(program), *map(str, errors(program, type))])
    # Without the type there may be fewer errors, never more.
    assert refused or not errors(program, "")
    return refused, taken


WIDTH = {"B": 1, "H": 2, "W": 4, "DW": 8}


def random_insn(rng: random.Random, at: int, size: int) -> Insn:
    """An instruction that a verifier might well take."""
    r = rng.randrange
    kind = r(110)
    if kind >= 100:
        return instance(rng, rng.choice(forms()))
    if kind < 25:
        return asm.Mov.imm(r(10), r(-3, 4))
    if kind < 35:
        return rng.choice((asm.Mov, asm.Add, asm.Mov32, asm.Xor)).reg(r(10), rng.choice((0, 1, 2, 6, 7, 10)))
    if kind < 42:
        operation = rng.choice((asm.Add, asm.Lsh, asm.Div, asm.Arsh32)).imm(0, 1)
        return Insn(operation.opcode, dst=r(10), imm=rng.choice((0, 1, 5, 31, 32, 64)))
    if kind < 52:
        jump = rng.choice((asm.JEq, asm.JNe, asm.JLt32, asm.JSGt))
        return jump.imm(r(10), r(3), rng.choice((r(-at - 1, size - at), 0, 1, 2)))
    if kind < 55:
        return asm.JNe.reg(r(10), r(10), rng.choice((0, 1, 2)))
    if kind < 60:
        return rng.choice((asm.Ja, asm.Gotol))(rng.choice((0, 1, 2, r(-at - 1, size - at))))
    if kind < 70:
        return asm.store(10, -rng.choice((8, 16, 512, 520, 4, -8)), r(10), rng.choice((1, 4, 8)))
    if kind < 76:
        return asm.load(r(11), 10, -rng.choice((8, 16, 512, 520, 1, 0)), rng.choice((1, 4, 8)))
    if kind < 80:
        return asm.ld_imm64(r(11), r(5))
    if kind < 86:
        return asm.call(rng.choice((5, 7, 8)))
    if kind < 90:
        return asm.call_sub(r(-at - 1, size - at))
    if kind < 93:
        return asm.atomic_add(10, -8, r(10), 8, fetch=True)
    if kind < 95:
        return asm.MayGoto(rng.choice((0, 1)))
    return asm.exit_()


def random_program(rng: random.Random) -> list[Item]:
    size = rng.randrange(1, 14)
    program: list[Item] = []
    if rng.random() < 0.7:
        program += [asm.Mov.imm(register, 0) for register in rng.sample(range(10), rng.randrange(6))]
    program += [random_insn(rng, at, size) for at in range(size)]
    if rng.random() < 0.8:
        program += [asm.Mov.imm(0, 0), asm.exit_()]
    return program


@pytest.mark.parametrize("type", TYPES)
def test_random_programs(type: str) -> None:
    rng = random.Random(type)
    seen = [check(random_program(rng), type) for _ in range(1500)]
    # Both sides must have been there, or this says nothing.
    assert sum(refused for refused, _ in seen) > 300
    assert sum(taken for _, taken in seen) > 60


def instance(rng: random.Random, form: Form) -> Insn:
    imm = form.imm
    if imm is None:
        imm = rng.randrange(0, 31)
        if form.opcode == LD_IMM64 and form.hi is None:
            imm |= rng.randrange(2) << 32
    return Insn(
        form.opcode,
        dst=rng.randrange(11) if form.dst is None else form.dst,
        src=rng.randrange(11) if form.src is None else form.src,
        off=rng.choice((0, -8, 1)) if form.off is None else form.off,
        imm=imm,
    )


@pytest.mark.parametrize("seed", range(4))
def test_any_field_changed(seed: int) -> None:
    """Bytes of programs with some of them changed, reached and in code that the verifier skips."""
    rng = random.Random(seed)
    taken_though_damaged = 0
    for _ in range(1500):
        bad = bytearray(asm.encode([instance(rng, rng.choice(forms()))]))
        for _ in range(rng.randrange(1, 3)):
            bad[rng.randrange(len(bad))] = rng.choice((0, 1, 2, 4, 0x10, 0x20, 0x80, 0xFF))
        skip = rng.random() < 0.5
        start: list[Item] = [asm.Mov.imm(register, 0) for register in range(10)]
        if skip:
            start += [asm.JEq.imm(0, 0, len(bad) // 8)]
        raw = asm.encode(start) + bytes(bad) + asm.encode([asm.Mov.imm(0, 0), asm.exit_()])
        program = asm.decode(raw)
        _, taken = check(program)
        taken_though_damaged += taken and skip
    assert taken_though_damaged > 20
