"""Attrs as text.

The one-line forms are what strace 6.1 -v printed for the same bytes, but for path_fd, which it did not know.
"""

from __future__ import annotations

import struct

import pytest

from rawkm.uapi import annotate, packed
from rawkm.uapi.annotate import Nested, Row
from rawkm.uapi.constants import Cmd

KPROBE_MULTI = struct.pack("=IIIIIIQQQ", 4, 0, 42, 0, 0, 3, 0x7F0000001000, 0, 0x7F0000002000)
POINTEES = {
    "link_create.kprobe_multi.syms": ["a", "b", "c"],
    "link_create.kprobe_multi.cookies": [0, 1, 2],
}


@pytest.mark.parametrize(
    ("cmd", "data", "pointees", "text"),
    [
        (
            Cmd.MAP_CREATE,
            struct.pack("=IIIIIII16sIIII", 2, 4, 8, 3, 0, 0, 0, b"my_map", 0, 0, 0, 0),
            {},
            "map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=3, map_flags=0, "
            "inner_map_fd=0, "
            "numa_node=0, "
            'map_name="my_map", map_ifindex=0, btf_fd=0, btf_key_type_id=0, btf_value_type_id=0',
        ),
        (
            Cmd.MAP_CREATE,
            struct.pack("=IIIIII", 99, 0, 0, 4096, 0x80000005, 0),
            {},
            "map_type=0x63 /* BPF_MAP_TYPE_??? */, key_size=0, value_size=0, max_entries=4096, "
            "map_flags=BPF_F_NO_PREALLOC|BPF_F_NUMA_NODE|0x80000000, inner_map_fd=0",
        ),
        (
            Cmd.MAP_LOOKUP_ELEM,
            struct.pack("=I4xQQQ", 3, 0x7F23A26C9720, 0x7F23A26C98D0, 0),
            {},
            "map_fd=3, key=0x7f23a26c9720, value=0x7f23a26c98d0, flags=BPF_ANY",
        ),
        # These two share the struct of MAP_LOOKUP_ELEM but read only its beginning.
        (
            Cmd.MAP_GET_NEXT_KEY,
            struct.pack("=I4xQQQ", 3, 0x7F23A26C9720, 0x7F23A26C98D0, 0),
            {},
            "map_fd=3, key=0x7f23a26c9720, next_key=0x7f23a26c98d0",
        ),
        (
            Cmd.MAP_DELETE_ELEM,
            struct.pack("=I4xQQQ", 3, 0x7F23A26C9720, 0, 0),
            {},
            "map_fd=3, key=0x7f23a26c9720",
        ),
        (
            Cmd.LINK_CREATE,
            KPROBE_MULTI,
            POINTEES,
            "link_create={prog_fd=4, target_fd=0, attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, "
            'kprobe_multi={flags=0, cnt=3, syms=["a", "b", "c"], addrs=NULL, cookies=[0, 0x1, 0x2]}}',
        ),
        (
            Cmd.LINK_CREATE,
            KPROBE_MULTI + bytes(3) + b"\1" + bytes(12),
            POINTEES,
            "link_create={prog_fd=4, target_fd=0, attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, "
            'kprobe_multi={flags=0, cnt=3, syms=["a", "b", "c"], addrs=NULL, cookies=[0, 0x1, 0x2]}}, '
            r'extra_data="\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"'
            " /* bytes 48..63 */",
        ),
        (
            Cmd.LINK_CREATE,
            struct.pack("=IIIIQ", 5, 5, 41, 0, 77),
            {},
            "link_create={prog_fd=5, target_fd=5, attach_type=BPF_PERF_EVENT, flags=0, perf_event={bpf_cookie=0x4d}}",
        ),
        (
            Cmd.LINK_CREATE,
            struct.pack("=IIII", 0xFFFFFFFF, 5, 99, 1),
            {},
            "link_create={prog_fd=-1, target_fd=5, attach_type=0x63 /* BPF_??? */, flags=0x1}",
        ),
        (
            Cmd.PROG_LOAD,
            struct.pack("=IIQQIIQII16sII", 2, 2, 0x7F0000, 0x7F1000, 1, 4096, 0x7F2000, 0, 16, b"prog", 0, 42),
            {"license": b"GPL\0", "log_buf": bytearray(8)},
            'prog_type=BPF_PROG_TYPE_KPROBE, insn_cnt=2, insns=0x7f0000, license="GPL", log_level=1, '
            "log_size=4096, "
            'log_buf="", kern_version=KERNEL_VERSION(0, 0, 0), prog_flags=BPF_F_SLEEPABLE, prog_name="prog", '
            "prog_ifindex=0, expected_attach_type=BPF_TRACE_KPROBE_MULTI",
        ),
        (
            Cmd.RAW_TRACEPOINT_OPEN,
            struct.pack("=QI", 0x7F0000, 5),
            {"raw_tracepoint.name": "sched_process_fork"},
            'raw_tracepoint={name="sched_process_fork", prog_fd=5}',
        ),
        (
            Cmd.MAP_LOOKUP_BATCH,
            struct.pack("=QQQQIIQQ", 0, 0x7F23A26CA020, 0x7F23A24AB270, 0x7F23A24AB2B0, 2, 3, 0, 0),
            {},
            "batch={in_batch=NULL, out_batch=0x7f23a26ca020, keys=0x7f23a24ab270, values=0x7f23a24ab2b0, "
            "count=2, "
            "map_fd=3, elem_flags=BPF_ANY, flags=0}",
        ),
        (
            Cmd.OBJ_GET,
            struct.pack("=QIIi", 0x7F0000, 0, 8, -100),
            {"pathname": "/sys/fs/bpf/x"},
            'pathname="/sys/fs/bpf/x", bpf_fd=0, file_flags=BPF_F_RDONLY, path_fd=-100',
        ),
        (Cmd.PROG_GET_FD_BY_ID, struct.pack("=IIIi", 1, 0, 0, 0), {}, "prog_id=1"),
        (
            Cmd.MAP_GET_FD_BY_ID,
            struct.pack("=III", 1, 0, 8),
            {},
            "map_id=1, next_id=0, open_flags=BPF_F_RDONLY",
        ),
    ],
)
def test_inline_is_what_strace_prints(cmd: int, data: bytes, pointees: dict[str, object], text: str) -> None:
    assert annotate.inline(cmd, data, pointees) == f"{{{text}}}"


def test_inline_without_pointees_shows_addresses() -> None:
    text = annotate.inline(Cmd.LINK_CREATE, KPROBE_MULTI)
    assert "syms=0x7f0000001000, addrs=NULL, cookies=0x7f0000002000" in text


def test_inline_shows_bytes_that_no_field_covers() -> None:
    text = annotate.inline(Cmd.MAP_DELETE_ELEM, struct.pack("=IIQQQ", 3, 7, 0x10, 0, 0x100))
    hole = annotate.quote_hex(struct.pack("=I", 7))
    assert text == (f"{{map_fd=3, extra_data={hole} /* bytes 4..7 */, key=0x10, flags=0x100 /* BPF_??? */}}")


def test_inline_abbreviates() -> None:
    many = {"link_create.kprobe_multi.syms": [f"f{i}" for i in range(386)]}
    assert '"f7", ... /* 386 in all */]' in annotate.inline(Cmd.LINK_CREATE, KPROBE_MULTI, many)
    text = annotate.inline(Cmd.MAP_UPDATE_ELEM, struct.pack("=I4xQQ", 3, 1, 1), {"value": bytes(100)})
    assert text.endswith('\\x00"... /* 100 bytes */}')


def test_inline_of_an_unknown_command_and_of_nothing() -> None:
    assert annotate.inline(4711, b"ab") == r'"\x61\x62"'
    assert annotate.inline(Cmd.PROG_LOAD, b"") == "{}"


def test_inline_nested_info_and_instructions() -> None:
    info = packed.LINK_INFO_KPROBE_MULTI.pack({"type": 8, "id": 3, "prog_id": 4, "kprobe_multi.count": 2})
    addrs = struct.pack("=2Q", 0xFFFFFFFF81000000, 0)
    nested = Nested("link_info.kprobe_multi", info, {"kprobe_multi.addrs": addrs})
    attr = packed.OBJ_GET_INFO_BY_FD.pack({"info.bpf_fd": 5, "info.info_len": 64, "info.info": 0x7F0000})
    assert annotate.inline(Cmd.OBJ_GET_INFO_BY_FD, attr, {"info.info": nested}) == (
        "{info={bpf_fd=5, info_len=64, info={type=BPF_LINK_TYPE_KPROBE_MULTI, id=3, prog_id=4, kprobe_multi="
        "{addrs=[0xffffffff81000000, 0], count=2, flags=0, missed=0, cookies=NULL}}}}"
    )
    attr = packed.PROG_LOAD.pack({"insns": 1})[:16]
    insns = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 7, 0x95, 0, 0, 0)
    text = annotate.inline(Cmd.PROG_LOAD, attr, {"insns": insns})
    assert "insns=[{code=0xb7, dst_reg=0, src_reg=0, off=0, imm=0x7}, {code=0x95, " in text


def test_rows_of_a_whole_attr() -> None:
    rows = annotate.annotate(Cmd.MAP_LOOKUP_ELEM, struct.pack("=IIQQQ", 3, 7, 0x10, 0x20, 5) + b"\0\1")
    hole, tail = struct.pack("=I", 7), b"\0\1"
    assert [(r.offset, r.size, r.path, r.kind) for r in rows] == [
        (0, 4, "map_fd", "fd"),
        (4, 4, "(hole at 4)", "hole"),
        (8, 8, "key", "pointer"),
        (16, 8, "value", "pointer"),
        (24, 8, "flags", "flags"),
        (32, 2, "(tail)", "tail"),
    ]
    assert [r.value for r in rows] == [3, hole, 0x10, 0x20, 5, tail]
    assert rows[4].text == "BPF_NOEXIST|BPF_F_LOCK"
    assert rows[5].text == r'"\x00\x01"'


def test_a_field_that_is_cut_off() -> None:
    rows = annotate.annotate(Cmd.MAP_CREATE, struct.pack("=IIIIIII", 2, 0, 0, 0, 0, 0, 0) + b"my")
    assert rows[-1] == Row(28, 2, "map_name", b"my", b"my" + bytes(14), "name", '"my" (cut off: 2 of 16 bytes)')
    (row,) = annotate.annotate(Cmd.MAP_CREATE, b"\0\0\0")
    assert (row.size, row.value, row.text) == (3, 0, "BPF_MAP_TYPE_UNSPEC (cut off: 3 of 4 bytes)")


def test_hostile_names_are_escaped() -> None:
    attr = packed.MAP_CREATE.pack({"map_name": b'a"\\\n\x1b[2J\x80\x001\xff'})
    (row,) = [row for row in annotate.annotate(Cmd.MAP_CREATE, attr) if row.path == "map_name"]
    assert row.text == r'"a\"\\\n\33[2J\200\0001\377\0\0\0\0"'
    assert row.text.isascii() and row.text.isprintable()


def test_table_lines() -> None:
    lines = list(annotate.table(annotate.annotate(Cmd.MAP_FREEZE, struct.pack("=I", 3) + bytes(12))))
    assert lines[0].split() == ["0", *struct.pack("=I", 3).hex(" ").split(), "map_fd", "=", "3"]
    assert lines[1].split()[:5] == ["4", "00", "00", "00", "00"]
    assert len(lines) == 3


def test_info_struct_and_perf_attr() -> None:
    info = packed.PROG_INFO.pack({"type": 2, "tag": bytes(range(8)), "name": b"count", "gpl_compatible": 1})
    texts = {row.path: row.text for row in annotate.annotate_struct(packed.PROG_INFO, info)}
    assert texts["type"] == "BPF_PROG_TYPE_KPROBE"
    assert texts["tag"] == r'"\x00\x01\x02\x03\x04\x05\x06\x07"'
    assert texts["name"] == '"count"'
    attr = packed.PERF_EVENT_ATTR.pack({"type": 1, "config": 10, "sample_type": 0x400})
    texts = {row.path: row.text for row in annotate.annotate_struct("perf_event_attr", attr)}
    assert texts["sample_type"] == "PERF_SAMPLE_RAW"
    assert texts["config"] == "0xa"
