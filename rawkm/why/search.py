"""The search: the call as it was, then with one change, then with two."""

from __future__ import annotations

from errno import EFAULT, EPERM
from itertools import combinations

from rawkm.errors import UsageError, VerifierError
from rawkm.host import caps
from rawkm.rules import Facts
from rawkm.rules.model import Rule
from rawkm.why import lists
from rawkm.why.answer import Answer, Finding
from rawkm.why.changes import candidates
from rawkm.why.scenario import Outcome, Scenario

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.recording import Call
    from rawkm.rules import Prediction
    from rawkm.syscall.kernel import Kernel
    from rawkm.why.scenario import Change

_PAIRED_MAX = 24
_RLIMIT_MEMLOCK = 8
_INFINITY = -1
_ALL = (1 << 41) - 1
_CAPS = {cap: caps.NAMES[cap] for cap in (caps.CAP_BPF, caps.CAP_PERFMON, caps.CAP_NET_ADMIN, caps.CAP_SYS_ADMIN)}


class Search:
    """Of one refused call."""

    def __init__(self, kernel: Kernel, calls: Sequence[Call], call: Call, held: int | None = None) -> None:
        if call.name != "bpf":
            raise UsageError(f"call {call.number} is {call.name}: only calls of bpf(2) can be explained")
        if not call.errno:
            raise UsageError(f"call {call.number} was not refused")
        self._kernel = kernel
        self._call = call
        self._held = held
        self._scenario = Scenario(kernel, calls, call)

    def answer(self) -> Answer:
        scenario = self._scenario
        try:
            return self._answer(scenario)
        finally:
            scenario.close()

    def _answer(self, scenario: Scenario) -> Answer:
        call = self._call
        if call.definition is None:
            return Answer(call, scenario, obstacle="rawkm does not know the command")
        if scenario.obstacle:
            return Answer(call, scenario, rules=self._guessed(), obstacle=scenario.obstacle)
        base = scenario.run()
        if base.lost:
            return Answer(call, scenario, rules=self._guessed(), obstacle=base.lost)
        if base.errno != call.errno:
            return self._not_here(scenario, base)
        rules = self._rules(base.prediction)
        answer = Answer(call, scenario, rules=rules, base=base)
        if self._verifier(base):
            answer.words = self._verifier_words(scenario)
            if answer.words:
                answer.rules = ()
                return answer
        if call.errno == EPERM and scenario.facts.memlock is not None and self._memlock(scenario):
            answer.memlock = scenario.facts.memlock
            answer.rules = tuple(r for r in rules if r.name.endswith(".memlock")) or rules
            return answer
        answer.findings = self._findings(scenario, base, rules)
        answer.tried = scenario.runs
        return answer

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _rules(self, prediction: Prediction | None) -> tuple[Rule, ...]:
        """The rules that can have said it."""
        if prediction is None:
            return ()
        return tuple(rule for rule in prediction.rules if self._call.errno in rule.errnos)

    def _guessed(self) -> tuple[Rule, ...]:
        """Without making the call: by its bytes alone."""
        return self._rules(self._scenario.predicted(self._scenario.facts))

    @staticmethod
    def _verifier(base: Outcome) -> bool:
        """Whether the program got as far as the verifier."""
        return base.prediction is not None and any(rule.name == "prog_load.verifier" for rule in base.prediction.rules)

    def _verifier_words(self, scenario: Scenario) -> str:
        """The verifier's complaint, from a load with a log."""
        log = scenario.verifier_log()
        # Its text is "...: complaint", whatever the errno.
        return str(VerifierError(self._call.errno, log=log)).partition(": ")[2] if log.strip() else ""

    # -- privileges ----------------------------------------------------------------------------------------------------

    def _not_here(self, scenario: Scenario, base: Outcome) -> Answer:
        """The call ends otherwise here: privileges are what differs most often."""
        call = self._call
        answer = Answer(call, scenario, base=base)
        answer.elsewhere = True
        if call.errno == EPERM:
            answer.rules, answer.missing = self._by_capabilities(scenario)
        else:
            answer.rules = self._guessed()
        return answer

    def _by_capabilities(self, scenario: Scenario) -> tuple[tuple[Rule, ...], str]:
        """The rule that a process without enough capabilities breaks, and those that it lacked or may have lacked."""
        if self._held is not None:
            rule = self._forbidden(scenario, self._held)
            if rule is not None:
                return (rule,), " and ".join(caps.missing(self._held, *_named(rule)))
        rules: list[Rule] = []
        lacking: list[str] = []
        for cap, name in _CAPS.items():
            # CAP_SYS_ADMIN stands in for the others.
            rule = self._forbidden(scenario, _ALL & ~(1 << cap | 1 << caps.CAP_SYS_ADMIN))
            if rule is not None:
                rules.append(rule)
                if name in rule.text:
                    lacking.append(name)
        return tuple(dict.fromkeys(rules)), " or ".join(lacking)

    @staticmethod
    def _forbidden(scenario: Scenario, held: int) -> Rule | None:
        """The rule by which the kernel says EPERM to a process with these capabilities."""
        prediction = scenario.predicted(_with_caps(scenario.facts, held))
        return prediction.rule if prediction.errnos == {EPERM} else None

    def _memlock(self, scenario: Scenario) -> bool:
        """Whether a larger RLIMIT_MEMLOCK helps. It is as before afterwards."""
        before = self._kernel.rlimit(_RLIMIT_MEMLOCK)
        try:
            self._kernel.rlimit(_RLIMIT_MEMLOCK, (_INFINITY, _INFINITY))
        except OSError:
            return False
        try:
            return scenario.run().errno == 0
        finally:
            self._kernel.rlimit(_RLIMIT_MEMLOCK, before)

    # -- fields --------------------------------------------------------------------------------------------------------

    def _findings(self, scenario: Scenario, base: Outcome, rules: tuple[Rule, ...]) -> list[Finding]:
        ranks = scenario.ranks()
        floor = min((ranks[rule.name] for rule in rules if rule.name in ranks), default=-1)
        fields = {field for rule in rules for field in rule.fields}
        # What was not given is given only where the rule asks for it.
        changes = [change for change in candidates(scenario) if not change.adds or change.field in fields]
        found = []
        left_out = lists.without_culprits(scenario, rules)
        if left_out is not None:
            found = self._try(scenario, base, [[left_out]], ranks, floor)
        if not found:
            found = self._try(scenario, base, ([change] for change in changes), ranks, floor)
        if not found:
            first = sorted(changes, key=lambda change: change.field not in fields)[:_PAIRED_MAX]
            pairs = (list(pair) for pair in combinations(first, 2) if pair[0].field != pair[1].field)
            found = self._try(scenario, base, pairs, ranks, floor, enough=1)
        # What makes the kernel accept comes first, then what the rule is about, then the call's own fields.
        found.sort(key=lambda f: (f.errno != 0, not f.about(fields), f.changes[0].step != len(scenario.steps) - 1))
        if found and not found[0].errno:
            # What only gets further says something where it is about the rule.
            found = [f for f in found if not f.errno or f.about(fields)]
        return [f for f in _one_per_field(found) if not _in_vain(f)]

    def _try(
        self,
        scenario: Scenario,
        base: Outcome,
        sets: Iterable[list[Change]],
        ranks: dict[str, int],
        floor: int,
        *,
        enough: int = 0,
    ) -> list[Finding]:
        found: list[Finding] = []
        for changes in sets:
            outcome = scenario.run(changes)
            if outcome.lost:
                continue
            if outcome.errno == 0:
                found.append(Finding(changes, 0))
            elif _later(outcome, base, ranks, floor):
                found.append(Finding(changes, outcome.errno, same=outcome.errno == base.errno, prediction=outcome.prediction))
            if enough and len(found) >= enough:
                break
        return found


def _later(outcome: Outcome, base: Outcome, ranks: dict[str, int], floor: int) -> bool:
    """Whether the kernel got to a later check than before."""
    prediction = outcome.prediction
    rank = None
    if prediction is not None and prediction.rules and outcome.errno in prediction.errnos:
        named = [ranks[r.name] for r in prediction.rules if outcome.errno in r.errnos and r.name in ranks]
        rank = min(named, default=None)
    if floor < 0:
        # The rule is not known: another answer is progress unless the model knows it as a check of its own.
        return outcome.errno != base.errno and rank is None
    if rank is None:
        return outcome.errno != base.errno
    return rank > floor


def _one_per_field(found: list[Finding]) -> list[Finding]:
    """The best change of each field."""
    best: dict[tuple[str, ...], Finding] = {}
    for finding in found:
        key = tuple(change.field for change in finding.changes)
        if key not in best or (best[key].errno and not finding.errno):
            best[key] = finding
    return list(best.values())


def _in_vain(finding: Finding) -> bool:
    """Whether a pointer was taken away, and the kernel misses it."""
    return finding.errno == EFAULT and any(change.now == "NULL" for change in finding.changes)


def _named(rule: Rule) -> list[int]:
    """The capabilities that a rule is about."""
    return [cap for cap, name in _CAPS.items() if name in rule.text]


def _with_caps(facts: Facts, mask: int) -> Facts:
    return Facts(
        facts.version,
        caps=mask,
        attr_size=facts.attr_size,
        config=facts.config,
        cpus=facts.cpus,
        nodes=facts.nodes,
        unprivileged_bpf_disabled=facts.unprivileged_bpf_disabled,
        memlock=facts.memlock,
        user_end=facts.user_end,
    )
