"""decode() and encode(): any command's bytes to fields and back."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm import uapi
from rawkm.errors import UsageError
from rawkm.uapi import codec, layouts, names, tables
from rawkm.uapi.constants import AttachType, Cmd

ROOT = Path(__file__).resolve().parents[2]
KPROBE_MULTI = struct.pack("=IIIIIIQQQ", 4, 7, AttachType.TRACE_KPROBE_MULTI, 0, 1, 3, 0, 0x7F0000001000, 0x7F0000002000)
COMMANDS = sorted(set(names.members(Cmd).values()) - {Cmd.COMMON_ATTRS})


def test_kprobe_multi() -> None:
    decoded = uapi.decode(28, KPROBE_MULTI)
    assert (decoded.command, decoded.variant) == ("LINK_CREATE", "kprobe_multi")
    assert decoded.uncovered == {}
    assert decoded.values == {
        "link_create.prog_fd": 4,
        "link_create.map_fd": 4,
        "link_create.target_fd": 7,
        "link_create.target_ifindex": 7,
        "link_create.attach_type": 42,
        "link_create.flags": 0,
        "link_create.kprobe_multi.flags": 1,
        "link_create.kprobe_multi.cnt": 3,
        "link_create.kprobe_multi.syms": 0,
        "link_create.kprobe_multi.addrs": 0x7F0000001000,
        "link_create.kprobe_multi.cookies": 0x7F0000002000,
    }
    assert uapi.encode("LINK_CREATE", decoded.values) == KPROBE_MULTI
    assert bytes(decoded) == KPROBE_MULTI


@pytest.mark.parametrize("cmd", COMMANDS)
def test_nothing_is_all_zero(cmd: int) -> None:
    decoded = uapi.decode(cmd, b"")
    assert names.name(Cmd, cmd) == f"BPF_{decoded.command}"
    assert decoded.uncovered == {}
    assert not any(value if isinstance(value, int) else any(value) for value in decoded.values.values())
    assert uapi.encode(cmd, decoded.values, size=0) == bytes(decoded) == b""
    assert not any(uapi.encode(decoded.command, {}))


@pytest.mark.parametrize("cmd", COMMANDS)
def test_every_member_of_the_commands_struct_has_a_value(cmd: int) -> None:
    values = uapi.decode(cmd, bytes(200)).values
    first = next(iter(values))
    (group,) = [g for g in tables.ATTR if any(path == first for path, *_ in g)]
    if cmd != Cmd.LINK_CREATE:
        assert set(values) == {path for path, *_ in group}
        return
    # The union behind the head: those of the other variants are not there.
    by_variant = set()
    for attach_type in range(70):
        decoded = uapi.decode(cmd, struct.pack("=III", 0, 0, attach_type))
        own = f"link_create.{decoded.variant}."
        if any(path.startswith(own) for path, *_ in group):
            assert {path for path, *_ in group if path.startswith(own)} < set(decoded.values)
        by_variant |= set(decoded.values)
    assert by_variant == {path for path, *_ in group}


def test_what_a_command_ignores_but_its_struct_has() -> None:
    decoded = uapi.decode(19, struct.pack("=IIIi", 5, 0, 8, -1))
    assert decoded.values["open_flags"] == 8
    assert decoded.values["fd_by_id_token_fd"] == -1
    assert {decoded.values[path] for path in ("start_id", "prog_id", "map_id", "btf_id", "link_id")} == {5}


def test_members_beyond_the_data_are_zero() -> None:
    decoded = uapi.decode(Cmd.MAP_CREATE, struct.pack("=IIIII", 2, 4, 8, 3, 0x01020304)[:18])
    assert decoded.values["max_entries"] == 3
    assert decoded.values["map_flags"] == int.from_bytes(struct.pack("=I", 0x01020304)[:2] + bytes(2), sys.byteorder)
    assert decoded.values["map_name"] == bytes(16)
    assert decoded.values["map_extra"] == 0
    assert uapi.encode(0, decoded.values, size=18) == bytes(decoded)


def test_names_are_bytes_of_the_arrays_length() -> None:
    attr = uapi.encode(Cmd.MAP_CREATE, {"map_name": b"counts"})
    assert attr[28:44] == b"counts" + bytes(10)
    assert uapi.decode(0, attr).values["map_name"] == b"counts" + bytes(10)


@pytest.mark.parametrize(
    ("cmd", "data", "uncovered"),
    [
        (Cmd.MAP_LOOKUP_ELEM, struct.pack("=I4sQQQ", 3, b"\1\2\3\4", 1, 2, 0), {4: b"\1\2\3\4"}),
        (Cmd.MAP_LOOKUP_ELEM, struct.pack("=I4sQQQ", 3, b"\0\2\0\4", 1, 2, 0), {5: b"\2", 7: b"\4"}),
        (Cmd.MAP_LOOKUP_ELEM, struct.pack("=I3s", 3, b"\0\2\3"), {5: b"\2\3"}),
        (Cmd.LINK_CREATE, KPROBE_MULTI + bytes(12) + b"\7" + bytes(100), {60: b"\7"}),
        (Cmd.LINK_CREATE, KPROBE_MULTI + bytes(12), {}),
        (Cmd.MAP_FREEZE, b"\3" + bytes(31) + b"\1\1" + bytes(3) + b"\1", {32: b"\1\1", 37: b"\1"}),
        (Cmd.RAW_TRACEPOINT_OPEN, bytes(12) + b"\1\1\1\1" + bytes(8) + b"\1", {12: b"\1\1\1\1", 24: b"\1"}),
    ],
)
def test_bytes_that_no_field_covers(cmd: int, data: bytes, uncovered: dict[int, bytes]) -> None:
    decoded = uapi.decode(cmd, data)
    assert decoded.uncovered == uncovered
    assert bytes(decoded) == data
    without = bytearray(data)
    for offset, raw in uncovered.items():
        without[offset : offset + len(raw)] = bytes(len(raw))
    assert uapi.encode(cmd, decoded.values, size=len(data)) == without


def test_a_hole_and_a_tail_that_meet() -> None:
    data = bytes(60) + b"\1" * 10
    assert codec.decode_struct("link_info.xdp", data).uncovered == {60: b"\1" * 10}


def test_encode_takes_names_and_numbers() -> None:
    expected = struct.pack("=II", 3, 4)
    values = {"iter_create.link_fd": 3, "iter_create.flags": 4}
    for command in (33, "ITER_CREATE", "BPF_ITER_CREATE", "iter_create", 33 | Cmd.COMMON_ATTRS):
        assert uapi.encode(command, values) == expected
    assert uapi.encode("PROG_RUN", {}) == uapi.encode("PROG_TEST_RUN", {})
    assert uapi.decode(10 | Cmd.COMMON_ATTRS, b"").command == "PROG_TEST_RUN"


def test_the_variant() -> None:
    values = {"link_create.attach_type": AttachType.TCX_EGRESS, "link_create.tcx.relative_id": 9}
    assert uapi.encode("LINK_CREATE", values)[16:20] == struct.pack("=I", 9)
    assert uapi.decode(28, uapi.encode("LINK_CREATE", values)).variant == "tcx"
    # One that is named goes before the attach_type, which is that of a cgroup here.
    extension = {"link_create.tracing.target_btf_id": 7, "link_create.tracing.cookie": 8}
    assert uapi.encode("LINK_CREATE", extension, variant="tracing")[16:] == struct.pack("=I4xQ", 7, 8)
    assert uapi.encode("LINK_CREATE", {"link_create.target_btf_id": 7}, variant="")[16:] == struct.pack("=I", 7)


def test_size() -> None:
    values = {"link_detach.link_fd": 0x0102}
    assert uapi.encode(34, values, size=64) == struct.pack("=I", 0x0102) + bytes(60)
    assert len(uapi.encode("PROG_LOAD", {})) == tables.ATTR_SIZE == 168
    assert uapi.encode("PROG_LOAD", {"prog_type": 2}, size=24) == struct.pack("=I20x", 2)


def test_equal_aliases() -> None:
    both = {"link_create.target_fd": 7, "link_create.target_ifindex": 7}
    assert uapi.encode("LINK_CREATE", both) == uapi.encode("LINK_CREATE", {"link_create.target_ifindex": 7})


@pytest.mark.parametrize(
    ("command", "values", "options", "message"),
    [
        ("LINK_CREATE", {"link_create.target_fd": 7, "link_create.target_ifindex": 8}, {}, "one place; they cannot be 8 and 7"),
        ("LINK_GET_FD_BY_ID", {"prog_id": 1, "map_id": 2}, {}, "prog_id and map_id are one place; they cannot be 1 and 2"),
        ("LINK_GET_FD_BY_ID", {"prog_id": 0, "map_id": 2}, {}, "one place"),
        ("LINK_GET_FD_BY_ID", {"map_id": 2, "link_id": 0, "prog_id": 2}, {}, "one place"),
        ("LINK_CREAT", {}, {}, "there is no command 'LINK_CREAT' of bpf(2); did you mean LINK_CREATE"),
        ("COMMON_ATTRS", {}, {}, "there is no command"),
        ("_PREFIX", {}, {}, "there is no command"),
        (39, {}, {}, "no layout of bpf command 39"),
        (-1, {}, {}, "no layout of bpf command -1"),
        ("LINK_CREATE", {}, {"variant": "kprobe"}, "no layout is named 'link_create.kprobe'"),
        ("MAP_CREATE", {}, {"variant": "x"}, "MAP_CREATE has no variant 'x'"),
        ("MAP_CREATE", {"map_typ": 1}, {}, "did you mean map_type?"),
        ("MAP_CREATE", {"map_type": 1 << 32}, {}, "map_type takes 0 to 4294967295"),
        ("MAP_CREATE", {"map_name": "x"}, {}, "map_name takes bytes"),
        ("MAP_CREATE", {"map_name": b"x" * 17}, {}, "at most 16 bytes"),
        ("LINK_CREATE", {"link_create.attach_type": b"x"}, {}, "takes an int"),
        ("MAP_CREATE", {"map_extra": 1}, {"size": 64}, "64 bytes cut off map_extra, which is not 0"),
        ("MAP_CREATE", {"map_type": 0x100}, {"size": 1}, "1 bytes cut off map_type"),
        ("MAP_CREATE", {}, {"size": -1}, "a size of -1 bytes"),
    ],
)
def test_errors(command: str | int, values: dict[str, int | bytes], options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        uapi.encode(command, values, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize("cmd", [39, 4711, -1, 1 << 32, Cmd.COMMON_ATTRS | 39])
def test_an_unknown_command_raises(cmd: int) -> None:
    with pytest.raises(UsageError, match="no layout of bpf command"):
        uapi.decode(cmd, b"")


def test_structs_that_are_no_attrs() -> None:
    common = struct.pack("=QIII4s", 0x1000, 64, 1, 0, b"tail")
    decoded = codec.decode_struct("common_attr", common)
    assert decoded.values == {"log_buf": 0x1000, "log_size": 64, "log_level": 1, "log_true_size": 0}
    assert decoded.uncovered == {20: b"tail"}
    assert bytes(decoded) == common
    info = codec.encode("link_info", {"type": 7, "perf_event.type": 5, "perf_event.tracepoint.name_len": 9})
    decoded = codec.decode_struct("link_info", info)
    assert (decoded.command, decoded.variant, len(info)) == ("link_info", "perf_event.tracepoint", 64)
    assert decoded.values["perf_event.tracepoint.name_len"] == 9
    page = codec.decode_struct("perf_event_mmap_page", bytes(1024) + struct.pack("=4Q", 1, 2, 4096, 8192))
    assert [page.values[f"data_{name}"] for name in ("head", "tail", "offset", "size")] == [1, 2, 4096, 8192]
    with pytest.raises(UsageError, match="part of union bpf_attr"):
        codec.decode_struct("map_create", b"")
    with pytest.raises(UsageError, match="no layout is named"):
        codec.decode_struct("nothing", b"")


def test_all_structs_go_there_and_back() -> None:
    for definition in layouts.DEFINITIONS:
        data = bytes(at % 255 + 1 for at in range(definition.size + 5))
        if definition.cmd < 0:
            assert bytes(codec.decode_struct(definition.name, data)) == data
        else:
            assert bytes(codec.decode(definition.cmd, data)) == data


def test_importing_the_package_is_cheap() -> None:
    program = "import sys, rawkm.uapi; print('construct' in sys.modules, 'rawkm.uapi.codec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]
