"""Why something cannot be traced, in words that help."""

from __future__ import annotations

from errno import EACCES

import pytest

from rawkm.targets import Pattern, resolve
from rawkm.targets.model import NOT_TRACEABLE
from rawkm.targets.reasons import explain_missing, untraceable
from tests.unit.files import KALLSYMS, FileKernel, Function, machine

BASE = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0000000

FUNCTIONS = [
    Function("tcp_sendmsg", BASE + 0x100),
    Function("tcp_recvmsg", BASE + 0x200),
    Function("__pfx_tcp_notrace", BASE + 0x2F0, site=None),
    Function("tcp_notrace", BASE + 0x300, site=None),
    Function("tcp_moved.isra.0", BASE + 0x400),
    Function("tcp_moved.isra.0.cold", BASE + 0x500, site=None),
    Function("tcp_moved.constprop.0", BASE + 0x600),
    Function("tcp_mover", BASE + 0x700),
    Function("tcp_sendmsg", BASE + 0x800, site=None),
    Function("nf_nat_in", MODULE, module="nf_nat"),
    Function("nf_nat_notrace", MODULE + 0x100, module="nf_nat", site=None),
]


def why(fake: FileKernel, *patterns: str) -> list[str]:
    parsed = [Pattern(text) for text in patterns]
    targets = resolve(fake.kernel, parsed)
    explain_missing(fake.kernel, targets, parsed)
    assert [r.name for r in targets.missing] == list(patterns)
    return [r.reason for r in targets.missing]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("nosuch:tcp_*", "no module nosuch is loaded"),
        ("nosuch:tcp_sendmsg", "no module nosuch is loaded"),
        ("udp_*", "no traceable function matches"),
        ("/^udp/", "no traceable function matches"),
        ("nf_nat:tcp_*", "no traceable function in nf_nat matches"),
        ("no*:tcp_*", "no traceable function in no* matches"),
        ("vmlinux:nf_*", "no traceable function in vmlinux matches"),
        ("tcp_notrace", NOT_TRACEABLE),
        ("nf_nat:nf_nat_notrace", NOT_TRACEABLE),
        ("tcp_sendmesg", "no such function; near names: tcp_sendmsg"),
        ("qqqqqq", "no such function"),
        ("vmlinux:qqqqqq", "no such function in vmlinux"),
        # A name that the compiler has changed: what it became comes first, not what merely looks alike.
        ("tcp_moved", "no such function; near names: tcp_moved.constprop.0, tcp_moved.isra.0"),
        ("vmlinux:nf_nat_in", "no such function in vmlinux, but in nf_nat"),
        ("nf_nat:tcp_sendmsg", "no such function in nf_nat, but in vmlinux"),
    ],
)
def test_reasons(pattern: str, reason: str) -> None:
    assert why(machine(FUNCTIONS), pattern) == [reason]


def test_several_at_once_take_one_look() -> None:
    fake = machine(FUNCTIONS)
    assert why(fake, "udp_*", "tcp_notrace") == ["no traceable function matches", NOT_TRACEABLE]
    # One for the reasons, and one before that: an exact name may be another name of a function.
    assert fake.reads.count(KALLSYMS) == 2


def test_nothing_is_read_when_nothing_is_missing() -> None:
    fake = machine(FUNCTIONS)
    assert why(fake) == []
    parsed = [Pattern("tcp_recvmsg")]
    targets = resolve(fake.kernel, parsed)
    explain_missing(fake.kernel, targets, parsed)
    assert KALLSYMS not in fake.reads


def test_symbols_that_cannot_be_read() -> None:
    fake = machine(FUNCTIONS)
    fake.files[KALLSYMS] = EACCES
    (reason,) = why(fake, "udp_nothing")
    assert "EACCES" in reason


def test_names_that_are_no_text() -> None:
    fake = machine([*FUNCTIONS, Function(b"tcp_\xff", MODULE, module=b"\xff", site=None)])
    assert why(fake, "udp_*") == ["no traceable function matches"]
    patterns = [Pattern("tcp_*")]
    found = untraceable(fake.kernel, resolve(fake.kernel, patterns), patterns)
    assert (found[-1].name, found[-1].module) == ("tcp_\\xff", "\\xff")


def test_untraceable() -> None:
    fake = machine(FUNCTIONS)
    patterns = [Pattern("tcp_*"), Pattern("*notrace"), Pattern("nf_nat:*")]
    targets = resolve(fake.kernel, patterns)
    fake.reads.clear()
    found = untraceable(fake.kernel, targets, patterns)
    # Padding is no function, and a twin of a function that can be traced is no news.
    assert [(r.name, r.module, r.reason, r.denied) for r in found] == [
        ("tcp_notrace", "", NOT_TRACEABLE, False),
        ("tcp_moved.isra.0.cold", "", "the cold part of a function, not a function", False),
        ("nf_nat_notrace", "nf_nat", NOT_TRACEABLE, False),
    ]
    assert fake.reads == [KALLSYMS]
