"""Where choices come from: a random generator for campaigns, hypothesis for strategies that shrink.

Recipes and changes are written once, against a Source. Every choice is a number below a bound that shrinks towards 0: the first
of the alternatives is always the simplest.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random
    from typing import Any, TypeVar

    T = TypeVar("T")


class Source:
    """``below`` and ``data`` are what a kind of source has of its own."""

    __slots__ = ()

    def below(self, bound: int) -> int:
        """0 up to and without ``bound``."""
        raise NotImplementedError

    def data(self, size: int) -> bytes:
        """Random bytes."""
        raise NotImplementedError

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def between(self, low: int, high: int) -> int:
        """``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def one_in(self, n: int) -> bool:
        """True once in ``n`` times; shrinks to False."""
        return self.below(n) == n - 1


class RandomSource(Source):
    __slots__ = ("random",)

    def __init__(self, random: Random) -> None:
        self.random = random

    def below(self, bound: int) -> int:
        # randrange() checks its arguments for longer than it draws.
        return int(self.random.random() * bound)

    def data(self, size: int) -> bytes:
        return self.random.randbytes(size)


class DrawSource(Source):
    """Draws by hypothesis. ``draw``: what st.composite passes."""

    __slots__ = ("_draw",)

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def below(self, bound: int) -> int:
        if bound == 1:
            return 0
        value: int = self._draw(_integers(bound))
        return value

    def data(self, size: int) -> bytes:
        from hypothesis import strategies as st

        value: bytes = self._draw(st.binary(min_size=size, max_size=size))
        return value


class FirstSource(Source):
    """The simplest of everything."""

    __slots__ = ()

    def below(self, bound: int) -> int:  # noqa: ARG002 (as the others)
        return 0

    def data(self, size: int) -> bytes:
        return bytes(size)


_strategies: dict[int, Any] = {}


def _integers(bound: int) -> Any:
    found = _strategies.get(bound)
    if found is None:
        from hypothesis import strategies as st

        found = _strategies[bound] = st.integers(0, bound - 1)
    return found
