"""Recipes of programs: numbers that a program is made of, at random, and made smaller as long as a finding stays.

No hypothesis here: it draws a number in the time in which this makes a program. ``prog_strategies`` makes recipes by it.
"""

from __future__ import annotations

import sys

from rawkm.asm import Insn, decode, encode, format
from rawkm.asm.opcodes import LD_IMM64
from rawkm.fuzz.prog_builder import ABILITIES, COMPOUND, KINDS, TYPES, build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from random import Random
    from typing import TypeAlias

    from rawkm.asm import Item
    from rawkm.fuzz.prog_builder import Built, Statement

    Word: TypeAlias = tuple[str, int, int]
    Breakage: TypeAlias = tuple[int, int, int]

VALID, DARING, BROKEN = "valid", "daring", "broken"
MODES = (VALID, VALID, VALID, DARING, BROKEN)

# A statement is its kind, a, b and c in one number, and its value.
_A, _B, _C = 5, 7, 6
CONTROLS = 1 << _A + _B + _C

_EDGES = [0, 1, 2, 7, 8, 31, 32, 63, 64, 255, 256]
_EDGES += [(1 << bits) + d for bits in (15, 16, 31, 32, 62, 63) for d in (-1, 0, 1)]
_EDGES += [-value & (1 << 64) - 1 for value in _EDGES]


def _value(drawn: int) -> int:
    """Small ones as they are, those of 16 bits are edges, large ones as they are."""
    return _EDGES[drawn % len(_EDGES)] if 256 <= drawn < 65536 else drawn


def statements(words: Iterable[Word], depth: int = 2) -> list[Statement]:
    """The statements that the words stand for: one with bodies takes those from the words behind it."""
    rest = iter(words)
    return list(_parse(rest, depth, 1 << 30))


def _parse(words: Iterator[Word], depth: int, most: int) -> Iterator[Statement]:
    for _ in range(most):
        word = next(words, None)
        if word is None:
            return
        kind, control, drawn = word
        c, control = control % (1 << _C), control >> _C
        b, control = control % (1 << _B), control >> _B
        a = control
        bodies: tuple[Sequence[Statement], ...] = ()
        if kind in COMPOUND:
            sizes = (c % 5, (c >> 3) % 3) if depth else (0, 0)
            bodies = tuple(list(_parse(words, depth - 1, size)) for size in sizes)
        yield kind, a, b, c, _value(drawn), bodies


class Example:
    """A program to try. ``mode``: VALID, DARING (bounds that the verifier may not see) or BROKEN (one field of one instruction is
    off). ``data``: the packet. ``variant``: a choice of the campaign's ways to load and run it, 0 the plain one.
    """

    __slots__ = ("breakage", "built", "data", "mode", "variant")

    def __init__(self, built: Built, data: bytes, mode: str, variant: int, breakage: tuple[int, int, int] | None) -> None:
        self.built = built
        self.data = data
        self.mode = mode
        self.variant = variant
        self.breakage = breakage

    def code(self, fds: Mapping[str, int]) -> bytes:
        """The program's bytes, with these fds of its maps."""
        raw = encode(self.built.insns, maps=fds)
        return raw if self.breakage is None else _broken(raw, *self.breakage)

    def map_slots(self) -> dict[int, str]:
        """Slot → name of the map whose fd is in its imm."""
        return {slot: insn.symbol_name for slot, insn in self._starts() if insn.symbol_name is not None}

    def _starts(self) -> Iterator[tuple[int, Insn]]:
        slot = 0
        for item in self.built.insns:
            if isinstance(item, Insn):
                yield slot, item
                slot += item.slots

    def for_model(self) -> tuple[list[Item], dict[str | int, str]]:
        """The program as the interpreter takes it, and the name of the map for each reference in it."""
        if self.breakage is None:
            return self.built.insns, {name: name for name in self.built.maps}
        # Bytes refer to maps by fds; these are as good as any.
        fds = {name: 1000 + at for at, name in enumerate(self.built.maps)}
        return [*decode(self.code(fds))], {fd: name for name, fd in fds.items()}

    def __repr__(self) -> str:
        return f"<{self.mode} program of type {self.built.type}:\n{self.text()}>"

    def text(self) -> str:
        """The listing."""
        return format(self.for_model()[0])


def _broken(raw: bytes, which: int, field: int, value: int) -> bytes:
    """One field of one slot is another; what says that a constant is the fd of a map, which is never twice the same, stays."""
    code = bytearray(raw)
    # Counted from the end, which is where it stays when statements before it go.
    at = len(raw) - 8 - which % (len(raw) // 8) * 8
    wide = code[at] == LD_IMM64 or (at and code[at - 8] == LD_IMM64)
    name = field % (2 if wide else 5)
    if name == 0:
        code[at + 1] = code[at + 1] & 0xF0 | value % 12
    elif name == 1:
        code[at + 2 : at + 4] = (value & 0xFFFF).to_bytes(2, sys.byteorder)
    elif name == 2:
        code[at + 1] = code[at + 1] & 0x0F | value % 12 << 4
    elif name == 3:
        code[at + 4 : at + 8] = (value & 0xFFFFFFFF).to_bytes(4, sys.byteorder)
    else:
        code[at] = value & 0xFF
    return bytes(code)


class Recipe:
    """All that a program to try is made from. ``main`` and ``subs``: words; ``dump``: all registers are shown; the rest as in
    Example."""

    __slots__ = ("breakage", "data", "dump", "main", "mode", "subs", "type", "variant")

    def __init__(
        self,
        type: int,
        main: Sequence[Word],
        subs: Sequence[Sequence[Word]] = (),
        *,
        mode: str = VALID,
        dump: bool = False,
        data: bytes = b"\0\0",
        variant: int = 0,
        breakage: Breakage | None = None,
    ) -> None:
        self.type = type
        self.main = list(main)
        self.subs = [list(words) for words in subs]
        self.mode = mode
        self.dump = dump
        self.data = data
        self.variant = variant
        self.breakage = breakage

    def make(self, abilities: Collection[str] = ABILITIES) -> Example:
        """The program. A packet begins with an Ethernet header of a protocol that nobody knows (IEEE's for experiments)."""
        built = build(
            self.type,
            statements(self.main),
            [statements(words, 1) for words in self.subs],
            dump=self.dump,
            abilities=abilities,
            daring=self.mode == DARING,
        )
        return Example(built, bytes(12) + b"\x88\xb5" + self.data, self.mode, self.variant, self.breakage)

    def but(self, **changes: object) -> Recipe:
        """The same with some things changed."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return Recipe(**{**fields, **changes})


def at_random(random: Random, *, types: Sequence[int] = TYPES, modes: Sequence[str] = MODES, variants: int = 1) -> Recipe:
    """A recipe."""
    subs = [_words(random, 8) for _ in range(random.choice((0, 0, 1, 2)))]
    mode = random.choice(modes)
    return Recipe(
        random.choice(types),
        _words(random, random.choice((4, 12, 30, 60))),
        subs,
        mode=mode,
        dump=random.random() < 0.75,
        data=random.randbytes(random.randrange(2, 50)),
        variant=random.randrange(variants) if random.random() < 0.5 else 0,
        breakage=(random.randrange(1 << 10), random.randrange(256), _at_random(random)) if mode == BROKEN else None,
    )


# Arithmetic has the most to get wrong.
_WEIGHTED = (*KINDS, *("alu_imm", "alu_reg") * 6, *("unary", "indexed", "atomic") * 2)


def _words(random: Random, most: int) -> list[Word]:
    return [
        (random.choice(_WEIGHTED), random.randrange(CONTROLS), _at_random(random)) for _ in range(random.randrange(1, most + 1))
    ]


def _at_random(random: Random) -> int:
    return random.getrandbits(random.choice((3, 8, 16, 16, 32, 64)))


def shrink(recipe: Recipe, fails: Callable[[Recipe], bool], tries: int = 1000) -> Recipe:
    """The smallest recipe found that still ``fails``: fewer words, then simpler ones, then smaller numbers."""
    left = tries
    best = recipe

    def better(candidate: Recipe) -> bool:
        nonlocal left, best
        if left <= 0:
            return False
        left -= 1
        if not fails(candidate):
            return False
        best = candidate
        return True

    while left > 0:
        before = best
        for changes in _simpler(best):
            better(best.but(**changes))
        for number in range(len(best.subs) - 1, -1, -1):
            better(best.but(subs=[*best.subs[:number], *best.subs[number + 1 :]]))
        _shorten(lambda: best.main, lambda words: better(best.but(main=words)))
        for number in range(len(best.subs)):
            _shorten(
                lambda n=number: best.subs[n],  # type: ignore[misc]
                lambda words, n=number: better(best.but(subs=[*best.subs[:n], words, *best.subs[n + 1 :]])),  # type: ignore[misc]
            )
        for at in range(len(best.main)):
            for word in _simpler_words(best.main[at]):
                better(best.but(main=[*best.main[:at], word, *best.main[at + 1 :]]))
        if best is before:
            break
    return best


def _simpler(recipe: Recipe) -> Iterator[dict[str, object]]:
    for name, simple in (("variant", 0), ("subs", []), ("dump", False), ("data", b"\0\0"), ("mode", VALID)):
        if getattr(recipe, name) != simple and not (name == "mode" and recipe.mode == BROKEN):
            yield {name: simple}
    if recipe.type != TYPES[0]:
        yield {"type": TYPES[0]}
    if recipe.breakage is not None:
        for at in range(3):
            number = recipe.breakage[at]
            for smaller in dict.fromkeys((0, 1, number % 256, number >> 1)):
                if smaller < number:
                    yield {"breakage": (*recipe.breakage[:at], smaller, *recipe.breakage[at + 1 :])}


def _shorten(words: Callable[[], list[Word]], better: Callable[[list[Word]], bool]) -> None:
    """Leaves out runs of words, long ones first."""
    size = len(words())
    while size:
        at = len(words()) - size
        while at >= 0:
            better(words()[:at] + words()[at + size :])
            at = min(at, len(words())) - size
        size //= 2


def _simpler_words(word: Word) -> Iterator[Word]:
    kind, control, value = word
    for simpler in dict.fromkeys((0, 1, value & 0xFF, value & 0xFFFF, value >> 1)):
        if simpler < value:
            yield kind, control, simpler
    a, b, c = control >> _B + _C, control >> _C & (1 << _B) - 1, control & (1 << _C) - 1
    for x, y, z in ((0, 0, 0), (a, 0, 0), (a, b, 0), (a, 0, c), (0, b, c), (a % 2, b % 4, c % 4)):
        simpler = (x << _B | y) << _C | z
        if simpler < control:
            yield kind, simpler, value
