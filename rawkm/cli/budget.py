"""What `count --budget` says: what was muted, when, and what that means for the counts."""

from __future__ import annotations

from rawkm.cli.output import count_of, json_line, note
from rawkm.targets import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.budget.session import BudgetedCount
    from rawkm.cli.args import Args


class Watch:
    """Looks, and says what changed."""

    def __init__(self, args: Args, session: BudgetedCount) -> None:
        self._json = args.json
        self._session = session
        self._names = labels(session.targets)
        self._said: set[int] = set()
        self._helpless = False

    def look(self) -> None:
        """To be called often; it looks when it is time to."""
        change = self._session.look()
        if change is None:
            return
        budget = self._session.budget
        for index in change.muted:
            # A function that is tried again and again is spoken of once.
            if index not in self._said:
                self._said.add(index)
                rate = budget.muted[index].rate
                note(
                    f"budget: {self._names[index]} is muted at {rate:,.0f} hits/s; all hits took {change.share:.2g}% of the CPUs"
                )
        if budget.helpless > budget.percent and not self._helpless:
            self._helpless = True
            note(f"budget: even muted, these functions' hits take {budget.helpless:.2g}% of the CPUs: leave them out (--deny)")

    def incomplete(self, index: int) -> bool:
        """Whether the function was muted at any time, so that hits of it were not counted."""
        return index in self._said

    def account(self) -> None:
        """The end."""
        budget = self._session.budget
        names = [self._names[index] for index in sorted(self._said)]
        if self._json:
            row = {
                "type": "budget",
                "percent": budget.percent,
                "hit_ns": round(budget.hit * 1e9, 1),
                "muted_hit_ns": round(budget.muted_hit * 1e9, 1),
                "most_percent": round(budget.most, 3),
                "muted": names,
            }
            print(json_line(row))
            return
        cost = f"a hit takes {budget.hit * 1e9:,.0f} ns here, a muted one {budget.muted_hit * 1e9:,.0f} ns"
        muted = f"{count_of(len(names), 'function')} muted, whose counts are incomplete" if names else "nothing was muted"
        note(f"budget: {cost}; at most {budget.most:.2g}% of the CPUs ({budget.percent:g}% allowed); {muted}")
