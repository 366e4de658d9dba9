"""``rawkm fuzz attr``: the kernel's answers to calls of bpf(2) against the errno model.

First calls that are valid but for a change, by the thousand per second, where coverage is thin; then examples by hypothesis.
Whatever either finds is shrunk by hypothesis to the valid call and the one field.
"""

from __future__ import annotations

import json
import os
from random import Random
from time import perf_counter

from rawkm.errors import SyscallError, UsageError
from rawkm.fuzz.attr import Attr, Fd, Mem, all_layouts, layout_of, members
from rawkm.fuzz.attr_findings import culprit, finding_of
from rawkm.fuzz.bounds import DISTURBING
from rawkm.fuzz.campaign import TimeIsUp
from rawkm.fuzz.changes import change, changed
from rawkm.fuzz.coverage import Coverage, said
from rawkm.fuzz.judge import Judge
from rawkm.fuzz.objects import CLOSED
from rawkm.fuzz.recipes import RECIPES
from rawkm.fuzz.recorded_calls import calls_of
from rawkm.fuzz.source import RandomSource
from rawkm.uapi import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

    from rawkm.fuzz.campaign import Campaign
    from rawkm.fuzz.findings import Finding
    from rawkm.fuzz.judge import Outcome
    from rawkm.uapi.fields import Definition

# Mutated calls for each example of hypothesis, when nothing else is said.
_CALLS = 10
# What a skipped call counts for when commands take turns by the seconds that they have taken.
_SKIPPED = 0.005
# Tries of hypothesis to make a finding smaller.
_SHRINK = 2000


def run(campaign: Campaign, options: Mapping[str, Any]) -> None:
    """Both engines. Options: cmd, calls, from, coverage, answers."""
    names = _names(campaign, options.get("cmd"))
    coverage = Coverage()
    stored = options.get("coverage")
    if stored:
        coverage.add(_read(stored))
    calls = options.get("calls")
    calls = campaign.examples * _CALLS if calls is None else calls
    with Judge(campaign.kernel, owned=campaign.owned) as judge:
        recorded = [attr for attr in calls_of(options["from"]) if attr.name in names] if options.get("from") else []
        if recorded:
            campaign.extra["recorded_calls"] = len(recorded)
        engine = AttrCampaign(campaign, judge, coverage, names, recorded)
        if options.get("answers"):
            with _writing(options["answers"]) as out:
                engine.answers(calls, out)
        else:
            engine.mutate(calls)
        engine.examples(campaign.examples)
        campaign.extra.update(coverage.summary(judge.facts))
        if stored:
            with _writing(stored) as out:
                out.writelines(json.dumps(row) + "\n" for row in coverage.rows())
        campaign.report(coverage.row(judge.facts))


class AttrCampaign:
    """``names``: the layouts that calls are made of; ``recorded``: calls that are changed like the valid ones.

    ``mutate`` and ``examples`` are the two engines.
    """

    def __init__(
        self, campaign: Campaign, judge: Judge, coverage: Coverage, names: list[str], recorded: Sequence[Attr] = ()
    ) -> None:
        self._campaign = campaign
        self._judge = judge
        self._coverage = coverage
        self._layouts = [layouts.named(name) for name in names]
        self._names = names
        self._recorded: dict[str, list[Attr]] = {}
        for attr in recorded:
            self._recorded.setdefault(attr.name, []).append(attr)
        self._known: set[str] = set()
        self._spent = dict.fromkeys(names, 0.0)

    def mutate(self, calls: int) -> None:
        """``calls`` valid calls with a change, at the places that were tried least; dear commands more seldom."""
        source = RandomSource(Random(self._campaign.seed))
        made = missing = 0
        try:
            # What is skipped does not count; but where next to nothing can be sent, this ends, too.
            while made < calls and missing < 10 * calls + 1000:
                layout = self._cheapest(source)
                attr = self._base(source, layout)
                n = source.below(16)
                if n < 13:
                    attr = attr.with_changes(change(source, attr, self._coverage.thin(source, layout)))
                elif n < 15:
                    attr = changed(source, attr)
                self._campaign.again(attr.describe)
                start = perf_counter()
                outcome = self._made(attr)
                made += outcome.errno is not None
                missing += outcome.errno is None
                self._spent[layout.name] += perf_counter() - start if outcome.errno is not None else _SKIPPED
                if not outcome.explained and not self._shrink(outcome):
                    return
        except TimeIsUp:
            self._campaign.extra["time_is_up"] = True

    def answers(self, calls: int, out: TextIO) -> None:
        """As ``mutate``, but the calls depend on the seed only, and what came of each is written down, for another kernel's."""
        source = RandomSource(Random(self._campaign.seed))
        try:
            for n in range(calls):
                layout = self._layouts[n % len(self._layouts)]
                attr = changed(source, Attr(layout, RECIPES[layout.name](source)))
                self._campaign.again(attr.describe)
                outcome = self._made(attr)
                row = {"n": n, "command": attr.name, "call": attr.describe(), "errno": None, "skipped": outcome.skipped}
                if outcome.errno is not None and outcome.prediction is not None:
                    row["errno"] = said(outcome.errno)
                    row["explained"] = outcome.explained
                    row["known"] = outcome.prediction.known
                    row["rules"] = [rule.name for rule in outcome.prediction.rules]
                out.write(json.dumps(row) + "\n")
                if not outcome.explained and not self._shrink(outcome):
                    return
        except TimeIsUp:
            self._campaign.extra["time_is_up"] = True

    def examples(self, examples: int) -> None:
        """Examples by hypothesis."""
        from rawkm.fuzz.attr_strategies import of_layouts
        from rawkm.fuzz.explore import explore

        explore(self._campaign, of_layouts(self._names), self._check, examples=examples, describe=Attr.describe)

    def _base(self, source: RandomSource, layout: Definition) -> Attr:
        """What is changed: a recorded call half of the time, where there are some."""
        recorded = self._recorded.get(layout.name)
        if recorded and source.below(2):
            return source.pick(recorded)
        return Attr(layout, RECIPES[layout.name](source))

    def _cheapest(self, source: RandomSource) -> Definition:
        """The one of two that has taken less time so far."""
        first, second = source.pick(self._layouts), source.pick(self._layouts)
        return first if self._spent[first.name] <= self._spent[second.name] else second

    def _made(self, attr: Attr) -> Outcome:
        outcome = self._judge.run(attr)
        self._coverage.note(outcome)
        if outcome.errno is not None:
            self._campaign.call(outcome.errno == 0)
        return outcome

    def _check(self, attr: Attr) -> Finding | None:
        outcome = self._made(attr)
        if outcome.explained:
            return None
        finding = culprit(finding_of(outcome, self._judge), outcome, self._judge)
        return None if finding.signature in self._known else finding

    def _shrink(self, outcome: Outcome) -> bool:
        """Hands what was found to hypothesis, unless it is known. Whether to go on: not after too many findings."""
        from rawkm.fuzz.attr_strategies import near
        from rawkm.fuzz.explore import ENOUGH, explore

        found = finding_of(outcome, self._judge)
        if found.signature in self._known:
            return True
        before = self._campaign.unexplained
        explore(self._campaign, near(outcome.attr, simpler), self._check_near, examples=_SHRINK)
        if self._campaign.unexplained == before:
            # It did not happen again: told as it was.
            self._campaign.found(found)
        self._known.add(found.signature)
        return len(self._known) < ENOUGH

    def _check_near(self, attr: Attr) -> Finding | None:
        outcome = self._made(attr)
        return None if outcome.explained else culprit(finding_of(outcome, self._judge), outcome, self._judge)


def simpler(layout: Definition, place: str, value: Any) -> list[Any]:
    """Values that say the same with less, the simplest first."""
    if isinstance(value, Fd):
        return [Fd(CLOSED)] if value.name != CLOSED else []
    if isinstance(value, Mem):
        return [None, Mem(b""), Mem(bytes(len(value.data)))]
    if isinstance(value, bytes):
        return [b"", value[:1], value.rstrip(b"\0")]
    if not isinstance(value, int) or isinstance(value, bool):
        return []
    member = members(layout).get(place)
    low = value & -value
    high = 1 << max(value.bit_length() - 1, 0)
    found = [0, 1, 2, low, high, value & 0xFF]
    if member is not None and member.role.kind == "enum":
        found = [0, 1]
    return [new for new in dict.fromkeys(found) if new != value and type(value) is int]


def _names(campaign: Campaign, command: str | None) -> list[str]:
    """The layouts of a campaign: those of one command, one variant ("link_create.kprobe_multi"), or all that may be sent here."""
    if command is None:
        return [layout.name for layout in all_layouts() if campaign.owned or layout.cmd not in DISTURBING]
    name, _, variant = command.partition(".")
    first = layout_of(name, variant)
    if first.cmd in DISTURBING:
        campaign.need_owned(f"fuzzing {first.command}")
    return [layout.name for layout in all_layouts() if layout.cmd == first.cmd and (not variant or layout is first)]


def _read(path: str) -> list[dict[str, object]]:
    if not os.path.exists(path):
        return []
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except OSError as err:
        raise SyscallError(f"openat({path})", err.errno or 0) from None
    except ValueError:
        raise UsageError(f"{path} holds no coverage") from None


def _writing(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as err:
        raise SyscallError(f"openat({path})", err.errno or 0) from None
