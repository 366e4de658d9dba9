"""PROG_ATTACH, PROG_DETACH, PROG_QUERY, TASK_FD_QUERY, TOKEN_CREATE: up to what they act on."""

from __future__ import annotations

from errno import EBADF, EINVAL, ENOENT, EPERM

from rawkm.rules.common import fd_rules, from_release, tail
from rawkm.rules.kinds import prog_type_of
from rawkm.rules.model import CAP_NET_ADMIN, CAP_SYS_ADMIN, Form, Rule, Table, always, maybe
from rawkm.uapi.constants import AttachType, Cmd, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Verdict

# include/uapi/linux/bpf.h: BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI, BPF_F_REPLACE.
_BASE = 1 | 2 | 4

_CGROUP = frozenset(
    (
        ProgType.CGROUP_DEVICE,
        ProgType.CGROUP_SKB,
        ProgType.CGROUP_SOCK,
        ProgType.CGROUP_SOCK_ADDR,
        ProgType.CGROUP_SOCKOPT,
        ProgType.CGROUP_SYSCTL,
        ProgType.SOCK_OPS,
    )
)

_ATTACH_FORM = Form("target_fd", "attach_bpf_fd", "attach_type", "attach_flags", "replace_bpf_fd", "expected_revision")


def _no_type(a: Any, c: Call, k: Facts) -> Verdict:
    return prog_type_of(a.attach_type, k.version) is None


def _other_type(a: Any, c: Call, k: Facts) -> Verdict:
    kind = c.fds[a.attach_bpf_fd].type
    return None if kind is None else kind != prog_type_of(a.attach_type, k.version)


_C = "prog_attach"
ATTACH = Table(
    _ATTACH_FORM,
    [
        *tail(_C, {(0, 0): 20, (6, 6): 32}),
        Rule(
            f"{_C}.attach_flags",
            "attach_flags",
            EINVAL,
            "attach_flags may only have BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI or BPF_F_REPLACE",
            "bpf_prog_attach",
            lambda a, c, k: bool(a.attach_flags & ~_BASE),
            until=(6, 5),
        ),
        Rule(
            f"{_C}.attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be one of programs that are attached by this command",
            "attach_type_to_prog_type",
            _no_type,
        ),
        Rule(
            f"{_C}.flags",
            "attach_flags replace_bpf_fd expected_revision",
            (0, EINVAL),
            "attach_flags, relative_fd and expected_revision must be ones that this type of program takes",
            "bpf_prog_attach",
            lambda a, c, k: None if a.attach_flags or a.replace_bpf_fd or a.expected_revision else False,
            since=(6, 6),
        ),
        *fd_rules(_C, "attach_bpf_fd", "prog", "bpf_prog_get_type"),
        Rule(
            f"{_C}.prog_type",
            "attach_type attach_bpf_fd",
            EINVAL,
            "the program must be of attach_type's type",
            "bpf_prog_get_type",
            _other_type,
        ),
        Rule(f"{_C}.target", "target_fd", None, "what the program is attached to is not modelled", "", always),
    ],
)

_C = "prog_detach"
DETACH = Table(
    _ATTACH_FORM,
    [
        *tail(_C, {(0, 0): 12, (6, 6): 32}),
        Rule(
            f"{_C}.attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be one of programs that are detached by this command",
            "attach_type_to_prog_type",
            _no_type,
        ),
        Rule(f"{_C}.target", "target_fd", None, "what the program is detached from is not modelled", "", always),
    ],
)

_C = "prog_query"
_QUERY = (
    "target_fd",
    "attach_type",
    "query_flags",
    "attach_flags",
    "prog_ids",
    "prog_cnt",
    "prog_attach_flags",
    "link_ids",
    "link_attach_flags",
    "revision",
)
_EFFECTIVE = 1


def _not_queried(a: Any, c: Call, k: Facts) -> Verdict:
    kind = a.attach_type
    if kind in (AttachType.LSM_CGROUP, AttachType.LIRC_MODE2):
        return k.version < (6, 0) and kind == AttachType.LSM_CGROUP
    prog = prog_type_of(kind, k.version)
    if prog in (ProgType.SK_SKB, ProgType.SK_MSG):
        return k.version < (5, 16)
    return not (prog in _CGROUP or prog in (ProgType.FLOW_DISSECTOR, ProgType.SK_LOOKUP, ProgType.SCHED_CLS))


QUERY = Table(
    Form(*(f"query.{name}" for name in _QUERY)),
    [
        Rule(
            f"{_C}.capable",
            "",
            EPERM,
            "it takes CAP_NET_ADMIN",
            "bpf_prog_query",
            lambda a, c, k: not k.capable(CAP_NET_ADMIN) if k.version >= (6, 4) else not k.caps >> CAP_NET_ADMIN & 1,
        ),
        *tail(_C, {(0, 0): 28, (6, 0): 40, (6, 6): 64}),
        Rule(
            f"{_C}.query_flags",
            "query.query_flags",
            EINVAL,
            "query_flags may only have BPF_F_QUERY_EFFECTIVE",
            "bpf_prog_query",
            lambda a, c, k: bool(a.query_flags & ~_EFFECTIVE),
        ),
        Rule(
            f"{_C}.attach_type",
            "query.attach_type",
            EINVAL,
            "attach_type must be one of a cgroup, a network namespace, a socket map, tcx or netkit",
            "bpf_prog_query",
            _not_queried,
        ),
        Rule(f"{_C}.target", "query.target_fd", None, "what is asked is not modelled", "", always),
    ],
)

_C = "task_fd_query"
TASK_FD_QUERY = Table(
    Form("task_fd_query.pid", "task_fd_query.fd", "task_fd_query.flags", "task_fd_query.buf_len", "task_fd_query.buf"),
    [
        *tail(_C, {(0, 0): 48}),
        Rule(
            f"{_C}.capable",
            "",
            EPERM,
            "it takes CAP_SYS_ADMIN in the initial user namespace",
            "capable",
            lambda a, c, k: not k.caps >> CAP_SYS_ADMIN & 1,
        ),
        Rule(f"{_C}.flags", "task_fd_query.flags", EINVAL, "flags must be 0", "bpf_task_fd_query", lambda a, c, k: a.flags != 0),
        Rule(
            f"{_C}.pid",
            "task_fd_query.pid",
            ENOENT,
            "pid must be that of a process or thread",
            "get_pid_task",
            lambda a, c, k: True if a.pid == 0 or a.pid > 1 << 22 else None,
        ),
        Rule(f"{_C}.fd", "task_fd_query.fd", EBADF, "fd must be open in that process", "fget_task", maybe),
        Rule(
            f"{_C}.event",
            "task_fd_query.fd",
            None,
            "fd must be that of a perf event with a program, or of a raw tracepoint",
            "",
            always,
        ),
    ],
)

_C = "token_create"
TOKEN = Table(
    Form("token_create.flags", "token_create.bpffs_fd"),
    from_release(
        (6, 9),
        [
            *tail(_C, {(0, 0): 8}),
            Rule(f"{_C}.flags", "token_create.flags", EINVAL, "flags must be 0", "token_create", lambda a, c, k: a.flags != 0),
            Rule(
                f"{_C}.bpffs_fd",
                "token_create.bpffs_fd",
                EBADF,
                "bpffs_fd must be an open fd",
                "bpf_token_create",
                lambda a, c, k: a.bpffs_fd not in c.fds,
            ),
            Rule(
                f"{_C}.mount", "token_create.bpffs_fd", None, "the bpf file system must have been mounted to delegate", "", always
            ),
        ],
    ),
)

TABLES = {
    Cmd.PROG_ATTACH: ATTACH,
    Cmd.PROG_DETACH: DETACH,
    Cmd.PROG_QUERY: QUERY,
    Cmd.TASK_FD_QUERY: TASK_FD_QUERY,
    Cmd.TOKEN_CREATE: TOKEN,
}
