"""Programs attached without a link: PROG_ATTACH, PROG_DETACH, PROG_QUERY."""

from __future__ import annotations

from rawkm.uapi.constants import AttachFlag, AttachType, QueryFlag
from rawkm.uapi.fields import FD, Definition, count_of, define, enum, field, flags, ptr


def _attach(command: str) -> Definition:
    return define(
        command,
        "",
        field("target_fd", FD, since="4.10", also={"target_ifindex": "6.6"}),
        field("attach_bpf_fd", FD, since="4.10"),
        field("attach_type", enum(AttachType), since="4.10"),
        field("attach_flags", flags(AttachFlag), since="4.10"),
        field("replace_bpf_fd", FD, since="5.6"),
        field("relative_fd", FD, since="6.6", also={"relative_id": "6.6"}),
        field("expected_revision", since="6.6"),
    )


PROG_ATTACH = _attach("PROG_ATTACH")
PROG_DETACH = _attach("PROG_DETACH")

PROG_QUERY = define(
    "PROG_QUERY",
    "",
    field("query.target_fd", FD, since="4.15", also={"query.target_ifindex": "6.6"}),
    field("query.attach_type", enum(AttachType), since="4.15"),
    field("query.query_flags", flags(QueryFlag), since="4.15"),
    field("query.attach_flags", flags(AttachFlag), since="4.15"),
    ptr("query.prog_ids", "out", "u32s", since="4.15", of="query.prog_cnt"),
    field("query.prog_cnt", count_of("query.prog_ids"), since="4.15", also={"query.count": "6.6"}),
    ptr("query.prog_attach_flags", "out", "u32s", since="6.0", of="query.prog_cnt"),
    ptr("query.link_ids", "out", "u32s", since="6.6", of="query.prog_cnt"),
    ptr("query.link_attach_flags", "out", "u32s", since="6.6", of="query.prog_cnt"),
    field("query.revision", since="6.6"),
)

DEFINITIONS = (PROG_ATTACH, PROG_DETACH, PROG_QUERY)
