"""Examples from hypothesis until there are enough, each finding shrunk, and on after it."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import HealthCheck, Phase, errors, given, seed, settings

from rawkm.fuzz.campaign import Campaign, TimeIsUp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from rawkm.fuzz.findings import Finding

    Example = TypeVar("Example")

# A campaign that finds this many different things has found enough to look at.
ENOUGH = 10


def leave_sources_alone() -> None:
    """Keeps hypothesis from reading the source of every module for constants that it might try: that takes longer than some
    campaigns in an emulated machine, and the strategies in here have their own. For a process that does nothing else."""
    from hypothesis.internal.conjecture import providers

    # It has no switch for this; where it is made otherwise, it is only slower.
    if hasattr(providers, "_get_local_constants") and hasattr(providers, "Constants"):
        providers._get_local_constants = providers.Constants  # type: ignore[attr-defined]


class _Found(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def explore(
    campaign: Campaign,
    strategy: SearchStrategy[Example],
    check: Callable[[Example], Finding | None],
    *,
    examples: int | None = None,
    describe: Callable[[Example], str] = repr,
) -> None:
    """Runs ``check`` on ``examples`` (default: the campaign's) of ``strategy``. What it returns is shrunk and reported.

    Of findings with one signature only the first is. Ends early when the campaign's time is up.
    """
    left = campaign.examples if examples is None else examples
    known: set[str] = set()
    rounds = 0
    try:
        while left > 0 and len(known) < ENOUGH:
            done, found = _round(campaign, strategy, check, left, campaign.seed + rounds, known, describe)
            left -= max(done, 1)
            rounds += 1
            if found is None:
                break
            known.add(found.signature)
            campaign.found(found)
    except TimeIsUp:
        campaign.extra["time_is_up"] = True


def _round(
    campaign: Campaign,
    strategy: SearchStrategy[Example],
    check: Callable[[Example], Finding | None],
    examples: int,
    number: int,
    known: set[str],
    describe: Callable[[Example], str],
) -> tuple[int, Finding | None]:
    """(examples tried before the finding, the smallest one that shows it)."""
    done = 0
    last: Finding | None = None

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(example: Example) -> None:
        nonlocal done, last
        if last is None:
            done += 1
            campaign.example(lambda: describe(example))
        else:
            campaign.again(lambda: describe(example))
        finding = check(example)
        if finding is not None and finding.signature not in known:
            last = finding
            raise _Found(finding)

    try:
        one()
    except _Found as err:
        return done, err.finding
    except errors.Flaky:
        # It did not happen again: reported as it was first seen.
        return done, last
    return done, None
