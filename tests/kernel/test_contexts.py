"""The verifier takes every job for every context that this kernel can load, with all that may be asked for."""

from __future__ import annotations

import pytest

from rawkm import open_kernel
from rawkm.prog import ProgramSpec
from rawkm.programs import count, trace
from rawkm.programs.context import MOST_ARGUMENTS, Context, Registers
from rawkm.programs.follow import Follow, Namespace
from rawkm.programs.locate import AddressTable, Constant, Cookie
from rawkm.uapi.constants import AttachType

KERNEL = open_kernel()
CPUS = 4
CONTEXTS = [
    Registers(KERNEL, kind, at_return=at_return) for kind in (0, AttachType.TRACE_KPROBE_MULTI) for at_return in (False, True)
]


def load(spec: ProgramSpec) -> None:
    with spec.load(KERNEL) as prog:
        assert prog.recursion_misses() == 0


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: f"{c.attach_type}-{c.at_return}")
@pytest.mark.parametrize("follow", [None, Follow(), Follow(Namespace(4, 5))], ids=["all", "tree", "namespace"])
def test_jobs(context: Context, follow: Follow | None) -> None:
    addresses = [0x1000 + 16 * number for number in range(100)]
    table = AddressTable.plan(addresses, [])
    assert table is not None
    for locate in (Cookie(100), Constant(7), table):
        load(count.program(context, count.counters(100, CPUS), 100, CPUS, locate, follow))
    for events in trace.ring(4096), trace.perf_array(CPUS):
        for arguments in 0, 3, MOST_ARGUMENTS:
            for returned in False, True:
                hit = trace.schema(arguments=arguments, returned=returned)
                load(trace.program(context, hit, events, trace.ledger(CPUS), CPUS, Cookie(100), follow))


def test_the_record() -> None:
    hit = trace.schema(arguments=2, returned=True)
    assert hit.fields == ("ts", "pid_tgid", "func", "cpu", "comm", "ret", "arg0", "arg1")
    assert trace.schema().size == 40
