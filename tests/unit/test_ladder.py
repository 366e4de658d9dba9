"""Which mechanism is taken, and what is said of those that are not; what is found of killed processes; what is known to be slow."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from rawkm.backend import ladder, slow
from rawkm.backend.model import Attachment, Need, Partial, Unavailable
from rawkm.backend.multi import search
from rawkm.btf.build import Builder
from rawkm.cli.options import BACKENDS
from rawkm.errors import NotSupportedError, UsageError
from rawkm.handle import Handle
from rawkm.host import files
from rawkm.host.deny import NORETURN_RULES, TRAMPOLINE_RULES, DenyList
from rawkm.link import tracefs_kprobe
from tests.fakes import FakeKernel
from tests.unit.files import BTF, TRACING, FileKernel


class Job:
    def __init__(self, functions: int = 3) -> None:
        self.targets = [None] * functions
        self.unloaded = 0

    def unload(self) -> None:
        self.unloaded += 1


def climb(
    monkeypatch: pytest.MonkeyPatch,
    works: set[str],
    job: Job,
    *,
    backend: str = "auto",
    need: Need | None = None,
    fatal: str = "",
) -> tuple[str, list[tuple[str, str]]]:
    def attach(_job: object, _need: Need, name: str, *_: object, **__: object) -> Any:
        if name == fatal:
            raise NotSupportedError("tracing", "forbidden altogether")
        if name not in works:
            raise Unavailable(name, f"no {name} here")
        return name

    monkeypatch.setattr(ladder, "_attach", attach)
    found, tried = ladder.attach(job, need or Need(), backend=backend, by="auto", step=lambda *_: None)  # type: ignore[arg-type]
    return str(found), tried


def test_the_best_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    assert climb(monkeypatch, {"kprobe-multi", "kprobe"}, job) == ("kprobe-multi", [])
    assert job.unloaded == 0
    found, tried = climb(monkeypatch, {"kprobe", "fentry"}, job)
    assert found == "fentry"
    assert tried == [("kprobe-multi", "no kprobe-multi here"), ("fentry-multi", "no fentry-multi here")]
    assert job.unloaded == 2
    assert climb(monkeypatch, {"kprobe", "fentry"}, Job(100))[0] == "kprobe"
    assert climb(monkeypatch, {"kprobe", "fexit"}, Job(), need=Need(at_return=True))[0] == "fexit"
    with pytest.raises(NotSupportedError) as caught:
        climb(monkeypatch, set(), Job())
    assert all(f"{name}: no {name} here" in str(caught.value) for name in ("kprobe-multi", "fentry", "tracefs-kprobe"))


def test_some_functions_are_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """fentry does not have all of them: kprobe is tried first, fentry taken if that does not work."""
    asked: list[tuple[str, bool]] = []
    works: set[str] = set()

    def attach(_job: object, _need: Need, name: str, *_: object, auto: bool) -> Any:
        asked.append((name, auto))
        if name in works and not (name == "fentry" and auto):
            return name
        raise (Partial if name == "fentry" else Unavailable)(name, f"no {name} here")

    monkeypatch.setattr(ladder, "_attach", attach)
    for here, expected in (({"kprobe", "fentry"}, "kprobe"), ({"fentry"}, "fentry")):
        asked.clear()
        works.clear()
        works.update(here)
        found, tried = ladder.attach(Job(), Need(), backend="auto", by="auto", step=lambda *_: None)  # type: ignore[arg-type]
        assert str(found) == expected
        assert asked[-1] == (expected, expected == "kprobe")
        assert (expected in dict(tried)) is False


def test_a_named_one_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotSupportedError, match="no kprobe-multi here"):
        climb(monkeypatch, {"kprobe"}, Job(), backend="kprobe-multi")


def test_what_forbids_everything_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotSupportedError, match="forbidden altogether"):
        climb(monkeypatch, {"kprobe"}, Job(), fatal="kprobe-multi")


def test_the_names_are_the_same_everywhere() -> None:
    assert BACKENDS == ladder.BACKENDS
    for need in Need(), Need(at_return=True):
        for functions in 1, 1000:
            assert set(ladder.rungs(need, functions)) < set(BACKENDS)
    with pytest.raises(UsageError):
        ladder.attach(Job(), Need(), backend="uprobe", by="auto", step=lambda *_: None)  # type: ignore[arg-type]


def test_an_attachment_adds_up_what_is_known() -> None:
    class Link(Handle):
        def __init__(self, missed: int | None) -> None:
            super().__init__(FakeKernel({}).real(), -1)
            self._missed = missed

        def missed(self) -> int | None:
            return self._missed

    class Prog:
        def recursion_misses(self) -> int | None:
            return 3

    links = [Link(1), Link(2)]
    found = Attachment(links, [Prog(), Prog()], "x", [0, 1], [], 0.0)  # type: ignore[list-item]
    assert (found.missed(), found.recursion_misses()) == (3, 6)
    blind = Attachment([Link(None), Link(2)], [Prog()], "x", [0], [], 0.0)  # type: ignore[list-item]
    assert (blind.missed(), blind.recursion_misses()) == (None, None)


def test_an_attachment_is_closed_once_whatever_happens() -> None:
    closed: list[list[int]] = []
    done: list[str] = []

    class Kernel:
        def close_all(self, fds: list[int], step: Any) -> None:
            closed.append(fds)
            step(0, len(fds))

    class Link(Handle):
        def missed(self) -> int | None:
            return 0

    class StoppedError(Exception):
        pass

    def stop(_done: int, _total: int) -> None:
        raise StoppedError

    found = Attachment([Link(Kernel(), fd) for fd in (5, 6, 7)], [], "x", [], [], 0.0)  # type: ignore[arg-type]
    found.afterwards = lambda: done.append("removed")
    with pytest.raises(StoppedError):
        found.close(stop)
    found.close()
    assert closed == [[7, 6, 5]]
    assert done == ["removed"]


@pytest.mark.parametrize(
    "bad",
    [
        set(),
        {0},
        {4999},
        {7, 8, 9, 4000},
        set(range(0, 5000, 250)),
        set(range(20)),
        set(random.Random(7).sample(range(5000), 20)),
    ],
)
def test_halving_finds_all_in_few_steps(bad: set[int]) -> None:
    asked = 0

    def probe(part: list[int]) -> int:
        nonlocal asked
        asked += 1
        return 22 if bad.intersection(part) else 0

    assert search(list(range(5000)), probe) == dict.fromkeys(bad, 22)
    assert asked <= len(bad) * math.log2(5000) + 20


def test_trampoline_rules() -> None:
    deny = DenyList.of(*TRAMPOLINE_RULES, *NORETURN_RULES)
    for name in (b"__rcu_read_lock", b"rcu_read_unlock_strict", b"migrate_disable", b"do_exit", b"__x64_sys_exit_group"):
        assert deny.reason(name), name
    for name in (b"tcp_v4_connect", b"rcu_note_context_switch", b"do_exit_group_files", b"exit_mm"):
        assert deny.reason(name) is None, name
    assert DenyList.of(*TRAMPOLINE_RULES).reason(b"do_exit") is None


def test_what_a_killed_process_left() -> None:
    """Told by its number and the time of its start: a living process, another with the same number, and somebody else's event."""
    text = (
        b"p:rawkm_10_500/p0 tcp_sendmsg\nr16:rawkm_10_501/r0 tcp_recvmsg+0\np:rawkm_11_500/p3 vfs_read\n"
        b"p:kprobes/rawkm_x vfs_open\np:rawkm_/p0 vfs_open\np:rawkm_1x_2/p0 vfs_open\n"
    )
    stat = b"10 (a) b) S " + b" ".join(b"%d" % n for n in range(4, 22)) + b" 500 0 0\n"
    kernel = FileKernel({f"{TRACING}/kprobe_events": text, "/proc/10/stat": stat}).kernel
    assert [(each.event, each.where, each.pid) for each in tracefs_kprobe.leftovers(kernel)] == [
        ("rawkm_10_501/r0", "tcp_recvmsg+0", 10),
        ("rawkm_11_500/p3", "vfs_read", 11),
    ]


def test_short_tables() -> None:
    for chain, expected in (("hlist_node", True), ("rhlist_head", False)):
        b = Builder()
        node = b.composite(chain, 8, [])
        b.composite("fprobe_hlist_node", 16, [("hlist", node, 0, 0)])
        assert slow.short_table(FileKernel({BTF: b.build()}).kernel) is expected
    assert slow.short_table(FileKernel({}).kernel) is False


class Limited:
    def __init__(self, soft: int, hard: int, may_raise: bool) -> None:
        self.limits = (soft, hard)
        self.may_raise = may_raise

    def rlimit(self, _resource: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        from rawkm.errors import SyscallError

        before = self.limits
        if limits is not None:
            if limits[1] > self.limits[1] and not self.may_raise:
                raise SyscallError("prlimit64", 1)
            self.limits = limits
        return before


def test_room_for_open_files() -> None:
    for soft, hard, may_raise, after in (
        (1024, 4096, False, (1128, 4096)),
        (1024, 1024, True, (1128, 1128)),
        (-1, -1, False, (-1, -1)),
        (2048, 4096, False, (2048, 4096)),
    ):
        kernel = Limited(soft, hard, may_raise)
        files.make_room(kernel, 1000)  # type: ignore[arg-type]
        assert kernel.limits == after
    with pytest.raises(NotSupportedError, match="1,128 open files"):
        files.make_room(Limited(1024, 1024, False), 1000)  # type: ignore[arg-type]
