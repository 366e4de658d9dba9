"""Objects of any kind: pinning, ids, info, statistics."""

from __future__ import annotations

from rawkm.uapi.constants import MapFlag, StatsType
from rawkm.uapi.fields import FD, Definition, define, enum, flags, ptr, s32, size_of, u32


def _path(command: str) -> Definition:
    return define(
        command,
        "",
        ptr("pathname", "in", "cstr", since="4.4"),
        u32("bpf_fd", FD, since="4.4"),
        # The access flags of maps, and PATH_FD.
        u32("file_flags", flags(MapFlag), since="4.15"),
        s32("path_fd", FD, since="6.5"),
    )


OBJ_PIN = _path("OBJ_PIN")
OBJ_GET = _path("OBJ_GET")

_ID_NAMES = {"start_id": "4.13", "prog_id": "4.13", "map_id": "4.13", "btf_id": "4.18", "link_id": "5.8"}


def _id(command: str, first: str, since: str, last: str) -> Definition:
    """All id commands share one struct whose first field has five names; each command has its own."""
    also = {name: release for name, release in _ID_NAMES.items() if name != first}
    return define(
        command,
        "",
        u32(first, since=max(since, _ID_NAMES[first], key=_release), also=also),
        u32("next_id", since=since),
        u32("open_flags", flags(MapFlag), since=max(since, "4.15", key=_release)),
        s32("fd_by_id_token_fd", FD, since="6.15"),
        last=last,
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


PROG_GET_NEXT_ID = _id("PROG_GET_NEXT_ID", "start_id", "4.13", "next_id")
MAP_GET_NEXT_ID = _id("MAP_GET_NEXT_ID", "start_id", "4.13", "next_id")
BTF_GET_NEXT_ID = _id("BTF_GET_NEXT_ID", "start_id", "5.4", "next_id")
LINK_GET_NEXT_ID = _id("LINK_GET_NEXT_ID", "start_id", "5.8", "next_id")
PROG_GET_FD_BY_ID = _id("PROG_GET_FD_BY_ID", "prog_id", "4.13", "prog_id")
MAP_GET_FD_BY_ID = _id("MAP_GET_FD_BY_ID", "map_id", "4.13", "open_flags")
BTF_GET_FD_BY_ID = _id("BTF_GET_FD_BY_ID", "btf_id", "4.18", "fd_by_id_token_fd")
LINK_GET_FD_BY_ID = _id("LINK_GET_FD_BY_ID", "link_id", "5.8", "link_id")

OBJ_GET_INFO_BY_FD = define(
    "OBJ_GET_INFO_BY_FD",
    "",
    u32("info.bpf_fd", FD, since="4.13"),
    u32("info.info_len", size_of("info.info"), since="4.13"),
    # Read before it is written: the struct carries pointers and capacities to fill.
    ptr("info.info", "inout", since="4.13", of="info.info_len"),
)

ENABLE_STATS = define("ENABLE_STATS", "", u32("enable_stats.type", enum(StatsType), since="5.8"))

DEFINITIONS = (
    OBJ_PIN,
    OBJ_GET,
    PROG_GET_NEXT_ID,
    MAP_GET_NEXT_ID,
    BTF_GET_NEXT_ID,
    LINK_GET_NEXT_ID,
    PROG_GET_FD_BY_ID,
    MAP_GET_FD_BY_ID,
    BTF_GET_FD_BY_ID,
    LINK_GET_FD_BY_ID,
    OBJ_GET_INFO_BY_FD,
    ENABLE_STATS,
)
