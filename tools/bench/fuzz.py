#!/usr/bin/env python3
"""How fast calls of bpf(2) are made, changed, sent to the kernel and judged by the errno model.

    python3 tools/bench/fuzz.py [--calls N] [--examples N] [--programs N]

In one run, on the running kernel: the campaign of changed calls (the floor is 3,000 a second), examples by hypothesis (300 a
second), and programs made, loaded, run and compared with the interpreter (no floor: the verifier's time is most of it). Nothing
is attached. All are given by the clock, and by the processor time that this process took: on a busy machine the latter says what
an idle one would do. Exits with 1 where a rate by the clock is below its floor,
or where something was found: then it is told what.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rawkm.fuzz import prog_campaign
from rawkm.fuzz.attr_campaign import AttrCampaign
from rawkm.fuzz.bounds import DISTURBING
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.coverage import Coverage
from rawkm.fuzz.explore import leave_sources_alone
from rawkm.fuzz.judge import Judge
from rawkm.fuzz.recipes import RECIPES
from rawkm.syscall import open_kernel
from rawkm.uapi import layouts

FLOORS = {"changed calls": 3000, "examples": 300}


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """(a second of the clock, a second of the processor): how many."""
    clock, processor = time.perf_counter(), time.process_time()
    done = work()
    return done / (time.perf_counter() - clock), done / (time.process_time() - processor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, metavar="N")
    parser.add_argument("--examples", type=int, default=2_000, metavar="N")
    parser.add_argument("--programs", type=int, default=1_000, metavar="N")
    options = parser.parse_args()
    leave_sources_alone()
    kernel = open_kernel()
    findings: list[Mapping[str, object]] = []
    campaign = Campaign("bench", kernel, examples=options.examples, seed=1, report=findings.append)
    names = [name for name in RECIPES if layouts.named(name).cmd not in DISTURBING]
    with Judge(kernel) as judge:
        engine = AttrCampaign(campaign, judge, Coverage(), names)
        engine.mutate(500)

        def changed() -> int:
            before = campaign.calls
            engine.mutate(options.calls)
            return campaign.calls - before

        def examples() -> int:
            before = campaign.done
            engine.examples(options.examples)
            return campaign.done - before

        bad = 0
        for name, work in (("changed calls", changed), ("examples", examples)):
            clock, processor = measured(work)
            floor = FLOORS[name]
            bad |= clock < floor
            print(f"{name:14} {clock:>8,.0f} a second, {processor:>8,.0f} a second of processor time (floor {floor:,})")
    with Campaign("bench", kernel, examples=options.programs, seed=1, report=findings.append) as programs:

        def run() -> int:
            prog_campaign.run(programs, {})
            return programs.done

        clock, processor = measured(run)
        print(f"{'programs':14} {clock:>8,.0f} a second, {processor:>8,.0f} a second of processor time")
    print(f"{len(findings)} findings")
    for row in findings:
        print(f"FOUND {row['what']}: expected {row['expected']}, seen {row['seen']}\n{row['text']}")
    return int(bad or bool(findings))


if __name__ == "__main__":
    sys.exit(main())
