"""The registry of all definitions: the union, by command and variant."""

from __future__ import annotations

import struct

from rawkm.errors import UsageError
from rawkm.uapi import attach, elem, info, link, objects, perf, prog
from rawkm.uapi.constants import Cmd
from rawkm.uapi.fields import Definition

DEFINITIONS: tuple[Definition, ...] = (
    *elem.DEFINITIONS,
    *prog.DEFINITIONS,
    *objects.DEFINITIONS,
    *attach.DEFINITIONS,
    *link.DEFINITIONS,
    *info.DEFINITIONS,
    *perf.DEFINITIONS,
)

_BY_NAME = {definition.name: definition for definition in DEFINITIONS}
#: The definition of each command; of LINK_CREATE without a variant.
BY_CMD = {d.cmd: d for d in DEFINITIONS if d.cmd >= 0 and not d.variant}

#: The structs that are no attrs, without their variants.
STRUCTS = tuple(d.name for d in DEFINITIONS if d.cmd < 0 and not d.variant)

#: What the hot path packs and reads: tools/gen_packed writes these, and no others, into packed.py.
PACKED = (
    *("map_create", "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_get_next_key"),
    *("map_lookup_and_delete_elem", "map_freeze"),
    *("map_lookup_batch", "map_lookup_and_delete_batch", "map_update_batch", "map_delete_batch"),
    *("prog_load", "prog_test_run", "raw_tracepoint_open", "btf_load"),
    *("obj_pin", "obj_get", "prog_get_next_id", "map_get_next_id", "btf_get_next_id", "link_get_next_id"),
    *("prog_get_fd_by_id", "map_get_fd_by_id", "btf_get_fd_by_id", "link_get_fd_by_id"),
    *("obj_get_info_by_fd", "enable_stats"),
    *("link_create", "link_create.perf_event", "link_create.kprobe_multi", "link_create.tracing"),
    "link_create.tracing_multi",
    *("prog_info", "map_info", "btf_info", "link_info", "link_info.kprobe_multi", "link_info.perf_event.kprobe"),
    *("link_info.tracing", "link_info.raw_tracepoint", "link_info.perf_event.tracepoint"),
    *("perf_event_attr", "perf_event_attr.kprobe"),
)


def for_attr(cmd: int, data: bytes | bytearray | memoryview) -> Definition:
    """The definition that the kernel reads `data` by.

    The command decides, for LINK_CREATE its attach_type too. The modifier Cmd.COMMON_ATTRS is ignored. Raises
    UsageError for a command without a definition.
    """
    found = BY_CMD.get(cmd & ~Cmd.COMMON_ATTRS)
    if found is None:
        raise UsageError(f"no layout of bpf command {cmd}")
    if found is link.LINK_CREATE:
        return link.BY_ATTACH_TYPE.get(_u32(data, 8), found)
    return found


def for_link_info(data: bytes | bytearray | memoryview) -> Definition:
    """The definition of a struct bpf_link_info, by its type."""
    return info.for_link(_u32(data, 0), _u32(data, 16))


def for_struct(name: str, data: bytes | bytearray | memoryview) -> Definition:
    """The definition of a struct that is no attr, by its C name without `bpf_`; of link_info the one for `data`.

    Raises UsageError for any other name.
    """
    definition = for_link_info(data) if name == "link_info" else named(name)
    if definition.cmd >= 0:
        raise UsageError(f"{name} is no struct of its own, but part of union bpf_attr")
    return definition


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
