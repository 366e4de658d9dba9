"""The structs that OBJ_GET_INFO_BY_FD fills: prog, map, btf and link info.

Pointers and their counts are read first: the caller says there how much memory it has, and finds the real
number afterwards.
"""

from __future__ import annotations

from typing import Any

from rawkm.uapi.constants import (
    AttachType,
    KprobeMultiFlag,
    LinkType,
    MapFlag,
    MapType,
    PerfEventLinkType,
    ProgType,
)
from rawkm.uapi.fields import (
    HEX,
    Definition,
    chars,
    count_of,
    define_struct,
    enum,
    flags,
    hole,
    ptr,
    raw,
    size_of,
    u32,
    u64,
)

PROG_INFO = define_struct(
    "prog_info",
    "",
    u32("type", enum(ProgType), since="4.13"),
    u32("id", since="4.13"),
    raw("tag", 8, since="4.13"),
    u32("jited_prog_len", size_of("jited_prog_insns"), since="4.13"),
    u32("xlated_prog_len", size_of("xlated_prog_insns"), since="4.13"),
    ptr("jited_prog_insns", "out", since="4.13", of="jited_prog_len"),
    ptr("xlated_prog_insns", "out", since="4.13", of="xlated_prog_len"),
    u64("load_time", since="4.15"),
    u32("created_by_uid", since="4.15"),
    u32("nr_map_ids", count_of("map_ids"), since="4.15"),
    ptr("map_ids", "out", "u32s", since="4.15", of="nr_map_ids"),
    chars("name", 16, since="4.15"),
    u32("ifindex", since="4.16"),
    # A one-bit field in a word of its own: not zero means yes, whatever the byte order.
    u32("gpl_compatible", since="4.18"),
    u64("netns_dev", since="4.16"),
    u64("netns_ino", since="4.16"),
    u32("nr_jited_ksyms", count_of("jited_ksyms"), since="4.18"),
    u32("nr_jited_func_lens", count_of("jited_func_lens"), since="4.18"),
    ptr("jited_ksyms", "out", "u64s", since="4.18", of="nr_jited_ksyms"),
    ptr("jited_func_lens", "out", "u32s", since="4.18", of="nr_jited_func_lens"),
    u32("btf_id", since="5.0"),
    u32("func_info_rec_size", since="5.0"),
    ptr("func_info", "out", since="5.0"),
    u32("nr_func_info", count_of("func_info"), since="5.0"),
    u32("nr_line_info", count_of("line_info"), since="5.0"),
    ptr("line_info", "out", since="5.0"),
    ptr("jited_line_info", "out", "u64s", since="5.0", of="nr_jited_line_info"),
    u32("nr_jited_line_info", count_of("jited_line_info"), since="5.0"),
    u32("line_info_rec_size", since="5.0"),
    u32("jited_line_info_rec_size", since="5.0"),
    u32("nr_prog_tags", count_of("prog_tags"), since="5.0"),
    ptr("prog_tags", "out", since="5.0"),
    u64("run_time_ns", since="5.1"),
    u64("run_cnt", since="5.1"),
    u64("recursion_misses", since="5.12"),
    u32("verified_insns", since="5.16"),
    u32("attach_btf_obj_id", since="6.0"),
    u32("attach_btf_id", since="6.0"),
    hole(4),
)

MAP_INFO = define_struct(
    "map_info",
    "",
    u32("type", enum(MapType), since="4.13"),
    u32("id", since="4.13"),
    u32("key_size", since="4.13"),
    u32("value_size", since="4.13"),
    u32("max_entries", since="4.13"),
    u32("map_flags", flags(MapFlag), since="4.13"),
    chars("name", 16, since="4.15"),
    u32("ifindex", since="4.16"),
    u32("btf_vmlinux_value_type_id", since="5.6"),
    u64("netns_dev", since="4.16"),
    u64("netns_ino", since="4.16"),
    u32("btf_id", since="4.18"),
    u32("btf_key_type_id", since="4.18"),
    u32("btf_value_type_id", since="4.18"),
    u32("btf_vmlinux_id", since="6.9"),
    u64("map_extra", HEX, since="5.16"),
    ptr("hash", "out", since="6.18", of="hash_size"),
    u32("hash_size", size_of("hash"), since="6.18"),
    hole(4),
)

BTF_INFO = define_struct(
    "btf_info",
    "",
    ptr("btf", "out", since="4.18", of="btf_size"),
    u32("btf_size", size_of("btf"), since="4.18"),
    u32("id", since="4.18"),
    ptr("name", "out", "cstr", since="5.11", of="name_len"),
    u32("name_len", size_of("name"), since="5.11"),
    u32("kernel_btf", since="5.11"),
)


_LINK_INFO_SIZE = 64


def _link(variant: str, *members: Any) -> Definition:
    """struct bpf_link_info, its full size. Its union begins at 16: most alternatives have 64-bit fields."""
    head = (
        u32("type", enum(LinkType), since="5.8"),
        u32("id", since="5.8"),
        u32("prog_id", since="5.8"),
        hole(4),
    )
    rest = _LINK_INFO_SIZE - sum(member.sizeof() for member in (*head, *members))
    return define_struct("link_info", variant, *head, *members, *([hole(rest)] if rest else []))


# Of a link type without a definition of its own: the head.
LINK_INFO = _link("")

LINK_INFO_KPROBE_MULTI = _link(
    "kprobe_multi",
    ptr("kprobe_multi.addrs", "out", "u64s", since="6.6", of="kprobe_multi.count"),
    u32("kprobe_multi.count", count_of("kprobe_multi.addrs"), since="6.6"),
    u32("kprobe_multi.flags", flags(KprobeMultiFlag), since="6.6"),
    u64("kprobe_multi.missed", since="6.7"),
    ptr("kprobe_multi.cookies", "out", "u64s", since="6.9", of="kprobe_multi.count"),
)

LINK_INFO_PERF_EVENT_KPROBE = _link(
    "perf_event.kprobe",
    u32("perf_event.type", enum(PerfEventLinkType), since="6.6"),
    hole(4),
    ptr("perf_event.kprobe.func_name", "out", "cstr", since="6.6", of="perf_event.kprobe.name_len"),
    u32("perf_event.kprobe.name_len", size_of("perf_event.kprobe.func_name"), since="6.6"),
    u32("perf_event.kprobe.offset", since="6.6"),
    u64("perf_event.kprobe.addr", HEX, since="6.6"),
    u64("perf_event.kprobe.missed", since="6.7"),
    u64("perf_event.kprobe.cookie", HEX, since="6.9"),
)

LINK_INFO_TRACING = _link(
    "tracing",
    u32("tracing.attach_type", enum(AttachType), since="5.8"),
    u32("tracing.target_obj_id", since="5.13"),
    u32("tracing.target_btf_id", since="5.13"),
    hole(4),
    u64("tracing.cookie", HEX, since="6.17"),
)

LINK_INFO_RAW_TRACEPOINT = _link(
    "raw_tracepoint",
    ptr("raw_tracepoint.tp_name", "out", "cstr", since="5.8", of="raw_tracepoint.tp_name_len"),
    u32("raw_tracepoint.tp_name_len", size_of("raw_tracepoint.tp_name"), since="5.8"),
    hole(4),
    u64("raw_tracepoint.cookie", HEX, since="6.17"),
)

DEFINITIONS = (
    PROG_INFO,
    MAP_INFO,
    BTF_INFO,
    LINK_INFO,
    LINK_INFO_KPROBE_MULTI,
    LINK_INFO_PERF_EVENT_KPROBE,
    LINK_INFO_TRACING,
    LINK_INFO_RAW_TRACEPOINT,
)
