"""Instructions as values: equality, immutability, the line that made them, and what they refuse."""

from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R10,
    R11,
    Add,
    Add32,
    Arsh,
    B,
    Gotol,
    H,
    Insn,
    Ja,
    JEq,
    JEq32,
    Lsh,
    Lsh32,
    Mov,
    Mov32,
    Neg,
    W,
    addr_space_cast,
    atomic_add,
    bswap,
    call,
    call_sub,
    exit_,
    func_ptr,
    kfunc,
    ksym,
    label,
    ld_imm64,
    load,
    load_abs,
    load_acquire,
    load_ind,
    load_signed,
    map_idx,
    map_ptr,
    map_value,
    store,
    store_imm,
)
from rawkm.errors import AssembleError


class Map:
    def __init__(self, name: str) -> None:
        self.name = name


def wrong(value: object) -> Any:
    """A value that the type checker would not let through."""
    return value


def line() -> int:
    """The line of the caller."""
    return sys._getframe(1).f_lineno


def test_equal_when_they_mean_the_same() -> None:
    assert Mov.imm(R1, 5) == Mov.imm(1, 5) == Insn(0xB7, dst=1, imm=5, comment="five")
    assert hash(Mov.imm(R1, 5)) == hash(Insn(0xB7, dst=1, imm=5, loc=("x.py", 3)))
    assert ld_imm64(R1, -1) == ld_imm64(R1, 2**64 - 1)
    assert Mov32.imm(R1, -1) == Mov32.imm(R1, 0xFFFFFFFF)
    assert map_ptr(R1, "counts") == map_ptr(R1, Map("counts"))
    assert hash(map_ptr(R1, "counts")) == hash(map_ptr(R1, Map("counts")))
    assert label("out") == label("out")


def test_unequal_when_anything_differs() -> None:
    different = [
        Insn(0xB7, dst=1, imm=5),
        Insn(0xB4, dst=1, imm=5),
        Insn(0xB7, dst=2, imm=5),
        Insn(0xB7, dst=1, src=1, imm=5),
        Insn(0xB7, dst=1, off=1, imm=5),
        Insn(0xB7, dst=1, imm=6),
        Insn(0xB7, dst=1, imm=5, raw=True),
        Ja(0),
        Ja("a"),
        Ja("b"),
        map_ptr(R1, 0),
        map_ptr(R1, "a"),
        map_ptr(R1, "b"),
        map_value(R1, "a"),
        map_value(R1, "a", offset=8),
    ]
    assert len(set(different)) == len(different)
    assert Ja("a") != label("a")
    assert label("a") != label("b")


def test_cannot_be_changed() -> None:
    insn = Mov.imm(R1, 5)
    with pytest.raises(AttributeError):
        insn.imm = 6
    with pytest.raises(AttributeError):
        del insn.imm
    with pytest.raises(AttributeError):
        insn.other = 1
    assert insn.imm == 5


def pickled(insn: Insn) -> Insn:
    again = pickle.loads(pickle.dumps(insn))
    assert isinstance(again, Insn)
    return again


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, pickled])
def test_copies_are_equal_and_keep_their_line(remake: Callable[[Insn], Insn]) -> None:
    insn = map_value(R1, "state", offset=8)
    again = remake(insn)
    assert again == insn
    assert again.loc == insn.loc


def test_knows_the_line_that_made_it() -> None:
    start = line()
    insns = [
        Mov.imm(R0, 0), load(R1, R10, -8, DW),
        JEq.imm(R0, 0, "out"), atomic_add(R10, -8, R1, DW),
        map_ptr(R1, "counts"), label("out"), Neg(R0),
    ]  # fmt: skip
    assert [insn.loc for insn in insns] == [(__file__, start + n) for n in (2, 2, 3, 3, 4, 4, 4)]


def test_a_line_can_be_given() -> None:
    assert Insn(0x95, loc=("prog.s", 12)).loc == ("prog.s", 12)


def test_fields() -> None:
    insn = map_value(R2, "state", offset=16)
    assert (insn.opcode, insn.dst, insn.src, insn.off, insn.imm) == (0x18, 2, 2, 0, 16 << 32)
    assert (insn.symbol, insn.symbol_name, insn.target, insn.raw, insn.slots) == (
        "state",
        "state",
        None,
        False,
        2,
    )
    state = Map("state")
    assert map_ptr(R1, state).symbol is state
    assert map_ptr(R1, state).symbol_name == "state"
    assert Ja("out").target == "out"
    assert Ja("out").slots == 1
    assert ld_imm64(R1, 2**63).imm == -(2**63)


def test_repr_of_what_the_table_and_the_golden_encodings_do_not_show() -> None:
    assert repr(R10) == str(R10) == f"{R10}" == "R10"
    assert [repr(size) for size in (B, H, W, DW)] == ["B", "H", "W", "DW"]
    assert [B, H, W, DW] == [1, 2, 4, 8]
    assert repr([Mov, Add32, JEq32, Neg, Ja]) == "[Mov, Add32, JEq32, Neg, Ja]"
    assert repr(label("out")) == "label('out')"
    assert repr(JEq.imm(R0, 0, "out")) == "JEq.imm(R0, 0, 'out')"
    assert repr(Gotol("far")) == "Gotol('far')"
    assert repr(call_sub("sub")) == "call_sub('sub')"
    assert repr(func_ptr(R2, "sub")) == "func_ptr(R2, 'sub')"
    assert repr(map_value(R1, "state", offset=8)) == "map_value(R1, 'state', offset=8)"
    assert repr(Insn(0x18, dst=3, imm=7, raw=True)) == "Insn(0x18, dst=3, imm=7, raw=True)"
    assert repr(ld_imm64(R1, 0xFFFFFFFF81000000)) == "ld_imm64(R1, 0xffffffff81000000)"
    # Encodings that are fine and that the DSL does not make.
    assert repr(Insn(0x67, dst=1, imm=64)) == "Insn(0x67, dst=1, imm=64)"
    assert repr(Insn(0x72, dst=1, imm=256)) == "Insn(0x72, dst=1, imm=256)"
    assert repr(Insn(0x18, src=3, imm=-1)) == "Insn(0x18, src=3, imm=-1)"
    assert repr(Insn(0x18, src=3, imm=-(1 << 32))) == "Insn(0x18, src=3, imm=-4294967296)"


def test_immediates_at_the_edge_of_their_range() -> None:
    assert Mov.imm(R1, -(2**31)).imm == -(2**31)
    assert Mov.imm(R1, 2**31 - 1).imm == 2**31 - 1
    assert Mov32.imm(R1, 2**32 - 1).imm == -1
    assert JEq32.imm(R1, 2**31, 0).imm == -(2**31)
    assert store_imm(R10, -8, 255, B).imm == 255
    assert store_imm(R10, -8, -(2**15), H).imm == -(2**15)
    assert store_imm(R10, -8, 2**32 - 1, W).imm == -1
    assert store_imm(R10, -8, -(2**31), DW).imm == -(2**31)
    assert Lsh.imm(R1, 63).imm == 63
    assert Lsh32.imm(R1, 31).imm == 31
    assert load(R1, R10, -(2**15), DW).off == -(2**15)
    assert Mov.imm(R1, DW).imm == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Mov.imm(R1, 2**31),
            "immediate 2147483648 is outside -2147483648..2147483647; ld_imm64 takes 64 bits",
        ),
        (lambda: Mov.imm(R1, 0xFFFFFFFF), "immediate 4294967295 is outside"),
        (lambda: Mov.imm(R1, -(2**31) - 1), "immediate -2147483649 is outside"),
        (lambda: Mov32.imm(R1, 2**32), "immediate 4294967296 is outside -2147483648..4294967295"),
        (lambda: JEq.imm(R1, 2**31, 0), "immediate 2147483648 is outside"),
        (lambda: store_imm(R10, -8, 256, B), "immediate 256 is outside -128..255"),
        (lambda: store_imm(R10, -8, 65536, H), "immediate 65536 is outside -32768..65535"),
        (lambda: store_imm(R10, -8, 2**32, W), "immediate 4294967296 is outside -2147483648..4294967295"),
        (lambda: store_imm(R10, -8, 2**31, DW), "immediate 2147483648 is outside -2147483648..2147483647"),
        (lambda: Lsh.imm(R1, 64), "immediate 64 is outside 0..63"),
        (lambda: Arsh.imm(R1, -1), "immediate -1 is outside 0..63"),
        (lambda: Lsh32.imm(R1, 32), "immediate 32 is outside 0..31"),
        (
            lambda: ld_imm64(R1, 2**64),
            "constant 18446744073709551616 is outside -9223372036854775808..1844674407370955",
        ),
        (lambda: load(R1, R10, 2**15, DW), "offset 32768 is outside -32768..32767"),
        (lambda: load(R1, R10, -(2**15) - 1, DW), "offset -32769 is outside -32768..32767"),
        (lambda: Mov.imm(11, 0), "destination 11 is not a register: R0..R10"),
        (lambda: Mov.reg(R1, R11), "source 11 is not a register: R0..R10"),
        (lambda: load(R1, R11, 0, DW), "source 11 is not a register"),
        (lambda: load(R1, R11, -8, DW), "source 11 is not a register"),
        (lambda: load(R1, R11, 8, W), "source 11 is not a register"),
        (lambda: store(R11, 8, R1, DW), "destination 11 is not a register"),
        (lambda: store(R11, -8, R11, DW), "destination 11 is not a register"),
        (lambda: store(R11, wrong("8"), R1, DW), "offset must be a number"),
        (lambda: load_abs(4, 8), "size in bytes is 8, but must be one of 1, 2, 4"),
        (lambda: load_ind(R1, 2**31, 4), "offset 2147483648 is outside"),
        (lambda: addr_space_cast(R1, R2, 1, 1), "no cast from address space 1 to 1"),
        (lambda: Mov.reg(R1, -1), "source -1 is not a register: R0..R10"),
        (lambda: Mov.imm(wrong("r1"), 0), "destination must be a register, not 'r1'"),
        (lambda: Mov.imm(R1, R2), "immediate must be a number, not the register R2"),
        (lambda: Mov.imm(R1, wrong(1.5)), "immediate must be a number, not 1.5"),
        (lambda: store(R10, R1, 8, DW), "offset must be a number, not the register R1"),
        (lambda: Mov.signed(R1, R2, 64), "width in bits is 64, but must be one of 8, 16, 32"),
        (lambda: Mov32.signed(R1, R2, 32), "width in bits is 32, but must be one of 8, 16"),
        (lambda: bswap(R1, 8), "width in bits is 8, but must be one of 16, 32, 64"),
        (lambda: load(R1, R2, 0, 3), "size in bytes is 3, but must be one of 1, 2, 4, 8"),
        (lambda: load(R1, R2, 0, R1), "size in bytes is R1, but must be one of 1, 2, 4, 8"),
        (lambda: load_signed(R1, R2, 0, DW), "size in bytes is DW, but must be one of 1, 2, 4"),
        (lambda: atomic_add(R10, 0, R1, H), "size in bytes is H, but must be one of 4, 8"),
        (lambda: load_acquire(R1, R2, 0, 0), "size in bytes is 0, but must be one of 1, 2, 4, 8"),
        (lambda: Ja(2**15), "distance 32768 is outside -32768..32767"),
        (lambda: Gotol(2**31), "distance 2147483648 is outside -2147483648..2147483647"),
        (lambda: Ja(R1), "distance must be a number, not the register R1"),
        (lambda: JEq.imm(R0, 0, wrong(None)), "a target must be a label or a distance, not None"),
        (lambda: Ja(""), "a label must have a name, not ''"),
        (lambda: label(wrong(3)), "a label must have a name, not 3"),
        (lambda: map_ptr(R1, wrong(None)), "a map must be a name or an object that has one, not None"),
        (lambda: map_ptr(R1, ""), "a map must be a name or an object that has one, not ''"),
        (lambda: map_ptr(R1, Map(wrong(7))), "a map must be a name or an object that has one, not <"),
        (lambda: map_ptr(R1, -1), "map -1 is outside 0..2147483647"),
        (lambda: map_ptr(R1, R2), "map must be a number, not the register R2"),
        (
            lambda: map_value(R1, "m", offset=2**32),
            "offset into the value 4294967296 is outside 0..4294967295",
        ),
        (lambda: map_idx(R1, -1), "index -1 is outside 0..2147483647"),
        (lambda: ksym(R1, -1), "BTF id -1 is outside 0..2147483647"),
        (lambda: kfunc(1, fd_index=2**15), "offset 32768 is outside -32768..32767"),
        (lambda: call(-1), "helper -1 is outside 0..2147483647"),
        (lambda: call(wrong("map_lookup_elem")), "helper must be a number, not 'map_lookup_elem'"),
        (lambda: Insn(256), "opcode 256 is outside 0..255"),
        (lambda: Insn(0x07, imm=2**31), "immediate 2147483648 is outside -2147483648..2147483647"),
        (lambda: Insn(0x18, imm=2**31, raw=True), "immediate 2147483648 is outside -2147483648..2147483647"),
        (lambda: Insn(0xFF, dst=16, raw=True), "destination 16 is not a register: R0..R15"),
        (lambda: Insn(0x07, target="out"), "opcode 0x07 takes no label, but has 'out'"),
        (lambda: Insn(0x85, target="out"), "opcode 0x85 takes no label, but has 'out'"),
        (lambda: Insn(0x05, raw=True, target="out"), "opcode 0x05 takes no label, but has 'out'"),
        (lambda: Insn(0x05, off=1, target="out"), "both the label 'out' and a distance"),
        (lambda: Insn(0x06, imm=1, target="out"), "both the label 'out' and a distance"),
        (lambda: Insn(0x07, symbol="m"), "opcode 0x07 with source 0 takes no map, but has 'm'"),
        (lambda: Insn(0x18, src=3, symbol="m"), "opcode 0x18 with source 3 takes no map, but has 'm'"),
        (lambda: Insn(0x18, src=1, imm=4, symbol="m"), "both the map 'm' and an fd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(AssembleError) as caught:
        make()
    assert str(caught.value.args[0]).startswith(message)
    assert caught.value.src_loc == (__file__, make.__code__.co_firstlineno)


def test_the_message_begins_with_the_line() -> None:
    with pytest.raises(AssembleError) as caught:
        Add.imm(R10, 1 << 40)
    assert str(caught.value).startswith(f"{__file__}:{line() - 1}: immediate 1099511627776 is outside")


@pytest.mark.parametrize(
    ("name", "banned"),
    [
        ("rawkm.asm", "typing dataclasses enum re collections functools inspect pathlib ctypes construct"),
        ("rawkm.asm", "rawkm.asm.disassemble rawkm.asm.source rawkm.asm.text rawkm.asm.parser rawkm.asm.linter rawkm.uapi"),
    ],
)
def test_importing_it_is_cheap(name: str, banned: str) -> None:
    root = Path(asm.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import {name}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) & set(banned.split()) == set()
    assert name in loaded.split()


def test_the_example_of_the_package() -> None:
    assert doctest.testmod(asm).attempted == 2
    assert doctest.testmod(asm).failed == 0


def test_exit_has_no_operands() -> None:
    assert exit_() == Insn(0x95)
