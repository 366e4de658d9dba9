"""Objects of any kind: pinning, ids, info, statistics."""

from __future__ import annotations

from rawkm.uapi.constants import MapFlag, StatsType, TaskFdType
from rawkm.uapi.fields import FD, HEX, Definition, define, enum, field, flags, ptr, size_of


def _path(command: str) -> Definition:
    return define(
        command,
        "",
        ptr("pathname", "in", "cstr", since="4.4"),
        field("bpf_fd", FD, since="4.4"),
        # The access flags of maps, and PATH_FD.
        field("file_flags", flags(MapFlag), since="4.15"),
        field("path_fd", FD, since="6.5"),
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
        field(first, since=max(since, _ID_NAMES[first], key=_release), also=also),
        field("next_id", since=since),
        field("open_flags", flags(MapFlag), since=max(since, "4.15", key=_release)),
        field("fd_by_id_token_fd", FD, since="6.15"),
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
    field("info.bpf_fd", FD, since="4.13"),
    field("info.info_len", size_of("info.info"), since="4.13"),
    # Read before it is written: the struct carries pointers and capacities to fill.
    ptr("info.info", "inout", since="4.13", of="info.info_len"),
)

ENABLE_STATS = define("ENABLE_STATS", "", field("enable_stats.type", enum(StatsType), since="5.8"))

TASK_FD_QUERY = define(
    "TASK_FD_QUERY",
    "",
    field("task_fd_query.pid", since="4.18"),
    field("task_fd_query.fd", FD, since="4.18"),
    field("task_fd_query.flags", HEX, since="4.18"),
    field("task_fd_query.buf_len", size_of("task_fd_query.buf"), since="4.18"),
    ptr("task_fd_query.buf", "out", "cstr", since="4.18", of="task_fd_query.buf_len"),
    field("task_fd_query.prog_id", since="4.18"),
    field("task_fd_query.fd_type", enum(TaskFdType), since="4.18"),
    field("task_fd_query.probe_offset", HEX, since="4.18"),
    field("task_fd_query.probe_addr", HEX, since="4.18"),
)

TOKEN_CREATE = define(
    "TOKEN_CREATE",
    "",
    field("token_create.flags", HEX, since="6.9"),
    field("token_create.bpffs_fd", FD, since="6.9"),
)

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
    TASK_FD_QUERY,
    TOKEN_CREATE,
)
