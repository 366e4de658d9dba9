"""Thousands of functions: one call attaches them, and what spoils the batch is found in few."""

from __future__ import annotations

import math
import time

import pytest

from rawkm import features
from rawkm.backend import attach
from rawkm.host.deny import DenyList
from rawkm.programs.context import Registers
from rawkm.session import CountSession
from rawkm.syscall.live import LiveKernel
from rawkm.targets import Target
from rawkm.uapi.constants import AttachType

from ..lib import KERNEL, text_symbols


class Counting(LiveKernel):
    """Counts the LINK_CREATE calls."""

    calls = 0

    def bpf(self, layout, values):  # type: ignore[no-untyped-def]
        self.calls += layout.command == "LINK_CREATE"
        return super().bpf(layout, values)


@pytest.fixture(scope="module")
def symbols() -> dict[str, int]:
    found: dict[str, list[int]] = {}
    for address, name, module in text_symbols():
        found.setdefault(name, []).append(address if not module else 0)
    return {name: addresses[0] for name, addresses in found.items() if len(addresses) == 1 and addresses[0]}


@pytest.fixture(scope="module")
def good(functions: dict[str, list[str]], symbols: dict[str, int]) -> list[Target]:
    """10,000 functions that can be traced, in the order of their names."""
    deny = DenyList(ring=True)
    names = [name.encode() for name, modules in functions.items() if modules == [""] and name in symbols]
    denied = deny.denied(names)
    risky = ("lock", "preempt", "irq", "sched", "trace", "bpf", "perf", "hash", "mem")
    chosen = [name.decode() for name in names if name not in denied and not any(word in name.decode() for word in risky)]
    assert len(chosen) > 10_000
    return [Target(name, "", symbols[name]) for name in sorted(chosen)[:10_000]]


@pytest.fixture(scope="module")
def bad(functions: dict[str, list[str]], symbols: dict[str, int]) -> list[Target]:
    """20 functions of the kernel image that cannot be traced, and are no other name of one that can."""
    listed = {symbols[name] for name in functions if name in symbols}
    chosen = [
        name
        for name, address in symbols.items()
        if name not in functions and address not in listed and name.isidentifier() and not name.startswith("__")
    ]
    return [Target(name, "", symbols[name]) for name in sorted(chosen)[:: len(chosen) // 20][:20]]


def test_20_bad_ones_among_5000(good: list[Target], bad: list[Target]) -> None:
    """All 20 are named, each with a reason; the other 4,980 are attached."""
    kernel = Counting()
    targets = good[:4980]
    for number, target in enumerate(bad):
        targets.insert(number * 249, target)
    session = CountSession(kernel, targets)
    prog = session.load(Registers(kernel, AttachType.TRACE_KPROBE_MULTI, at_return=False))
    try:
        for by in "syms", "addrs":
            start = time.monotonic()
            attach(prog, good[:4980], by=by, cookies=False).close()
            alone = time.monotonic() - start
            kernel.calls = 0
            start = time.monotonic()
            attachment = attach(prog, targets, by=by, cookies=False)
            seconds = time.monotonic() - start
            attachment.close()
            assert {culprit.target for culprit in attachment.culprits} == {target.name for target in bad}
            assert all(len(culprit.reason) > 10 for culprit in attachment.culprits)
            assert len(attachment.attached) == 4980
            assert kernel.calls <= 20 * math.log2(5000) + 20
            print(f"{by}: {kernel.calls} calls, {seconds:.1f} s; without the bad ones, and detached, {alone:.1f} s")
            # 15 s where nothing else runs on the machine; an attach and detach of so many takes about a second there.
            assert seconds < 15 * max(1, alone), (by, seconds, alone, kernel.calls)
    finally:
        session.close()


def attach_10000(kernel: Counting, backend: str, targets: list[Target]) -> CountSession:
    session = CountSession(kernel, targets)
    try:
        session.attach(backend=backend)
        session.activate()
        account = session.finish()
        print(
            f"{backend}: {len(session.attached)} attached in {account.attach_syscall_ms:.0f} ms, detach {account.detach_ms:.0f} ms"
        )
    finally:
        session.close()
    return session


def test_10000_in_one_call(good: list[Target]) -> None:
    kernel = Counting()
    session = attach_10000(kernel, "kprobe-multi", good)
    assert (len(session.attached), session.culprits, kernel.calls) == (10_000, [], 1)


def test_10000_trampolines_in_one_call(good: list[Target]) -> None:
    """Linux 7.2. Those that BTF or the kernel does not have are named, the others attached at once."""
    if features.ask(KERNEL, features.fentry_multi).state != features.YES:
        return
    kernel = Counting()
    session = attach_10000(kernel, "fentry-multi", good)
    by_reason: dict[str, list[str]] = {}
    for culprit in session.culprits:
        by_reason.setdefault(culprit.reason, []).append(culprit.target)
    for reason, names in by_reason.items():
        print(f"{len(names)} {reason}: {names[:8]}")
    assert len(session.attached) + len(session.culprits) == 10_000
    assert len(session.attached) > 9_000
    kernel.calls = 0
    again = attach_10000(kernel, "fentry-multi", [good[index] for index in session.attached])
    assert (len(again.attached), again.culprits, kernel.calls) == (len(session.attached), [], 1)
