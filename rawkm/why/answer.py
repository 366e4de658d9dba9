"""What is said of a refused call: one sentence, and what speaks for it."""

from __future__ import annotations

from rawkm.errors import errno_name
from rawkm.host import caps
from rawkm.uapi import names
from rawkm.uapi.constants import AttachType, Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rawkm.recording import Call
    from rawkm.rules import Prediction, Rule
    from rawkm.why.scenario import Change, Outcome, Scenario

_SHOWN = 6


class Finding:
    """Changes, and what they make of the call. ``errno``: 0, the kernel accepts; ``same``: the same one, but by a later check."""

    __slots__ = ("changes", "errno", "prediction", "same")

    def __init__(
        self, changes: Sequence[Change], errno: int, *, same: bool = False, prediction: Prediction | None = None
    ) -> None:
        self.changes = tuple(changes)
        self.errno = errno
        self.same = same
        self.prediction = prediction

    def about(self, fields: set[str]) -> bool:
        """Whether the changes are of these fields (an element of a list is of the list)."""
        return all(change.field.partition("[")[0].rpartition(" of ")[2] in fields for change in self.changes)

    def effect(self) -> str:
        if self.errno == 0:
            return "the kernel accepts"
        if not self.same:
            return f"the kernel goes on to {errno_name(self.errno)}"
        rule = next((r for r in self.prediction.rules if self.errno in r.errnos), None) if self.prediction else None
        text = f": {rule.text}" if rule is not None else ""
        return f"the kernel goes on to the next check ({errno_name(self.errno)}{text})"


class Answer:
    """``rules``: those that can have refused it; ``findings``: changes that help, the best first.

    ``words``: the verifier's; ``memlock``: RLIMIT_MEMLOCK in bytes, when that was it; ``missing``: a capability; ``elsewhere``:
    here the call ends otherwise; ``obstacle``: why the call was not made again.
    """

    def __init__(
        self,
        call: Call,
        scenario: Scenario,
        *,
        rules: tuple[Rule, ...] = (),
        base: Outcome | None = None,
        obstacle: str = "",
    ) -> None:
        self.call = call
        self._scenario = scenario
        self.rules = rules
        self.base = base
        self.obstacle = obstacle
        self.findings: list[Finding] = []
        self.words = ""
        self.memlock: int | None = None
        self.missing = ""
        self.elsewhere = False
        self.tried = 0

    @property
    def command(self) -> str:
        return names.name(Cmd, self.call.command & ~Cmd.COMMON_ATTRS)

    @property
    def rule(self) -> Rule | None:
        return self.rules[0] if self.rules else None

    def reason(self) -> str:
        """Why, in one clause; "" when it is not known."""
        if self.words:
            return f"the verifier says: {self.words}"
        if self.rule is not None and (len(self.rules) == 1 or not self._best()):
            return f"{self.rule.text}{self._detail(self.rule)}"
        best = self._best()
        if best is not None:
            rule = next((r for r in self.rules if best.about(set(r.fields))), None)
            if rule is not None:
                return f"{rule.text}{self._detail(rule)}"
            if not best.errno:
                return ", ".join(f"{change.field} must not be {change.was}" for change in best.changes)
        return ""

    def _best(self) -> Finding | None:
        return self.findings[0] if self.findings else None

    def sentence(self) -> str:
        why = self.reason() or self._unknown()
        return f"{self.command} was refused with {errno_name(self.call.errno)}: {why}"

    def _unknown(self) -> str:
        if self.base is not None and not self.elsewhere:
            return "it passes every check that rawkm knows (the verifier, a security module or the kernel's state decides)"
        return "the reason is not known"

    # -- details -------------------------------------------------------------------------------------------------------

    def _detail(self, rule: Rule) -> str:
        parts = list(self._details(rule))
        return f" ({'; '.join(parts)})" if parts else ""

    def _details(self, rule: Rule) -> Iterator[str]:
        step = self._scenario.last
        if "expected_attach_type" in rule.text and self.base is not None:
            for given in self.call.fds.values():
                obj = self.base.objs.get(given.name)
                if obj is not None and obj.kind == "prog":
                    yield f"{obj.attach_type} = {names.name(AttachType, obj.attach_type)}"
        if rule.name == "attr_tail":
            facts = self._scenario.facts
            at = next((n for n in range(facts.attr_size, len(self.call.attr)) if self.call.attr[n]), None)
            if at is not None:
                yield f"byte {at}; this kernel's union has {facts.attr_size} bytes"
        if rule.source == "CHECK_ATTR" and step.definition is not None:
            at = next((n for n in range(step.definition.reads, len(self.call.attr)) if self.call.attr[n]), None)
            if at is not None:
                yield f"byte {at} is {self.call.attr[at]:#x}"
        if rule.name.endswith(("_open", "_kind")):
            for path in rule.fields:
                fd = self.call.fds.get(path)
                if fd is not None:
                    yield f"{fd.name} is not open" if rule.name.endswith("_open") else f"it is {fd.name}"
        left_out = next((c for f in self.findings for c in f.changes if c.now == "left out"), None)
        if left_out is not None and "twice" not in rule.name:
            yield f"{left_out.was} is none" if "," not in left_out.was else f"{left_out.was} are none"
        if self.memlock is not None:
            yield f"it is {self.memlock:,} bytes"
        if self.missing:
            yield f"{self.missing} was missing"
        elif rule.errnos == {1} and "CAP_" in rule.text:
            held = self._scenario.facts.caps
            lacking = [text for cap, text in caps.NAMES.items() if text in rule.text and not caps.has(held, cap)]
            if lacking:
                yield f"this process does not have {' and '.join(lacking)}"

    # -- text ----------------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The answer, then the evidence."""
        yield self.sentence()
        for finding in self.findings[:_SHOWN]:
            yield f"  {self._changes(finding)}: {finding.effect()}"
        rest = len(self.findings) - _SHOWN
        if rest > 0:
            yield f"  and {rest} more changes that get further"
        if self.memlock is not None:
            yield "  with RLIMIT_MEMLOCK raised: the kernel accepts"
        if self.rule is not None:
            versions = _versions(self.rule)
            yield f"  rule {self.rule.name}: {self.rule.source}(){versions}" if self.rule.source else f"  rule {self.rule.name}"
        if self.elsewhere and self.base is not None:
            now = errno_name(self.base.errno) if self.base.errno else "the kernel accepts it"
            yield f"  made again by this process: {now}"
        if self.obstacle:
            yield f"  the call was not made again: {self.obstacle}"
        elif self.tried:
            yield f"  (call {self.call.number}, made again {self.tried} times with changes)"

    def _changes(self, finding: Finding) -> str:
        return " and ".join(self._change(change) for change in finding.changes)

    def _change(self, change: Change) -> str:
        steps = self._scenario.steps
        where = ""
        if change.step != len(steps) - 1:
            call = steps[change.step].call
            maker = call.makes.name if call.makes is not None else f"call {call.number}"
            where = f"{maker} (call {call.number}) made with "
        if change.now == "left out":
            return f"{where}{change.field} = {change.was} left out"
        return f"{where}{change.field} = {change.now} instead of {change.was}"

    def row(self) -> dict[str, object]:
        """For --json."""
        rule = self.rule
        return {
            "type": "why",
            "call": self.call.number,
            "command": self.command.removeprefix("BPF_"),
            "errno": errno_name(self.call.errno),
            "answer": self.sentence(),
            "reason": self.reason() or None,
            "rule": None
            if rule is None
            else {
                "name": rule.name,
                "text": rule.text,
                "fields": list(rule.fields),
                "source": rule.source,
                "since": _version(rule.since),
                "until": _version(rule.until),
            },
            "candidates": [r.name for r in self.rules],
            "findings": [
                {
                    "changes": [
                        {
                            "call": self._scenario.steps[c.step].call.number,
                            "field": c.field,
                            "was": c.was,
                            "now": c.now,
                        }
                        for c in f.changes
                    ],
                    "errno": errno_name(f.errno) if f.errno else None,
                    "accepted": f.errno == 0,
                }
                for f in self.findings
            ],
            "verifier": self.words or None,
            "missing": self.missing or None,
            "obstacle": self.obstacle or None,
            "tried": self.tried,
        }


def _version(version: tuple[int, int]) -> str | None:
    major, minor = version
    if version in ((0, 0), (99, 0)):
        return None
    return f"{major}.x" if minor == 99 else f"{major}.{minor}"


def _versions(rule: Rule) -> str:
    since, until = _version(rule.since), _version(rule.until)
    if since and until:
        return f", Linux {since} to {until}"
    if since:
        return f", Linux {since} and later"
    return f", up to Linux {until}" if until else ""
