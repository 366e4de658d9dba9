"""The library: what a link tells of itself, and who spoils a batch."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import pytest

from rawkm import AttachError, ProgramSpec, ProgType, attach_kprobe_multi
from rawkm.asm import R0, Mov, exit_
from rawkm.backend import attach
from rawkm.errors import errno_name
from rawkm.prog import Program
from rawkm.targets import Target
from rawkm.uapi.constants import AttachType

from ..lib import KERNEL, setting, text_symbols

SPEC = ProgramSpec("empty", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_MULTI, insns=[Mov.imm(R0, 0), exit_()])


@pytest.fixture
def prog() -> Iterator[Program]:
    with SPEC.load(KERNEL) as prog:
        yield prog


@pytest.fixture(scope="module")
def symbols() -> dict[str, int]:
    """The address of each function of the kernel image that has its name for itself."""
    found: dict[str, list[int]] = {}
    for address, name, module in text_symbols():
        found.setdefault(name, []).append(address if not module else 0)
    return {name: addresses[0] for name, addresses in found.items() if len(addresses) == 1 and addresses[0]}


@pytest.fixture(scope="module")
def good(functions: dict[str, list[str]], symbols: dict[str, int]) -> list[str]:
    """Functions that can be traced, in no order of their addresses."""
    chosen = [name for name, modules in functions.items() if name.startswith(("tcp_", "udp_")) and modules == [""]]
    return sorted(name for name in chosen if name in symbols)


@pytest.fixture(scope="module")
def bad(functions: dict[str, list[str]], symbols: dict[str, int]) -> list[str]:
    """Functions that cannot: in kallsyms, not in the kernel's list, and no other name of one that is."""
    listed = {symbols[name] for name in functions if name in symbols}
    names = (
        "native_sched_clock",
        "do_syscall_64",
        "exc_page_fault",
        "asm_exc_page_fault",
        "memcpy",
        "memset",
        "entry_SYSCALL_64",
    )
    return [name for name in names if name in symbols and name not in functions and symbols[name] not in listed]


def test_info(prog: Program, good: list[str], symbols: dict[str, int]) -> None:
    """Addresses ascend, their cookies along, however they were given; count, flags, missed."""
    names = good[:50]
    addrs = [symbols[name] for name in names]
    assert addrs != sorted(addrs)
    cookies = list(range(1000, 1050))
    expected = sorted(zip(addrs, cookies, strict=True))
    for link in (
        attach_kprobe_multi(prog, addrs=addrs, cookies=cookies),
        attach_kprobe_multi(prog, syms=names, cookies=cookies),
    ):
        with link:
            info = link.info(lists=True)
            assert list(zip(info.addrs, info.cookies, strict=True)) == expected
            assert (info.count, info.flags, info.missed) == (50, 0, 0)
            assert info.prog_id == prog.info()["id"]
            assert info.id > 0
            short = link.info()
            assert (short.count, short.addrs, short.cookies) == (50, [], [])
    with attach_kprobe_multi(prog, addrs=addrs) as link:
        info = link.info(lists=True)
        assert sorted(info.addrs) == sorted(addrs)
        assert info.cookies == [0] * 50
    with attach_kprobe_multi(prog, syms=names[:2], retprobe=True) as link:
        assert link.info().flags == 1  # BPF_F_KPROBE_MULTI_RETURN
        assert link.info().count == 2


def test_info_with_hidden_addresses(prog: Program, good: list[str]) -> None:
    """kptr_restrict 2: zeros for the addresses, the cookies as they are."""
    with attach_kprobe_multi(prog, syms=good[:5], cookies=[5, 4, 3, 2, 1]) as link, setting("kernel/kptr_restrict", 2):
        info = link.info(lists=True)
        assert info.addrs == [0] * 5
        assert sorted(info.cookies) == [1, 2, 3, 4, 5]
        assert info.count == 5


def test_culprits_of_a_batch(prog: Program, good: list[str], bad: list[str], symbols: dict[str, int]) -> None:
    """Some of 400 cannot be traced: they are named, each with its errno and a reason; the rest is attached, in bounded time."""
    assert len(good) > 350
    assert len(bad) >= 4
    names = list(good)
    for number, name in enumerate(bad):
        names.insert(number * len(good) // len(bad), name)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for by, errnos in (("syms", {"ESRCH"}), ("addrs", {"EINVAL", "ENOENT"})):
        targets = [Target(name, "", symbols[name]) for name in names]
        start = time.monotonic()
        attachment = attach(prog, targets, by=by)
        seconds = time.monotonic() - start
        with attachment.link:
            assert len(attachment.attached) == len(good)
            assert {culprit.target for culprit in attachment.culprits} == set(bad)
            for culprit in attachment.culprits:
                assert errno_name(culprit.errno) in errnos | {"ESRCH"}, culprit
                assert len(culprit.reason) > 10
            info = attachment.link.info(lists=True)
            assert info.count == len(good)
            # The cookie of each is its index among all, those left out included.
            assert {names[cookie]: addr for cookie, addr in zip(info.cookies, info.addrs, strict=True)} == {
                name: symbols[name] for name in good
            }
        assert seconds < 40, (by, seconds)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_names_that_do_not_exist(prog: Program, good: list[str]) -> None:
    targets = [Target(name) for name in (*good[:100], "no_such_1", *good[100:200], "no_such_2")]
    attachment = attach(prog, targets)
    with attachment.link:
        assert sorted(culprit.target for culprit in attachment.culprits) == ["no_such_1", "no_such_2"]
        assert len(attachment.attached) == 200


def test_many_culprits(prog: Program, good: list[str]) -> None:
    """24 in 410. Attaching and detaching at each step took 18 s for that."""
    names = good[:386]
    for number in range(24):
        names.insert(number * 17, f"no_such_{number}")
    start = time.monotonic()
    attachment = attach(prog, [Target(name) for name in names])
    with attachment.link:
        assert len(attachment.culprits) == 24
        assert len(attachment.attached) == len(names) - 24
    assert time.monotonic() - start < 12


def test_nobody_is_left(prog: Program, bad: list[str], symbols: dict[str, int]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for targets in ([Target(name, "", symbols[name]) for name in bad], [Target("no_such_function")]):
        for by in ("addrs", "syms") if targets[0].address else ("syms",):
            with pytest.raises(AttachError) as caught:
                attach(prog, targets, by=by)
            assert {culprit.target for culprit in caught.value.culprits} == {target.name for target in targets}
            assert caught.value.errno in (2, 3, 22)  # ENOENT, ESRCH, EINVAL
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
