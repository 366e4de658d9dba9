"""Counting and tracing by every backend that a kernel has: exact counts, known arguments and return values, and why not, where not.

Mostly through the library, in one process: a start of rawkm for each case would take all the time.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from rawkm import NotSupportedError
from rawkm.backend.model import Need
from rawkm.programs.signature import signatures
from rawkm.session import CountSession, TraceSession
from rawkm.targets import Pattern, Target, resolve

from ..lib import KERNEL, Worker, rawkm, work

RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
N = 25

# backend: from which kernel of the lab on
FLOORS = {
    "kprobe-multi": (6, 12),
    "kprobe-session": (6, 12),
    "fentry-multi": (7, 2),
    "fentry": (5, 5),
    "kprobe": (4, 17),
    "tracefs-kprobe": (4, 1),
}
HERE = [name for name, floor in FLOORS.items() if floor <= RELEASE]
MISSING = [name for name, floor in FLOORS.items() if floor > RELEASE]
BOTH = [(name, at_return) for name in HERE for at_return in (False, True)]
IDS = [f"{name}-{'return' if at_return else 'entry'}" for name, at_return in BOTH]

SOME = ("tcp_v4_connect", "inet_csk_accept", "inet_listen")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker.start()


@pytest.fixture(scope="module", autouse=True)
def _types() -> None:
    """What is kept for the whole process shall not look like something left behind."""
    signatures(KERNEL, [("tcp_v4_connect", "")])


def targets(*names: str) -> list[Target]:
    found = resolve(KERNEL, [Pattern(name) for name in names], addresses=True)
    assert sorted(target.name for target in found.ok) == sorted(names), found.missing
    return sorted(found.ok, key=lambda target: names.index(target.name))


def named(backend: str, at_return: bool) -> str:
    return "fexit" if backend == "fentry" and at_return else backend


def count(backend: str, at_return: bool, chosen: list[Target], worker: Worker, *orders: str) -> list[int]:
    """Hits by function, none of them lost."""
    with CountSession(KERNEL, chosen, need=Need(at_return=at_return)) as session:
        session.attach(backend=named(backend, at_return))
        assert len(session.attached) == len(chosen), session.culprits
        session.activate()
        worker.do(*orders)
        account = session.finish()
        assert account.missed in (0, None) and account.recursion_misses in (0, None), account.missed
        known = RELEASE >= (6, 7) or (backend == "fentry" and RELEASE >= (5, 12))
        assert (account.recursion_misses is not None) is known
        counts = session.counts()
        assert account.hits == sum(counts)
        return counts


def trace(
    backend: str, need: Need, chosen: list[Target], worker: Worker, *orders: str, perf: bool = False
) -> list[dict[str, Any]]:
    """A row per hit: the function, what it was called with, what it returned."""
    calls = signatures(KERNEL, [(target.name, target.module) for target in chosen])
    arguments = max(call.recorded for call in calls if call is not None) if need.arguments else 0
    with TraceSession(KERNEL, chosen, need=need, arguments=arguments, perf=perf, size=1 << 18) as session:
        session.attach(backend=named(backend, need.at_return))
        session.activate()
        worker.do(*orders)
        account = session.finish()
        rows = []
        while len(batch := session.read()):
            for _, pid_tgid, func, _, _, *words in batch.rows():
                assert isinstance(func, int) and isinstance(pid_tgid, int)
                row: dict[str, Any] = {"function": chosen[func].name, "pid": pid_tgid >> 32}
                call = calls[func]
                assert call is not None
                if need.at_return:
                    row["ret"] = call.returned and call.returned.decode(words[:1])  # type: ignore[arg-type]
                slots = words[1:] if need.at_return else words
                row["args"] = {a.name: a.decode(slots) for a in call.arguments}  # type: ignore[arg-type]
                rows.append(row)
        assert (account.dropped, account.hits) == (0, len(rows))
        assert account.missed in (0, None) and account.recursion_misses in (0, None)
        return [row for row in rows if row["pid"] == worker.pid]


@pytest.mark.parametrize(("backend", "at_return"), BOTH, ids=IDS)
def test_exact_counts(backend: str, at_return: bool, worker: Worker) -> None:
    assert count(backend, at_return, targets(*SOME), worker, f"connect {N}", f"connect {N}") == [2 * N, 2 * N, 2]


def test_a_named_backend_is_not_replaced() -> None:
    for backend in MISSING:
        with CountSession(KERNEL, targets("inet_listen")) as session, pytest.raises(NotSupportedError) as caught:
            session.attach(backend=backend)
        assert "→" in caught.value.evidence or "BTF has no" in caught.value.evidence, caught.value


def test_auto_says_what_it_could_not_take() -> None:
    done = rawkm("count", "tcp_v4_connect", "inet_csk_accept", "--json", "--", *work("connect", str(N)))
    assert done.counts == {"tcp_v4_connect": N, "inet_csk_accept": N}, done
    refused = [note for note in done.notes if note.startswith("not by ")]
    if RELEASE >= (6, 12):
        assert refused == []
        assert done.summary["backend"].startswith("kprobe-multi")
    else:
        assert "LINK_CREATE" in refused[0] and ("EOPNOTSUPP" in refused[0] or "EINVAL" in refused[0]), done
        assert refused[1].startswith("not by fentry-multi: PROG_LOAD"), done
        # 5.10 has fentry, but nothing that keeps it from recursion.
        if RELEASE < (5, 12):
            assert refused[2].startswith("not by fentry: "), done
        assert done.summary["backend"] == ("kprobe" if RELEASE < (5, 12) else "fentry")


@pytest.mark.parametrize("backend", HERE)
def test_arguments_at_entry(backend: str, worker: Worker) -> None:
    """inet_listen(sock, backlog): the worker listens with 8; it makes AF_INET stream sockets."""
    rows = trace(backend, Need(arguments=True), targets("inet_listen", "__sys_socket"), worker, "connect 2")
    (listen,) = [row["args"] for row in rows if row["function"] == "inet_listen"]
    assert list(listen) == ["sock", "backlog"]
    assert listen["backlog"] == 8
    assert listen["sock"] >> 40
    sockets = [row["args"] for row in rows if row["function"] == "__sys_socket"]
    assert [list(each.values()) for each in sockets] == [[2, 1 | os.O_CLOEXEC, 0]] * 3


@pytest.mark.parametrize("backend", HERE)
def test_what_functions_return(backend: str, worker: Worker) -> None:
    """__sys_socket gives fds; inet_listen 0; sock_put-like void functions nothing."""
    rows = trace(
        backend, Need(at_return=True), targets("__sys_socket", "inet_listen", "inet_sk_rebuild_header"), worker, "connect 3"
    )
    fds = [row["ret"] for row in rows if row["function"] == "__sys_socket"]
    assert len(fds) == 4 and all(2 < fd < 30 for fd in fds)
    assert [row["ret"] for row in rows if row["function"] == "inet_listen"] == [0]


@pytest.mark.parametrize("backend", HERE)
def test_negative_numbers(backend: str) -> None:
    """An int's slot may hold garbage above it (5.10 does): a negative one comes out as it went in, and as what was returned."""
    chosen = targets("__sys_socket")
    code = "import _socket\ntry: _socket.socket(-3, 1, -7)\nexcept OSError: pass"
    (call,) = signatures(KERNEL, [("__sys_socket", "")])
    assert call is not None and call.returned is not None
    for need in Need(arguments=True), Need(at_return=True):
        with TraceSession(KERNEL, chosen, need=need, arguments=call.recorded if need.arguments else 0, size=1 << 16) as session:
            session.attach(backend=named(backend, need.at_return))
            session.activate()
            subprocess.run(["python3", "-S", "-E", "-c", code], check=True)
            session.finish()
            ((*_, words),) = [(row[0], row[5:]) for row in session.read().rows()]
        if need.arguments:
            assert [each.decode(words) for each in call.arguments] == [-3, 1 | socket.SOCK_CLOEXEC, -7]  # type: ignore[arg-type]
        else:
            assert call.returned.decode(words) == -97  # type: ignore[arg-type]  # EAFNOSUPPORT


def test_arguments_at_return(worker: Worker) -> None:
    """Trampolines have both; what reads registers refuses, and auto goes past it."""
    chosen = targets("inet_listen")
    need = Need(at_return=True, arguments=True)
    for backend in [*(name for name in HERE if "fentry" in name), "auto"]:
        if backend == "auto" and RELEASE < (5, 12):
            continue
        (row,) = trace(backend, need, chosen, worker, "connect 1")
        assert (row["args"]["backlog"], row["ret"]) == (8, 0)
    for backend in HERE:
        if "kprobe" in backend:
            with (
                TraceSession(KERNEL, chosen, need=need, arguments=2, size=4096) as session,
                pytest.raises(NotSupportedError) as caught,
            ):
                session.attach(backend=backend)
            assert "at return the registers hold no arguments" in caught.value.evidence


def test_what_cannot_be_attached_is_named(worker: Worker) -> None:
    """Each backend has its own reasons; what can be attached is."""
    good = targets("inet_listen")
    for backend, name, word in (
        ("fentry", "seq_printf", "variable number"),
        ("fentry", "no_such_function", "BTF"),
        ("kprobe", "do_int3", "blacklisted"),
        ("tracefs-kprobe", "do_int3", "kprobe there"),
    ):
        with CountSession(KERNEL, [Target(name), *good]) as session:
            session.attach(backend=backend)
            assert session.attached == [1]
            (culprit,) = session.culprits
            assert culprit.target == name and word in culprit.reason, culprit
            session.activate()
            worker.do("connect 1")
            session.finish()
            assert session.counts() == [0, 1]
    done = rawkm("count", "inet_listen", "seq_printf", "--backend", "fentry", "--missing", "error", "-d", "1")
    assert done.status == 1 and "variable number" in done.err, done


def test_what_hangs_a_kernel_is_never_tried() -> None:
    """Trampolines on what trampolines go through, and at the return of what does not: not by name, on no kernel."""
    never = ["__rcu_read_lock", "rcu_read_unlock_strict", "migrate_disable", "preempt_count_add", "__bpf_prog_enter"]
    for backend in [name for name in HERE if "fentry" in name]:
        for need, names in ((Need(), never), (Need(at_return=True), [*never, "do_exit", "do_group_exit"])):
            with CountSession(KERNEL, [*map(Target, names), *targets("inet_listen")], need=need) as session:
                session.attach(backend=named(backend, need.at_return))
                assert session.attached == [len(names)]
                assert {culprit.target for culprit in session.culprits} == set(names)
                for culprit in session.culprits:
                    assert "trampoline" in culprit.reason or "does not return" in culprit.reason, culprit


@pytest.mark.parametrize("backend", HERE)
def test_calls_within_calls(backend: str, worker: Worker) -> None:
    """Over loopback __dev_queue_xmit runs within itself: as many returns as entries, of the same work."""
    chosen = targets("__dev_queue_xmit", "tcp_v4_rcv")
    with CountSession(KERNEL, chosen) as entries, CountSession(KERNEL, chosen, need=Need(at_return=True)) as returns:
        entries.attach(backend=named(backend, False))
        returns.attach(backend=named(backend, True))
        entries.activate()
        returns.activate()
        worker.do("connect 20")
        returns.finish()
        entries.finish()
        assert entries.counts()[0] > 60
        assert entries.counts() == returns.counts()


@pytest.mark.parametrize("backend", HERE)
def test_both_kinds_of_buffers(backend: str, worker: Worker) -> None:
    for perf in False, True:
        rows = trace(backend, Need(), targets("inet_listen"), worker, *["connect 1"] * 30, perf=perf)
        assert len(rows) == 30


def test_a_limit_of_open_files() -> None:
    """It is raised where that can be; where not, it is said before anything is attached."""
    line = "ulimit -S -n 40; ulimit -H -n 4096; exec rawkm count 'inet_l*' --backend kprobe -d 0.2"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "functions attached" in done.stderr
    line = (
        "ulimit -n 130; exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource rawkm count 'inet_*' --backend kprobe"
    )
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done
    assert "open files" in done.stderr, done
