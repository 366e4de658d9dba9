"""Matching patterns against the lists, small cases; what holds for any list is in tests/property."""

from __future__ import annotations

import pytest

from rawkm.targets import Pattern
from rawkm.targets.listing import match

# With the oddities of real lists: a name twice, one that is another's beginning, one in a module, a module
# named as a function.
NAMES = b"""\
tcp_ack
xtcp_ack
tcp_ack
tcp_ack_update
tcp_ack [nf_nat]
udp_rcv [tcp_ack]
__ftrace_invalid_address___64
"""
SITES = b"""\
ffffffff81000104 tcp_ack
ffffffff81000204 xtcp_ack
ffffffff81000300 tcp_ack
ffffffff81000404 tcp_ack_update
ffffffffc0000104 tcp_ack [nf_nat]
ffffffffc0000204 udp_rcv [tcp_ack]
ffffffffc0000304 __ftrace_invalid_address___64
"""

Row = tuple[bytes, bytes, int | None]


def found(text: bytes, *patterns: str, sites: bool = False, chunk: int = 1000) -> tuple[list[Row], list[bool]]:
    """The rows that are wanted, and which patterns gave something."""
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    entries, gave = match(chunks, [Pattern(p) for p in patterns], sites=sites)
    return [(e.name, e.module, e.site) for e in entries if e.wanted], gave


@pytest.mark.parametrize("chunk", [1, 3, 16, 1000])
def test_names(chunk: int) -> None:
    rows, gave = found(NAMES, "tcp_ack", chunk=chunk)
    assert rows == [(b"tcp_ack", b"", None), (b"tcp_ack", b"", None), (b"tcp_ack", b"nf_nat", None)]
    assert gave == [True]


@pytest.mark.parametrize("chunk", [1, 3, 16, 1000])
def test_sites(chunk: int) -> None:
    rows, _ = found(SITES, "tcp_ack*", sites=True, chunk=chunk)
    assert rows == [
        (b"tcp_ack", b"", 0xFFFFFFFF81000104),
        (b"tcp_ack", b"", 0xFFFFFFFF81000300),
        (b"tcp_ack_update", b"", 0xFFFFFFFF81000404),
        (b"tcp_ack", b"nf_nat", 0xFFFFFFFFC0000104),
    ]


@pytest.mark.parametrize("patterns", [("udp_*", "xtcp_*", "tcp_ack_*"), ("udp_*", "*x*", "tcp_ack_*")])
def test_several_patterns_keep_the_order_of_the_file(patterns: tuple[str, ...]) -> None:
    for sites, text in ((False, NAMES), (True, SITES)):
        rows, gave = found(text, *patterns, sites=sites)
        assert [name for name, _, _ in rows] == [b"xtcp_ack", b"tcp_ack_update", b"udp_rcv"]
        assert gave == [True] * 3


def test_the_last_line_may_lack_its_end() -> None:
    rows, _ = found(NAMES.rstrip(), "__ftrace*")
    assert [name for name, _, _ in rows] == [b"__ftrace_invalid_address___64"]


def test_the_same_name_elsewhere_comes_along_unwanted() -> None:
    entries, gave = match([NAMES], [Pattern("nf_nat:tcp_ack"), Pattern("nosuch:tcp_ack")], sites=False)
    assert [(e.module, e.wanted) for e in entries] == [(b"", False), (b"", False), (b"nf_nat", True)]
    assert gave == [True, False]


def test_patterns_that_give_nothing() -> None:
    rows, gave = found(NAMES, "tcp", "tcp_ack_update", "ack*", "*")
    assert gave == [False, True, False, True]
    assert len(rows) == 7


def test_an_empty_list() -> None:
    assert found(b"", "*") == ([], [False])
    assert found(b"\n\n", "*") == ([], [False])
    assert found(b"\n\n", "*", sites=True) == ([], [False])


def test_lines_that_are_none() -> None:
    """What a module can do to the list by a name with a line end or a space in it."""
    text = b"ffffffff81000104 tcp_a\nb [evil]\nxyz tcp_c\ntcp_d\nffffffff81000204 tcp_e tcp_f [evil]\n"
    for pattern in ("tcp_*", "*tcp*"):
        rows, _ = found(text, pattern, sites=True)
        assert [name for name, _, _ in rows] == [b"tcp_a", b"tcp_e"]
