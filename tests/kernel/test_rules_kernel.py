"""The errno model against the running kernel: every rule by a call that breaks it. Links are for guests (tests/vm/rules)."""

from __future__ import annotations

from tests.witnesses.check import walk
from tests.witnesses.world import World


def test_every_rule_by_its_witness() -> None:
    with World(links=False) as world:
        report = walk(world)
    assert not report.wrong, "\n".join(report.wrong)
    assert len(report.seen) > 300
    # What cannot be tried here: links, tracing where it is locked down, and kprobe_multi where it is not built in.
    commands = {name.partition(".")[0] for name in report.missing}
    assert commands <= {
        "iter_create",
        "link_create",
        "link_detach",
        "link_get_next_id",
        "link_update",
        "obj_get_info_by_fd",
        "prog_load",
        "prog_test_run",
        "raw_tracepoint_open",
    }, report.missing
