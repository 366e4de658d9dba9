"""python3 -m tests.witnesses [--links] [--json]: the errno model against this kernel, one row to a command and errno.

A row has the number of rules that were seen to answer so, or why none can be here. --links: make links, too (in a guest).
--json: a line for each rule instead, for tools/rules-seen.
"""

from __future__ import annotations

import json
import sys

from rawkm.errors import errno_name
from rawkm.rules import rules

from .check import Report, walk
from .world import World


def main(argv: list[str]) -> int:
    with World(links="--links" in argv) as world:
        report = walk(world)
        if "--json" in argv:
            return _as_json(report)
        rows: dict[tuple[str, int], list[str]] = {}
        for rule in rules():
            if rule.holds_for(world.version):
                for number in sorted(rule.errnos - {0}):
                    rows.setdefault((rule.command or "(all)", number), []).append(rule.name)
    for (command, number), names in sorted(rows.items()):
        there = [name for name in names if report.seen.get(name) == number or (name, number) in report.more]
        text = f"{len(there)} of {len(names)} rules" if there else f"none: {_why_not(report, names)}"
        print(f"{command:28} {errno_name(number):12} {text}")
    print("\n".join(f"WRONG {text}" for text in report.wrong) or f"{len(report.seen)} rules seen, none wrong")
    return 1 if report.wrong else 0


def _as_json(report: Report) -> int:
    """{"rule", "errno"} of what was seen, {"rule", "why"} of what was not, {"wrong"}."""
    for name, number in [*report.seen.items(), *sorted(report.more)]:
        print(json.dumps({"rule": name, "errno": errno_name(number)}))
    for name, why in {**report.excused, **report.missing}.items():
        print(json.dumps({"rule": name, "why": why}))
    for text in report.wrong:
        print(json.dumps({"wrong": text}))
    return 1 if report.wrong else 0


def _why_not(report: Report, names: list[str]) -> str:
    reasons = {
        report.missing.get(name)
        or report.excused.get(name)
        or f"{name} was seen with {errno_name(report.seen.get(name, 0))}; what the kernel holds decides which it is"
        for name in names
    }
    return "; ".join(sorted(reasons))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
