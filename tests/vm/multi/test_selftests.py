"""What the kernel's own selftests expect of kprobe_multi and kprobe session (prog_tests/kprobe_multi_test.c, bpf_cookie.c, missed.c),
by programs of our own: which runs there are, with which address and which cookie, in which order of the arguments."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from rawkm import AttachError, MapFlag, MapSpec, MapType, ProgramSpec, ProgType, SyscallError
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R9,
    R10,
    Add,
    Insn,
    JEq,
    JGt,
    JNe,
    Label,
    Mov,
    Sub,
    call,
    exit_,
    kfunc,
    label,
    load,
    map_ptr,
    map_value,
    store,
    store_imm,
)
from rawkm.btf.kernel import function_id
from rawkm.link import kprobe_multi, kprobe_session, perf_kprobe
from rawkm.prog import Program
from rawkm.uapi.constants import AttachType, Helper

from ..lib import KERNEL, rawkm, text_symbols, work

V72 = os.uname().release.startswith("7.")
NAMES = [f"bpf_fentry_test{number}" for number in range(1, 9)]


@pytest.fixture(scope="module")
def trigger() -> Callable[[], None]:
    """bpf_fentry_test1 … bpf_fentry_test8 run once each."""
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


@pytest.fixture(scope="module")
def address() -> dict[str, int]:
    return {name: address for address, name, module in text_symbols() if name in NAMES}


# (address of the function, cookie, 1 at return) → how often
SEEN = MapSpec("seen", MapType.HASH, key=24, value=8, max_entries=1024)


def recorder(kind: int = AttachType.TRACE_KPROBE_MULTI, *, result: int = 0) -> ProgramSpec:
    """Counts its runs by SEEN's key; a session also leaves its cookie in the 8 bytes, and shows those at return."""
    session = kind == AttachType.TRACE_KPROBE_SESSION
    insns: list[Insn | Label] = [
        Mov.reg(R6, R1),
        call(Helper.get_func_ip),
        store(R10, -24, R0, DW),
        Mov.reg(R1, R6),
        call(Helper.get_attach_cookie),
        store(R10, -16, R0, DW),
        store_imm(R10, -8, 0, DW),
    ]
    if session:
        found = kprobe_session.kfuncs(KERNEL)
        insns += [
            Mov.reg(R7, R0),
            Mov.reg(R1, R6),
            kfunc(found.is_return),
            store(R10, -8, R0, DW),
            Mov.reg(R8, R0),
            Mov.reg(R1, R6),
            kfunc(found.cookie),
            JNe.imm(R8, 0, "returns"),
            store(R0, 0, R7, DW),
            label("returns"),
            load(R7, R0, 0, DW),
            store(R10, -16, R7, DW),
        ]
    insns += [
        map_ptr(R1, SEEN),
        Mov.reg(R2, R10),
        Add.imm(R2, -24),
        call(Helper.map_lookup_elem),
        JEq.imm(R0, 0, "new"),
        load(R1, R0, 0, DW),
        Add.imm(R1, 1),
        store(R0, 0, R1, DW),
        Mov.imm(R0, result),
        exit_(),
        label("new"),
        store_imm(R10, -32, 1, DW),
        map_ptr(R1, SEEN),
        Mov.reg(R2, R10),
        Add.imm(R2, -24),
        Mov.reg(R3, R10),
        Add.imm(R3, -32),
        Mov.imm(R4, 0),
        call(Helper.map_update_elem),
        Mov.imm(R0, result),
        exit_(),
    ]
    return ProgramSpec("recorder", ProgType.KPROBE, attach_type=kind, insns=insns)


def seen(prog: Program) -> dict[tuple[int, int, int], int]:
    found = {}
    for key, value in prog.maps["seen"].items():
        ip, cookie, at_return = memoryview(key).cast("Q").tolist()
        found[ip, cookie, at_return] = int.from_bytes(value, "little")
    return found


@pytest.fixture
def prog() -> Iterator[Program]:
    with recorder().load(KERNEL) as prog:
        yield prog


def test_by_names_and_by_addresses(trigger: Callable[[], None], address: dict[str, int]) -> None:
    """At entry and at return; get_func_ip is the symbol's address."""
    for retprobe in False, True:
        for where in {"syms": NAMES}, {"addrs": [address[name] for name in NAMES]}:
            with recorder().load(KERNEL) as prog, kprobe_multi.attach(prog, retprobe=retprobe, **where):
                trigger()
                assert seen(prog) == {(address[name], 0, 0): 1 for name in NAMES}


def test_cookies_go_with_their_functions(trigger: Callable[[], None], address: dict[str, int]) -> None:
    """The kernel sorts names and addresses: the cookies go along (bpf_cookie.c, kprobe_multi_link_api_subtest)."""
    order = [NAMES[number - 1] for number in (1, 3, 4, 5, 6, 7, 2, 8)]
    for retprobe, cookies in ((False, list(range(1, 9))), (True, list(range(8, 0, -1)))):
        for where in {"syms": order}, {"addrs": [address[name] for name in order]}:
            with recorder().load(KERNEL) as prog:
                with kprobe_multi.attach(prog, cookies=cookies, retprobe=retprobe, **where):
                    trigger()
                expected = {(address[name], cookie, 0): 1 for name, cookie in zip(order, cookies, strict=True)}
                assert seen(prog) == expected


def test_refusals(prog: Program, address: dict[str, int]) -> None:
    """Each for its own reason, with the errno that this kernel has for it."""
    bad_address = "ENOENT" if V72 else "EINVAL"
    one = address[NAMES[0]]
    from rawkm.errors import errno_name

    for values, errno in (
        ({"syms": [NAMES[0], NAMES[0]]}, "ESRCH"),
        ({"syms": ["no_such_function"]}, "ESRCH"),
        ({"syms": [NAMES[0], "no_such_function"]}, "ESRCH"),
        ({"syms": ["x" * 512]}, "E2BIG"),
        ({"addrs": [one + 1]}, bad_address),
        ({"addrs": [one, 0x1234]}, bad_address),
        ({"addrs": [one] * ((1 << 20) + 1)}, "E2BIG"),
    ):
        with pytest.raises(AttachError) as caught:
            kprobe_multi.attach(prog, **values)
        assert errno_name(caught.value.errno) == errno, (list(values), caught.value)
        assert caught.value.hint
    sleepable = ProgramSpec(
        "s", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_MULTI, insns=[Mov.imm(R0, 0), exit_()], flags=16
    )
    with sleepable.load(KERNEL) as other, pytest.raises(AttachError) as caught:
        kprobe_multi.attach(other, syms=NAMES[:1])
    assert errno_name(caught.value.errno) == "EINVAL"


def test_the_same_address_twice(trigger: Callable[[], None], address: dict[str, int]) -> None:
    """Linux 6.12 takes it as one, 7.2 runs the program for each."""
    one = address[NAMES[0]]
    with recorder().load(KERNEL) as prog, kprobe_multi.attach(prog, addrs=[one, one]):
        trigger()
        assert seen(prog) == {(one, 0, 0): 2 if V72 else 1}


def test_override_is_refused() -> None:
    """Debian's kernels are built without CONFIG_BPF_KPROBE_OVERRIDE."""
    spec = ProgramSpec(
        "override",
        ProgType.KPROBE,
        attach_type=AttachType.TRACE_KPROBE_MULTI,
        insns=[Mov.imm(R2, 123), call(Helper.override_return), Mov.imm(R0, 0), exit_()],
    )
    with pytest.raises(SyscallError) as caught:
        spec.load(KERNEL)
    assert caught.value.errno == 22, caught.value


def test_session(trigger: Callable[[], None], address: dict[str, int]) -> None:
    """0 at entry asks for the run at return, 1 does without; each of several sessions on a function has 8 bytes of its own."""
    for result in 0, 1:
        with recorder(AttachType.TRACE_KPROBE_SESSION, result=result).load(KERNEL) as prog:
            with kprobe_session.attach(prog, syms=NAMES, cookies=range(100, 108)):
                for _ in range(5):
                    trigger()
            expected = {(address[name], cookie, 0): 5 for cookie, name in enumerate(NAMES, 100)}
            if not result:
                expected.update({(address[name], cookie, 1): 5 for cookie, name in enumerate(NAMES, 100)})
            assert seen(prog) == expected
    with ExitStack() as stack:
        progs = []
        for cookie in 1, 2, 3:
            each = stack.enter_context(recorder(AttachType.TRACE_KPROBE_SESSION).load(KERNEL))
            progs.append((each, cookie))
            stack.enter_context(kprobe_session.attach(each, syms=NAMES[:1], cookies=[cookie]))
        trigger()
        for each, cookie in progs:
            assert seen(each) == {(address[NAMES[0]], cookie, 0): 1, (address[NAMES[0]], cookie, 1): 1}


def test_a_session_returns_0_or_1() -> None:
    with pytest.raises(SyscallError) as caught:
        recorder(AttachType.TRACE_KPROBE_SESSION, result=2).load(KERNEL)
    assert "R0" in str(caught.value)


# -- calls within calls --------------------------------------------------------------------------------------------------------

# entries, returns that found their entry, returns that did not, most calls alive at a time, calls within calls of the same function
LEDGER = MapSpec("ledger", MapType.ARRAY, key=4, value=40, max_entries=1, flags=MapFlag.MMAPABLE)
CALLS = MapSpec("calls", MapType.HASH, key=8, value=8, max_entries=4096)
ALIVE = MapSpec("alive", MapType.HASH, key=8, value=8, max_entries=64)


def pairing() -> ProgramSpec:
    """At entry: a number of its own for each call, into the 8 bytes and, with the function, into CALLS. At return: back out."""
    found = kprobe_session.kfuncs(KERNEL)

    def add(slot: int, amount: int = 1) -> list[Insn]:
        return [map_value(R1, LEDGER, offset=8 * slot), load(R2, R1, 0, DW), Add.imm(R2, amount), store(R1, 0, R2, DW)]

    def key(map: MapSpec, at: int) -> list[Insn]:
        return [map_ptr(R1, map), Mov.reg(R2, R10), Add.imm(R2, at)]

    return ProgramSpec(
        "pairing",
        ProgType.KPROBE,
        attach_type=AttachType.TRACE_KPROBE_SESSION,
        insns=[
            Mov.reg(R6, R1),
            call(Helper.get_func_ip),
            Mov.reg(R9, R0),
            store(R10, -16, R9, DW),
            Mov.reg(R1, R6),
            kfunc(found.is_return),
            Mov.reg(R7, R0),
            Mov.reg(R1, R6),
            kfunc(found.cookie),
            Mov.reg(R8, R0),
            JNe.imm(R7, 0, "returns"),
            *add(0),
            store(R8, 0, R2, DW),
            store(R10, -8, R2, DW),
            *key(CALLS, -8),
            Mov.reg(R3, R10),
            Add.imm(R3, -16),
            Mov.imm(R4, 0),
            call(Helper.map_update_elem),
            # how many of this function are alive?
            *key(ALIVE, -16),
            call(Helper.map_lookup_elem),
            JEq.imm(R0, 0, "first"),
            load(R7, R0, 0, DW),
            Mov.reg(R1, R7),
            Add.imm(R1, 1),
            store(R0, 0, R1, DW),
            JEq.imm(R7, 0, "alone"),
            *add(4),
            label("alone"),
            # all that are alive = entries - returns
            map_value(R1, LEDGER),
            load(R2, R1, 0, DW),
            load(R3, R1, 8, DW),
            Sub.reg(R2, R3),
            load(R3, R1, 24, DW),
            JGt.reg(R3, R2, "end"),
            store(R1, 24, R2, DW),
            Mov.imm(R0, 0),
            exit_(),
            label("first"),
            store_imm(R10, -24, 1, DW),
            *key(ALIVE, -16),
            Mov.reg(R3, R10),
            Add.imm(R3, -24),
            Mov.imm(R4, 0),
            call(Helper.map_update_elem),
            Mov.imm(R0, 0),
            exit_(),
            label("returns"),
            load(R1, R8, 0, DW),
            store(R10, -8, R1, DW),
            *key(CALLS, -8),
            call(Helper.map_lookup_elem),
            JEq.imm(R0, 0, "stranger"),
            load(R1, R0, 0, DW),
            JNe.reg(R1, R9, "stranger"),
            *key(CALLS, -8),
            call(Helper.map_delete_elem),
            *key(ALIVE, -16),
            call(Helper.map_lookup_elem),
            JEq.imm(R0, 0, "stranger"),
            load(R1, R0, 0, DW),
            Add.imm(R1, -1),
            store(R0, 0, R1, DW),
            *add(1),
            Mov.imm(R0, 0),
            exit_(),
            label("stranger"),
            *add(2),
            label("end"),
            Mov.imm(R0, 0),
            exit_(),
        ],
    )


def test_every_return_finds_its_entry() -> None:
    """Over loopback a packet is answered while it is being sent: __dev_queue_xmit runs within __dev_queue_xmit."""
    names = ["__dev_queue_xmit", "tcp_v4_rcv", "tcp_v4_connect", "inet_csk_accept", "tcp_v4_do_rcv", "ip_local_deliver"]
    with pairing().load(KERNEL) as prog:
        with kprobe_session.attach(prog, syms=names) as link:
            assert rawkm("count", "inet_listen", "--", *work("connect", "40")).status == 0
            assert link.missed() == 0
            time.sleep(0.3)
        value = prog.maps["ledger"].lookup(0)
        assert value is not None
        entries, pairs, strangers, deepest, recursive = memoryview(value).cast("Q").tolist()
        assert entries > 400
        assert (strangers, entries - pairs) == (0, 0), (entries, pairs, strangers)
        assert deepest >= 3
        assert recursive >= 40
        assert list(prog.maps["calls"].keys()) == []
        assert prog.recursion_misses() == 0


# -- what does not reach a program ---------------------------------------------------------------------------------------------


def test_more_sleepers_than_there_is_room_for(prog: Program) -> None:
    """A return probe on a function that blocks: Linux 6.12 has room for 2 x CPUs x functions, and counts the rest as missed."""
    sleepers = 20
    with kprobe_multi.attach(prog, syms=["hrtimer_nanosleep"], retprobe=True) as link:
        threads = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(sleepers)]
        before = time.monotonic()
        sleep_by_syscall(threads)
        assert time.monotonic() - before < 60
        runs = sum(seen(prog).values())
        missed = link.missed()
    assert missed is not None
    assert runs + missed >= sleepers
    if V72:
        assert missed == 0
    else:
        assert missed > 0


def sleep_by_syscall(threads: list[threading.Thread]) -> None:
    """time.sleep is clock_nanosleep, which is hrtimer_nanosleep."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_more_return_links_than_a_function_can_have(trigger: Callable[[], None]) -> None:
    """From Linux 6.14 on, 32 on one function; with one more none of them runs, and each says so."""
    with ExitStack() as stack:
        spec = recorder()
        progs = [stack.enter_context(spec.load(KERNEL)) for _ in range(33)]
        links = [stack.enter_context(kprobe_multi.attach(prog, syms=NAMES[:1], retprobe=True)) for prog in progs]
        trigger()
        runs = [sum(seen(prog).values()) for prog in progs]
        missed = [link.missed() for link in links]
    assert (runs, missed) == (([0] * 33, [1] * 33) if V72 else ([1] * 33, [0] * 33))


def test_a_kretprobe_that_runs_out_of_room() -> None:
    """A kprobe's own pool (maxactive) is 10 on one CPU: link info counts what was missed."""
    spec = recorder()
    plain = ProgramSpec("plain", ProgType.KPROBE, insns=spec.insns)
    with plain.load(KERNEL) as prog, perf_kprobe.attach(prog, name="hrtimer_nanosleep", retprobe=True) as link:
        sleep_by_syscall([threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(40)])
        missed = link.missed()
        assert missed is not None and missed > 0
        assert sum(seen(prog).values()) + missed >= 40
