"""What a pattern means, and what is none."""

from __future__ import annotations

import pytest

from rawkm.errors import UsageError
from rawkm.host.globs import Glob
from rawkm.targets import Pattern


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("tcp_sendmsg", ["tcp_sendmsg"], ["tcp_sendmsg_locked", "xtcp_sendmsg", "tcp_sendms", ""]),
        ("tcp_*", ["tcp_", "tcp_sendmsg"], ["tcp", "xtcp_sendmsg", "TCP_sendmsg"]),
        ("*", ["tcp_sendmsg", "a"], []),
        ("*_sock", ["tcp_close_sock", "_sock"], ["tcp_socket", "sock"]),
        ("*tcp*", ["tcp", "x_tcp_y"], ["tpc"]),
        ("a*a", ["aa", "aba", "abaca"], ["a", "ab", "ba"]),
        ("a*bc*bc", ["abcbc", "axbcybc"], ["abc", "abcb", "abcbcd"]),
        ("**tcp**_x", ["tcp_x", "atcpb_x"], ["tcpx"]),
        ("tcp_?", ["tcp_x"], ["tcp_", "tcp_xy"]),
        ("vfs_[rw]*", ["vfs_read", "vfs_write"], ["vfs_open", "vfs_"]),
        ("[!a-m]*", ["tcp", "_x"], ["a", "mx", ""]),
        ("x[]a]", ["xa"], ["x", "xb"]),
        ("name.isra.?", ["name.isra.0"], ["nameXisra.0"]),
        ("/tcp/", ["tcp", "xtcpx"], ["udp"]),
        ("/^tcp_(send|recv)msg$/", ["tcp_sendmsg", "tcp_recvmsg"], ["tcp_sendmsg_locked"]),
        ("/[[a]/", ["a"], ["b"]),
        ("/a:b|c/", ["c"], ["d"]),
    ],
)
def test_names(text: str, yes: list[str], no: list[str]) -> None:
    pattern = Pattern(text)
    assert pattern.module == ""
    assert pattern.within(b"")
    assert pattern.within(b"any")
    for name in yes:
        assert pattern.matches(name.encode()), name
        assert name.startswith(pattern.prefix.decode())
    for name in no:
        assert not pattern.matches(name.encode()), name


@pytest.mark.parametrize(
    ("text", "name", "within", "without"),
    [
        ("nf_conntrack:*", "*", ["nf_conntrack"], ["", "nf_nat", "nf_conntrack_x"]),
        ("nf_*:nf_*_in", "nf_*_in", ["nf_conntrack", "nf_nat"], ["", "xt_nf_"]),
        ("vmlinux:vfs_*", "vfs_*", [""], ["nf_conntrack"]),
        ("*:vfs_read", "vfs_read", ["", "any"], []),
        ("ext4:/a:b/", "/a:b/", ["ext4"], [""]),
    ],
)
def test_modules(text: str, name: str, within: list[str], without: list[str]) -> None:
    pattern = Pattern(text)
    assert pattern.name == name
    for module in within:
        assert pattern.within(module.encode())
    for module in without:
        assert not pattern.within(module.encode())


@pytest.mark.parametrize(
    ("text", "prefix", "exact"),
    [
        ("tcp_sendmsg", b"tcp_sendmsg", True),
        ("tcp_*", b"tcp_", False),
        ("t*p_*", b"t", False),
        ("tcp_?", b"tcp_", False),
        ("tcp_[a]*", b"tcp_", False),
        ("*", b"", False),
        ("/^tcp_/", b"", False),
        ("vmlinux:tcp_*", b"tcp_", False),
        ("vmlinux:tcp_ack", b"tcp_ack", True),
    ],
)
def test_prefix(text: str, prefix: bytes, exact: bool) -> None:
    pattern = Pattern(text)
    assert (pattern.prefix, pattern.exact) == (prefix, exact)
    assert text in repr(pattern)


def test_what_is_typed_in_other_encodings_is_matched_byte_by_byte() -> None:
    """A terminal in Latin-1 gives bytes that are no UTF-8; Python hands them on as surrogates."""
    typed = b"na\xefve_*".decode("utf-8", "surrogateescape")
    assert Pattern(typed).matches(b"na\xefve_function")
    assert Pattern(f"/{typed[:5]}/").matches(b"na\xefve_function")
    assert Pattern("naïve_?").matches("naïve_x".encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "tcp_* udp_*",
        "tcp\n",
        ":",
        ":tcp_*",
        "nf_conntrack:",
        "nf conntrack:*",
        "nf_[a:*",
        "/",
        "//",
        "/tcp",
        "/usr/bin",
        "/(/",
        "/a{1,99999999999999}/",
        "/" + "(" * 5000 + ")" * 5000 + "/",
        "ext4:/(/",
        "tcp_[ab",
        "tcp_[",
        "tcp_[]",
        "tcp_[!]",
        "tcp_[a]x[b",
        "tcp_[^a]*",
    ],
)
def test_no_patterns(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pattern(text)
    sentence = str(caught.value)
    assert "\n" not in sentence.replace(text, "")
    assert len(sentence.replace(text, "")) < 200
    # It shows the part that is wrong.
    assert any(repr(part) in sentence or part.strip() in sentence for part in (text, *text.split(":")) if part or not text)


def test_globs_without_re() -> None:
    """The usual forms do not pay for re; test_startup sees that it is not imported."""
    for text in ("tcp_sendmsg", "tcp_*", "*", "*_sock", "*a*b*"):
        assert Glob(text)._regex is None
    for text in ("tcp_?", "[ab]*"):
        assert Glob(text)._regex is not None
