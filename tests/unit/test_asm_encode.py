"""Labels, maps and slots: from a list of instructions to the bytes of a program."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R10,
    Add,
    Gotol,
    Helper,
    Insn,
    Item,
    Ja,
    JEq,
    JEq32,
    JNe,
    MayGoto,
    Mov,
    call,
    call_sub,
    decode,
    encode,
    exit_,
    func_ptr,
    label,
    ld_imm64,
    load,
    locate,
    map_ptr,
    map_refs,
    map_value,
    store,
)
from rawkm.errors import AssembleError


class Map:
    def __init__(self, name: str) -> None:
        self.name = name


def offs(items: list[Item]) -> list[int]:
    return [insn.off for insn in decode(encode(items))]


def imms(items: list[Item]) -> list[int]:
    return [insn.imm for insn in decode(encode(items))]


def test_a_whole_program() -> None:
    counts = Map("counts")
    items = [
        call(Helper.get_func_ip),
        store(R10, -8, R0, DW),
        map_ptr(R1, counts), Mov.reg(R2, R10), Add.imm(R2, -8),
        call(Helper.map_lookup_elem), JEq.imm(R0, 0, "out"),
        load(R1, R0, 0, DW), Add.imm(R1, 1), store(R0, 0, R1, DW),
        label("out"), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip
    # The same as clang spells it, assembled by llvm-mc-19 with 9 for the map, and its source put in by hand.
    expected = """
        85000000ad000000 7b0af8ff00000000 1811000009000000 0000000000000000 bfa2000000000000
        07020000f8ffffff 8500000001000000 1500030000000000 7901000000000000 0701000001000000
        7b10000000000000 b700000000000000 9500000000000000
    """
    assert encode(items, maps={"counts": 9}, byteorder="little") == bytes.fromhex(expected)
    assert map_refs(items) == [counts]


def test_nothing_is_an_empty_program() -> None:
    assert encode([]) == b""
    assert encode([label("only")]) == b""


def test_labels_count_slots_not_instructions() -> None:
    assert offs([Ja("out"), ld_imm64(R1, 0), label("out"), exit_()])[0] == 2
    assert offs([label("top"), ld_imm64(R1, 0), JEq.imm(R1, 0, "top"), exit_()])[1] == -3
    assert offs([label("here"), JEq32.imm(R1, 0, "here"), exit_()])[0] == -1
    assert offs([MayGoto("next"), label("next"), exit_()])[0] == 0


def test_several_labels_at_one_place() -> None:
    assert offs([Ja("a"), Ja("b"), exit_(), label("a"), label("b"), exit_()])[:2] == [2, 1]


def test_a_label_nobody_jumps_to_may_stand_at_the_end() -> None:
    assert len(encode([exit_(), label("end")])) == 8


def test_calls_and_long_jumps_keep_their_distance_in_imm() -> None:
    items = [call_sub("sub"), Gotol("sub"), exit_(), label("sub"), Mov.imm(R0, 0), exit_()]
    assert imms(items)[:2] == [2, 1]
    assert offs(items)[:2] == [0, 0]
    assert imms([label("top"), exit_(), Gotol("top")])[1] == -2


def test_a_callback_counts_from_its_first_slot() -> None:
    raw = encode([func_ptr(R2, "sub"), exit_(), label("sub"), exit_()], byteorder="little")
    assert raw[:16].hex() == "18420000020000000000000000000000"
    raw = encode([label("sub"), exit_(), func_ptr(R2, "sub"), exit_()], byteorder="little")
    assert raw[8:24].hex() == "18420000feffffff0000000000000000"


@pytest.mark.parametrize(("jump", "far"), [(lambda: Ja("far"), 32767), (lambda: JEq.imm(R0, 0, "far"), 32767)], ids=["Ja", "JEq"])
def test_reach_of_a_jump(jump: Callable[[], Insn], far: int) -> None:
    filler: list[Item] = [Mov.imm(R0, 0)] * far
    assert offs([jump(), *filler, label("far"), exit_()])[0] == 32767
    assert offs([label("far"), *filler, jump(), exit_()])[-2] == -32768
    too_far = jump()
    for items, distance in (
        ([too_far, *filler, Mov.imm(R0, 0), label("far"), exit_()], 32768),
        ([label("far"), *filler, Mov.imm(R0, 0), too_far, exit_()], -32769),
    ):
        with pytest.raises(AssembleError, match=rf"label 'far' is {distance} slots away; .* Gotol") as caught:
            encode(items)
        assert caught.value.src_loc == too_far.loc


def test_gotol_reaches_further() -> None:
    filler: list[Item] = [Mov.imm(R0, 0)] * 100_000
    assert imms([Gotol("far"), *filler, label("far"), exit_()])[0] == 100_000


def test_unknown_label() -> None:
    jump = JNe.reg(R0, R1, "nowhere")
    with pytest.raises(AssembleError, match="no label 'nowhere' in this program") as caught:
        encode([label("somewhere"), jump, exit_()])
    assert caught.value.src_loc == jump.loc


def test_label_defined_twice() -> None:
    first, second = label("out"), label("out")
    with pytest.raises(AssembleError, match=r"label 'out' is defined twice, first at .*test_asm_encode.py:\d+") as caught:
        encode([first, exit_(), second, exit_()])
    assert caught.value.src_loc == second.loc


def test_label_behind_the_last_instruction() -> None:
    end = label("end")
    with pytest.raises(AssembleError, match=r"no instruction follows label 'end', where Ja\('end'\) goes") as caught:
        encode([Ja("end"), exit_(), end])
    assert caught.value.src_loc == end.loc


def test_what_is_no_item() -> None:
    with pytest.raises(AssembleError, match="item 1 is neither an instruction nor a label: 'exit'"):
        encode([Mov.imm(R0, 0), "exit"])  # type: ignore[list-item]


def test_maps_by_name_and_by_object() -> None:
    items = [map_ptr(R1, "a"), map_value(R2, Map("b"), offset=4), map_ptr(R1, Map("a")), exit_()]
    raw = encode(items, maps={"a": 5, "b": 6, "other": 7})
    assert [insn.imm for insn in decode(raw)] == [5, 4 << 32 | 6, 5, 0]
    assert [insn.symbol for insn in decode(raw)] == [None] * 4


def test_missing_map() -> None:
    insn = map_ptr(R1, "counts")
    for maps in (None, {}, {"count": 3}):
        with pytest.raises(AssembleError, match="no map 'counts' was given for this program") as caught:
            encode([exit_(), insn], maps=maps)
        assert caught.value.src_loc == insn.loc


@pytest.mark.parametrize("fd", [-1, 2**31, "3"])
def test_a_map_needs_an_fd(fd: int) -> None:
    insn = map_ptr(R1, "counts")
    with pytest.raises(AssembleError, match="the fd of map 'counts'") as caught:
        encode([insn], maps={"counts": fd})
    assert caught.value.src_loc == insn.loc


def test_map_refs() -> None:
    a, b, c = Map("a"), Map("b"), Map("c")
    items = [
        map_ptr(R1, b),
        map_ptr(R1, "a"),
        label("x"),
        map_value(R1, b),
        map_ptr(R1, a),
        exit_(),
        map_ptr(R1, 7),
    ]
    assert map_refs(items) == [b, a]
    assert map_refs([map_ptr(R1, a), map_ptr(R1, "a")]) == [a]
    assert map_refs([map_ptr(R1, "a"), map_ptr(R1, "c"), map_ptr(R1, c)]) == ["a", c]
    assert map_refs([exit_()]) == []


def test_two_maps_of_one_name() -> None:
    second = map_ptr(R1, Map("a"))
    with pytest.raises(AssembleError, match="two different maps are named 'a'") as caught:
        map_refs([map_ptr(R1, Map("a")), second])
    assert caught.value.src_loc == second.loc


def test_locate() -> None:
    first, second, third = Mov.imm(R0, 0), ld_imm64(R1, 1), exit_()
    found = locate([label("a"), first, second, label("b"), third])
    assert len(found) == 4
    assert found[0] is first
    assert found[1] is found[2] is second
    assert found[3] is third


def test_a_generator_will_do() -> None:
    assert encode(item for item in (Ja("out"), label("out"), exit_())) == encode([Ja(0), exit_()])


def test_a_raw_instruction_is_one_slot_whatever_its_opcode() -> None:
    raw = Insn(0x18, dst=15, src=14, off=-2, imm=-3, raw=True)
    assert encode([raw], byteorder="little") == struct.pack("<BBhi", 0x18, 0xEF, -2, -3)
    assert encode([raw], byteorder="big") == struct.pack(">BBhi", 0x18, 0xFE, -2, -3)
    assert locate([raw]) == [raw]
