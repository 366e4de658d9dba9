"""Programs: PROG_LOAD up to the verifier, PROG_BIND_MAP, RAW_TRACEPOINT_OPEN, PROG_STREAM_READ_BY_FD."""

from __future__ import annotations

from errno import E2BIG, EBADF, EFAULT, EINVAL, ENOENT, EPERM

from rawkm.rules import kinds
from rawkm.rules.common import ENOTSUPP, fd_rules, from_release, tail
from rawkm.rules.log import log_rules
from rawkm.rules.map import good_name
from rawkm.rules.model import CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, Branch, Form, Rule, Table, always, maybe
from rawkm.uapi.constants import AttachType, Cmd, ProgFlag, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Verdict, Version, When

_C = "prog_load"
_INSNS_MAX = 1_000_000
_INSNS_MAX_PLAIN = 4096
# Linux 6.5 moved the gate of kernel.unprivileged_bpf_disabled into the command, as for MAP_CREATE.
_CENTRAL = (6, 5)
_BTF_MAX_TYPE = 0x000F_FFFF

FORM = Form(
    "prog_type",
    "insn_cnt",
    "insns",
    "license",
    "log_level",
    "log_size",
    "log_buf",
    "prog_flags",
    "prog_name",
    "prog_ifindex",
    "expected_attach_type",
    "prog_btf_fd",
    "attach_btf_id",
    "attach_prog_fd",
    "core_relo_cnt",
    "fd_array",
    "prog_token_fd",
    "fd_array_cnt",
    "signature",
    "signature_size",
)


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
    unseen: str = "",
) -> Rule:
    return Rule(f"{_C}.{name}", fields, errno, text, source, when, since=since, until=until, unseen=unseen)


def _flags(k: Facts) -> int:
    """The prog_flags that a release knows."""
    known = (
        ProgFlag.STRICT_ALIGNMENT
        | ProgFlag.ANY_ALIGNMENT
        | ProgFlag.TEST_STATE_FREQ
        | ProgFlag.SLEEPABLE
        | ProgFlag.TEST_RND_HI32
    )
    if k.version >= (5, 18):
        known |= ProgFlag.XDP_HAS_FRAGS
    if k.version >= (6, 3):
        known |= ProgFlag.XDP_DEV_BOUND_ONLY
    if k.version >= (6, 8):
        known |= ProgFlag.TEST_REG_INVARIANTS
    if k.version >= (6, 9):
        known |= ProgFlag.TOKEN_FD
    return known


def _unreadable(c: Call, address: int, size: int, k: Facts) -> Verdict:
    found = c.memory.readable(address, size, k)
    return None if found is None else not found


def _bad_license(a: Any, c: Call, k: Facts) -> Verdict:
    if c.memory.text(a.license, 127) is not None:
        return False
    return _unreadable(c, a.license, 1, k) or None


_LICENSE = ("license must point to a string that can be read", "bpf_prog_load", _bad_license)


def _without(cap: int) -> When:
    """The caller lacks it; a token may stand in (6.9)."""

    def lacks(a: Any, c: Call, k: Facts) -> Verdict:
        if k.capable(cap):
            return False
        return None if a.prog_flags & ProgFlag.TOKEN_FD and k.version >= (6, 9) else True

    return lacks


_NO_BPF, _NO_NET, _NO_PERF = _without(CAP_BPF), _without(CAP_NET_ADMIN), _without(CAP_PERFMON)


def _limit(k: Facts) -> int:
    return _INSNS_MAX if k.capable(CAP_BPF) else _INSNS_MAX_PLAIN


def _expected(a: Any, k: Facts) -> int:
    """bpf_prog_load_fixup_attach_type()."""
    if a.expected_attach_type == 0:
        if a.prog_type == ProgType.CGROUP_SOCK:
            return AttachType.CGROUP_INET_SOCK_CREATE
        if a.prog_type == ProgType.SK_REUSEPORT and k.version >= (5, 14):
            return AttachType.SK_REUSEPORT_SELECT
    return int(a.expected_attach_type)


# Of these types the attach type is checked at load: those that attach_type_to_prog_type() gives to them, or what stands here.
_BY_TABLE = (
    ProgType.CGROUP_SOCK,
    ProgType.CGROUP_SOCK_ADDR,
    ProgType.CGROUP_SKB,
    ProgType.CGROUP_SOCKOPT,
    ProgType.SK_LOOKUP,
)
_REUSEPORT = (AttachType.SK_REUSEPORT_SELECT, AttachType.SK_REUSEPORT_SELECT_OR_MIGRATE)


def _bad_expected(a: Any, c: Call, k: Facts) -> Verdict:
    kind, expected = a.prog_type, _expected(a, k)
    if kind in _BY_TABLE:
        return kinds.prog_type_of(expected, k.version) != kind
    if kind == ProgType.SK_REUSEPORT:
        return k.version >= (5, 14) and expected not in _REUSEPORT
    if kind == ProgType.NETFILTER:
        return k.version >= (6, 4) and expected != AttachType.NETFILTER
    if kind == ProgType.EXT or (kind == ProgType.SYSCALL and k.version >= (5, 14)):
        return expected != 0
    return False


_MULTI = (AttachType.TRACE_FENTRY_MULTI, AttachType.TRACE_FEXIT_MULTI, AttachType.TRACE_FSESSION_MULTI)
_WITH_TARGET = (ProgType.TRACING, ProgType.LSM, ProgType.STRUCT_OPS, ProgType.EXT)


def _multi(a: Any, k: Facts) -> bool:
    return k.version >= (7, 2) and a.expected_attach_type in _MULTI


def _target(a: Any, c: Call) -> Any:
    return c.fds.get(a.attach_prog_fd) if a.attach_prog_fd else None


def _bad_target(a: Any, c: Call, k: Facts) -> Verdict:
    found = _target(a, c)
    return a.attach_prog_fd != 0 and (found is None or found.kind not in ("prog", "btf"))


def _bad_target_id(a: Any, c: Call, k: Facts) -> Verdict:
    """The parts of bpf_prog_load_check_attach() about the target."""
    if a.attach_btf_id and (a.attach_btf_id > _BTF_MAX_TYPE or a.prog_type not in _WITH_TARGET):
        return True
    if _multi(a, k):
        return a.prog_type != ProgType.TRACING or a.attach_btf_id != 0
    if k.version < (5, 11):
        # What the fd is of is looked at later.
        return a.attach_prog_fd != 0 and a.prog_type not in (ProgType.TRACING, ProgType.EXT)
    found = _target(a, c)
    if found is None:
        return False
    if found.kind == "btf" and a.attach_btf_id == 0:
        return True
    return found.kind == "prog" and a.prog_type not in (ProgType.TRACING, ProgType.EXT)


def _with_token(when: When) -> When:
    return lambda a, c, k: bool(a.prog_flags & ProgFlag.TOKEN_FD) and when(a, c, k)


LOAD = Table(
    FORM,
    [
        _rule(
            "gate_early",
            "",
            EPERM,
            "with kernel.unprivileged_bpf_disabled, loading programs takes CAP_BPF",
            "__sys_bpf",
            lambda a, c, k: k.unprivileged_bpf_disabled > 0 and not k.capable(CAP_BPF),
            since=(5, 19),
            until=(6, 4),
        ),
        # Linux 7.2 looks at the log first, before 7.2 the verifier does.
        *log_rules("prog_load", "", since=(7, 2), name="log_early"),
        *tail(_C, {(0, 0): 116, (5, 14): 128, (5, 17): 140, (6, 4): 144, (6, 9): 148, (6, 14): 152, (6, 18): 168}),
        _rule(
            "prog_flags",
            "prog_flags",
            EINVAL,
            "prog_flags has a bit that this kernel does not know",
            "bpf_prog_load",
            lambda a, c, k: bool(a.prog_flags & ~_flags(k)),
        ),
        *(
            Rule(rule.name, "prog_token_fd", rule.errno, rule.text, rule.source, _with_token(rule.when), since=(6, 9))
            for rule in fd_rules(_C, "prog_token_fd", "token", "bpf_token_get_from_fd")
        ),
        _rule("license_early", "license", EFAULT, *_LICENSE, until=(6, 4)),
        _rule(
            "gate",
            "",
            EPERM,
            "with kernel.unprivileged_bpf_disabled, loading programs takes CAP_BPF",
            "bpf_prog_load",
            lambda a, c, k: k.unprivileged_bpf_disabled > 0 and _NO_BPF(a, c, k),
            since=_CENTRAL,
        ),
        _rule("insn_cnt", "insn_cnt", E2BIG, "insn_cnt must not be 0", "bpf_prog_load", lambda a, c, k: a.insn_cnt == 0),
        _rule(
            "insn_cnt_large",
            "insn_cnt",
            E2BIG,
            "insn_cnt must be at most 1,000,000 (without CAP_BPF 4,096)",
            "bpf_prog_load",
            lambda a, c, k: a.insn_cnt > _limit(k),
        ),
        _rule(
            "capable",
            "prog_type",
            EPERM,
            "loading programs of this type takes CAP_BPF",
            "bpf_prog_load",
            lambda a, c, k: a.prog_type not in kinds.UNPRIVILEGED and _NO_BPF(a, c, k),
        ),
        _rule(
            "net_admin",
            "prog_type",
            EPERM,
            "loading programs of this type takes CAP_NET_ADMIN",
            "is_net_admin_prog_type",
            lambda a, c, k: (
                (a.prog_type in kinds.NET_ADMIN or (a.prog_type == ProgType.LIRC_MODE2 and k.version < (6, 5)))
                and _NO_NET(a, c, k)
            ),
        ),
        _rule(
            "perfmon",
            "prog_type",
            EPERM,
            "loading tracing programs takes CAP_PERFMON",
            "is_perfmon_prog_type",
            lambda a, c, k: a.prog_type in kinds.PERFMON and _NO_PERF(a, c, k),
        ),
        _rule(
            "target",
            "attach_prog_fd",
            EINVAL,
            "attach_prog_fd must be 0, or the fd of a program or of the kernel's BTF",
            "bpf_prog_load",
            _bad_target,
            since=(5, 11),
        ),
        _rule(
            "target_btf",
            "attach_prog_fd",
            (ENOTSUPP, EINVAL, 0),
            "attach_btf_obj_fd must be the fd of the kernel's BTF, not of a program's",
            "bpf_prog_load",
            lambda a, c, k: None if (found := _target(a, c)) is not None and found.kind == "btf" else False,
            since=(5, 11),
        ),
        _rule(
            "attach_target",
            "attach_btf_id attach_prog_fd prog_type",
            EINVAL,
            "attach_btf_id and attach_prog_fd are for programs of type TRACING, LSM, STRUCT_OPS and EXT",
            "bpf_prog_load_check_attach",
            _bad_target_id,
        ),
        _rule(
            "expected_attach_type",
            "expected_attach_type prog_type",
            EINVAL,
            "expected_attach_type must be one of the program's type",
            "bpf_prog_load_check_attach",
            _bad_expected,
        ),
        _rule(
            "target_old_open",
            "attach_prog_fd",
            EBADF,
            "attach_prog_fd must be an open fd",
            "bpf_prog_get",
            lambda a, c, k: a.attach_prog_fd != 0 and a.attach_prog_fd not in c.fds,
            until=(5, 10),
        ),
        _rule(
            "target_old_kind",
            "attach_prog_fd",
            EINVAL,
            "attach_prog_fd must be the fd of a program",
            "bpf_prog_get",
            lambda a, c, k: a.attach_prog_fd != 0 and c.fds[a.attach_prog_fd].kind != "prog",
            until=(5, 10),
        ),
        _rule(
            "memlock",
            "insn_cnt",
            EPERM,
            "the program must fit into RLIMIT_MEMLOCK, even root's: raise it (ulimit -l)",
            "bpf_prog_charge_memlock",
            lambda a, c, k: False if k.memlock is None else True if a.insn_cnt * 8 > k.memlock else None,
            until=(5, 10),
        ),
        _rule(
            "insns",
            "insns insn_cnt",
            EFAULT,
            "insns must point to insn_cnt instructions that can be read",
            "bpf_prog_load",
            lambda a, c, k: _unreadable(c, a.insns, 8 * a.insn_cnt, k),
        ),
        _rule("license", "license", EFAULT, *_LICENSE, since=_CENTRAL),
        _rule(
            "signature",
            "signature",
            None,
            "the signature must be right",
            "bpf_prog_verify_signature",
            lambda a, c, k: a.signature != 0,
            since=(6, 18),
        ),
        _rule(
            "ifindex",
            "prog_ifindex",
            EINVAL,
            "prog_ifindex must be 0, or a network device that runs programs of type SCHED_CLS or XDP",
            "bpf_prog_dev_bound_init",
            lambda a, c, k: a.prog_ifindex != 0 and (a.prog_type not in (ProgType.SCHED_CLS, ProgType.XDP) or None),
        ),
        _rule(
            "prog_type",
            "prog_type",
            EINVAL,
            "prog_type must be a type that this kernel has",
            "find_prog_type",
            lambda a, c, k: a.prog_type == 0 or a.prog_type >= kinds.count_types(k.version),
        ),
        _rule(
            "prog_type_config",
            "prog_type",
            EINVAL,
            "this kernel must be built with what this type of program is for",
            "find_prog_type",
            lambda a, c, k: None if a.prog_type in (ProgType.LIRC_MODE2, ProgType.LSM, ProgType.NETFILTER) else False,
            unseen="it depends on the kernel's configuration, and on its type",
        ),
        _rule(
            "prog_name",
            "prog_name",
            EINVAL,
            "prog_name takes at most 15 of A-Z a-z 0-9 _ . and then a NUL",
            "bpf_obj_name_cpy",
            lambda a, c, k: not good_name(a.prog_name),
        ),
        *log_rules("prog_load", "", until=(7, 1), name="log"),
        _rule("verifier", "insns", None, "the verifier must find the program safe", "bpf_check", always),
    ],
)


# -- PROG_BIND_MAP, RAW_TRACEPOINT_OPEN, PROG_STREAM_READ_BY_FD --------------------------------------------------------------

_C = "prog_bind_map"
BIND_MAP = Table(
    Form("prog_bind_map.prog_fd", "prog_bind_map.map_fd", "prog_bind_map.flags"),
    [
        *tail(_C, {(0, 0): 12}),
        Rule(f"{_C}.flags", "prog_bind_map.flags", EINVAL, "flags must be 0", "bpf_prog_bind_map", lambda a, c, k: a.flags != 0),
        *fd_rules(_C, "prog_bind_map.prog_fd", "prog", "bpf_prog_get"),
        *fd_rules(_C, "prog_bind_map.map_fd", "map", "bpf_map_get"),
    ],
)

_C = "raw_tracepoint_open"
_BY_NAME = (ProgType.RAW_TRACEPOINT, ProgType.RAW_TRACEPOINT_WRITABLE)
_BY_BTF = (ProgType.TRACING, ProgType.LSM, ProgType.EXT)


def _bad_name(a: Any, c: Call, k: Facts) -> Verdict:
    if c.memory.text(a.name, 127) is not None:
        return False
    return _unreadable(c, a.name, 1, k) or None


RAW_TRACEPOINT = Table(
    Form("raw_tracepoint.name", "raw_tracepoint.prog_fd", "raw_tracepoint.cookie"),
    [
        *tail(_C, {(0, 0): 12, (6, 10): 24}),
        *fd_rules(_C, "raw_tracepoint.prog_fd", "prog", "bpf_prog_get"),
        Branch(
            lambda a, c, k: c.fds[a.prog_fd].type,
            {
                **dict.fromkeys(
                    _BY_NAME,
                    (
                        Rule(
                            f"{_C}.name",
                            "raw_tracepoint.name",
                            EFAULT,
                            "name must point to a string",
                            "bpf_raw_tp_link_attach",
                            _bad_name,
                        ),
                        Rule(
                            f"{_C}.tracepoint",
                            "raw_tracepoint.name",
                            ENOENT,
                            "name must be that of a tracepoint",
                            "bpf_get_raw_tracepoint",
                            maybe,
                        ),
                        Rule(f"{_C}.attach", "raw_tracepoint.prog_fd", None, "the tracepoint must take the program", "", always),
                    ),
                ),
                **dict.fromkeys(
                    _BY_BTF,
                    (
                        Rule(
                            f"{_C}.no_name",
                            "raw_tracepoint.name",
                            EINVAL,
                            "a program that was loaded for a BTF id takes no name",
                            "bpf_raw_tp_link_attach",
                            lambda a, c, k: a.name != 0,
                        ),
                        Rule(
                            f"{_C}.target", "raw_tracepoint.prog_fd", None, "the function must be free to be traced", "", always
                        ),
                    ),
                ),
                None: (Rule(f"{_C}.unknown", "raw_tracepoint.prog_fd", None, "a program of unknown type", "", always),),
            },
            [
                Rule(
                    f"{_C}.type",
                    "raw_tracepoint.prog_fd",
                    EINVAL,
                    "the program must be of type RAW_TRACEPOINT, RAW_TRACEPOINT_WRITABLE, TRACING, LSM or EXT",
                    "bpf_raw_tp_link_attach",
                    always,
                )
            ],
        ),
    ],
)

_C = "prog_stream_read_by_fd"
_FIELDS = ("stream_buf", "stream_buf_len", "stream_id", "prog_fd")
STREAM_READ = Table(
    Form(*(f"prog_stream_read.{name}" for name in _FIELDS)),
    from_release(
        (6, 17),
        [
            *tail(_C, {(0, 0): 20}),
            *fd_rules(_C, "prog_stream_read.prog_fd", "prog", "bpf_prog_get"),
            Rule(
                f"{_C}.stream_id",
                "prog_stream_read.stream_id",
                ENOENT,
                "stream_id must be BPF_STREAM_STDOUT (1) or BPF_STREAM_STDERR (2)",
                "bpf_stream_get",
                lambda a, c, k: a.stream_id not in (1, 2),
            ),
            Rule(
                f"{_C}.stream",
                "prog_stream_read.stream_buf",
                None,
                "what the program has written decides",
                "bpf_stream_read",
                always,
            ),
        ],
    ),
)

TABLES = {
    Cmd.PROG_LOAD: LOAD,
    Cmd.PROG_BIND_MAP: BIND_MAP,
    Cmd.RAW_TRACEPOINT_OPEN: RAW_TRACEPOINT,
    Cmd.PROG_STREAM_READ_BY_FD: STREAM_READ,
}
