"""LINK_CREATE: the common head, and what follows it, by attach type."""

from __future__ import annotations

from typing import Any

from rawkm.uapi.constants import AttachType, KprobeMultiFlag
from rawkm.uapi.fields import FD, HEX, Definition, count_of, define, enum, flags, hole, ptr, u32, u64


def _link(variant: str, *members: Any) -> Definition:
    return define(
        "LINK_CREATE",
        variant,
        u32("link_create.prog_fd", FD, since="5.7", also={"link_create.map_fd": "6.4"}),
        u32("link_create.target_fd", FD, since="5.7", also={"link_create.target_ifindex": "5.9"}),
        u32("link_create.attach_type", enum(AttachType), since="5.7"),
        u32("link_create.flags", HEX, since="5.7"),
        *members,
    )


LINK_CREATE = _link("", u32("link_create.target_btf_id", since="5.10"))

LINK_CREATE_PERF_EVENT = _link("perf_event", u64("link_create.perf_event.bpf_cookie", HEX, since="5.15"))

_MULTI = "link_create.kprobe_multi"
LINK_CREATE_KPROBE_MULTI = _link(
    "kprobe_multi",
    u32(f"{_MULTI}.flags", flags(KprobeMultiFlag), since="5.18"),
    u32(f"{_MULTI}.cnt", count_of(f"{_MULTI}.addrs"), since="5.18"),
    ptr(f"{_MULTI}.syms", "in", "cstrs", since="5.18", of=f"{_MULTI}.cnt"),
    ptr(f"{_MULTI}.addrs", "in", "u64s", since="5.18", of=f"{_MULTI}.cnt"),
    ptr(f"{_MULTI}.cookies", "in", "u64s", since="5.18", of=f"{_MULTI}.cnt"),
)

LINK_CREATE_TRACING = _link(
    "tracing",
    u32("link_create.tracing.target_btf_id", since="5.19", also={"link_create.target_btf_id": "5.10"}),
    hole(4),
    u64("link_create.tracing.cookie", HEX, since="5.19"),
)

#: attach_type → the variant that the kernel reads. Everything else takes the common head.
BY_ATTACH_TYPE = {
    AttachType.PERF_EVENT: LINK_CREATE_PERF_EVENT,
    AttachType.TRACE_KPROBE_MULTI: LINK_CREATE_KPROBE_MULTI,
    AttachType.TRACE_KPROBE_SESSION: LINK_CREATE_KPROBE_MULTI,
    AttachType.TRACE_RAW_TP: LINK_CREATE_TRACING,
    AttachType.TRACE_FENTRY: LINK_CREATE_TRACING,
    AttachType.TRACE_FEXIT: LINK_CREATE_TRACING,
    AttachType.TRACE_FSESSION: LINK_CREATE_TRACING,
    AttachType.MODIFY_RETURN: LINK_CREATE_TRACING,
    AttachType.LSM_MAC: LINK_CREATE_TRACING,
}

DEFINITIONS = (LINK_CREATE, LINK_CREATE_PERF_EVENT, LINK_CREATE_KPROBE_MULTI, LINK_CREATE_TRACING)
