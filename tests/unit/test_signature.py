"""What a function takes and returns, from its BTF: slots, sizes, signs, and why no trampoline can be made for it."""

from __future__ import annotations

import pytest

from rawkm.btf.btf import Btf
from rawkm.btf.build import Builder
from rawkm.btf.kinds import PTR, TYPEDEF
from rawkm.errors import BTFError
from rawkm.programs.signature import Signature, signature, signatures
from tests.unit.files import BTF, FileKernel


def built() -> bytes:
    b = Builder()
    integer = b.integer("int", 4, signed=True)
    long = b.integer("unsigned long", 8)
    short = b.integer("short", 2, signed=True)
    boolean = b.integer("_Bool", 1)
    double = b.floating("double", 8)
    pointer = b.ref(PTR, 0)
    pair = b.composite("pair", 16, [("a", long, 0, 0), ("b", long, 64, 0)])
    large = b.composite("large", 24, [("a", long, 0, 0)])
    alias = b.ref(TYPEDEF, short, "alias_t")
    b.func("plain", b.proto(integer, [("p", pointer), ("n", alias), ("ok", boolean)]))
    b.func("nothing", b.proto(0, []))
    b.func("pairs", b.proto(long, [("first", integer), ("both", pair), ("last", integer)]))
    b.func("large", b.proto(long, [("first", integer), ("much", large), ("last", integer)]))
    b.func("printf", b.proto(integer, [("format", pointer), ("", 0)]))
    b.func("floats", b.proto(integer, [("x", double), ("n", integer)]))
    b.func("seven", b.proto(pair, [(f"a{n}", long) for n in range(7)]))
    b.func("twice", b.proto(0, []))
    b.func("twice", b.proto(integer, []))
    return b.build()


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(built())


def slots(found: Signature) -> list[tuple[str, int, int]]:
    return [(a.name, a.slot, a.slots) for a in found.arguments]


def test_values_are_masked_to_their_size(btf: Btf) -> None:
    found = signature(btf, "plain")
    assert slots(found) == [("p", 0, 1), ("n", 1, 1), ("ok", 2, 1)]
    garbage = 0xDEADBEEF << 32
    words = [0xFFFF888000001000, garbage | 0xFFFB, garbage | 0x1100 | 1]
    assert [a.decode(words) for a in found.arguments] == [0xFFFF888000001000, -5, 1]
    assert [a.text(words) for a in found.arguments] == ["0xffff888000001000", "-5", "true"]
    assert found.returned is not None
    assert found.returned.decode([garbage | 0xFFFFFFF5]) == -11
    assert found.untraceable == ""


def test_a_void_function(btf: Btf) -> None:
    found = signature(btf, "nothing")
    assert (found.arguments, found.returned, found.slots) == ([], None, 0)


def test_structs_take_registers_or_none(btf: Btf) -> None:
    found = signature(btf, "pairs")
    assert slots(found) == [("first", 0, 1), ("both", 1, 2), ("last", 3, 1)]
    assert [a.text([7, 1, 2, 9]) for a in found.arguments] == ["7", "?", "9"]
    found = signature(btf, "large")
    assert slots(found) == [("first", 0, 1), ("much", 1, 0), ("last", 1, 1)]
    assert "24 bytes" in found.untraceable


def test_what_no_trampoline_is_for(btf: Btf) -> None:
    assert "variable number" in signature(btf, "printf").untraceable
    floats = signature(btf, "floats")
    assert "floating" in floats.untraceable
    assert slots(floats) == [("x", 0, 0), ("n", 0, 1)]
    seven = signature(btf, "seven")
    assert "returns a struct" in seven.untraceable
    assert (seven.slots, seven.recorded) == (7, 6)
    assert [a.text([1] * 6) for a in seven.arguments] == ["1"] * 6 + ["?"]


def test_by_names() -> None:
    kernel = FileKernel({BTF: built()}).kernel
    found = signatures(kernel, [("plain", ""), ("twice", ""), ("none", ""), ("plain", "no_such_module")])
    assert found[0] is not None and found[0].slots == 3
    assert found[1:] == [None, None, None], "several of a name cannot be told apart"
    with pytest.raises(BTFError):
        signature(Btf(built()), "none")


def test_a_variable_number_of_arguments(btf: Btf) -> None:
    ids = btf.function_ids()
    variadic = {name for name, (first, *_) in ids.items() if btf.is_variadic(first)}
    assert variadic == {b"printf"}
    assert len(ids[b"twice"]) == 2
