"""Links: LINK_CREATE, a common head and what follows it by attach type; the commands on a link."""

from __future__ import annotations

from rawkm.uapi.constants import AttachFlag, AttachType, KprobeMultiFlag, NetfilterFlag, UprobeMultiFlag
from rawkm.uapi.fields import FD, HEX, Definition, Note, Role, count_of, define, enum, field, flags, ptr, size_of


def _link(variant: str, *members: Note, role: Role = HEX) -> Definition:
    return define(
        "LINK_CREATE",
        variant,
        field("link_create.prog_fd", FD, since="5.7", also={"link_create.map_fd": "6.4"}),
        field("link_create.target_fd", FD, since="5.7", also={"link_create.target_ifindex": "5.9"}),
        field("link_create.attach_type", enum(AttachType), since="5.7"),
        field("link_create.flags", role, since="5.7"),
        *members,
        whole=False,
    )


def _ordered(variant: str, since: str) -> Definition:
    """Of links that stand in an order: before or after which one, and the revision of the list."""
    path = f"link_create.{variant}"
    return _link(
        variant,
        field(f"{path}.relative_fd", FD, since=since, also={f"{path}.relative_id": since}),
        field(f"{path}.expected_revision", since=since),
        role=flags(AttachFlag),
    )


# Of every attach type without members of its own: XDP, netns, sockmap, struct_ops.
LINK_CREATE = _link("", field("link_create.target_btf_id", since="5.10"))

LINK_CREATE_ITER = _link(
    "iter",
    ptr("link_create.iter_info", "in", since="5.9", of="link_create.iter_info_len"),
    field("link_create.iter_info_len", size_of("link_create.iter_info"), since="5.9"),
)

LINK_CREATE_PERF_EVENT = _link("perf_event", field("link_create.perf_event.bpf_cookie", HEX, since="5.15"))

_KPROBE_MULTI = "link_create.kprobe_multi"
LINK_CREATE_KPROBE_MULTI = _link(
    "kprobe_multi",
    field(f"{_KPROBE_MULTI}.flags", flags(KprobeMultiFlag), since="5.18"),
    field(f"{_KPROBE_MULTI}.cnt", count_of(f"{_KPROBE_MULTI}.addrs"), since="5.18"),
    ptr(f"{_KPROBE_MULTI}.syms", "in", "cstrs", since="5.18", of=f"{_KPROBE_MULTI}.cnt"),
    ptr(f"{_KPROBE_MULTI}.addrs", "in", "u64s", since="5.18", of=f"{_KPROBE_MULTI}.cnt"),
    ptr(f"{_KPROBE_MULTI}.cookies", "in", "u64s", since="5.18", of=f"{_KPROBE_MULTI}.cnt"),
)

LINK_CREATE_TRACING = _link(
    "tracing",
    field("link_create.tracing.target_btf_id", since="5.19", also={"link_create.target_btf_id": "5.10"}),
    field("link_create.tracing.cookie", HEX, since="5.19"),
)

LINK_CREATE_NETFILTER = _link(
    "netfilter",
    field("link_create.netfilter.pf", since="6.4"),
    field("link_create.netfilter.hooknum", since="6.4"),
    field("link_create.netfilter.priority", since="6.4"),
    field("link_create.netfilter.flags", flags(NetfilterFlag), since="6.4"),
)

LINK_CREATE_TCX = _ordered("tcx", "6.6")

_UPROBE_MULTI = "link_create.uprobe_multi"
LINK_CREATE_UPROBE_MULTI = _link(
    "uprobe_multi",
    ptr(f"{_UPROBE_MULTI}.path", "in", "cstr", since="6.6"),
    ptr(f"{_UPROBE_MULTI}.offsets", "in", "u64s", since="6.6", of=f"{_UPROBE_MULTI}.cnt"),
    ptr(f"{_UPROBE_MULTI}.ref_ctr_offsets", "in", "u64s", since="6.6", of=f"{_UPROBE_MULTI}.cnt"),
    ptr(f"{_UPROBE_MULTI}.cookies", "in", "u64s", since="6.6", of=f"{_UPROBE_MULTI}.cnt"),
    field(f"{_UPROBE_MULTI}.cnt", count_of(f"{_UPROBE_MULTI}.offsets"), since="6.6"),
    field(f"{_UPROBE_MULTI}.flags", flags(UprobeMultiFlag), since="6.6"),
    field(f"{_UPROBE_MULTI}.pid", since="6.6"),
    field(f"{_UPROBE_MULTI}.path_fd", FD, since="7.2"),
)

LINK_CREATE_NETKIT = _ordered("netkit", "6.7")
LINK_CREATE_CGROUP = _ordered("cgroup", "6.17")

_TRACING_MULTI = "link_create.tracing_multi"
LINK_CREATE_TRACING_MULTI = _link(
    "tracing_multi",
    ptr(f"{_TRACING_MULTI}.ids", "in", "u32s", since="7.2", of=f"{_TRACING_MULTI}.cnt"),
    ptr(f"{_TRACING_MULTI}.cookies", "in", "u64s", since="7.2", of=f"{_TRACING_MULTI}.cnt"),
    field(f"{_TRACING_MULTI}.cnt", count_of(f"{_TRACING_MULTI}.ids"), since="7.2"),
)

LINK_UPDATE = define(
    "LINK_UPDATE",
    "",
    field("link_update.link_fd", FD, since="5.7"),
    field("link_update.new_prog_fd", FD, since="5.7", also={"link_update.new_map_fd": "6.4"}),
    field("link_update.flags", flags(AttachFlag), since="5.7"),
    field("link_update.old_prog_fd", FD, since="5.7", also={"link_update.old_map_fd": "6.4"}),
)

LINK_DETACH = define("LINK_DETACH", "", field("link_detach.link_fd", FD, since="5.9"))

ITER_CREATE = define(
    "ITER_CREATE",
    "",
    field("iter_create.link_fd", FD, since="5.8"),
    field("iter_create.flags", HEX, since="5.8"),
)

_CGROUP_TYPES = [value for name, value in vars(AttachType).items() if name.startswith("CGROUP_")]

#: attach_type → the variant that the kernel reads; LINK_CREATE for every other one. It is the program's type
#: that decides, and there is one case where this is not the same: a program of type EXT is attached with
#: attach_type 0, which is CGROUP_INET_INGRESS, and reads the variant `tracing`.
BY_ATTACH_TYPE = {
    **dict.fromkeys(_CGROUP_TYPES, LINK_CREATE_CGROUP),
    AttachType.LSM_CGROUP: LINK_CREATE_CGROUP,
    AttachType.PERF_EVENT: LINK_CREATE_PERF_EVENT,
    AttachType.TRACE_KPROBE_MULTI: LINK_CREATE_KPROBE_MULTI,
    AttachType.TRACE_KPROBE_SESSION: LINK_CREATE_KPROBE_MULTI,
    AttachType.TRACE_UPROBE_MULTI: LINK_CREATE_UPROBE_MULTI,
    AttachType.TRACE_UPROBE_SESSION: LINK_CREATE_UPROBE_MULTI,
    AttachType.TRACE_ITER: LINK_CREATE_ITER,
    AttachType.TRACE_RAW_TP: LINK_CREATE_TRACING,
    AttachType.TRACE_FENTRY: LINK_CREATE_TRACING,
    AttachType.TRACE_FEXIT: LINK_CREATE_TRACING,
    AttachType.TRACE_FSESSION: LINK_CREATE_TRACING,
    AttachType.MODIFY_RETURN: LINK_CREATE_TRACING,
    AttachType.LSM_MAC: LINK_CREATE_TRACING,
    AttachType.TRACE_FENTRY_MULTI: LINK_CREATE_TRACING_MULTI,
    AttachType.TRACE_FEXIT_MULTI: LINK_CREATE_TRACING_MULTI,
    AttachType.TRACE_FSESSION_MULTI: LINK_CREATE_TRACING_MULTI,
    AttachType.NETFILTER: LINK_CREATE_NETFILTER,
    AttachType.TCX_INGRESS: LINK_CREATE_TCX,
    AttachType.TCX_EGRESS: LINK_CREATE_TCX,
    AttachType.NETKIT_PRIMARY: LINK_CREATE_NETKIT,
    AttachType.NETKIT_PEER: LINK_CREATE_NETKIT,
}

DEFINITIONS = (
    LINK_CREATE,
    LINK_CREATE_PERF_EVENT,
    LINK_CREATE_KPROBE_MULTI,
    LINK_CREATE_TRACING,
    LINK_CREATE_ITER,
    LINK_CREATE_NETFILTER,
    LINK_CREATE_TCX,
    LINK_CREATE_UPROBE_MULTI,
    LINK_CREATE_NETKIT,
    LINK_CREATE_CGROUP,
    LINK_CREATE_TRACING_MULTI,
    LINK_UPDATE,
    LINK_DETACH,
    ITER_CREATE,
)
