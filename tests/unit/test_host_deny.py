"""The deny list: data that must make sense, and the user's own rules."""

from __future__ import annotations

import re

import pytest

from rawkm.errors import UsageError
from rawkm.host.deny import NO_FUNCTIONS, RULES, DenyList


def test_rules_are_globs_over_names_each_with_a_reason() -> None:
    globs = [glob for _, group in (*NO_FUNCTIONS, *RULES) for glob in group]
    assert len(set(globs)) == len(globs)
    for reason, group in (*NO_FUNCTIONS, *RULES):
        assert group
        # It stands in a sentence: NAME (REASON).
        assert re.fullmatch(r"[^\n.]+", reason), reason
    for glob in globs:
        assert re.fullmatch(r"[A-Za-z0-9_.*?]+", glob), glob
        # Nobody means to forbid most of the kernel.
        assert len(glob.replace("*", "")) >= 3, glob


def test_what_hangs_kernels_is_denied() -> None:
    """What the selftests of kprobe_multi leave alone, too, and what was seen to break kernels."""
    deny = DenyList()
    for name in (
        b"rcu_read_unlock_strict",
        b"rcu_note_context_switch",
        b"arch_cpu_idle",
        b"default_idle",
        b"bpf_dispatcher_xdp_func",
        b"migrate_disable",
        b"migrate_enable",
        b"__rcu_read_lock",
        b"preempt_count_add",
        b"__ftrace_invalid_address___64",
    ):
        assert deny.reason(name), name


@pytest.mark.parametrize("name", [b"tcp_sendmsg", b"tcp_v4_connect", b"vfs_read", b"udp_sendmsg", b"do_sys_openat2"])
def test_ordinary_functions_are_not(name: bytes) -> None:
    assert DenyList().reason(name) is None


def test_unsafe_keeps_what_is_no_function() -> None:
    deny = DenyList(builtin=False)
    assert deny.reason(b"rcu_read_lock_held") is None
    assert deny.reason(b"__ftrace_invalid_address___64") == NO_FUNCTIONS[0][0]


def test_extra_rules() -> None:
    deny = DenyList(["tcp_send*", "*_recvmsg", "*connect*", "udp_sendmsg", "vfs_[rw]*", "sys_?pen"], builtin=False)
    names = [
        b"tcp_sendmsg",
        b"tcp_recvmsg",
        b"tcp_v4_connect_rst",
        b"udp_sendmsg",
        b"udp_sendmsg_locked",
        b"vfs_read",
        b"vfs_open",
        b"sys_open",
        b"xtcp_sendmsg",
        b"tcp_recvmsg_locked",
    ]
    denied = [b"tcp_sendmsg", b"tcp_recvmsg", b"tcp_v4_connect_rst", b"udp_sendmsg", b"vfs_read", b"sys_open"]
    assert list(filter(deny.reason, names)) == denied
    assert deny.denied(names) == dict.fromkeys(denied, "denied by --deny")


def test_the_user_s_rule_comes_first() -> None:
    assert DenyList(["rcu_*"]).reason(b"rcu_note_context_switch") == "denied by --deny"


@pytest.mark.parametrize("glob", ["", "nf_conntrack:*", "/tcp/", "two names", "tcp_[ab"])
def test_rules_that_could_never_match_are_refused(glob: str) -> None:
    with pytest.raises(UsageError) as caught:
        DenyList([glob])
    assert repr(glob) in str(caught.value)


def test_everything_can_be_denied() -> None:
    deny = DenyList(["*"])
    assert deny.reason(b"tcp_sendmsg")
    assert deny.denied([]) == {}
