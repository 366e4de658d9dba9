"""Programs that the verifier should take, and such that are slightly wrong, as strategies of hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from rawkm.fuzz.prog_builder import ABILITIES, KINDS, TYPES
from rawkm.fuzz.prog_recipes import BROKEN, CONTROLS, DARING, MODES, VALID, Example, Recipe
from rawkm.uapi.constants import ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rawkm.asm import Item

# Draws are what takes the time: few of them make a statement.
_VALUE = st.integers(0, (1 << 64) - 1)
_WORD = st.tuples(st.sampled_from(KINDS), st.integers(0, CONTROLS - 1), _VALUE)
_WORDS = st.lists(st.lists(_WORD, max_size=12), max_size=10)
_SUBS = st.lists(st.lists(_WORD, max_size=10), max_size=2)
_BREAKAGE = st.tuples(st.integers(0, 1 << 10), st.integers(0, 255), _VALUE)


@st.composite
def examples(
    draw: st.DrawFn,
    *,
    abilities: Collection[str] = ABILITIES,
    types: Sequence[int] = TYPES,
    modes: Sequence[str] = MODES,
    variants: int = 1,
) -> Example:
    """What a campaign tries."""
    main = [word for words in draw(_WORDS) for word in words]
    mode = draw(st.sampled_from(modes))
    recipe = Recipe(
        draw(st.sampled_from(types)),
        main,
        draw(_SUBS),
        mode=mode,
        dump=draw(st.booleans()),
        data=draw(st.binary(min_size=2, max_size=50)),
        variant=draw(st.integers(0, variants - 1)),
        breakage=draw(_BREAKAGE) if mode == BROKEN else None,
    )
    return recipe.make(abilities)


def programs(*, type: int = ProgType.SOCKET_FILTER, valid: bool = True) -> st.SearchStrategy[list[Item]]:
    """Programs as ``rawkm.asm.encode`` and ``rawkm.ProgramSpec`` take them, for any kernel from 5.10 on.

    ``type``: SOCKET_FILTER, SCHED_CLS, XDP or RAW_TRACEPOINT. ``valid``: such as the verifier should take (needs CAP_BPF and
    CAP_PERFMON); the others have bounds that it may not see. The maps are named by their specs.
    """
    return examples(abilities=(), types=(type,), modes=(VALID if valid else DARING,)).map(lambda example: example.built.insns)
