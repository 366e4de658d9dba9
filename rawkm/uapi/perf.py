"""struct perf_event_attr, the argument of perf_event_open(2), and the page that mapping its fd gives."""

from __future__ import annotations

from rawkm.uapi.constants import PerfAttrFlag, PerfBranchSample, PerfFormat, PerfMmapCap, PerfSample, PerfType
from rawkm.uapi.fields import HEX, Definition, Note, define_struct, enum, field, flags, ptr, word


def _attr(variant: str, config1: Note, config2: Note) -> Definition:
    return define_struct(
        "perf_event_attr",
        variant,
        field("type", enum(PerfType), since="2.6.31"),
        field("size", since="2.6.31"),
        field("config", HEX, since="2.6.31"),
        field("sample_period", since="2.6.31", also={"sample_freq": "2.6.31"}),
        field("sample_type", flags(PerfSample), since="2.6.31"),
        field("read_format", flags(PerfFormat), since="2.6.31"),
        # The bit-fields `disabled` … `defer_output` have no name as a word; this one is ours.
        word("flags", "perf_event_attr", "disabled", 8, flags(PerfAttrFlag), since="2.6.31"),
        field("wakeup_events", since="2.6.31", also={"wakeup_watermark": "2.6.32"}),
        field("bp_type", HEX, since="2.6.33"),
        config1,
        config2,
        field("branch_sample_type", flags(PerfBranchSample), since="3.4"),
        field("sample_regs_user", HEX, since="3.7"),
        field("sample_stack_user", since="3.7"),
        field("clockid", since="4.1"),
        field("sample_regs_intr", HEX, since="3.19"),
        field("aux_watermark", since="4.1"),
        field("sample_max_stack", since="4.8"),
        field("__reserved_2", since="4.8"),
        field("aux_sample_size", since="5.5"),
        # Bit-fields aux_start_paused, aux_pause, aux_resume.
        field("aux_action", HEX, since="6.13"),
        field("sig_data", HEX, since="5.13"),
        field("config3", HEX, since="6.3"),
        field("config4", HEX, since="6.19"),
        whole=not variant,
    )


PERF_EVENT_ATTR = _attr(
    "",
    field("config1", HEX, since="2.6.39", also={"bp_addr": "2.6.33", "kprobe_func": "4.17", "uprobe_path": "4.17"}),
    field("config2", HEX, since="2.6.39", also={"bp_len": "2.6.33", "kprobe_addr": "4.17", "probe_offset": "4.17"}),
)

# The kprobe PMU: the function's name and an offset into it, or no name and an address.
PERF_EVENT_ATTR_KPROBE = _attr(
    "kprobe",
    ptr("kprobe_func", "in", "cstr", since="4.17", also={"config1": "2.6.39"}),
    field("probe_offset", HEX, since="4.17", also={"kprobe_addr": "4.17", "config2": "2.6.39"}),
)

# What a perf event's mapping begins with. The kernel writes it all, but for data_tail and aux_tail.
PERF_EVENT_MMAP_PAGE = define_struct(
    "perf_event_mmap_page",
    "",
    field("version", since="2.6.31"),
    field("compat_version", since="2.6.31"),
    field("lock", since="2.6.31"),
    field("index", since="2.6.31"),
    field("offset", since="2.6.31"),
    field("time_enabled", since="2.6.31"),
    field("time_running", since="2.6.31"),
    field("capabilities", flags(PerfMmapCap), since="3.4"),
    field("pmc_width", since="3.4"),
    field("time_shift", since="3.4"),
    field("time_mult", since="3.4"),
    field("time_offset", since="3.4"),
    field("time_zero", since="3.12"),
    field("size", since="3.12"),
    field("__reserved_1", since="5.9"),
    field("time_cycles", since="5.9"),
    field("time_mask", since="5.9"),
    field("__reserved", since="2.6.31"),
    field("data_head", since="2.6.31"),
    field("data_tail", since="2.6.31"),
    field("data_offset", since="4.1"),
    field("data_size", since="4.1"),
    field("aux_head", since="4.1"),
    field("aux_tail", since="4.1"),
    field("aux_offset", since="4.1"),
    field("aux_size", since="4.1"),
)

DEFINITIONS = (PERF_EVENT_ATTR, PERF_EVENT_ATTR_KPROBE, PERF_EVENT_MMAP_PAGE)
