"""rawkm why: which entries of a long list are to blame."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, cast

import pytest

from rawkm.recording import Call, Pointee
from rawkm.rules import Rule, rules
from rawkm.uapi import encode
from rawkm.uapi.constants import AttachType, Cmd
from rawkm.why.lists import without_culprits
from rawkm.why.scenario import Change, Outcome, Scenario, Step

SYMS, ADDRS = "link_create.kprobe_multi.syms", "link_create.kprobe_multi.addrs"
COOKIES = "link_create.kprobe_multi.cookies"


def rule(name: str) -> Rule:
    return next(rule for rule in rules("LINK_CREATE") if rule.name == f"link_create.{name}")


class Kernel:
    """Refuses a list with one of these in it."""

    def __init__(self, step: Step, path: str, bad: set[bytes]) -> None:
        self.steps = [step]
        self.last = step
        self.runs = 0
        self._path = path
        self._bad = bad

    def run(self, changes: Iterable[Change] = ()) -> Outcome:
        self.runs += 1
        step = self.last.copy()
        for change in changes:
            change.apply(step)
        content = step.memory[self._path]
        assert content is not None
        items = content if isinstance(content, list) else [content[i : i + 8] for i in range(0, len(content), 8)]
        assert step.number("link_create.kprobe_multi.cnt") == len(items)
        return Outcome(3 if self._bad & set(items) else 0)


def a_link(path: str, items: list[bytes], *, cookies: bool = False) -> Step:
    values = {
        "link_create.attach_type": AttachType.TRACE_KPROBE_MULTI,
        path: 1,
        COOKIES: int(cookies),
        "link_create.kprobe_multi.cnt": len(items),
    }
    pointee = Pointee(items=items) if path == SYMS else Pointee(b"".join(items))
    memory = {path: pointee}
    if cookies:
        memory[COOKIES] = Pointee(struct.pack(f"={len(items)}Q", *range(len(items))))
    attr = encode("LINK_CREATE", values)
    return Step(Call("bpf", command=Cmd.LINK_CREATE, size=len(attr), attr=attr, memory=memory))


@pytest.mark.parametrize("bad", [[0], [4999], [17, 18, 4000], [1, 2, 3, 4, 5]])
def test_a_few_among_thousands(bad: list[int]) -> None:
    items = [f"function_{i}".encode() for i in range(5000)]
    kernel = Kernel(a_link(SYMS, items, cookies=True), SYMS, {items[i] for i in bad})
    change = without_culprits(cast(Any, kernel), [rule("kprobe_multi_symbol")])
    assert change is not None
    assert change.field == f"{SYMS}[{', '.join(map(str, bad))}]"
    assert change.was == ", ".join(f"'function_{i}'" for i in bad)
    assert kernel.runs <= 130
    step = kernel.last.copy()
    change.apply(step)
    assert step.memory[SYMS] == [item for i, item in enumerate(items) if i not in bad]
    cookies = step.memory[COOKIES]
    assert isinstance(cookies, bytes)
    assert list(struct.unpack(f"={len(cookies) // 8}Q", cookies)) == [i for i in range(5000) if i not in bad]


def test_addresses() -> None:
    items = [struct.pack("=Q", 0xFFFF_FFFF_8100_0000 + 16 * i) for i in range(100)]
    kernel = Kernel(a_link(ADDRS, items), ADDRS, {items[42]})
    change = without_culprits(cast(Any, kernel), [rule("kprobe_multi_no_function")])
    assert change is not None
    assert (change.field, change.was) == (f"{ADDRS}[42]", "0xffffffff810002a0")


def test_the_same_twice() -> None:
    kernel = Kernel(a_link(SYMS, [b"a", b"b", b"a", b"c", b"b"]), SYMS, set())
    change = without_culprits(cast(Any, kernel), [rule("kprobe_multi_twice")])
    assert change is not None
    assert (change.field, change.was) == (f"{SYMS}[2, 4]", "'a', 'b'")
    assert kernel.runs == 0, "that can be seen without trying"


def test_nothing_to_blame() -> None:
    """All are bad, or the rule is about something else."""
    items = [b"x", b"y"]
    kernel = Kernel(a_link(SYMS, items), SYMS, set(items))
    assert without_culprits(cast(Any, kernel), [rule("kprobe_multi_symbol")]) is None
    assert without_culprits(cast(Scenario, kernel), [rule("kprobe_multi_cnt")]) is None
