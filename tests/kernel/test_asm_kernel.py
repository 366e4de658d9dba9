"""What the assembler makes, run by the kernel: BPF_PROG_TEST_RUN of small socket filters. The interpreter must say the same of each.

bpf(2) is called by hand here, so that nothing but the assembler is under test.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import sys
from collections.abc import Callable, Sequence

import pytest

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R9,
    R10,
    Add,
    B,
    Gotol,
    H,
    Insn,
    Item,
    Ja,
    JEq,
    JLt,
    JNe,
    JSLt,
    Lsh,
    MayGoto,
    Mov,
    Mov32,
    Mul,
    Neg,
    Neg32,
    Or,
    Sub,
    W,
    atomic_add,
    atomic_and,
    atomic_cmpxchg,
    atomic_or,
    atomic_xchg,
    atomic_xor,
    bswap,
    call,
    call_sub,
    encode,
    exit_,
    interp,
    interp_maps,
    label,
    ld_imm64,
    load,
    load_acquire,
    load_signed,
    locate,
    map_ptr,
    map_value,
    store,
    store_imm,
    store_release,
    to_be,
    to_le,
)
from rawkm.asm.interp import signed
from rawkm.asm.opcodes import ALU_OPS, JUMP_OPS, SIGNED_OPS

MAP_CREATE, MAP_LOOKUP_ELEM, PROG_LOAD, PROG_TEST_RUN = 0, 1, 5, 10
ARRAY, SOCKET_FILTER = 2, 1
GET_SMP_PROCESSOR_ID, MAP_LOOKUP = 8, 1
NR_BPF = {"x86_64": 321, "s390x": 351, "ppc64le": 361}.get(platform.machine(), 280)

VALUE_SIZE = 4096
U64, U32 = 2**64 - 1, 2**32 - 1

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attr: bytes) -> tuple[int, bytes]:
    """(result, attr afterwards) of bpf(2); OSError when it fails."""
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    result = libc.syscall(NR_BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, buffer.raw


class Rejected(Exception):
    """PROG_LOAD failed; the verifier's log is the argument."""


def load_program(raw: bytes, type: int = SOCKET_FILTER) -> int:
    insns = ctypes.create_string_buffer(raw, len(raw))
    license = ctypes.create_string_buffer(b"Dual MIT/GPL")
    log = ctypes.create_string_buffer(1 << 20)
    attr = struct.pack(
        "=IIQQIIQ",
        type,
        len(raw) // 8,
        ctypes.addressof(insns),
        ctypes.addressof(license),
        1,
        len(log),
        ctypes.addressof(log),
    )
    try:
        return bpf(PROG_LOAD, attr)[0]
    except OSError as error:
        raise Rejected(f"{error}\n{log.value.decode()}") from None


def run(program: Sequence[Item]) -> tuple[int, bytes]:
    """(R0, the value of the map "state") after one run."""
    fds: list[int] = []
    try:
        fds.append(bpf(MAP_CREATE, struct.pack("=IIII", ARRAY, 4, VALUE_SIZE, 1))[0])
        fds.append(load_program(encode(program, maps={"state": fds[0]})))
        packet = ctypes.create_string_buffer(64)
        attr = struct.pack("=IIIIQQI", fds[1], 0, len(packet), 0, ctypes.addressof(packet), 0, 1)
        returned: int = struct.unpack_from("=I", bpf(PROG_TEST_RUN, attr)[1], 4)[0]
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(VALUE_SIZE)
        attr = struct.pack("=IIQQ", fds[0], 0, ctypes.addressof(key), ctypes.addressof(value))
        bpf(MAP_LOOKUP_ELEM, attr)
        assert interpreted(program) == (returned, value.raw)
        return returned, value.raw
    finally:
        for fd in fds:
            os.close(fd)


def interpreted(program: Sequence[Item]) -> tuple[int, bytes]:
    """What ``run`` gives, without the kernel."""
    state = interp_maps.ArrayModel(VALUE_SIZE, 1)
    helpers = {**interp_maps.HELPERS, GET_SMP_PROCESSOR_ID: lambda _machine, _registers: 0}
    returned = interp.Machine(program, maps={"state": state}, helpers=helpers).run()
    return returned & U32, bytes(state.values[0])


def results(pieces: Sequence[Sequence[Item]]) -> list[int]:
    """R1, 64 bits, after each piece of code. R9 is not theirs."""
    program: list[Item] = [map_value(R9, "state")]
    for index, piece in enumerate(pieces):
        program += [*piece, store(R9, 8 * index, R1, DW)]
    _, value = run([*program, Mov.imm(R0, 0), exit_()])
    return list(struct.unpack_from(f"={len(pieces)}Q", value))


def needs(release: str) -> None:
    """Skip on a kernel older than the instruction; a newer one has no excuse."""
    have = [int(part) for part in re.findall(r"\d+", platform.release())[:2]]
    if have < [int(part) for part in release.split(".")]:
        pytest.skip(f"this kernel is older than Linux {release}")


EDGES = (0, 1, 7, U64, 2**63, 2**63 - 1, 2**31, 2**31 - 1, U32, 0xFFFFFFFF80000000, 0x123456789ABCDEF0)
IMMEDIATES = (0, 1, -1, 7, 2**31 - 1, -(2**31))
BOTH = pytest.mark.parametrize("bits", [64, 32])


def op(name: str, bits: int) -> asm.ops.Alu | asm.ops.JumpIf:
    found = getattr(asm, name if bits == 64 else name + "32")
    assert isinstance(found, asm.ops.Alu | asm.ops.JumpIf)
    return found


def alu_op(name: str, bits: int) -> asm.ops.Alu:
    found = op(name, bits)
    assert isinstance(found, asm.ops.Alu)
    return found


def jump_op(name: str, bits: int) -> asm.ops.JumpIf:
    found = op(name, bits)
    assert isinstance(found, asm.ops.JumpIf)
    return found


@BOTH
@pytest.mark.parametrize("name", [*ALU_OPS, *SIGNED_OPS])
def test_arithmetic_on_registers(name: str, bits: int) -> None:
    if name in SIGNED_OPS:
        needs("6.6")
    operation, mask = alu_op(name, bits), (1 << bits) - 1
    shift = name in ("Lsh", "Rsh", "Arsh")
    # A register's shift counts modulo the width.
    pairs = [(a, b) for a in EDGES for b in ((0, 1, 5, 31, 32, 63, 64) if shift else EDGES)]
    found = results([[ld_imm64(R1, a), ld_imm64(R2, b), operation.reg(R1, R2)] for a, b in pairs])
    expected = [interp.ALU[name](a & mask, b & mask, bits) & mask for a, b in pairs]
    assert list(zip(pairs, found, strict=True)) == list(zip(pairs, expected, strict=True))


@BOTH
@pytest.mark.parametrize("name", [*ALU_OPS, *SIGNED_OPS])
def test_arithmetic_with_immediates(name: str, bits: int) -> None:
    if name in SIGNED_OPS:
        needs("6.6")
    operation, mask = alu_op(name, bits), (1 << bits) - 1
    shifts = tuple(shift for shift in (0, 1, 31, 32, 63) if shift < bits)  # the verifier refuses more
    immediates: tuple[int, ...] = shifts if name in ("Lsh", "Rsh", "Arsh") else IMMEDIATES
    if name in ("Div", "Mod", "SDiv", "SMod"):
        immediates = tuple(imm for imm in immediates if imm)  # the verifier refuses 0
    pairs = [(a, b) for a in EDGES for b in immediates]
    found = results([[ld_imm64(R1, a), operation.imm(R1, b)] for a, b in pairs])
    expected = [interp.ALU[name](a & mask, b & mask, bits) & mask for a, b in pairs]
    assert list(zip(pairs, found, strict=True)) == list(zip(pairs, expected, strict=True))


@BOTH
@pytest.mark.parametrize("name", JUMP_OPS)
def test_jumps(name: str, bits: int) -> None:
    jump, mask = jump_op(name, bits), (1 << bits) - 1
    pieces: list[list[Item]] = []
    expected: list[int] = []
    for number, (a, b) in enumerate((a, b) for a in EDGES for b in EDGES):
        end = f"end{number}"
        pieces.append(
            [
                ld_imm64(R2, a),
                ld_imm64(R3, b),
                Mov.imm(R1, 1),
                jump.reg(R2, R3, end),
                Mov.imm(R1, 0),
                label(end),
            ]
        )
        expected.append(int(interp.JUMPS[name](a & mask, b & mask, bits)))
    for number, (a, imm) in enumerate((a, imm) for a in EDGES for imm in IMMEDIATES):
        end = f"imm{number}"
        pieces.append([ld_imm64(R2, a), Mov.imm(R1, 1), jump.imm(R2, imm, end), Mov.imm(R1, 0), label(end)])
        expected.append(int(interp.JUMPS[name](a & mask, imm & mask, bits)))
    assert results(pieces) == expected
    assert {0, 1} == set(expected)


def test_negation() -> None:
    found = results([[ld_imm64(R1, a), neg(R1)] for neg in (Neg, Neg32) for a in EDGES])
    assert found == [-a & U64 for a in EDGES] + [-a & U32 for a in EDGES]


def test_sign_extending_moves() -> None:
    needs("6.6")
    values = (0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0x1_00000080, *EDGES)
    for bits in (8, 16, 32):
        found = results([[ld_imm64(R2, a), Mov.signed(R1, R2, bits)] for a in values])
        assert found == [signed(a, bits) & U64 for a in values]
    for bits in (8, 16):
        found = results([[ld_imm64(R2, a), Mov32.signed(R1, R2, bits)] for a in values])
        assert found == [signed(a, bits) & U32 for a in values]


def reversed_bytes(value: int, bits: int) -> int:
    return int.from_bytes((value & (1 << bits) - 1).to_bytes(bits // 8, "little"), "big")


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_byte_swaps(bits: int) -> None:
    kept, swapped = [a & (1 << bits) - 1 for a in EDGES], [reversed_bytes(a, bits) for a in EDGES]
    to_little = results([[ld_imm64(R1, a), to_le(R1, bits)] for a in EDGES])
    to_big = results([[ld_imm64(R1, a), to_be(R1, bits)] for a in EDGES])
    assert [to_little, to_big] == ([kept, swapped] if sys.byteorder == "little" else [swapped, kept])


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_bswap(bits: int) -> None:
    needs("6.6")
    assert results([[ld_imm64(R1, a), bswap(R1, bits)] for a in EDGES]) == [reversed_bytes(a, bits) for a in EDGES]


def test_loads_and_stores() -> None:
    zero = store_imm(R10, -8, 0, DW)
    all_ones = store_imm(R10, -8, -1, DW)
    pattern = ld_imm64(R2, 0x8182838485868788)
    written = [[zero, pattern, store(R10, -8, R2, size), load(R1, R10, -8, size)] for size in (B, H, W, DW)]
    assert results(written) == [0x88, 0x8788, 0x85868788, 0x8182838485868788]
    constants = [[zero, store_imm(R10, -8, -2, size), load(R1, R10, -8, size)] for size in (B, H, W, DW)]
    assert results(constants) == [0xFE, 0xFFFE, 0xFFFFFFFE, 0xFFFFFFFFFFFFFFFE]
    # A narrow store leaves the bytes beside it alone.
    beside = [all_ones, pattern, store(R10, -5, R2, B), store_imm(R10, -2, 0, H), load(R1, R10, -8, DW)]
    expected = int.from_bytes(b"\xff\xff\xff\x88\xff\xff\0\0", sys.byteorder)
    assert results([beside]) == [expected]


def test_signed_loads() -> None:
    needs("6.6")
    stored = [
        ld_imm64(R2, 0x8182838485868788),
        *(store(R10, -off, R2, size) for off, size in ((8, B), (16, H), (24, W))),
    ]
    found = results([[*stored, load_signed(R1, R10, -off, size)] for off, size in ((8, B), (16, H), (24, W))])
    assert found == [signed(0x88, 8) & U64, signed(0x8788, 16) & U64, signed(0x85868788, 32) & U64]


ATOMICS: list[tuple[str, Callable[..., Insn], Callable[[int, int], int]]] = [
    ("add", atomic_add, lambda a, b: a + b),
    ("or", atomic_or, lambda a, b: a | b),
    ("and", atomic_and, lambda a, b: a & b),
    ("xor", atomic_xor, lambda a, b: a ^ b),
]


@BOTH
@pytest.mark.parametrize(("name", "atomic", "model"), ATOMICS, ids=[name for name, _, _ in ATOMICS])
def test_atomics(name: str, atomic: Callable[..., Insn], model: Callable[[int, int], int], bits: int) -> None:
    size, mask = (DW, U64) if bits == 64 else (W, U32)
    pairs = [(a, b) for a in EDGES for b in (0, 1, U64, 2**63, 2**31, 0x3C3C3C3C3C3C3C3C)]
    plain: list[list[Item]] = []
    fetched: list[list[Item]] = []
    memory: list[list[Item]] = []
    for old, operand in pairs:
        start = [ld_imm64(R1, old), store(R10, -8, R1, size), ld_imm64(R1, operand)]
        plain.append([*start, atomic(R10, -8, R1, size), load(R1, R10, -8, size)])
        fetched.append([*start, atomic(R10, -8, R1, size, fetch=True)])
        memory.append([*fetched[-1], load(R1, R10, -8, size)])
    new = [model(old & mask, operand & mask) & mask for old, operand in pairs]
    assert results(plain) == new
    if name != "add":
        needs("5.12")
    assert results(fetched) == [old & mask for old, _ in pairs]
    assert results(memory) == new


@BOTH
def test_exchange(bits: int) -> None:
    needs("5.12")
    size, mask = (DW, U64) if bits == 64 else (W, U32)
    for old, new in ((5, 9), (0, U64), (2**63, 1), (U32, 2**31), (2**31, 2**63)):
        start = [ld_imm64(R1, old), store(R10, -8, R1, size), ld_imm64(R1, new)]
        swapped: list[Item] = [*start, atomic_xchg(R10, -8, R1, size)]
        assert results([swapped, [*swapped, load(R1, R10, -8, size)]]) == [old & mask, new & mask]
        # What is expected above the width means nothing.
        for expected in (old, old ^ 1, old ^ (2**40 if bits == 32 else 2**63)):
            tried = [*start, ld_imm64(R0, expected), atomic_cmpxchg(R10, -8, R1, size)]
            after = new if expected & mask == old & mask else old
            found = results([[*tried, Mov.reg(R1, R0)], [*tried, load(R1, R10, -8, size)]])
            assert found == [old & mask, after & mask], (old, new, expected)


@pytest.mark.parametrize("size", [B, H, W, DW])
def test_acquire_and_release(size: int) -> None:
    needs("6.15")
    ordered = [
        ld_imm64(R2, 0x8182838485868788),
        store_imm(R10, -8, 0, DW),
        store_release(R10, -8, R2, size),
        load_acquire(R1, R10, -8, size),
    ]
    assert results([ordered]) == [0x8182838485868788 & ((1 << 8 * size) - 1)]


def test_ld_imm64_and_its_neighbours() -> None:
    values = (0, 1, -1, 2**63, 2**32, U32, 0x123456789ABCDEF0)
    assert results([[ld_imm64(R1, value)] for value in values]) == [value & U64 for value in values]


def test_return_value_and_unconditional_jumps() -> None:
    assert run([Mov.imm(R0, 42), exit_()])[0] == 42
    for jump in (Ja("out"), Ja(1)):
        over = [
            Mov.imm(R0, 1),
            JNe.imm(R0, 1, "not"),
            jump,
            label("not"),
            Mov.imm(R0, 2),
            label("out"),
            exit_(),
        ]
        assert run(over)[0] == 1


def test_gotol() -> None:
    needs("6.6")
    filler: list[Item] = [Add.imm(R0, 1)] * 40_000
    over = [Mov.imm(R0, 1), JNe.imm(R0, 1, "not"), Gotol("far"), label("not"), *filler, label("far"), exit_()]
    assert run(over)[0] == 1


def test_loops_backwards() -> None:
    total = [
        Mov.imm(R0, 0),
        Mov.imm(R1, 10),
        label("top"),
        Add.reg(R0, R1),
        Sub.imm(R1, 1),
        JNe.imm(R1, 0, "top"),
        exit_(),
    ]
    assert run(total)[0] == 55


def test_may_goto() -> None:
    needs("6.9")
    program = [
        Mov.imm(R0, 0), call(GET_SMP_PROCESSOR_ID), Mov.reg(R6, R0), Mov.imm(R0, 0),
        label("top"), MayGoto("out"), Add.imm(R0, 1), JLt.imm(R0, 1000, "top"),
        label("out"), exit_(),
    ]  # fmt: skip
    assert run(program)[0] == 1000


def test_subprograms() -> None:
    program = [
        Mov.imm(R1, 6), call_sub("factorial"), Mov.reg(R6, R0),
        Mov.imm(R1, 5), call_sub("factorial"), Add.reg(R0, R6), exit_(),
        label("factorial"), Mov.imm(R0, 1),
        label("next"), JSLt.imm(R1, 2, "done"), Mul.reg(R0, R1), Sub.imm(R1, 1), Ja("next"),
        label("done"), exit_(),
    ]  # fmt: skip
    assert run(program)[0] == 720 + 120


def test_helper_call_with_a_map() -> None:
    program = [
        map_value(R6, "state", offset=8), store_imm(R6, 0, 77, DW),
        store_imm(R10, -4, 0, W), map_ptr(R1, "state"), Mov.reg(R2, R10), Add.imm(R2, -4),
        call(MAP_LOOKUP), JEq.imm(R0, 0, "none"), load(R0, R0, 8, DW), exit_(),
        label("none"), Mov.imm(R0, 1), exit_(),
    ]  # fmt: skip
    assert run(program)[0] == 77


def test_map_value_offsets() -> None:
    program = [
        map_value(R6, "state"), map_value(R7, "state", offset=16),
        store_imm(R6, 0, 1, DW), store_imm(R7, 0, 2, DW), Mov.reg(R0, R7), Sub.reg(R0, R6),
        load(R1, R7, -16, DW), Lsh.imm(R0, 8), Or.reg(R0, R1), exit_(),
    ]  # fmt: skip
    returned, value = run(program)
    assert returned == 16 << 8 | 1
    assert struct.unpack_from("=QQQ", value) == (1, 0, 2)


def test_the_verifiers_slot_number_finds_the_line() -> None:
    bad = load(R1, R2, 0, DW)
    program = [ld_imm64(R0, 1), label("a"), Mov.imm(R0, 0), bad, exit_()]
    with pytest.raises(Rejected) as caught:
        run(program)
    numbers = re.findall(r"^(\d+): \(79\)", str(caught.value), re.MULTILINE)
    assert numbers == ["3"]
    assert locate(program)[int(numbers[0])] is bad
