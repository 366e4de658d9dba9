"""``rawkm fuzz stateful``: the state machine of maps, programs and links, run by hypothesis until there were enough runs."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from rawkm.fuzz.campaign import TimeIsUp
from rawkm.fuzz.case import Case
from rawkm.fuzz.findings import Finding
from rawkm.fuzz.state_machine import DifferenceError, machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rawkm.fuzz.campaign import Campaign

_STEPS = 30


def run(campaign: Campaign, options: Mapping[str, Any]) -> None:
    """``examples`` runs of up to ``steps`` steps each. Ends at the first difference, once it is shrunk."""
    differences: list[str] = []
    bpf = machine(campaign.kernel, links=campaign.owned)

    class Counted(bpf):  # type: ignore[misc, valid-type]  # a class made for this kernel
        def run_begins(self) -> None:
            # What comes after a difference makes it smaller.
            try:
                (campaign.again if differences else campaign.example)("a run of the state machine")
            except TimeIsUp:
                campaign.extra["time_is_up"] = True
                raise

        def call_made(self, accepted: bool) -> None:
            campaign.call(accepted)

        def _expect(self, what: str, expected: object, seen: object) -> None:
            if expected != seen:
                differences.append(what)
            super()._expect(what, expected, seen)

    how = settings(
        max_examples=campaign.examples,
        stateful_step_count=options.get("steps") or _STEPS,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(campaign.seed)(Counted), settings=how)
    except DifferenceError as err:
        campaign.found(_finding(err))
    except Flaky as err:
        # Hypothesis takes a run that the clock has ended for one that went otherwise than before.
        if "time_is_up" not in campaign.extra:
            campaign.found(_finding(DifferenceError("a run", "the same twice", str(err), [])))
    except TimeIsUp:
        pass
    finally:
        bpf.pool.close()


def _finding(err: DifferenceError) -> Finding:
    text = "\n".join([*err.steps, f"{err.what}: expected {err.expected}, seen {err.seen}"])
    case = Case(err.calls, title=err.what, text=text, kernel=f"Linux {os.uname().release}")
    return Finding(case, err.what, err.expected, err.seen)
