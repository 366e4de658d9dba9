"""Maps: MAP_CREATE, the element commands, and the batch commands."""

from __future__ import annotations

from rawkm.uapi.constants import MapFlag, MapType, MapUpdate
from rawkm.uapi.fields import FD, HEX, Definition, Direction, Note, count_of, define, enum, field, flags, ptr, size_of

MAP_CREATE = define(
    "MAP_CREATE",
    "",
    field("map_type", enum(MapType), since="3.18"),
    field("key_size", since="3.18"),
    field("value_size", since="3.18"),
    field("max_entries", since="3.18"),
    field("map_flags", flags(MapFlag), since="4.6"),
    field("inner_map_fd", FD, since="4.12"),
    field("numa_node", since="4.14"),
    field("map_name", since="4.15"),
    field("map_ifindex", since="4.16"),
    field("btf_fd", FD, since="4.18"),
    field("btf_key_type_id", since="4.18"),
    field("btf_value_type_id", since="4.18"),
    field("btf_vmlinux_value_type_id", since="5.6"),
    field("map_extra", HEX, since="5.16"),
    field("value_type_btf_obj_fd", FD, since="6.9"),
    field("map_token_fd", FD, since="6.9"),
    ptr("excl_prog_hash", "in", since="6.18", of="excl_prog_hash_size"),
    field("excl_prog_hash_size", size_of("excl_prog_hash"), since="6.18"),
)


def _elem(command: str, value: Note, *, since: str, last: str = "") -> Definition:
    """All element commands share one struct; they differ in who writes behind the third field."""
    return define(
        command,
        "",
        field("map_fd", FD, since=since),
        ptr("key", "in", since=since),
        value,
        field("flags", flags(MapUpdate), since=since),
        last=last,
    )


def _value(direction: Direction, since: str) -> Note:
    return ptr("value", direction, since=since, also={"next_key": since})


MAP_LOOKUP_ELEM = _elem("MAP_LOOKUP_ELEM", _value("out", "3.18"), since="3.18")
MAP_UPDATE_ELEM = _elem("MAP_UPDATE_ELEM", _value("in", "3.18"), since="3.18")
MAP_DELETE_ELEM = _elem("MAP_DELETE_ELEM", _value("in", "3.18"), since="3.18", last="key")
MAP_GET_NEXT_KEY = _elem(
    "MAP_GET_NEXT_KEY",
    ptr("next_key", "out", since="3.18", also={"value": "3.18"}),
    since="3.18",
    last="next_key",
)
MAP_LOOKUP_AND_DELETE_ELEM = _elem("MAP_LOOKUP_AND_DELETE_ELEM", _value("out", "4.20"), since="4.20")
MAP_FREEZE = _elem("MAP_FREEZE", _value("in", "5.2"), since="5.2", last="map_fd")


def _batch(command: str, keys: Direction, values: Direction) -> Definition:
    return define(
        command,
        "",
        ptr("batch.in_batch", "in", since="5.6"),
        ptr("batch.out_batch", "out", since="5.6"),
        ptr("batch.keys", keys, since="5.6", of="batch.count"),
        ptr("batch.values", values, since="5.6", of="batch.count"),
        field("batch.count", count_of("batch.keys"), since="5.6"),
        field("batch.map_fd", FD, since="5.6"),
        field("batch.elem_flags", flags(MapUpdate), since="5.6"),
        field("batch.flags", HEX, since="5.6"),
    )


MAP_LOOKUP_BATCH = _batch("MAP_LOOKUP_BATCH", "out", "out")
MAP_LOOKUP_AND_DELETE_BATCH = _batch("MAP_LOOKUP_AND_DELETE_BATCH", "out", "out")
MAP_UPDATE_BATCH = _batch("MAP_UPDATE_BATCH", "in", "in")
MAP_DELETE_BATCH = _batch("MAP_DELETE_BATCH", "in", "in")

DEFINITIONS = (
    MAP_CREATE,
    MAP_LOOKUP_ELEM,
    MAP_UPDATE_ELEM,
    MAP_DELETE_ELEM,
    MAP_GET_NEXT_KEY,
    MAP_LOOKUP_AND_DELETE_ELEM,
    MAP_FREEZE,
    MAP_LOOKUP_BATCH,
    MAP_LOOKUP_AND_DELETE_BATCH,
    MAP_UPDATE_BATCH,
    MAP_DELETE_BATCH,
)
