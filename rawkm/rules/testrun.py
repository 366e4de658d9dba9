"""PROG_TEST_RUN, by type of program."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENXIO

from rawkm.rules.common import ENOTSUPP, fd_rules, from_release, tail
from rawkm.rules.model import Branch, Form, Rule, Table, always, for_each
from rawkm.uapi.constants import AttachType, Cmd, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict, Version, When

_C = "prog_test_run"
_ON_CPU = 1
_CTX_MAX = 12 * 8
_U16_MAX = 0xFFFF
_ETH_HLEN = 14

_NEVER = (
    ProgType.KPROBE,
    ProgType.TRACEPOINT,
    ProgType.PERF_EVENT,
    ProgType.CGROUP_SOCK,
    ProgType.CGROUP_SOCK_ADDR,
    ProgType.CGROUP_SOCKOPT,
    ProgType.CGROUP_SYSCTL,
    ProgType.CGROUP_DEVICE,
    ProgType.SOCK_OPS,
    ProgType.SK_SKB,
    ProgType.SK_MSG,
    ProgType.SK_REUSEPORT,
    ProgType.LIRC_MODE2,
    ProgType.EXT,
    ProgType.LSM,
    ProgType.RAW_TRACEPOINT_WRITABLE,
)
_SKB = (ProgType.SOCKET_FILTER, ProgType.SCHED_CLS, ProgType.SCHED_ACT, ProgType.CGROUP_SKB)


def _rule(
    name: str,
    fields: str,
    errno: int | tuple[int, ...] | None,
    text: str,
    source: str,
    when: When,
    *,
    since: Version = (0, 0),
    until: Version = (99, 0),
) -> Rule:
    return Rule(
        f"{_C}.{name}", " ".join(f"test.{f}" for f in fields.split()), errno, text, source, when, since=since, until=until
    )


def _prog(a: Any, c: Call) -> Any:
    return c.fds[a.prog_fd]


def _unused(names: str) -> When:
    """One of these fields is not 0."""
    fields = names.split()
    return lambda a, c, k: any(getattr(a, name) for name in fields)


def _short_context(limit: int) -> When:
    def bad(a: Any, c: Call, k: Facts) -> Verdict:
        if a.ctx_size_in > limit:
            return True
        needed = _prog(a, c).context_size
        return None if needed is None else a.ctx_size_in < needed

    return bad


def _bad_context(a: Any, c: Call, k: Facts) -> Verdict:
    found = c.memory.readable(a.ctx_in, a.ctx_size_in, k)
    return None if found is None else not found


_RAW = "bpf_prog_test_run_raw_tp"
_RAW_FIELDS = "data_in data_out ctx_out duration repeat"
_RAW_TP: list[Item] = [
    _rule(
        "raw_tp_unused",
        _RAW_FIELDS,
        EINVAL,
        "a raw tracepoint program takes ctx_in, flags and cpu only",
        _RAW,
        _unused(_RAW_FIELDS),
    ),
    _rule(
        "raw_tp_batch",
        "batch_size",
        EINVAL,
        "a raw tracepoint program takes ctx_in, flags and cpu only",
        _RAW,
        _unused("batch_size"),
        since=(5, 18),
    ),
    _rule(
        "raw_tp_context",
        "ctx_size_in",
        EINVAL,
        f"ctx_size_in must be what the program reads of its context, and at most {_CTX_MAX}",
        _RAW,
        _short_context(_CTX_MAX),
    ),
    _rule(
        "raw_tp_cpu",
        "cpu flags",
        EINVAL,
        "cpu takes BPF_F_TEST_RUN_ON_CPU in flags",
        _RAW,
        lambda a, c, k: not a.flags & _ON_CPU and a.cpu != 0,
    ),
    _rule("raw_tp_memory", "ctx_in", EFAULT, "ctx_in must point to ctx_size_in bytes that can be read", _RAW, _bad_context),
    _rule(
        "raw_tp_offline",
        "cpu",
        ENXIO,
        "cpu must be online",
        _RAW,
        lambda a, c, k: bool(a.flags & _ON_CPU) and (a.cpu >= k.cpus or (None if a.cpu else False)),
    ),
]

_TRACING_FIELDS = "flags cpu"
_TESTED = (
    AttachType.TRACE_FENTRY,
    AttachType.TRACE_FEXIT,
    AttachType.MODIFY_RETURN,
    AttachType.TRACE_FSESSION,
    AttachType.TRACE_FENTRY_MULTI,
    AttachType.TRACE_FEXIT_MULTI,
    AttachType.TRACE_FSESSION_MULTI,
)
_TRACING: list[Item] = [
    _rule(
        "tracing_unused",
        _TRACING_FIELDS,
        EINVAL,
        "flags, cpu and batch_size must be 0 for a tracing program",
        "bpf_prog_test_run_tracing",
        _unused(_TRACING_FIELDS),
    ),
    _rule(
        "tracing_batch",
        "batch_size",
        EINVAL,
        "flags, cpu and batch_size must be 0 for a tracing program",
        "bpf_prog_test_run_tracing",
        _unused("batch_size"),
        since=(5, 18),
    ),
    _rule(
        "tracing_type",
        "prog_fd",
        EFAULT,
        "only fentry, fexit and fmod_ret programs (and sessions) can be tested",
        "bpf_prog_test_run_tracing",
        lambda a, c, k: _prog(a, c).attach_type not in _TESTED,
    ),
]

_SYSCALL_FIELDS = "data_in data_out ctx_out duration repeat flags"
_SYSCALL: list[Item] = [
    _rule(
        "syscall_unused",
        _SYSCALL_FIELDS,
        EINVAL,
        "a syscall program takes ctx_in only",
        "bpf_prog_test_run_syscall",
        _unused(_SYSCALL_FIELDS),
    ),
    _rule(
        "syscall_batch",
        "batch_size",
        EINVAL,
        "a syscall program takes ctx_in only",
        "bpf_prog_test_run_syscall",
        _unused("batch_size"),
        since=(5, 18),
    ),
    _rule(
        "syscall_context",
        "ctx_size_in",
        EINVAL,
        f"ctx_size_in must be what the program reads of its context, and at most {_U16_MAX}",
        "bpf_prog_test_run_syscall",
        _short_context(_U16_MAX),
    ),
    _rule(
        "syscall_memory",
        "ctx_in",
        EFAULT,
        "ctx_in must point to ctx_size_in bytes that can be read",
        "bpf_prog_test_run_syscall",
        _bad_context,
    ),
    _rule("syscall_run", "prog_fd", None, "the context must be writable where the program writes", "", always),
]


def _skb_flags(a: Any, c: Call, k: Facts) -> Verdict:
    allowed = 4 if k.version >= (6, 12) else 0
    # BPF_F_TEST_SKB_CHECKSUM_COMPLETE went into stable releases, too.
    return bool(a.flags & ~4) or (None if a.flags and not allowed and k.version >= (6, 1) else bool(a.flags & ~allowed))


_SKB_RULES: list[Item] = [
    _rule(
        "skb_flags",
        "flags",
        EINVAL,
        "flags must be 0, or since 6.12 BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
        "bpf_prog_test_run_skb",
        _skb_flags,
    ),
    _rule("skb_cpu", "cpu", EINVAL, "cpu and batch_size must be 0", "bpf_prog_test_run_skb", _unused("cpu")),
    _rule(
        "skb_batch",
        "batch_size",
        EINVAL,
        "cpu and batch_size must be 0",
        "bpf_prog_test_run_skb",
        _unused("batch_size"),
        since=(5, 18),
    ),
    _rule(
        "skb_short",
        "data_size_in",
        EINVAL,
        f"data_size_in must be at least {_ETH_HLEN}: a packet begins with its Ethernet header",
        "bpf_prog_test_run_skb",
        lambda a, c, k: a.data_size_in < _ETH_HLEN,
    ),
    _rule(
        "skb_large",
        "data_size_in",
        EINVAL,
        "data_size_in must leave room in one page",
        "bpf_test_init",
        lambda a, c, k: a.data_size_in > k.page_size or (None if a.data_size_in > k.page_size - 1024 else False),
        until=(6, 18),
    ),
    _rule("skb_run", "data_in", None, "packet, context and buffers must be right", "", always),
]

TEST_RUN = Table(
    Form(
        *(
            f"test.{name}"
            for name in (
                "prog_fd",
                "retval",
                "data_size_in",
                "data_size_out",
                "data_in",
                "data_out",
                "repeat",
                "duration",
                "ctx_size_in",
                "ctx_size_out",
                "ctx_in",
                "ctx_out",
                "flags",
                "cpu",
                "batch_size",
            )
        )
    ),
    [
        *tail(_C, {(0, 0): 72, (5, 18): 76}),
        _rule(
            "ctx_in",
            "ctx_in ctx_size_in",
            EINVAL,
            "ctx_in and ctx_size_in must both be 0, or neither",
            "bpf_prog_test_run",
            lambda a, c, k: (a.ctx_in == 0) != (a.ctx_size_in == 0),
        ),
        _rule(
            "ctx_out",
            "ctx_out ctx_size_out",
            EINVAL,
            "ctx_out and ctx_size_out must both be 0, or neither",
            "bpf_prog_test_run",
            lambda a, c, k: (a.ctx_out == 0) != (a.ctx_size_out == 0),
        ),
        *fd_rules(_C, "test.prog_fd", "prog", "bpf_prog_get"),
        Branch(
            lambda a, c, k: _prog(a, c).type,
            {
                **for_each(
                    _NEVER,
                    _rule(
                        "type",
                        "prog_fd",
                        ENOTSUPP,
                        "programs of this type cannot be run by system call",
                        "bpf_prog_test_run",
                        always,
                    ),
                ),
                ProgType.RAW_TRACEPOINT: _RAW_TP,
                ProgType.TRACING: _TRACING,
                ProgType.SYSCALL: from_release((5, 14), _SYSCALL),
                **for_each(_SKB, *_SKB_RULES),
            },
            [_rule("other", "prog_fd", None, "test runs of this type of program are not modelled", "", always)],
        ),
    ],
)

TABLES = {Cmd.PROG_TEST_RUN: TEST_RUN}
