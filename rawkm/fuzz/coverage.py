"""What has been tried and what came of it, without kcov: command × place × class of value × errno, and rule by rule.

A campaign goes on where there is least; the table says what was never seen, and why not.
"""

from __future__ import annotations

from collections import Counter

from rawkm.errors import errno_name
from rawkm.fuzz.attr import COMMAND
from rawkm.fuzz.changes import class_of, places
from rawkm.rules import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rawkm.fuzz.judge import Outcome
    from rawkm.fuzz.source import Source
    from rawkm.rules import Facts, Rule
    from rawkm.uapi.fields import Definition

#: Place of a call in which nothing was changed.
NOTHING = "(nothing)"


def said(errno: int) -> str:
    """ "accepted", or the errno's name."""
    return errno_name(errno) if errno else "accepted"


class Coverage:
    """``cells``: (layout, place, class, errno's name) → calls. ``rules``: (rule, errno's name) → calls that it explains.

    ``skipped``: reason → calls not made. ``unknown``: command → calls beyond the model.
    """

    __slots__ = ("cells", "rules", "skipped", "tried", "unknown")

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str, str, str]] = Counter()
        self.rules: Counter[tuple[str, str]] = Counter()
        self.skipped: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.tried: Counter[tuple[str, str]] = Counter()

    def note(self, outcome: Outcome) -> None:
        """A call that was made, or skipped."""
        attr = outcome.attr
        # With two changes nobody knows which of them decided.
        place = attr.changes[0].place if len(attr.changes) == 1 else NOTHING if not attr.changes else ""
        for change in attr.changes:
            self.tried[attr.name, change.place] += 1
        if outcome.errno is None:
            self.skipped[outcome.skipped] += 1
            return
        if place:
            kind = class_of(attr, attr.changes[0]) if attr.changes else ""
            self.cells[attr.name, place, kind, said(outcome.errno)] += 1
        prediction = outcome.prediction
        if prediction is None:
            return
        if not prediction.known:
            self.unknown[attr.name if place != COMMAND else COMMAND] += 1
        for rule in prediction.rules:
            if outcome.errno in rule.errnos:
                self.rules[rule.name, said(outcome.errno)] += 1

    def thin(self, source: Source, layout: Definition, among: int = 3) -> str:
        """The place of a layout that was tried least, among some."""
        some = [source.pick(places(layout)) for _ in range(among)]
        return min(some, key=lambda place: self.tried[layout.name, place])

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """What another run has stored (``rows``)."""
        for row in rows:
            count = row["calls"]
            assert isinstance(count, int)
            if row["type"] == "cell":
                self.cells[str(row["command"]), str(row["place"]), str(row["class"]), str(row["errno"])] += count
                self.tried[str(row["command"]), str(row["place"])] += count
            elif row["type"] == "rule":
                self.rules[str(row["rule"]), str(row["errno"])] += count
            elif row["type"] == "skipped":
                self.skipped[str(row["reason"])] += count
            elif row["type"] == "unknown":
                self.unknown[str(row["command"])] += count

    def rows(self) -> list[dict[str, object]]:
        """What can be stored: one object for each cell, rule, reason and command beyond the model."""
        found: list[dict[str, object]] = [
            {"type": "cell", "command": command, "place": place, "class": kind, "errno": errno, "calls": n}
            for (command, place, kind, errno), n in sorted(self.cells.items())
        ]
        found += [{"type": "rule", "rule": rule, "errno": errno, "calls": n} for (rule, errno), n in sorted(self.rules.items())]
        found += [{"type": "skipped", "reason": reason, "calls": n} for reason, n in sorted(self.skipped.items())]
        found += [{"type": "unknown", "command": command, "calls": n} for command, n in sorted(self.unknown.items())]
        return found

    def unseen(self, facts: Facts) -> list[tuple[Rule, str, str]]:
        """(rule, errno's name, why) of every answer of the kernel's rules that no call has shown; "" where nobody says why."""
        found = []
        for rule in rules():
            if rule.errno is None or not rule.holds_for(facts.version):
                continue
            for errno in sorted(rule.errnos):
                if (rule.name, said(errno)) not in self.rules:
                    found.append((rule, said(errno), rule.unseen))
        return found

    def summary(self, facts: Facts) -> dict[str, object]:
        """Numbers for a campaign's last row."""
        unseen = self.unseen(facts)
        return {
            "cells": len(self.cells),
            "rules_seen": len({rule for rule, _ in self.rules}),
            "rules_unseen": len({rule.name for rule, _, _ in unseen}),
            "skipped": sum(self.skipped.values()),
            "beyond_the_model": sum(self.unknown.values()),
        }

    def row(self, facts: Facts) -> dict[str, object]:
        """For the report: command → errno → calls; the answers of rules that were not seen, with why; the calls not made."""
        seen: dict[str, Counter[str]] = {}
        for (command, _, _, errno), n in sorted(self.cells.items()):
            seen.setdefault(command, Counter())[errno] += n
        return {
            "type": "coverage",
            "commands": {command: dict(counts.most_common()) for command, counts in seen.items()},
            "unseen": [{"rule": rule.name, "errno": errno, "why": why or None} for rule, errno, why in self.unseen(facts)],
            "skipped": dict(self.skipped.most_common()),
        }


def table(row: Mapping[str, Any]) -> list[str]:
    """The lines of a report: one for each command, one for each answer that was not seen, one for each reason to send nothing."""
    commands = row["commands"]
    width = max(map(len, commands), default=0)
    lines = [
        f"{command:{width}}  {sum(counts.values()):>7,}  " + ", ".join(f"{errno} {n:,}" for errno, n in counts.items())
        for command, counts in commands.items()
    ]
    if row["unseen"]:
        lines += ["", "answers of the model's rules that were not seen:"]
        lines += [f"  {one['rule']} {one['errno']}{': ' + one['why'] if one['why'] else ''}" for one in row["unseen"]]
    if row["skipped"]:
        lines += ["", "calls that were not made:"]
        lines += [f"  {n:>7,}  {reason}" for reason, n in row["skipped"].items()]
    return lines
