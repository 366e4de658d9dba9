"""Verifier and JIT against the interpreter: programs are loaded, run by PROG_TEST_RUN and compared in all that they leave behind.

What the verifier refuses is told by its own words; that it refuses what it should take is a finding, and so is a program that it
takes and that leaves its memory in the model.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from random import Random
from time import monotonic

from rawkm.errors import InterpreterError, NotModelled, SyscallError
from rawkm.fuzz import prog_cases, prog_model
from rawkm.fuzz.campaign import TimeIsUp
from rawkm.fuzz.prog_recipes import BROKEN, VALID, at_random, shrink
from rawkm.fuzz.prog_runner import PLAIN, TOO_LONG, Refused, Runner
from rawkm.uapi.constants import ProgFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.fuzz.campaign import Campaign
    from rawkm.fuzz.findings import Finding
    from rawkm.fuzz.prog_recipes import Example, Recipe

# A campaign that finds this many different things has found enough to look at.
ENOUGH = 10
# Seconds for making one smaller.
PATIENCE = 45.0

# Why the verifier may refuse a program that is right: it does not look at everything.
LIMITS = (
    "BPF program is too large",
    "The sequence of",
    "too many",
    "is too complex",
    TOO_LONG,
)

# The kernel's own mistakes that are known, by what it says: the write-ups in tests/findings.
KNOWN = {
    "verifier bug: REG INVARIANTS VIOLATION": "reg-invariants",
    "REG INVARIANTS VIOLATION": "reg-invariants",
}

# The same, of programs that should be taken only.
KNOWN_OF_VALID = {
    "RN invalid mem access 'inv'": "dead-branch",
    "RN invalid mem access 'scalar'": "dead-branch",
}


def run(campaign: Campaign, options: Mapping[str, object]) -> None:  # noqa: ARG001 (it has none of its own)
    """The campaign. Its summary has ``loaded`` and ``refused`` by mode, ``known`` (differences that are written up, by name),
    ``words`` (the verifier's, with their numbers) and ``variants``."""
    with Runner(campaign.kernel, owned=campaign.owned) as runner:
        trial = Trial(campaign, runner)
        try:
            _search(campaign, runner, trial)
        except TimeIsUp:
            campaign.extra["time_is_up"] = True
        finally:
            campaign.extra.update(trial.coverage())


def _search(campaign: Campaign, runner: Runner, trial: Trial) -> None:
    """As many examples as there shall be, or until there are enough findings."""
    random = Random(campaign.seed)
    found: set[str] = set()
    for _ in range(campaign.examples):
        recipe = at_random(random, types=runner.types, variants=len(runner.variants))
        example = recipe.make(runner.abilities)
        campaign.example(lambda: _line(example))  # noqa: B023 (called at once)
        finding = trial.check(example)
        if finding is None or finding.signature in found:
            continue
        campaign.found(_smallest(campaign, runner, recipe, finding))
        found.add(finding.signature)
        if len(found) == ENOUGH:
            return


def _smallest(campaign: Campaign, runner: Runner, recipe: Recipe, finding: Finding) -> Finding:
    """The same finding with the smallest program that has been found to show it."""
    best = finding
    trial = Trial(campaign, runner)

    end = monotonic() + PATIENCE

    def fails(candidate: Recipe) -> bool:
        nonlocal best
        if monotonic() > end:
            return False
        example = candidate.make(runner.abilities)
        campaign.again(lambda: _line(example))
        again = trial.check(example)
        if again is None or again.signature != finding.signature:
            return False
        best = again
        return True

    try:
        shrink(recipe, fails)
    except TimeIsUp:
        pass
    return best


class Trial:
    """One example after the other, and what they came to."""

    def __init__(self, campaign: Campaign, runner: Runner) -> None:
        self.campaign = campaign
        self.runner = runner
        self.loaded: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.variants: Counter[str] = Counter()
        self.not_compared: Counter[str] = Counter()
        self.known: Counter[str] = Counter()

    def coverage(self) -> dict[str, object]:
        return {
            "loaded": dict(self.loaded),
            "refused": dict(self.refused),
            "known": dict(self.known),
            "not_compared": dict(self.not_compared),
            "variants": dict(self.variants),
            "types": list(self.runner.types),
            "abilities": sorted(self.runner.abilities),
            "jit": self.runner.jit,
            "words": dict(self.words.most_common(50)),
        }

    def check(self, example: Example) -> Finding | None:
        runner = self.runner
        variant = runner.variants[example.variant]
        try:
            fd = runner.load(example, variant)
        except Refused as err:
            self.campaign.call(False)
            return self._refused(example, err)
        try:
            self.campaign.call(True)
            self.loaded[example.mode] += 1
            self.variants[variant.name] += 1
            return self._compare(example, fd)
        finally:
            runner.kernel.close(fd)

    def _refused(self, example: Example, err: Refused) -> Finding | None:
        words = re.sub(r"0x[0-9a-f]+|-?\d+", "N", err.words)
        self.refused[example.mode] += 1
        self.words[words] += 1
        known = {**KNOWN, **KNOWN_OF_VALID} if example.mode == VALID and _release() < (6, 12) else KNOWN
        for begin, name in known.items():
            if words.startswith(begin):
                self.known[name] += 1
                return None
        if example.mode != VALID or words.startswith(LIMITS):
            return None
        return prog_cases.refused(example, self.runner, err, signature=f"refused: {words}")

    def _compare(self, example: Example, fd: int) -> Finding | None:
        runner = self.runner
        try:
            if example.mode == BROKEN and prog_model.depends_on_addresses(example, cpu=runner.cpu):
                self.not_compared["depends on addresses"] += 1
                return None
            expected = prog_model.run(example, cpu=runner.cpu).parts()
        except NotModelled:
            self.not_compared["not modelled"] += 1
            return None
        except InterpreterError as err:
            # It is not run: what the model says of it may come true.
            return prog_cases.accepted(example, runner, str(err))
        try:
            seen = runner.run(example, fd).parts()
        except SyscallError as err:
            self.campaign.call(False)
            return prog_cases.not_run(example, runner, err)
        self.campaign.call(True)
        for name, value in expected.items():
            if seen[name] != value:
                if self._lost_zext(example, expected):
                    self.known["lost-zext"] += 1
                    return None
                return prog_cases.different(example, runner, name, expected, seen)
        return None

    def _lost_zext(self, example: Example, expected: dict[str, object]) -> bool:
        """Whether it is only the flag that puts random bits where the verifier thinks that nobody looks."""
        runner = self.runner
        if not runner.variants[example.variant].flags & ProgFlag.TEST_RND_HI32 or not _loses_zext():
            return False
        try:
            fd = runner.load(example, PLAIN)
        except Refused:
            return False
        try:
            return runner.run(example, fd).parts() == expected
        finally:
            runner.kernel.close(fd)


def _loses_zext() -> bool:
    """Kernels that forget, where a state is pruned, that an instruction's upper half is read (tests/findings/lost-zext.md)."""
    return _release() >= (6, 18)


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)))


def _line(example: Example) -> str:
    """What the last calls hold: the program's bytes, maps as they come."""
    fds = {name: 1000 + at for at, name in enumerate(example.built.maps)}
    return (
        f"type {example.built.type} variant {example.variant} data {example.data.hex()} "
        f"maps {','.join(example.built.maps)} pid {os.getpid()} code {example.code(fds).hex()}"
    )
