"""struct perf_event_attr, the argument of perf_event_open(2)."""

from __future__ import annotations

from typing import Any

from rawkm.uapi.constants import PerfAttrFlag, PerfBranchSample, PerfFormat, PerfSample, PerfType
from rawkm.uapi.fields import HEX, Definition, define_struct, enum, flags, ptr, s32, u16, u32, u64


def _attr(variant: str, config1: Any, config2: Any) -> Definition:
    return define_struct(
        "perf_event_attr",
        variant,
        u32("type", enum(PerfType), since="2.6.31"),
        u32("size", since="2.6.31"),
        u64("config", HEX, since="2.6.31"),
        u64("sample_period", since="2.6.31", also={"sample_freq": "2.6.31"}),
        u64("sample_type", flags(PerfSample), since="2.6.31"),
        u64("read_format", flags(PerfFormat), since="2.6.31"),
        # The bit-fields `disabled` … `defer_output` have no name as a word; this one is ours.
        u64("flags", flags(PerfAttrFlag), since="2.6.31"),
        u32("wakeup_events", since="2.6.31", also={"wakeup_watermark": "2.6.32"}),
        u32("bp_type", HEX, since="2.6.33"),
        config1,
        config2,
        u64("branch_sample_type", flags(PerfBranchSample), since="3.4"),
        u64("sample_regs_user", HEX, since="3.7"),
        u32("sample_stack_user", since="3.7"),
        s32("clockid", since="4.1"),
        u64("sample_regs_intr", HEX, since="3.19"),
        u32("aux_watermark", since="4.1"),
        u16("sample_max_stack", since="4.8"),
        u16("__reserved_2", since="4.8"),
        u32("aux_sample_size", since="5.5"),
        # Bit-fields aux_start_paused, aux_pause, aux_resume; a reserved word before.
        u32("aux_action", HEX, since="6.13"),
        u64("sig_data", HEX, since="5.13"),
        u64("config3", HEX, since="6.3"),
        u64("config4", HEX, since="6.19"),
    )


PERF_EVENT_ATTR = _attr(
    "",
    u64("config1", HEX, since="2.6.39", also={"bp_addr": "2.6.33", "kprobe_func": "4.17", "uprobe_path": "4.17"}),
    u64("config2", HEX, since="2.6.39", also={"bp_len": "2.6.33", "kprobe_addr": "4.17", "probe_offset": "4.17"}),
)

# The kprobe PMU: the function's name and an offset into it, or no name and an address.
PERF_EVENT_ATTR_KPROBE = _attr(
    "kprobe",
    ptr("kprobe_func", "in", "cstr", since="4.17", also={"config1": "2.6.39"}),
    u64("probe_offset", HEX, since="4.17", also={"kprobe_addr": "4.17", "config2": "2.6.39"}),
)

DEFINITIONS = (PERF_EVENT_ATTR, PERF_EVENT_ATTR_KPROBE)
