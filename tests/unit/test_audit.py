"""The texts of audited calls, and the filter that finds them; what needs no other process."""

from __future__ import annotations

import struct
from typing import Any

from rawkm.audit.decode import Call
from rawkm.audit.objects import Objects
from rawkm.audit.plan import fds_by_insns
from rawkm.audit.raw import CUT, Fact, Memory, RawCall
from rawkm.audit.record import recorded
from rawkm.audit.summary import Summary
from rawkm.syscall import seccomp
from rawkm.uapi.constants import Cmd, MapType

COUNTS = Fact("map", 7, MapType.ARRAY, 4, 8)


def raw(cmd: int, attr: bytes, ret: int | None = 0, **more: Any) -> RawCall:
    return RawCall(100, 101, b"tool", 0, 1500, 0, cmd, 0x7F00, more.pop("size", len(attr)), ret, attr, **more)


def create(objects: Objects) -> Call:
    attr = struct.pack("=IIIIIII16s", MapType.ARRAY, 4, 8, 1, 0, 0, 0, b"counts")
    return Call(raw(Cmd.MAP_CREATE, attr, 3, facts={"": COUNTS}), objects)


def test_fds_have_the_names_of_what_they_are() -> None:
    objects = Objects()
    assert create(objects).line().endswith('map_name="counts"}, 44) = 3<map "counts"> <0.000002>')
    attr = struct.pack("=I4xQQQ", 3, 0x1000, 0x2000, 0)
    call = Call(
        raw(
            Cmd.MAP_LOOKUP_ELEM,
            attr,
            entry={"key": Memory(0x1000, 4, b"\1\0\0\0")},
            exit={"value": Memory(0x2000, 8, bytes(8))},
            facts={"map_fd": COUNTS},
        ),
        objects,
    )
    assert call.line() == (
        r'tool[100/101] bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=3<map "counts">, key="\x01\x00\x00\x00", '
        r'value="\x00\x00\x00\x00\x00\x00\x00\x00", flags=BPF_ANY}, 32) = 0 <0.000002>'
    )
    # The same fd of another process, which nobody has named.
    other = Call(raw(Cmd.MAP_FREEZE, struct.pack("=I", 3), facts={"map_fd": Fact("map", 8)}), objects)
    assert other.arguments() == "BPF_MAP_FREEZE, {map_fd=3<map 8>}, 4"
    assert Call(raw(Cmd.MAP_FREEZE, struct.pack("=I", 3)), objects).arguments() == "BPF_MAP_FREEZE, {map_fd=3}, 4"


def test_what_the_kernel_changed() -> None:
    before, after = struct.pack("=III", 5, 0, 0), struct.pack("=III", 5, 9, 0)
    call = Call(raw(Cmd.MAP_GET_NEXT_ID, before, after=after), Objects())
    assert call.arguments() == "BPF_MAP_GET_NEXT_ID, {start_id=5, next_id=0 => 9}, 12"
    assert call.row()["after"] == {"next_id": 9}


def test_an_info_struct_is_shown_in_the_pointers_place() -> None:
    objects = Objects()
    info = struct.pack("=IIIIII16s", MapType.ARRAY, 7, 4, 8, 1, 0, b"counts")
    attr = struct.pack("=IIQ", 3, 40, 0x1000)
    more: dict[str, Any] = {"facts": {"info.bpf_fd": COUNTS}, "entry": {"info.info": Memory(0x1000, 40, bytes(40))}}
    call = Call(raw(Cmd.OBJ_GET_INFO_BY_FD, attr, exit={"info.info": Memory(0x1000, 40, info)}, **more), objects)
    assert (
        'info_len=40, info={type=BPF_MAP_TYPE_ARRAY, id=7, key_size=4, value_size=8, max_entries=1, map_flags=0, name="counts"}}}'
        in call.line()
    )
    # From now on it has a name.
    assert objects.label(COUNTS) == 'map "counts"'
    was = struct.pack("=IIIIII16s", 0, 0, 4, 0, 0, 0, b"")
    more["entry"] = {"info.info": Memory(0x1000, 40, was)}
    call = Call(raw(Cmd.OBJ_GET_INFO_BY_FD, attr, exit={"info.info": Memory(0x1000, 40, info)}, **more), objects)
    assert "info={type=BPF_MAP_TYPE_UNSPEC => BPF_MAP_TYPE_ARRAY, id=0 => 7, key_size=4, value_size=0 => 8, " in call.line()
    unreadable = Call(
        raw(Cmd.OBJ_GET_INFO_BY_FD, attr, -14, facts=more["facts"], entry={"info.info": Memory(0x1000, 40, b"", 14)}), objects
    )
    assert "info=0x1000 /* cannot be read: EFAULT */" in unreadable.line()


def test_what_is_missing_is_said() -> None:
    attr = struct.pack("=IIQQ", 1, 3, 0x1000, 0x2000)
    memory = {"insns": Memory(0x1000, 24, bytes(8), 14), "license": Memory(0x2000, -1, b"x" * 8, CUT)}
    text = Call(raw(Cmd.PROG_LOAD, attr, None, entry=memory), Objects()).line()
    assert "imm=0}] /* the beginning of 24 bytes: EFAULT */" in text
    assert 'license="xxxxxxxx" /* the beginning: more than rawkm keeps */' in text
    assert text.endswith(" = ? (it ended within the call) <0.000002>")
    assert "{} " not in text
    assert (
        Call(raw(Cmd.PROG_LOAD, b"", -14, attr_errno=14, size=24), Objects()).arguments()
        == "BPF_PROG_LOAD, 0x7f00 /* cannot be read: EFAULT */, 24"
    )
    names = {"link_create.kprobe_multi.syms": Memory(1, 2, [b"a", None])}
    attr = struct.pack("=6I3Q", 4, 0, 42, 0, 0, 2, 1, 0, 0)
    assert 'syms=["a", /* cannot be read */]' in Call(raw(Cmd.LINK_CREATE, attr, entry=names), Objects()).line()


def test_common_attributes() -> None:
    """The five-argument form of Linux 7.2."""
    common = struct.pack("=QII", 0x3000, 64, 1)
    call = Call(
        raw(
            Cmd.MAP_CREATE | Cmd.COMMON_ATTRS,
            struct.pack("=I", 99),
            -22,
            common_at=0x5000,
            common_size=16,
            common=common,
            exit={"common.log_buf": Memory(0x3000, 64, b"no such type")},
        ),
        Objects(),
    )
    assert call.arguments() == (
        "BPF_MAP_CREATE|BPF_COMMON_ATTRS, {map_type=0x63 /* BPF_MAP_TYPE_??? */}, 4, "
        '{log_buf="no such type", log_size=64, log_level=1}, 16'
    )


def test_a_program_and_its_log_below_its_call() -> None:
    insns = bytes.fromhex("b700000000000000 9500000000000000")
    attr = struct.pack("=IIQQIIQ", 1, 2, 0x1000, 0, 1, 64, 0x3000)
    log = {"log_buf": Memory(0x3000, 64, b"0: R1=ctx()\n\x1b[2Jbad\n")}
    call = Call(raw(Cmd.PROG_LOAD, attr, -13, entry={"insns": Memory(0x1000, 16, insns)}, exit=log), Objects())
    assert list(call.details()) == ["        0: r0 = 0x0", "        1: exit", "    | 0: R1=ctx()", "    | \\x1b[2Jbad"]


def test_summary() -> None:
    objects, summary = Objects(), Summary()
    summary.add(create(objects))
    summary.add(create(objects))
    pin = {"pathname": Memory(1, -1, b"/sys/fs/bpf/x")}
    summary.add(Call(raw(Cmd.OBJ_PIN, struct.pack("=QI", 1, 3), entry=pin, facts={"bpf_fd": COUNTS}), objects))
    summary.add(Call(raw(Cmd.OBJ_PIN, struct.pack("=QI", 1, 3), -17, entry=pin), objects))
    summary.add(Call(raw(99, b"\1", -22), objects))
    assert (summary.calls, summary.unknown) == (5, 1)
    _, rows = summary.table()
    assert rows == [["MAP_CREATE", "2", "0.0", ""], ["OBJ_PIN", "2", "0.0", "EEXIST 1"], ["command 99", "1", "0.0", "EINVAL 1"]]
    assert list(summary.made()) == ['2 maps: "counts" ×2', '1 pin: "/sys/fs/bpf/x" of map "counts"']


def test_a_recorded_call_has_room_where_the_kernel_writes() -> None:
    attr = struct.pack("=IIQQIIQ", 1, 2, 0x1000, 0, 1, 64, 0x3000)
    call = recorded(raw(Cmd.PROG_LOAD, attr, -22, entry={"insns": Memory(0x1000, 16, bytes(16))}))
    assert (call.result, call.errno, call.pid, call.tid) == (-1, 22, 100, 101)
    assert (call.memory["log_buf"].size, call.memory["log_buf"].data) == (64, b"")
    assert call.memory["insns"].data == bytes(16)


def test_fd_array_is_as_long_as_the_instructions_say() -> None:
    map_idx = struct.pack("=BBhi", 0x18, 5 << 4, 0, 2) + bytes(8)
    kfunc = struct.pack("=BBhi", 0x85, 2 << 4, 4, 77)
    assert fds_by_insns(map_idx) == 3
    assert fds_by_insns(map_idx + kfunc) == 5
    assert fds_by_insns(bytes(8) + b"\x18") == 0


def answer(program: bytes, arch: int, number: int) -> int:
    """What a seccomp filter says."""
    insns = list(struct.iter_unpack("=HBBI", program))
    at, word = 0, 0
    while True:
        code, yes, no, k = insns[at]
        at += 1
        if code == 0x20:
            word = (number, arch)[k // 4]
        elif code == 0x15:
            at += yes if word == k else no
        else:
            assert code == 0x06
            return int(k)


def test_the_filter_stops_bpf_in_every_abi_and_nothing_else() -> None:
    for machine, abis in seccomp.ABIS.items():
        program = seccomp.trace_bpf_filter(machine)
        wanted = {(arch, number) for arch, numbers in abis for number in numbers}
        for arch in {arch for arch, _ in abis} | {0, 0x12345678}:
            for number in [*range(500), *(n for _, n in wanted), 0x40000000 | 5, 0xFFFFFFFF]:
                said = answer(program, arch, number)
                assert said == (0x7FF00000 if (arch, number) in wanted else 0x7FFF0000), (machine, hex(arch), number)
