"""Every way to attach, on every kernel that has it: the function runs so often, the program runs so often; and the probes say so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from rawkm import AttachError, MapFlag, MapSpec, MapType, ProgramSpec, ProgType, SyscallError, features
from rawkm.asm import DW, R0, R1, R2, R6, Add, Insn, Label, Mov, call, exit_, load, map_value, store
from rawkm.btf.kernel import function_id
from rawkm.link import (
    perf_kprobe,
    raw_tracepoint,
    tracefs_kprobe,
    tracepoint,
    tracing,
    tracing_multi,
)
from rawkm.prog import Program
from rawkm.uapi.constants import AttachType, Helper

from ..lib import KERNEL, TRACEFS, text_symbols

RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
CALL = "bpf_fentry_test1"
N = 7

# Which kernel of the lab has what. Whoever says no on a kernel that is newer than this has to explain it here.
FLOORS = {
    "kprobe_multi": (6, 12),  # Debian's 6.1 is built without CONFIG_FPROBE
    "kprobe_session": (6, 12),
    "fentry_multi": (7, 2),
    "fentry": (5, 5),
    "fexit": (5, 5),
    "fsession": (7, 0),
    "kprobe": (4, 17),
    "tracefs_kprobe": (4, 1),
    "perf event links": (5, 15),
    "raw tracepoints": (4, 17),
    "tracepoints": (4, 7),
    "bpf maps": (5, 5),
    "tracing programs": (4, 1),
    "ring buffer": (5, 8),
    "perf buffer": (4, 4),
    "function list": (2, 6),
    "symbol addresses": (2, 6),
    "kernel BTF": (5, 2),
    "process trees": (4, 17),
}


def has(feature: str) -> bool:
    return RELEASE >= FLOORS[feature]


def test_every_probe_is_right() -> None:
    for probe in features.ALL:
        answer = features.ask(KERNEL, probe)
        assert answer.state == ("yes" if has(answer.feature) else "no"), answer
        assert len(answer.evidence) > 5, answer
        if answer.state == "no":
            assert "→" in answer.evidence, answer


def test_conclusive_answers_are_kept() -> None:
    asked = []

    def probe(_: object) -> features.Answer:
        asked.append(1)
        return features.Answer("x", features.UNKNOWN if len(asked) == 1 else features.YES, "evidence")

    states = [features.ask(KERNEL, probe).state for _ in range(4)]
    assert states == ["unknown", "yes", "yes", "yes"]
    assert len(asked) == 2


# -- programs that count their runs --------------------------------------------------------------------------------------------

RUNS = MapSpec("runs", MapType.ARRAY, key=4, value=8, max_entries=8, flags=MapFlag.MMAPABLE)


def add(slot: int) -> list[Insn]:
    return [map_value(R1, RUNS_1, offset=8 * slot), load(R2, R1, 0, DW), Add.imm(R2, 1), store(R1, 8 * 0, R2, DW)]


RUNS_1 = MapSpec("runs", MapType.ARRAY, key=4, value=64, max_entries=1, flags=MapFlag.MMAPABLE)


def counter(type: int, attach_type: int = 0, btf_id: int = 0, *more: Insn | Label) -> ProgramSpec:
    insns = [Mov.reg(R6, R1), *add(0), *more, Mov.imm(R0, 0), exit_()]
    return ProgramSpec("counter", type, attach_type=attach_type, attach_btf_id=btf_id, insns=insns)


def runs(prog: Program) -> list[int]:
    value = prog.maps["runs"].lookup(0)
    assert value is not None
    return memoryview(value).cast("Q").tolist()


@pytest.fixture(scope="module")
def trigger() -> Callable[[], None]:
    """Runs bpf_fentry_test1(1) … bpf_fentry_test8 once: what the kernel does to test-run an fentry program."""
    spec = ProgramSpec(
        "trigger",
        ProgType.TRACING,
        attach_type=AttachType.TRACE_FENTRY,
        attach_btf_id=function_id(KERNEL, "bpf_modify_return_test"),
        insns=[Mov.imm(R0, 0), exit_()],
    )

    def run() -> None:
        with spec.load(KERNEL) as prog:
            prog.test_run()

    return run


def symbol(name: str) -> int:
    (address,) = [address for address, found, module in text_symbols() if found == name and not module]
    return address


def check(prog: Program, trigger: Callable[[], None], calls: int = N) -> None:
    before = runs(prog)[0]
    for _ in range(calls):
        trigger()
    assert runs(prog)[0] - before == calls


def test_fentry_and_fexit(trigger: Callable[[], None]) -> None:
    kinds = [AttachType.TRACE_FENTRY, AttachType.TRACE_FEXIT]
    if has("fsession"):
        kinds.append(AttachType.TRACE_FSESSION)
    for kind in kinds:
        with counter(ProgType.TRACING, kind, function_id(KERNEL, CALL)).load(KERNEL) as prog:
            with tracing.attach(prog) as link:
                each = 2 if kind == AttachType.TRACE_FSESSION else 1
                for _ in range(N):
                    trigger()
                assert runs(prog)[0] == N * each
                assert link.info()["tracing.attach_type"] == kind
                assert link.info()["prog_id"] == prog.info()["id"]
            trigger()
            assert runs(prog)[0] == N * each


def test_fentry_cookies(trigger: Callable[[], None]) -> None:
    more = [Mov.reg(R1, R6), call(Helper.get_attach_cookie), map_value(R1, RUNS_1, offset=8), store(R1, 0, R0, DW)]
    if RELEASE < (5, 19):
        spec = counter(ProgType.TRACING, AttachType.TRACE_FENTRY, function_id(KERNEL, CALL))
        with spec.load(KERNEL) as prog, pytest.raises(AttachError):
            tracing.attach(prog, cookie=1)
        return
    with counter(ProgType.TRACING, AttachType.TRACE_FENTRY, function_id(KERNEL, CALL), *more).load(KERNEL) as prog:
        with tracing.attach(prog, cookie=0xC00C1E):
            trigger()
        assert runs(prog)[:2] == [1, 0xC00C1E]


def test_fentry_refusals() -> None:
    with pytest.raises(SyscallError):
        counter(ProgType.TRACING, AttachType.TRACE_FENTRY, 0).load(KERNEL)
    with counter(ProgType.TRACING, AttachType.TRACE_FENTRY, function_id(KERNEL, CALL)).load(KERNEL) as prog:
        with tracing.attach(prog), pytest.raises(AttachError) as caught:
            tracing.attach(prog)
        assert caught.value.backend == "fentry"


def test_kprobe_and_kretprobe(trigger: Callable[[], None]) -> None:
    """By name and by address; with a cookie where there are links."""
    address = symbol(CALL)
    for retprobe in False, True:
        for where in {"name": CALL}, {"address": address}:
            with counter(ProgType.KPROBE).load(KERNEL) as prog:
                with perf_kprobe.attach(prog, retprobe=retprobe, **where) as link:
                    check(prog, trigger)
                    assert link.linked is has("perf event links")
                    assert link.missed() == (0 if RELEASE >= (6, 7) else None)
                trigger()
                assert runs(prog)[0] == N
    if has("perf event links"):
        more = [Mov.reg(R1, R6), call(Helper.get_attach_cookie), map_value(R1, RUNS_1, offset=8), store(R1, 0, R0, DW)]
        with counter(ProgType.KPROBE, 0, 0, *more).load(KERNEL) as prog:
            with perf_kprobe.attach(prog, name=CALL, cookie=77), perf_kprobe.attach(prog, name="bpf_fentry_test2", cookie=78):
                trigger()
            assert runs(prog)[0] == 2
            assert runs(prog)[1] == 78
    else:
        with counter(ProgType.KPROBE).load(KERNEL) as prog, pytest.raises(AttachError):
            perf_kprobe.attach(prog, name=CALL, cookie=77)


def test_kprobe_refusals() -> None:
    with counter(ProgType.KPROBE).load(KERNEL) as prog:
        for name, errnos in (
            ("no_such_function", {"ENOENT"}),
            ("do_int3", {"EINVAL"}),  # blacklisted
            ("jiffies", {"EINVAL"}),
        ):
            with pytest.raises(AttachError) as caught:
                perf_kprobe.attach(prog, name=name)
            from rawkm.errors import errno_name

            assert errno_name(caught.value.errno) in errnos, (name, caught.value)
            assert caught.value.hint


def test_tracefs_kprobe(trigger: Callable[[], None]) -> None:
    """The events are ours by name, and go with their probes; those that stay go with the maker."""
    events = TRACEFS / "kprobe_events"
    assert events.read_text() == ""
    address = symbol(CALL)
    with tracefs_kprobe.Maker(KERNEL) as maker:
        assert str(os.getpid()) in maker.group
        for retprobe in False, True:
            for where in {"name": CALL}, {"address": address}:
                with counter(ProgType.KPROBE).load(KERNEL) as prog:
                    with maker.attach(prog, retprobe=retprobe, **where):
                        check(prog, trigger)
                        assert maker.group in events.read_text()
                    assert events.read_text() == ""
        with counter(ProgType.KPROBE).load(KERNEL) as prog:
            for name in "no_such_function", "do_int3":
                with pytest.raises(AttachError) as caught:
                    maker.attach(prog, name=name)
                assert caught.value.backend == "tracefs-kprobe"
                assert events.read_text() == ""
            probe = maker.attach(prog, name=CALL)
            probe.link.close()
            assert maker.group in events.read_text()
    assert events.read_text() == ""


def test_what_a_killed_process_leaves() -> None:
    """It is found, told from what the living have, and removed; an event of somebody else's is left alone."""
    events = TRACEFS / "kprobe_events"
    script = f"""
import os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from rawkm import ProgramSpec, ProgType, open_kernel
from rawkm.asm import R0, Mov, exit_
from rawkm.link.tracefs_kprobe import Maker
maker = Maker(open_kernel())
prog = ProgramSpec("p", ProgType.KPROBE, insns=[Mov.imm(R0, 0), exit_()]).load(open_kernel())
maker.attach(prog, name="bpf_fentry_test1")
maker.attach(prog, name="bpf_fentry_test2", retprobe=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    events.write_text("p:other/mine bpf_fentry_test3\n")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with tracefs_kprobe.Maker(KERNEL) as maker, counter(ProgType.KPROBE).load(KERNEL) as prog, maker.attach(prog, name=CALL):
        left = tracefs_kprobe.leftovers(KERNEL)
        assert [each.event.partition("/")[2] for each in left] == ["p0", "r1"]
        assert "bpf_fentry_test1" in left[0].where
        removed, kept = tracefs_kprobe.clean(KERNEL)
        assert [each.event for each in removed] == [each.event for each in left]
        assert kept == []
        text = events.read_text()
        assert len(text.splitlines()) == 2
        assert "other/mine" in text
        assert maker.group in text
    KERNEL.append_file(str(events), b"-:other/mine\n")
    assert events.read_text() == ""


def test_tracepoints() -> None:
    """A raw and a classic one, on the same event."""
    raw = counter(ProgType.RAW_TRACEPOINT)
    classic = counter(ProgType.TRACEPOINT)
    with raw.load(KERNEL) as one, classic.load(KERNEL) as two:
        with raw_tracepoint.attach(one, "sched_process_fork"), tracepoint.attach(two, "sched:sched_process_fork"):
            # Counted while both are on: the kernel makes threads of its own at any time.
            before = runs(one)[0], runs(two)[0]
            for _ in range(N):
                os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            after = runs(one)[0], runs(two)[0]
        assert after[0] - before[0] == after[1] - before[1] >= N
        with pytest.raises(AttachError) as caught:
            tracepoint.attach(two, "sched:no_such")
        assert caught.value.errno == 2


def test_fentry_multi(trigger: Callable[[], None]) -> None:
    names = [f"bpf_fentry_test{n}" for n in range(1, 9)]
    if not has("fentry_multi"):
        return
    ids = [function_id(KERNEL, name) for name in names]
    more = [
        Mov.reg(R1, R6),
        call(Helper.get_attach_cookie),
        map_value(R1, RUNS_1, offset=8),
        load(R2, R1, 0, DW),
        Add.reg(R2, R0),
    ]
    more.append(store(R1, 0, R2, DW))
    for kind, each in (
        (AttachType.TRACE_FENTRY_MULTI, 1),
        (AttachType.TRACE_FEXIT_MULTI, 1),
        (AttachType.TRACE_FSESSION_MULTI, 2),
    ):
        with counter(ProgType.TRACING, kind, 0, *more).load(KERNEL) as prog:
            with tracing_multi.attach(prog, ids, cookies=[10**n for n in range(8)]) as link:
                for _ in range(N):
                    trigger()
                assert runs(prog)[:2] == [8 * N * each, 11111111 * N * each]
                assert link.info()["prog_id"] == prog.info()["id"]
            trigger()
            assert runs(prog)[0] == 8 * N * each
            for bad in [ids[0], ids[0]], [1], [function_id(KERNEL, "do_syscall_64")]:
                with pytest.raises(AttachError):
                    tracing_multi.attach(prog, bad)
