"""The structs that OBJ_GET_INFO_BY_FD fills: prog, map, btf and link info.

Pointers and their counts are read first: the caller says there how much memory it has, and finds the real
number afterwards.
"""

from __future__ import annotations

from rawkm.uapi.constants import (
    AttachType,
    CgroupIter,
    KprobeMultiFlag,
    LinkType,
    MapFlag,
    MapType,
    NetfilterFlag,
    PerfEventLinkType,
    PerfType,
    ProgType,
    UprobeMultiFlag,
)
from rawkm.uapi.fields import HEX, Definition, Note, count_of, define_struct, enum, field, flags, ptr, size_of, word

PROG_INFO = define_struct(
    "prog_info",
    "",
    field("type", enum(ProgType), since="4.13"),
    field("id", since="4.13"),
    field("tag", since="4.13"),
    field("jited_prog_len", size_of("jited_prog_insns"), since="4.13"),
    field("xlated_prog_len", size_of("xlated_prog_insns"), since="4.13"),
    ptr("jited_prog_insns", "out", since="4.13", of="jited_prog_len"),
    ptr("xlated_prog_insns", "out", since="4.13", of="xlated_prog_len"),
    field("load_time", since="4.15"),
    field("created_by_uid", since="4.15"),
    field("nr_map_ids", count_of("map_ids"), since="4.15"),
    ptr("map_ids", "out", "u32s", since="4.15", of="nr_map_ids"),
    field("name", since="4.15"),
    field("ifindex", since="4.16"),
    # A one-bit field in a word of its own: not zero means yes, whatever the byte order.
    word("gpl_compatible", "bpf_prog_info", "gpl_compatible", 4, since="4.18"),
    field("netns_dev", since="4.16"),
    field("netns_ino", since="4.16"),
    field("nr_jited_ksyms", count_of("jited_ksyms"), since="4.18"),
    field("nr_jited_func_lens", count_of("jited_func_lens"), since="4.18"),
    ptr("jited_ksyms", "out", "u64s", since="4.18", of="nr_jited_ksyms"),
    ptr("jited_func_lens", "out", "u32s", since="4.18", of="nr_jited_func_lens"),
    field("btf_id", since="5.0"),
    field("func_info_rec_size", since="5.0"),
    ptr("func_info", "out", since="5.0"),
    field("nr_func_info", count_of("func_info"), since="5.0"),
    field("nr_line_info", count_of("line_info"), since="5.0"),
    ptr("line_info", "out", since="5.0"),
    ptr("jited_line_info", "out", "u64s", since="5.0", of="nr_jited_line_info"),
    field("nr_jited_line_info", count_of("jited_line_info"), since="5.0"),
    field("line_info_rec_size", since="5.0"),
    field("jited_line_info_rec_size", since="5.0"),
    field("nr_prog_tags", count_of("prog_tags"), since="5.0"),
    ptr("prog_tags", "out", since="5.0"),
    field("run_time_ns", since="5.1"),
    field("run_cnt", since="5.1"),
    field("recursion_misses", since="5.12"),
    field("verified_insns", since="5.16"),
    field("attach_btf_obj_id", since="6.0"),
    field("attach_btf_id", since="6.0"),
)

MAP_INFO = define_struct(
    "map_info",
    "",
    field("type", enum(MapType), since="4.13"),
    field("id", since="4.13"),
    field("key_size", since="4.13"),
    field("value_size", since="4.13"),
    field("max_entries", since="4.13"),
    field("map_flags", flags(MapFlag), since="4.13"),
    field("name", since="4.15"),
    field("ifindex", since="4.16"),
    field("btf_vmlinux_value_type_id", since="5.6"),
    field("netns_dev", since="4.16"),
    field("netns_ino", since="4.16"),
    field("btf_id", since="4.18"),
    field("btf_key_type_id", since="4.18"),
    field("btf_value_type_id", since="4.18"),
    field("btf_vmlinux_id", since="6.9"),
    field("map_extra", HEX, since="5.16"),
    ptr("hash", "out", since="6.18", of="hash_size"),
    field("hash_size", size_of("hash"), since="6.18"),
)

BTF_INFO = define_struct(
    "btf_info",
    "",
    ptr("btf", "out", since="4.18", of="btf_size"),
    field("btf_size", size_of("btf"), since="4.18"),
    field("id", since="4.18"),
    ptr("name", "out", "cstr", since="5.11", of="name_len"),
    field("name_len", size_of("name"), since="5.11"),
    field("kernel_btf", since="5.11"),
)


def _link(variant: str, *members: Note) -> Definition:
    """struct bpf_link_info, its full size."""
    return define_struct(
        "link_info",
        variant,
        field("type", enum(LinkType), since="5.8"),
        field("id", since="5.8"),
        field("prog_id", since="5.8"),
        *members,
        whole=False,
    )


def _attached(variant: str, of: str, since: str) -> Definition:
    """The many with one number and an attach type."""
    return _link(
        variant,
        field(f"{variant}.{of}", since=since),
        field(f"{variant}.attach_type", enum(AttachType), since=since),
    )


def _perf_event(variant: str, *members: Note) -> Definition:
    return _link(variant, field("perf_event.type", enum(PerfEventLinkType), since="6.6"), *members)


# Of a link type without members of its own: the head.
LINK_INFO = _link("")

LINK_INFO_RAW_TRACEPOINT = _link(
    "raw_tracepoint",
    ptr("raw_tracepoint.tp_name", "out", "cstr", since="5.8", of="raw_tracepoint.tp_name_len"),
    field("raw_tracepoint.tp_name_len", size_of("raw_tracepoint.tp_name"), since="5.8"),
    field("raw_tracepoint.cookie", HEX, since="6.17"),
)

LINK_INFO_TRACING = _link(
    "tracing",
    field("tracing.attach_type", enum(AttachType), since="5.8"),
    field("tracing.target_obj_id", since="5.13"),
    field("tracing.target_btf_id", since="5.13"),
    field("tracing.cookie", HEX, since="6.17"),
)

LINK_INFO_CGROUP = _attached("cgroup", "cgroup_id", "5.8")

# The iterator's name says which of these it is, and is not in the struct.
_ITER = (
    ptr("iter.target_name", "out", "cstr", since="5.9", of="iter.target_name_len"),
    field("iter.target_name_len", size_of("iter.target_name"), since="5.9"),
)
LINK_INFO_ITER = _link("iter", *_ITER)
LINK_INFO_ITER_MAP = _link("iter.map", *_ITER, field("iter.map.map_id", since="5.9"))
LINK_INFO_ITER_CGROUP = _link(
    "iter.cgroup",
    *_ITER,
    field("iter.cgroup.cgroup_id", since="6.1"),
    field("iter.cgroup.order", enum(CgroupIter), since="6.1"),
)
LINK_INFO_ITER_TASK = _link(
    "iter.task",
    *_ITER,
    field("iter.task.tid", since="6.1"),
    field("iter.task.pid", since="6.1"),
)

LINK_INFO_NETNS = _attached("netns", "netns_ino", "5.8")

LINK_INFO_XDP = _link("xdp", field("xdp.ifindex", since="5.9"))

LINK_INFO_STRUCT_OPS = _link("struct_ops", field("struct_ops.map_id", since="6.4"))

LINK_INFO_NETFILTER = _link(
    "netfilter",
    field("netfilter.pf", since="6.4"),
    field("netfilter.hooknum", since="6.4"),
    field("netfilter.priority", since="6.4"),
    field("netfilter.flags", flags(NetfilterFlag), since="6.4"),
)

LINK_INFO_KPROBE_MULTI = _link(
    "kprobe_multi",
    ptr("kprobe_multi.addrs", "out", "u64s", since="6.6", of="kprobe_multi.count"),
    field("kprobe_multi.count", count_of("kprobe_multi.addrs"), since="6.6"),
    field("kprobe_multi.flags", flags(KprobeMultiFlag), since="6.6"),
    field("kprobe_multi.missed", since="6.7"),
    ptr("kprobe_multi.cookies", "out", "u64s", since="6.9", of="kprobe_multi.count"),
)

LINK_INFO_UPROBE_MULTI = _link(
    "uprobe_multi",
    ptr("uprobe_multi.path", "out", "cstr", since="6.8", of="uprobe_multi.path_size"),
    ptr("uprobe_multi.offsets", "out", "u64s", since="6.8", of="uprobe_multi.count"),
    ptr("uprobe_multi.ref_ctr_offsets", "out", "u64s", since="6.8", of="uprobe_multi.count"),
    ptr("uprobe_multi.cookies", "out", "u64s", since="6.8", of="uprobe_multi.count"),
    field("uprobe_multi.path_size", size_of("uprobe_multi.path"), since="6.8"),
    field("uprobe_multi.count", count_of("uprobe_multi.offsets"), since="6.8"),
    field("uprobe_multi.flags", flags(UprobeMultiFlag), since="6.8"),
    field("uprobe_multi.pid", since="6.8"),
)

# Also of a perf event that is none of the following.
LINK_INFO_PERF_EVENT = _perf_event("perf_event")

LINK_INFO_PERF_EVENT_UPROBE = _perf_event(
    "perf_event.uprobe",
    ptr("perf_event.uprobe.file_name", "out", "cstr", since="6.6", of="perf_event.uprobe.name_len"),
    field("perf_event.uprobe.name_len", size_of("perf_event.uprobe.file_name"), since="6.6"),
    field("perf_event.uprobe.offset", HEX, since="6.6"),
    field("perf_event.uprobe.cookie", HEX, since="6.9"),
    field("perf_event.uprobe.ref_ctr_offset", HEX, since="6.16"),
)

LINK_INFO_PERF_EVENT_KPROBE = _perf_event(
    "perf_event.kprobe",
    ptr("perf_event.kprobe.func_name", "out", "cstr", since="6.6", of="perf_event.kprobe.name_len"),
    field("perf_event.kprobe.name_len", size_of("perf_event.kprobe.func_name"), since="6.6"),
    field("perf_event.kprobe.offset", since="6.6"),
    field("perf_event.kprobe.addr", HEX, since="6.6"),
    field("perf_event.kprobe.missed", since="6.7"),
    field("perf_event.kprobe.cookie", HEX, since="6.9"),
)

LINK_INFO_PERF_EVENT_TRACEPOINT = _perf_event(
    "perf_event.tracepoint",
    ptr("perf_event.tracepoint.tp_name", "out", "cstr", since="6.6", of="perf_event.tracepoint.name_len"),
    field("perf_event.tracepoint.name_len", size_of("perf_event.tracepoint.tp_name"), since="6.6"),
    field("perf_event.tracepoint.cookie", HEX, since="6.9"),
)

LINK_INFO_PERF_EVENT_EVENT = _perf_event(
    "perf_event.event",
    field("perf_event.event.config", HEX, since="6.6"),
    field("perf_event.event.type", enum(PerfType), since="6.6"),
    field("perf_event.event.cookie", HEX, since="6.9"),
)

LINK_INFO_TCX = _attached("tcx", "ifindex", "6.6")
LINK_INFO_NETKIT = _attached("netkit", "ifindex", "6.7")
LINK_INFO_SOCKMAP = _attached("sockmap", "map_id", "6.10")

DEFINITIONS = (
    PROG_INFO,
    MAP_INFO,
    BTF_INFO,
    LINK_INFO,
    LINK_INFO_KPROBE_MULTI,
    LINK_INFO_PERF_EVENT_KPROBE,
    LINK_INFO_TRACING,
    LINK_INFO_RAW_TRACEPOINT,
    LINK_INFO_CGROUP,
    LINK_INFO_ITER,
    LINK_INFO_ITER_MAP,
    LINK_INFO_ITER_CGROUP,
    LINK_INFO_ITER_TASK,
    LINK_INFO_NETNS,
    LINK_INFO_XDP,
    LINK_INFO_STRUCT_OPS,
    LINK_INFO_NETFILTER,
    LINK_INFO_UPROBE_MULTI,
    LINK_INFO_PERF_EVENT,
    LINK_INFO_PERF_EVENT_UPROBE,
    LINK_INFO_PERF_EVENT_TRACEPOINT,
    LINK_INFO_PERF_EVENT_EVENT,
    LINK_INFO_TCX,
    LINK_INFO_NETKIT,
    LINK_INFO_SOCKMAP,
)

_BY_TYPE = {
    LinkType.RAW_TRACEPOINT: LINK_INFO_RAW_TRACEPOINT,
    LinkType.TRACING: LINK_INFO_TRACING,
    LinkType.CGROUP: LINK_INFO_CGROUP,
    LinkType.ITER: LINK_INFO_ITER,
    LinkType.NETNS: LINK_INFO_NETNS,
    LinkType.XDP: LINK_INFO_XDP,
    LinkType.PERF_EVENT: LINK_INFO_PERF_EVENT,
    LinkType.KPROBE_MULTI: LINK_INFO_KPROBE_MULTI,
    LinkType.STRUCT_OPS: LINK_INFO_STRUCT_OPS,
    LinkType.NETFILTER: LINK_INFO_NETFILTER,
    LinkType.TCX: LINK_INFO_TCX,
    LinkType.UPROBE_MULTI: LINK_INFO_UPROBE_MULTI,
    LinkType.NETKIT: LINK_INFO_NETKIT,
    LinkType.SOCKMAP: LINK_INFO_SOCKMAP,
}
_BY_EVENT = {
    PerfEventLinkType.UPROBE: LINK_INFO_PERF_EVENT_UPROBE,
    PerfEventLinkType.URETPROBE: LINK_INFO_PERF_EVENT_UPROBE,
    PerfEventLinkType.KPROBE: LINK_INFO_PERF_EVENT_KPROBE,
    PerfEventLinkType.KRETPROBE: LINK_INFO_PERF_EVENT_KPROBE,
    PerfEventLinkType.TRACEPOINT: LINK_INFO_PERF_EVENT_TRACEPOINT,
    PerfEventLinkType.EVENT: LINK_INFO_PERF_EVENT_EVENT,
}


def for_link(type: int, event: int) -> Definition:
    """The variant of a LinkType and, for LinkType.PERF_EVENT, of a PerfEventLinkType."""
    if type == LinkType.PERF_EVENT:
        return _BY_EVENT.get(event, LINK_INFO_PERF_EVENT)
    return _BY_TYPE.get(type, LINK_INFO)
