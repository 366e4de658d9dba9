"""Keeping the cost of a trace within a budget: which functions to mute, and when to try them again.

A muted function's hits still reach its program, which leaves at once: that costs less, not nothing. So the cost of a hit is
measured both ways, on this kernel, with the very link that is in use. Hits are counted per function; how often a muted one is hit
is not known while it is muted: it is taken to be as often as before, until a trial shows otherwise.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds between looks. Shorter ones would take more time than they save.
PERIOD = 0.25
# What takes less than this part of what is too much stays exact.
_WORTH = 0.02
_MOST_OF = 0.98
# Seconds until a muted function is tried again: this, then twice that, and so on up to the last.
FIRST_TRIAL, LAST_TRIAL = 2.0, 32.0


class Muted:
    """``rate``: hits per second when it was muted; ``until``: when it is tried again, after ``hold`` seconds."""

    __slots__ = ("hold", "rate", "until")

    def __init__(self, rate: float, until: float, hold: float) -> None:
        self.rate = rate
        self.until = until
        self.hold = hold


class Change:
    """What a look came to. ``muted``, ``unmuted``: indexes of functions; ``share``: percent of all CPUs' time before it."""

    __slots__ = ("muted", "share", "unmuted")

    def __init__(self, muted: list[int], unmuted: list[int], share: float) -> None:
        self.muted = muted
        self.unmuted = unmuted
        self.share = share


class Budget:
    """``percent`` of the time of ``cpus`` CPUs. ``hit`` and ``muted_hit``: what a hit costs, in seconds.

    ``ever``: the functions that were muted at any time, whose counts are incomplete; ``muted``: those that are now.
    """

    def __init__(self, percent: float, *, cpus: int, hit: float, muted_hit: float) -> None:
        self.percent = percent
        self.hit = hit
        # Leaving at once costs less, however little of it can be measured.
        self.muted_hit = min(muted_hit, hit * _MOST_OF)
        self._cpus = cpus
        self.muted: dict[int, Muted] = {}
        self.ever: dict[int, float] = {}
        # How long each was muted the last time, and until when.
        self._last: dict[int, tuple[float, float]] = {}
        self.most = 0.0

    def look(self, now: float, seconds: float, hits: Sequence[int]) -> Change:
        """``hits``: of each function in the last ``seconds``, of the muted ones whatever was still under way."""
        rates = {index: count / seconds for index, count in enumerate(hits) if count and index not in self.muted}
        share = self._share(rates)
        self.most = max(self.most, share)
        muted = self._mute(now, rates)
        # Not both at once: the next look shows what muting has done.
        unmuted = [] if muted else self._try(now)
        return Change(muted, unmuted, share)

    def _share(self, rates: dict[int, float]) -> float:
        active = sum(rates.values()) * self.hit
        muted = sum(one.rate for one in self.muted.values()) * self.muted_hit
        return (active + muted) / self._cpus * 100

    def _mute(self, now: float, rates: dict[int, float]) -> list[int]:
        """The hottest first, as many as it takes, and only those that it helps to mute."""
        muted: list[int] = []
        saving = (self.hit - self.muted_hit) / self._cpus * 100
        over = self._share(rates) - self.percent
        for index in sorted(rates, key=lambda index: -rates[index]):
            if over <= 0 or rates[index] * self.hit / self._cpus * 100 < over * _WORTH:
                break
            hold = self._hold(index, now)
            self.muted[index] = Muted(rates[index], now + hold, hold)
            self.ever[index] = max(rates[index], self.ever.get(index, 0.0))
            muted.append(index)
            over -= rates[index] * saving
        return muted

    def _hold(self, index: int, now: float) -> float:
        """Longer each time, unless it was calm in between for as long."""
        hold, until = self._last.get(index, (0.0, now))
        return min(2 * hold, LAST_TRIAL) if hold and now - until < hold else FIRST_TRIAL

    def _try(self, now: float) -> list[int]:
        """The coolest of those whose time has come."""
        due = [index for index, one in self.muted.items() if one.until <= now]
        if not due:
            return []
        index = min(due, key=lambda index: self.muted[index].rate)
        self._last[index] = (self.muted.pop(index).hold, now)
        return [index]

    @property
    def helpless(self) -> float:
        """Percent that the hits of muted functions alone cost; more than the budget cannot be helped by muting."""
        return sum(one.rate for one in self.muted.values()) * self.muted_hit / self._cpus * 100
