"""The errno model against this kernel: every rule by a call that breaks it."""

from __future__ import annotations

from tests.witnesses.check import walk
from tests.witnesses.world import World


def test_every_rule_by_its_witness() -> None:
    with World(links=True) as world:
        report = walk(world)
        assert not report.wrong, "\n".join(report.wrong)
        print(f"{len(report.seen)} rules seen, {len(report.missing)} cannot be on this kernel, {len(report.excused)} say why")
        # Only what the kernel has not: kprobe_multi that is not built in, a last field at the end of the union.
        assert set(report.missing.values()) <= {
            "this kernel is built without CONFIG_FPROBE",
            "every symbol must be a function that can be traced",
            "bytes beyond this kernel's union bpf_attr must be 0: a field here is newer than this kernel",
            "the program must not write to its context",
        }, report.missing
        assert len(report.seen) > {(5, 10): 330, (6, 1): 370, (6, 12): 400, (7, 2): 430}[world.version]
