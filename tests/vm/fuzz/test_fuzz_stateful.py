"""Runs of the state machine with links, as cases: what the machine did can be done again without it."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from rawkm.fuzz import leaks, machine
from rawkm.fuzz.case import Case, Step
from rawkm.fuzz.case import run as run_case
from rawkm.fuzz.explore import leave_sources_alone
from rawkm.host.facts import release
from rawkm.syscall import open_kernel
from rawkm.syscall.raw import RawBpf


def test_runs_with_links_are_cases_without_a_difference() -> None:
    leave_sources_alone()
    kernel = open_kernel()
    before = leaks.Inventory(kernel)
    scripts: list[list[Step]] = []

    class Kept(machine(kernel, links=True)):  # type: ignore[misc]
        def teardown(self) -> None:
            super().teardown()
            scripts.append(self._script.steps)

    how = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Kept, settings=how)
    Kept.pool.close()
    raw = RawBpf()
    for steps in scripts:
        assert run_case(Case(steps), kernel, raw) == []
    seen = {step.name for steps in scripts for step in steps}
    assert seen >= {"BPF_RAW_TRACEPOINT_OPEN", "BPF_LINK_DETACH", "BPF_LINK_GET_FD_BY_ID", "BPF_OBJ_PIN", "unlink"}, seen
    raw.close()
    assert leaks.since(kernel, before) == []


def test_a_program_is_attached_twice_to_a_tracepoint() -> None:
    """Before 6.10 it cannot be: a tracepoint told its probes apart by their programs. The model knows both."""
    bpf = machine(open_kernel(), links=True)
    run = bpf()
    run.begin()
    run.attach(0)
    run.attach(0)
    links = [node for node in run._nodes if node.kind == "link"]
    assert len(links) == (2 if release() >= (6, 10) else 1)
    run.teardown()
    bpf.pool.close()
