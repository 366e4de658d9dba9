"""Which type of program each attach type belongs to, and which types take which capability."""

from __future__ import annotations

from rawkm.uapi.constants import AttachType as A
from rawkm.uapi.constants import ProgType as P

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.rules.model import Version

# (program type, attach types, first release in which attach_type_to_prog_type() has them).
_ROWS: tuple[tuple[int, tuple[int, ...], Version], ...] = (
    (P.CGROUP_SKB, (A.CGROUP_INET_INGRESS, A.CGROUP_INET_EGRESS), (0, 0)),
    (
        P.CGROUP_SOCK,
        (
            A.CGROUP_INET_SOCK_CREATE,
            A.CGROUP_INET_SOCK_RELEASE,
            A.CGROUP_INET4_POST_BIND,
            A.CGROUP_INET6_POST_BIND,
        ),
        (0, 0),
    ),
    (
        P.CGROUP_SOCK_ADDR,
        (
            A.CGROUP_INET4_BIND,
            A.CGROUP_INET6_BIND,
            A.CGROUP_INET4_CONNECT,
            A.CGROUP_INET6_CONNECT,
            A.CGROUP_INET4_GETPEERNAME,
            A.CGROUP_INET6_GETPEERNAME,
            A.CGROUP_INET4_GETSOCKNAME,
            A.CGROUP_INET6_GETSOCKNAME,
            A.CGROUP_UDP4_SENDMSG,
            A.CGROUP_UDP6_SENDMSG,
            A.CGROUP_UDP4_RECVMSG,
            A.CGROUP_UDP6_RECVMSG,
        ),
        (0, 0),
    ),
    (
        P.CGROUP_SOCK_ADDR,
        (
            A.CGROUP_UNIX_CONNECT,
            A.CGROUP_UNIX_GETPEERNAME,
            A.CGROUP_UNIX_GETSOCKNAME,
            A.CGROUP_UNIX_SENDMSG,
            A.CGROUP_UNIX_RECVMSG,
        ),
        (6, 7),
    ),
    (P.SOCK_OPS, (A.CGROUP_SOCK_OPS,), (0, 0)),
    (P.CGROUP_DEVICE, (A.CGROUP_DEVICE,), (0, 0)),
    (P.SK_MSG, (A.SK_MSG_VERDICT,), (0, 0)),
    (P.SK_SKB, (A.SK_SKB_STREAM_PARSER, A.SK_SKB_STREAM_VERDICT), (0, 0)),
    (P.SK_SKB, (A.SK_SKB_VERDICT,), (5, 13)),
    (P.LIRC_MODE2, (A.LIRC_MODE2,), (0, 0)),
    (P.FLOW_DISSECTOR, (A.FLOW_DISSECTOR,), (0, 0)),
    (P.CGROUP_SYSCTL, (A.CGROUP_SYSCTL,), (0, 0)),
    (P.CGROUP_SOCKOPT, (A.CGROUP_GETSOCKOPT, A.CGROUP_SETSOCKOPT), (0, 0)),
    (P.TRACING, (A.TRACE_ITER,), (0, 0)),
    (P.TRACING, (A.TRACE_RAW_TP, A.TRACE_FENTRY, A.TRACE_FEXIT, A.MODIFY_RETURN), (5, 13)),
    (P.TRACING, (A.TRACE_FSESSION,), (7, 0)),
    (P.TRACING, (A.TRACE_FSESSION_MULTI, A.TRACE_FENTRY_MULTI, A.TRACE_FEXIT_MULTI), (7, 2)),
    (P.LSM, (A.LSM_MAC,), (5, 13)),
    (P.SK_LOOKUP, (A.SK_LOOKUP,), (0, 0)),
    (P.XDP, (A.XDP,), (0, 0)),
    (P.LSM, (A.LSM_CGROUP,), (6, 0)),
    (P.SCHED_CLS, (A.TCX_INGRESS, A.TCX_EGRESS), (6, 6)),
    (P.SCHED_CLS, (A.NETKIT_PRIMARY, A.NETKIT_PEER), (6, 7)),
)
_BY_ATTACH = {attach: (prog, since) for prog, attaches, since in _ROWS for attach in attaches}

#: Types of programs whose loading takes CAP_NET_ADMIN, CAP_PERFMON beside CAP_BPF.
NET_ADMIN = frozenset(
    (
        P.SCHED_CLS,
        P.SCHED_ACT,
        P.XDP,
        P.LWT_IN,
        P.LWT_OUT,
        P.LWT_XMIT,
        P.LWT_SEG6LOCAL,
        P.SK_SKB,
        P.SK_MSG,
        P.FLOW_DISSECTOR,
        P.CGROUP_DEVICE,
        P.CGROUP_SOCK,
        P.CGROUP_SOCK_ADDR,
        P.CGROUP_SOCKOPT,
        P.CGROUP_SYSCTL,
        P.SOCK_OPS,
        P.EXT,
        P.NETFILTER,
    )
)
PERFMON = frozenset(
    (
        P.KPROBE,
        P.TRACEPOINT,
        P.PERF_EVENT,
        P.RAW_TRACEPOINT,
        P.RAW_TRACEPOINT_WRITABLE,
        P.TRACING,
        P.LSM,
        P.STRUCT_OPS,
        P.EXT,
    )
)
#: Types that anybody may load where kernel.unprivileged_bpf_disabled is 0.
UNPRIVILEGED = (P.SOCKET_FILTER, P.CGROUP_SKB)

# The number of program types by the first release that has so many.
_COUNTS: tuple[tuple[Version, int], ...] = (((5, 10), 31), ((5, 14), 32), ((6, 4), 33))


def prog_type_of(attach_type: int, version: Version) -> int | None:
    """attach_type_to_prog_type(): the type of program that an attach type is for; None for none."""
    found = _BY_ATTACH.get(attach_type)
    return found[0] if found is not None and version >= found[1] else None


def count_types(version: Version) -> int:
    """How many program types a release knows."""
    return next(count for first, count in reversed(_COUNTS) if version >= first)
