"""Links: LINK_CREATE by type of program and attach type, LINK_UPDATE, LINK_DETACH, ITER_CREATE."""

from __future__ import annotations

from errno import E2BIG, EBADF, EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ESRCH

from rawkm.rules.common import fd_rules, from_release, tail
from rawkm.rules.kinds import prog_type_of
from rawkm.rules.model import CAP_NET_ADMIN, Branch, Form, Rule, Table, always, for_each, maybe, read_as
from rawkm.uapi.constants import AttachType, Cmd, LinkType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict, Version, When

_C = "link_create"
_HEAD = ("link_create.prog_fd", "link_create.target_fd", "link_create.attach_type", "link_create.flags")


def _form(variant: str, *fields: str) -> Form:
    """A variant's flags take the name of the link's, which stand at a fixed place."""
    head = _HEAD[:3] if "flags" in fields else _HEAD
    return Form(*head, *(f"link_create.{variant}.{name}" for name in fields))


_TRACING = _form("tracing", "target_btf_id", "cookie")
_KPROBE_MULTI = _form("kprobe_multi", "flags", "cnt", "syms", "addrs", "cookies")
_UPROBE_MULTI = _form("uprobe_multi", "path", "offsets", "ref_ctr_offsets", "cookies", "cnt", "flags", "pid", "path_fd")
_TRACING_MULTI = _form("tracing_multi", "ids", "cookies", "cnt")
_ITER = Form(*_HEAD, "link_create.iter_info", "link_create.iter_info_len")

_MAX_CNT = 1 << 20
_KSYM_NAME_LEN = 512
# Linux 7.2 allocates all nodes of a link in one piece: one more entry than this and kmalloc gives up.
_MAX_NODES = 131_070
_KPROBE_ATTACH = (
    AttachType.PERF_EVENT,
    AttachType.TRACE_KPROBE_MULTI,
    AttachType.TRACE_KPROBE_SESSION,
    AttachType.TRACE_UPROBE_MULTI,
    AttachType.TRACE_UPROBE_SESSION,
)
_EXACT = (
    (AttachType.TRACE_KPROBE_MULTI, (5, 18)),
    (AttachType.TRACE_UPROBE_MULTI, (6, 6)),
    (AttachType.TRACE_KPROBE_SESSION, (6, 10)),
    (AttachType.TRACE_UPROBE_SESSION, (6, 13)),
)
_MULTI = (AttachType.TRACE_FENTRY_MULTI, AttachType.TRACE_FEXIT_MULTI, AttachType.TRACE_FSESSION_MULTI)


def _prog(a: Any, c: Call) -> Any:
    return c.fds[a.prog_fd]


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
    paths = " ".join(f"{_C}.{field}" for field in fields.split())
    return Rule(f"{_C}.{name}", paths, errno, text, source, when, since=since, until=until, unseen=unseen)


def _beyond(name: str, text: str) -> Rule:
    return _rule(name, "prog_fd", None, text, "", always)


def _no_flags(name: str, source: str, *, since: Version = (0, 0)) -> Rule:
    def given(a: Any, c: Call, k: Facts) -> Verdict:
        return any(c.raw[12:16])

    return _rule(f"{name}_link_flags", "flags", EINVAL, "flags must be 0", source, given, since=since)


def _bad(address: int, size: int, c: Call, k: Facts) -> Verdict:
    found = c.memory.readable(address, size, k)
    return None if found is None else not found


# -- attach_type against the program ---------------------------------------------------------------------------------------


def _kprobe_exact(a: Any, c: Call, k: Facts) -> Verdict:
    expected = _prog(a, c).attach_type
    return any(expected == kind and k.version >= since and a.attach_type != kind for kind, since in _EXACT)


def _kprobe_attach(a: Any, c: Call, k: Facts) -> Verdict:
    if a.attach_type not in _KPROBE_ATTACH:
        return True
    since = dict(_EXACT).get(a.attach_type, (5, 15))
    return k.version < since


def _other_attach(a: Any, c: Call, k: Facts) -> Verdict:
    return prog_type_of(a.attach_type, k.version) != _prog(a, c).type


_EXPECTED = "attach_type must equal the program's expected_attach_type"
_CHECK = "bpf_prog_attach_check_attach_type"

_ATTACH_TYPE: dict[object, Sequence[Item]] = {
    ProgType.KPROBE: [
        _rule(
            "kprobe_never",
            "prog_fd",
            EINVAL,
            "before 5.15 there are no links of kprobe programs: use the ioctl PERF_EVENT_IOC_SET_BPF",
            "link_create",
            always,
            until=(5, 14),
        ),
        _rule("kprobe_expected", "attach_type", EINVAL, _EXPECTED, _CHECK, _kprobe_exact, since=(5, 18)),
        _rule(
            "kprobe_attach_type",
            "attach_type",
            EINVAL,
            "attach_type of a kprobe program must be BPF_PERF_EVENT, BPF_TRACE_KPROBE_MULTI (5.18) or _SESSION (6.10), "
            "BPF_TRACE_UPROBE_MULTI (6.6) or _SESSION (6.13)",
            _CHECK,
            _kprobe_attach,
            since=(5, 15),
        ),
    ],
    **for_each(
        (ProgType.TRACEPOINT, ProgType.PERF_EVENT),
        _rule(
            "perf_attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be BPF_PERF_EVENT (5.15)",
            _CHECK,
            lambda a, c, k: a.attach_type != AttachType.PERF_EVENT or k.version < (5, 15),
        ),
    ),
    **for_each(
        (ProgType.CGROUP_SOCK, ProgType.CGROUP_SOCK_ADDR, ProgType.CGROUP_SOCKOPT, ProgType.SK_LOOKUP),
        _rule(
            "expected",
            "attach_type",
            EINVAL,
            _EXPECTED,
            _CHECK,
            lambda a, c, k: a.attach_type != _prog(a, c).attach_type,
        ),
    ),
    ProgType.CGROUP_SKB: [
        _rule(
            "cgroup_skb_capable",
            "",
            EPERM,
            "attaching takes CAP_NET_ADMIN",
            _CHECK,
            lambda a, c, k: not k.capable(CAP_NET_ADMIN) if k.version >= (6, 9) else not k.caps >> CAP_NET_ADMIN & 1,
        ),
        _rule(
            "cgroup_skb_attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be BPF_CGROUP_INET_INGRESS or BPF_CGROUP_INET_EGRESS",
            _CHECK,
            _other_attach,
        ),
        _rule(
            "cgroup_skb_expected",
            "attach_type",
            EINVAL,
            _EXPECTED,
            _CHECK,
            # Only for programs that return a verdict of two bits, which is not known from outside.
            lambda a, c, k: None if a.attach_type != _prog(a, c).attach_type else False,
            unseen="only a program that returns 2 or 3 is held to it",
        ),
    ],
    ProgType.EXT: [],
    ProgType.NETFILTER: [
        _rule(
            "netfilter_attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be BPF_NETFILTER",
            _CHECK,
            lambda a, c, k: a.attach_type != AttachType.NETFILTER,
            since=(6, 4),
        )
    ],
    ProgType.SCHED_CLS: [
        _rule(
            "tc_attach_type",
            "attach_type",
            EINVAL,
            "attach_type must be BPF_TCX_INGRESS or BPF_TCX_EGRESS (6.6), BPF_NETKIT_PRIMARY or BPF_NETKIT_PEER (6.7)",
            _CHECK,
            _other_attach,
        )
    ],
}
_OTHERS = [
    _rule(
        "attach_type",
        "attach_type",
        EINVAL,
        "attach_type must be one of the program's type",
        "attach_type_to_prog_type",
        _other_attach,
    )
]

# -- perf_event ------------------------------------------------------------------------------------------------------------


def _no_event(a: Any, c: Call, k: Facts) -> Verdict:
    found = c.fds.get(a.target_fd)
    return found is None or found.kind != "perf_event"


_PERF: list[Item] = from_release(
    (5, 15),
    [
        _no_flags("perf", "bpf_perf_link_attach"),
        _rule("perf_target", "target_fd", EBADF, "target_fd must be the fd of a perf event", "perf_event_get", _no_event),
        _beyond("perf_event", "the event must take programs of this type"),
    ],
)

# -- kprobe_multi ----------------------------------------------------------------------------------------------------------

_KM = "bpf_kprobe_multi_link_attach"
_FPROBE_OFF = "this kernel is built without CONFIG_FPROBE"


def _stub(a: Any, c: Call, k: Facts) -> Verdict:
    return None if k.fprobe is None else not k.fprobe


def _not_multi(a: Any, c: Call, k: Facts) -> Verdict:
    expected = _prog(a, c).attach_type
    return expected not in (AttachType.TRACE_KPROBE_MULTI, AttachType.TRACE_KPROBE_SESSION)


def _bad_syms(a: Any, c: Call, k: Facts) -> Verdict:
    if a.syms == 0:
        return False
    found = c.memory.readable(a.syms, 8 * a.cnt, k)
    if found is not True:
        return None if found is None else True
    array = c.memory.read(a.syms, 8 * a.cnt)
    if array is None:
        return None
    verdict: Verdict = False
    for i in range(0, len(array), 8):
        address = int.from_bytes(array[i : i + 8], "little")
        if c.memory.text(address, _KSYM_NAME_LEN) is None:
            # A string that is cut off by the end of its memory faults, too.
            if c.memory.readable(address, 1, k) is False:
                return True
            verdict = None
    return verdict


def _long_sym(a: Any, c: Call, k: Facts) -> Verdict:
    names = _names(a, c)
    if names is None:
        return False if a.syms == 0 else None
    return any(len(name) >= _KSYM_NAME_LEN for name in names)


def _names(a: Any, c: Call) -> list[bytes] | None:
    """The symbols of the call, None where they are not known."""
    if a.syms == 0 or a.cnt > 4096:
        return None
    array = c.memory.read(a.syms, 8 * a.cnt)
    if array is None:
        return None
    found = [c.memory.text(int.from_bytes(array[i : i + 8], "little"), _KSYM_NAME_LEN) for i in range(0, len(array), 8)]
    known = [name for name in found if name is not None]
    return known if len(known) == len(found) else None


def _twice(a: Any, c: Call, k: Facts) -> Verdict:
    names = _names(a, c)
    return False if names is None else len(set(names)) < len(names)


def _zero_addr(a: Any, c: Call) -> bool:
    array = c.memory.read(a.addrs, 8 * a.cnt) if a.addrs and a.cnt <= 4096 else None
    return array is not None and any(not any(array[i : i + 8]) for i in range(0, len(array), 8))


_KPROBE_MULTI_RULES: list[Item] = [
    _rule("fprobe", "attach_type", EOPNOTSUPP, _FPROBE_OFF, _KM, _stub, since=(5, 18)),
    _no_flags("kprobe_multi", _KM, since=(6, 3)),
    _rule(
        "kprobe_multi_expected",
        "prog_fd",
        EINVAL,
        _EXPECTED,
        _KM,
        _not_multi,
    ),
    _rule(
        "kprobe_multi_sleepable",
        "prog_fd",
        EINVAL,
        "a sleepable program cannot be attached so",
        _KM,
        lambda a, c, k: _prog(a, c).sleepable,
    ),
    _rule(
        "kprobe_multi_write",
        "prog_fd",
        EINVAL,
        "the program must not write to its context",
        _KM,
        lambda a, c, k: _prog(a, c).writes_context,
        since=(7, 0),
    ),
    _rule(
        "kprobe_multi_flags",
        "kprobe_multi.flags",
        EINVAL,
        "kprobe_multi.flags may only have BPF_F_KPROBE_MULTI_RETURN",
        _KM,
        lambda a, c, k: bool(a.flags & ~1),
    ),
    _rule(
        "kprobe_multi_both",
        "kprobe_multi.syms kprobe_multi.addrs",
        EINVAL,
        "syms and addrs exclude each other",
        _KM,
        lambda a, c, k: bool(a.syms and a.addrs),
    ),
    _rule(
        "kprobe_multi_neither",
        "kprobe_multi.syms kprobe_multi.addrs",
        EINVAL,
        "either syms or addrs must be given",
        _KM,
        lambda a, c, k: not a.syms and not a.addrs,
    ),
    _rule("kprobe_multi_cnt", "kprobe_multi.cnt", EINVAL, "cnt must not be 0", _KM, lambda a, c, k: a.cnt == 0),
    _rule(
        "kprobe_multi_many",
        "kprobe_multi.cnt",
        E2BIG,
        f"cnt must be at most {_MAX_CNT:,}",
        _KM,
        lambda a, c, k: a.cnt > _MAX_CNT,
        since=(6, 7),
    ),
    _rule(
        "kprobe_multi_memory",
        "kprobe_multi.cnt",
        ENOMEM,
        "there must be memory for cnt entries",
        _KM,
        lambda a, c, k: None if a.cnt > 10_000 else False,
        unseen="it depends on how much memory there is",
    ),
    _rule(
        "kprobe_multi_cookies",
        "kprobe_multi.cookies",
        EFAULT,
        "cookies must point to cnt numbers of 64 bits that can be read",
        _KM,
        lambda a, c, k: a.cookies != 0 and _bad(a.cookies, 8 * a.cnt, c, k),
    ),
    _rule(
        "kprobe_multi_addrs",
        "kprobe_multi.addrs",
        EFAULT,
        "addrs must point to cnt addresses that can be read",
        _KM,
        lambda a, c, k: a.addrs != 0 and _bad(a.addrs, 8 * a.cnt, c, k),
    ),
    _rule(
        "kprobe_multi_syms",
        "kprobe_multi.syms",
        EFAULT,
        "syms must point to cnt pointers to strings that can be read",
        "copy_user_syms",
        _bad_syms,
    ),
    _rule(
        "kprobe_multi_long",
        "kprobe_multi.syms",
        E2BIG,
        f"each symbol must have less than {_KSYM_NAME_LEN} bytes",
        "copy_user_syms",
        _long_sym,
        since=(6, 1),
    ),
    _rule(
        "kprobe_multi_twice",
        "kprobe_multi.syms",
        ESRCH,
        "no symbol may stand in the list twice",
        "ftrace_lookup_symbols",
        _twice,
        since=(5, 19),
    ),
    _rule(
        "kprobe_multi_symbol",
        "kprobe_multi.syms",
        ESRCH,
        "every symbol must be a function that can be traced",
        "ftrace_lookup_symbols",
        lambda a, c, k: None if a.syms else False,
        since=(5, 19),
    ),
    _rule(
        "kprobe_multi_address",
        "kprobe_multi.addrs",
        EINVAL,
        "every address must be that of a function that can be traced",
        "register_fprobe_ips",
        lambda a, c, k: False if not a.addrs else True if _zero_addr(a, c) else None,
        until=(6, 13),
    ),
    _rule(
        "kprobe_multi_nodes",
        "kprobe_multi.cnt",
        ENOMEM,
        f"cnt must be at most {_MAX_NODES:,}",
        "register_fprobe_ips",
        lambda a, c, k: a.cnt > _MAX_NODES,
        since=(7, 2),
        unseen="the kernel complains in its log that somebody wants so much memory in one piece",
    ),
    _rule(
        "kprobe_multi_no_function",
        "kprobe_multi.addrs",
        ENOENT,
        "every address must be that of a function that can be traced",
        "register_fprobe_ips",
        lambda a, c, k: False if not a.addrs else True if _zero_addr(a, c) else None,
        since=(6, 14),
    ),
]


# -- uprobe_multi ----------------------------------------------------------------------------------------------------------

_UM = "bpf_uprobe_multi_link_attach"


_UPROBE_RULES: list[Item] = [
    _no_flags("uprobe_multi", _UM, since=(6, 13)),
    _rule(
        "uprobe_multi_expected",
        "prog_fd",
        EINVAL,
        _EXPECTED,
        _UM,
        lambda a, c, k: _prog(a, c).attach_type not in (AttachType.TRACE_UPROBE_MULTI, AttachType.TRACE_UPROBE_SESSION),
    ),
    _rule(
        "uprobe_multi_flags",
        "uprobe_multi.flags",
        EINVAL,
        "uprobe_multi.flags may only have BPF_F_UPROBE_MULTI_RETURN, and since 7.2 BPF_F_UPROBE_MULTI_PATH_FD",
        _UM,
        lambda a, c, k: bool(a.flags & ~(3 if k.version >= (7, 2) else 1)),
    ),
    _rule(
        "uprobe_multi_given",
        "uprobe_multi.path uprobe_multi.offsets uprobe_multi.cnt",
        EINVAL,
        "path, offsets and cnt must be given",
        _UM,
        lambda a, c, k: a.offsets == 0 or a.cnt == 0 or (a.path == 0 and k.version < (7, 2)),
    ),
    _rule(
        "uprobe_multi_pid",
        "uprobe_multi.pid",
        EINVAL,
        "pid must be less than 2 to the 31st",
        _UM,
        lambda a, c, k: a.pid >> 31 != 0,
    ),
    _rule(
        "uprobe_multi_many",
        "uprobe_multi.cnt",
        E2BIG,
        f"cnt must be at most {_MAX_CNT:,}",
        _UM,
        lambda a, c, k: a.cnt > _MAX_CNT,
        since=(6, 7),
    ),
    _rule("uprobe_multi_path", "uprobe_multi.path", ENOENT, "there must be a file of this name", _UM, maybe),
    _beyond("uprobe_multi", "path must be an executable file, offsets places in it"),
]

# -- tracing, tracing_multi, iterators -------------------------------------------------------------------------------------

_TM = "bpf_tracing_multi_attach"


def _ids(a: Any, c: Call) -> Verdict:
    array = c.memory.read(a.ids, 4 * a.cnt) if a.cnt <= 4096 else None
    if array is None:
        return None
    ids = {array[i : i + 4] for i in range(0, len(array), 4)}
    return len(ids) < a.cnt


_TRACING_MULTI_RULES: list[Item] = from_release(
    (7, 2),
    [
        _rule(
            "tracing_multi_given",
            "tracing_multi.ids tracing_multi.cnt",
            EINVAL,
            "ids and cnt must be given",
            _TM,
            lambda a, c, k: a.cnt == 0 or a.ids == 0,
        ),
        _rule(
            "tracing_multi_many",
            "tracing_multi.cnt",
            E2BIG,
            f"cnt must be at most {_MAX_CNT:,}",
            _TM,
            lambda a, c, k: a.cnt > _MAX_CNT,
        ),
        _rule(
            "tracing_multi_head",
            "flags target_fd",
            EINVAL,
            "flags and target_fd must be 0",
            _TM,
            lambda a, c, k: bool(a.flags or a.target_fd),
        ),
        _rule(
            "tracing_multi_ids",
            "tracing_multi.ids",
            EFAULT,
            "ids must point to cnt numbers of 32 bits that can be read",
            _TM,
            lambda a, c, k: _bad(a.ids, 4 * a.cnt, c, k),
        ),
        _rule(
            "tracing_multi_cookies",
            "tracing_multi.cookies",
            EFAULT,
            "cookies must point to cnt numbers of 64 bits that can be read",
            _TM,
            lambda a, c, k: a.cookies != 0 and _bad(a.cookies, 8 * a.cnt, c, k),
        ),
        _rule(
            "tracing_multi_twice",
            "tracing_multi.ids",
            EINVAL,
            "no id may stand in the list twice",
            "check_dup_ids",
            lambda a, c, k: _ids(a, c),
        ),
        _beyond("tracing_multi", "every id must be that of a function that can be traced"),
    ],
)

_TP = "bpf_tracing_prog_attach"
_TRACING_RULES: list[Item] = [
    _rule(
        "tracing_expected",
        "attach_type",
        EINVAL,
        _EXPECTED,
        "link_create",
        lambda a, c, k: a.attach_type != _prog(a, c).attach_type,
        since=(5, 13),
    ),
    Branch(
        lambda a, c, k: _prog(a, c).attach_type,
        {
            AttachType.TRACE_ITER: [
                read_as(
                    _ITER,
                    [
                        _rule(
                            "iter_head",
                            "target_fd flags",
                            EINVAL,
                            "target_fd and flags must be 0",
                            "bpf_iter_link_attach",
                            lambda a, c, k: bool(a.target_fd or a.flags),
                        ),
                        _rule(
                            "iter_info",
                            "iter_info iter_info_len",
                            EINVAL,
                            "iter_info and iter_info_len must both be 0, or neither",
                            "bpf_iter_link_attach",
                            lambda a, c, k: (a.iter_info == 0) != (a.iter_info_len == 0),
                        ),
                        _beyond("iter", "iter_info must fit the iterator"),
                    ],
                )
            ],
            AttachType.TRACE_RAW_TP: [_beyond("raw_tp", "the tracepoint must be there")],
            AttachType.LSM_CGROUP: [_beyond("lsm_cgroup", "target_fd must be a cgroup")],
            **{kind: [read_as(_TRACING_MULTI, _TRACING_MULTI_RULES)] for kind in _MULTI},
        },
        [
            _rule(
                "tracing_target",
                "target_fd tracing.target_btf_id",
                EINVAL,
                "target_fd and target_btf_id must both be 0, or neither",
                _TP,
                lambda a, c, k: (a.target_fd != 0) != (a.target_btf_id != 0),
                since=(5, 13),
            ),
            _rule(
                "tracing_ext",
                "target_fd",
                EINVAL,
                "only a program of type EXT takes a target at attach",
                _TP,
                lambda a, c, k: a.target_fd != 0 and _prog(a, c).type != ProgType.EXT,
                since=(5, 13),
            ),
            _beyond("tracing", "the program's function must be free to be traced"),
        ],
        form=_TRACING,
    ),
]

# -- the command -----------------------------------------------------------------------------------------------------------


def _kind(a: Any, c: Call, k: Facts) -> object:
    """What is attached."""
    prog = _prog(a, c).type
    if prog in (ProgType.PERF_EVENT, ProgType.TRACEPOINT):
        return "perf"
    if prog == ProgType.KPROBE:
        if a.attach_type == AttachType.PERF_EVENT:
            return "perf"
        if a.attach_type in (AttachType.TRACE_UPROBE_MULTI, AttachType.TRACE_UPROBE_SESSION):
            return "uprobe_multi"
        return "kprobe_multi"
    if prog in (ProgType.TRACING, ProgType.LSM):
        return "tracing"
    return "other"


def _prog_type(a: Any, c: Call, k: Facts) -> object:
    return _prog(a, c).type


CREATE = Table(
    Form(*_HEAD),
    [
        *tail(_C, {(0, 0): 28, (5, 18): 48, (6, 6): 60, (7, 2): 64}),
        _rule(
            "struct_ops",
            "attach_type",
            None,
            "map_fd must be that of a struct_ops map",
            "bpf_struct_ops_link_create",
            lambda a, c, k: a.attach_type == AttachType.STRUCT_OPS,
            since=(6, 4),
        ),
        *fd_rules(_C, "link_create.prog_fd", "prog", "bpf_prog_get"),
        _rule("unknown_type", "prog_fd", None, "a program of unknown type", "", lambda a, c, k: _prog(a, c).type is None),
        _rule(
            "old_tracing",
            "attach_type",
            EINVAL,
            "before 5.13 only iterators can be attached so: use RAW_TRACEPOINT_OPEN",
            "tracing_bpf_link_attach",
            lambda a, c, k: _prog(a, c).type in (ProgType.TRACING, ProgType.LSM) and a.attach_type != AttachType.TRACE_ITER,
            until=(5, 12),
        ),
        Branch(_prog_type, _ATTACH_TYPE, _OTHERS),
        Branch(
            _kind,
            {
                "perf": _PERF,
                "kprobe_multi": [read_as(_KPROBE_MULTI, from_release((5, 18), _KPROBE_MULTI_RULES))],
                "uprobe_multi": [read_as(_UPROBE_MULTI, from_release((6, 6), _UPROBE_RULES))],
                "tracing": _TRACING_RULES,
                "other": [_beyond("other", "what this type of program is attached to is not modelled")],
            },
        ),
    ],
)

# -- LINK_UPDATE, LINK_DETACH, ITER_CREATE ---------------------------------------------------------------------------------

_REPLACE = 1 << 2
_NO_UPDATE = (
    LinkType.RAW_TRACEPOINT,
    LinkType.TRACING,
    LinkType.PERF_EVENT,
    LinkType.KPROBE_MULTI,
    LinkType.UPROBE_MULTI,
    LinkType.NETFILTER,
    LinkType.TRACING_MULTI,
)
_NO_DETACH = (*(kind for kind in _NO_UPDATE if kind != LinkType.NETFILTER), LinkType.ITER)


def _if_replace(when: When) -> When:
    return lambda a, c, k: bool(a.flags & _REPLACE) and when(a, c, k)


_C = "link_update"
UPDATE = Table(
    Form("link_update.link_fd", "link_update.new_prog_fd", "link_update.flags", "link_update.old_prog_fd"),
    [
        *tail(_C, {(0, 0): 16}),
        Rule(
            f"{_C}.flags",
            "link_update.flags",
            EINVAL,
            "flags may only have BPF_F_REPLACE",
            _C,
            lambda a, c, k: bool(a.flags & ~_REPLACE),
        ),
        *fd_rules(_C, "link_update.link_fd", "link", "bpf_link_get_from_fd"),
        Rule(
            f"{_C}.map",
            "link_update.link_fd",
            None,
            "new_map_fd must be that of a struct_ops map",
            "link_update_map",
            lambda a, c, k: c.fds[a.link_fd].type in (None, LinkType.STRUCT_OPS),
            since=(6, 4),
        ),
        *fd_rules(_C, "link_update.new_prog_fd", "prog", "bpf_prog_get"),
        *(
            Rule(rule.name, rule.fields[0], rule.errno, rule.text, rule.source, _if_replace(rule.when))
            for rule in fd_rules(_C, "link_update.old_prog_fd", "prog", "bpf_prog_get")
        ),
        Rule(
            f"{_C}.old_prog_fd",
            "link_update.old_prog_fd",
            EINVAL,
            "old_prog_fd takes BPF_F_REPLACE in flags",
            _C,
            lambda a, c, k: not a.flags & _REPLACE and a.old_prog_fd != 0,
        ),
        Rule(
            f"{_C}.type",
            "link_update.link_fd",
            EINVAL,
            "a link of this type keeps its program",
            _C,
            lambda a, c, k: c.fds[a.link_fd].type in _NO_UPDATE,
        ),
        Rule(f"{_C}.prog", "link_update.new_prog_fd", None, "the new program must fit the link", "update_prog", always),
    ],
)

_C = "link_detach"
DETACH = Table(
    Form("link_detach.link_fd"),
    [
        *tail(_C, {(0, 0): 4}),
        *fd_rules(_C, "link_detach.link_fd", "link", "bpf_link_get_from_fd"),
        Rule(
            f"{_C}.type",
            "link_detach.link_fd",
            EOPNOTSUPP,
            "a link of this type is detached by closing its last fd",
            _C,
            lambda a, c, k: c.fds[a.link_fd].type in _NO_DETACH,
        ),
        Rule(
            f"{_C}.other",
            "link_detach.link_fd",
            (0, EOPNOTSUPP),
            "the link must be of a type that can be detached",
            _C,
            always,
            unseen="links of the types that this is about are not told apart",
        ),
    ],
)

_C = "iter_create"
ITER = Table(
    Form("iter_create.link_fd", "iter_create.flags"),
    [
        *tail(_C, {(0, 0): 8}),
        Rule(f"{_C}.flags", "iter_create.flags", EINVAL, "flags must be 0", "bpf_iter_create", lambda a, c, k: a.flags != 0),
        *fd_rules(_C, "iter_create.link_fd", "link", "bpf_link_get_from_fd"),
        Rule(
            f"{_C}.type",
            "iter_create.link_fd",
            EINVAL,
            "link_fd must be the fd of an iterator's link",
            "bpf_iter_new_fd",
            lambda a, c, k: c.fds[a.link_fd].type != LinkType.ITER,
        ),
        Rule(f"{_C}.target", "iter_create.link_fd", None, "the iterator's target must be there", "prepare_seq_file", always),
    ],
)

TABLES = {Cmd.LINK_CREATE: CREATE, Cmd.LINK_UPDATE: UPDATE, Cmd.LINK_DETACH: DETACH, Cmd.ITER_CREATE: ITER}
