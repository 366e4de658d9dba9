"""Programs that campaigns make: whatever the numbers, they are such as the model runs to their end, and they get smaller."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawkm.asm import Insn, encode, lint, locate
from rawkm.asm.insn import Item
from rawkm.errors import InterpreterError
from rawkm.fuzz import prog_model
from rawkm.fuzz.prog_builder import MAPS
from rawkm.fuzz.prog_recipes import BROKEN, VALID, Recipe, at_random, shrink
from rawkm.fuzz.prog_strategies import examples, programs

FDS = {name: 3 + at for at, name in enumerate(MAPS)}
ROOMY = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@ROOMY
@given(seed=st.integers(0, 1 << 32))
def test_valid_recipes_run_to_their_end(seed: int) -> None:
    recipe = at_random(random.Random(seed), modes=(VALID,))
    example = recipe.make()
    first, second = (prog_model.run(example).parts() for _ in range(2))
    assert first == second
    assert not prog_model.depends_on_addresses(example)
    assert example.code(FDS) == at_random(random.Random(seed), modes=(VALID,)).make().code(FDS)
    assert lint(example.built.insns) == []


@ROOMY
@given(seed=st.integers(0, 1 << 32))
def test_broken_recipes_differ_in_one_slot(seed: int) -> None:
    recipe = at_random(random.Random(seed), modes=(BROKEN,))
    whole, broken = (recipe.but(breakage=b).make().code(FDS) for b in (None, recipe.breakage))
    assert len(whole) == len(broken)
    assert sum(whole[at : at + 8] != broken[at : at + 8] for at in range(0, len(whole), 8)) <= 1
    try:
        prog_model.run(recipe.make())
    except InterpreterError as err:
        assert str(err)


@ROOMY
@given(items=programs())
def test_the_strategy_gives_what_can_be_encoded(items: list[Item]) -> None:
    assert len(encode(items, maps=FDS)) == 8 * len(locate(items))


@ROOMY
@given(example=examples())
def test_examples_of_hypothesis_are_recipes_too(example: object) -> None:
    assert repr(example)


def divides(recipe: Recipe) -> bool:
    """Whether it divides by the constant 7: what the test takes for a failure."""
    insns = [item for item in recipe.make().built.insns if isinstance(item, Insn)]
    return any(insn.opcode in (0x37, 0x34) and insn.imm == 7 and not insn.off for insn in insns)


def test_shrinking_leaves_what_matters() -> None:
    seeds = (seed for seed in range(10_000) if divides(at_random(random.Random(seed), modes=(VALID,))))
    for _ in range(3):
        recipe = at_random(random.Random(next(seeds)), modes=(VALID,))
        small = shrink(recipe, divides)
        assert divides(small)
        assert len(small.main) + sum(map(len, small.subs)) <= 2, small.main
        assert not small.dump and small.data == b"\0\0" and small.variant == 0
