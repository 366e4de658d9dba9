"""The registry of all definitions: the union, by command and variant."""

from __future__ import annotations

import struct

from rawkm.errors import UsageError
from rawkm.uapi import elem, info, link, objects, perf, prog
from rawkm.uapi.constants import Cmd, LinkType, PerfEventLinkType
from rawkm.uapi.fields import Definition

DEFINITIONS: tuple[Definition, ...] = (
    *elem.DEFINITIONS,
    *prog.DEFINITIONS,
    *objects.DEFINITIONS,
    *link.DEFINITIONS,
    *info.DEFINITIONS,
    *perf.DEFINITIONS,
)

_BY_NAME = {definition.name: definition for definition in DEFINITIONS}
_BY_CMD = {d.cmd: d for d in DEFINITIONS if d.cmd >= 0 and not d.variant}

_LINK_INFO = {
    LinkType.RAW_TRACEPOINT: info.LINK_INFO_RAW_TRACEPOINT,
    LinkType.TRACING: info.LINK_INFO_TRACING,
    LinkType.KPROBE_MULTI: info.LINK_INFO_KPROBE_MULTI,
}


def for_attr(cmd: int, data: bytes | bytearray | memoryview) -> Definition:
    """The definition that the kernel reads `data` by.

    The command decides, for LINK_CREATE its attach_type too. The modifier Cmd.COMMON_ATTRS is ignored. Raises
    UsageError for a command without a definition.
    """
    cmd &= ~Cmd.COMMON_ATTRS
    if cmd not in _BY_CMD:
        raise UsageError(f"no layout of bpf command {cmd}")
    if cmd == Cmd.LINK_CREATE:
        return link.BY_ATTACH_TYPE.get(_u32(data, 8), link.LINK_CREATE)
    return _BY_CMD[cmd]


def for_link_info(data: bytes | bytearray | memoryview) -> Definition:
    """The definition of a struct bpf_link_info, by its type."""
    if _u32(data, 0) == LinkType.PERF_EVENT:
        if _u32(data, 16) in (PerfEventLinkType.KPROBE, PerfEventLinkType.KRETPROBE):
            return info.LINK_INFO_PERF_EVENT_KPROBE
        return info.LINK_INFO
    return _LINK_INFO.get(_u32(data, 0), info.LINK_INFO)


def named(name: str) -> Definition:
    """The definition with this unique name ("link_create.kprobe_multi", "prog_info"), or UsageError."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(f"no layout is named {name!r}") from None


def _u32(data: bytes | bytearray | memoryview, offset: int) -> int:
    """A field of possibly short data, whose missing bytes are zero for the kernel."""
    value: int = struct.unpack("=I", bytes(data[offset : offset + 4]).ljust(4, b"\0"))[0]
    return value
