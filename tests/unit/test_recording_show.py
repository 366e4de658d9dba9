"""Recorded calls as texts: strace's form, names for fds, `before => after`, every byte; and how two calls differ."""

from __future__ import annotations

import struct

import pytest

from rawkm.asm import R0, R1, Mov, encode, exit_, map_ptr
from rawkm.maps import MapSpec
from rawkm.recording import Call, Fd, Header, Pointee, Reader, Writer, show
from rawkm.recording.compare import difference
from rawkm.recording.header import AUDIT
from rawkm.recording.names import Names
from rawkm.recording.redact import redacted, without_addresses
from rawkm.uapi import codec
from rawkm.uapi.constants import Cmd

MAP = MapSpec("m", 1, key=4, value=8, max_entries=1)
INSNS = encode([map_ptr(R1, MAP), Mov.imm(R0, 0), exit_()], maps={"m": 9})
KERNEL = 0xFFFFFFFF81B14B90


def bpf(command: str, values: dict[str, int | bytes], **more: object) -> Call:
    attr = codec.encode(command, values)
    return Call("bpf", command=codec.number(command), size=len(attr), attr=attr, **more)  # type: ignore[arg-type]


def load(fd: int = 9) -> Call:
    insns = INSNS.replace(struct.pack("=i", 9), struct.pack("=i", fd))
    values: dict[str, int | bytes] = {"prog_type": 2, "insn_cnt": 4, "insns": 0x7F00_0000_1000, "license": 0x7F00_0000_2000}
    memory = {"insns": Pointee(insns, address=0x7F00_0000_1000), "license": Pointee(b"GPL", address=0x7F00_0000_2000)}
    return bpf("PROG_LOAD", values, memory=memory, result=11)


def lookup(after: bytes = b"\x2a" + bytes(7)) -> Call:
    return bpf(
        "MAP_LOOKUP_ELEM",
        {"map_fd": 9, "key": 0x1000, "value": 0x2000},
        memory={"key": Pointee(bytes(4), address=0x1000), "value": Pointee(b"", size=8, address=0x2000)},
        outputs={"value": Pointee(after, address=0x2000)} if after else {},
    )


def info(kind: str = "prog") -> Call:
    before = codec.encode("prog_info", {"nr_map_ids": 1, "map_ids": 0x3000})
    after = codec.encode("prog_info", {"type": 2, "id": 77, "nr_map_ids": 1, "map_ids": 0x3000, "name": b"count"})
    attr = codec.encode("OBJ_GET_INFO_BY_FD", {"info.bpf_fd": 11, "info.info_len": 232, "info.info": 0x4000})
    written = codec.encode("OBJ_GET_INFO_BY_FD", {"info.bpf_fd": 11, "info.info_len": 208, "info.info": 0x4000})
    return Call(
        "bpf",
        command=15,
        size=len(attr),
        attr=attr,
        attr_after=written,
        memory={"info.info": Pointee(before, address=0x4000), "info.info.map_ids": Pointee(b"", size=4, address=0x3000)},
        outputs={"info.info": Pointee(after, address=0x4000), "info.info.map_ids": Pointee(struct.pack("=I", 5), address=0x3000)},
        fds={"info.bpf_fd": Fd(f"{kind}#1", 11, 3)},
    )


def named(*calls: Call) -> list[Call]:
    """The calls as a Reader has them that nobody told what the fds are."""
    lines: list[bytes] = []
    writer = Writer(lines.append, Header(AUDIT))
    for call in calls:
        writer.call(call)
    return list(Reader(lines).calls())


def create() -> Call:
    return bpf("MAP_CREATE", {"map_type": 1, "key_size": 4, "value_size": 8, "max_entries": 1}, result=9)


def test_fds_have_names_where_they_were_made() -> None:
    """Also inside of instructions, and nobody had to say so."""
    made, loaded, looked = named(create(), load(), lookup())
    assert made.makes == Fd("map#1", 9, 1)
    assert loaded.fds == {"insns@4": Fd("map#1", 9, 1)}
    assert loaded.makes == Fd("prog#1", 11, 2)
    assert looked.fds == {"map_fd": Fd("map#1", 9, 1)}
    assert "src_reg=1, off=0, imm=map#1}" in show.line(loaded, names=True)
    assert "src_reg=1, off=0, imm=0x9}" in show.line(loaded)
    assert show.line(made, names=True).partition(" <")[0].endswith(", 92) = map#1")
    # Where nobody saw it made, the number is all there is.
    [alone] = named(load(fd=3))
    assert alone.fds == {"insns@4": Fd("fd 3", 3)}


def test_processes_have_their_own_fds() -> None:
    lines: list[bytes] = []
    writer = Writer(lines.append, Header(AUDIT))
    for pid, call in ((1, create()), (2, create()), (3, lookup()), (2, lookup()), (9, lookup())):
        if pid == 3:
            writer.task(3, parent=1, comm="child")
        call.pid = pid
        writer.call(call)
    reader = Reader(lines)
    names = [call.fds["map_fd"].name for call in reader.calls() if "map_fd" in call.fds]
    assert names == ["map#1", "map#2", "fd 9"]
    assert reader.comms == {3: "child"}


def test_outputs_stand_behind_what_was_before() -> None:
    assert show.line(lookup()) == (
        'bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=9, key="\\x00\\x00\\x00\\x00", '
        'value=0x2000 => "\\x2a\\x00\\x00\\x00\\x00\\x00\\x00\\x00", flags=BPF_ANY}, 32) = 0 <0.000000>'
    )
    failed = lookup(b"")
    failed.result, failed.errno = -1, 2
    assert show.line(failed).endswith("value=0x2000, flags=BPF_ANY}, 32) = -1 ENOENT <0.000000>")
    assert "value=[8 bytes]" in show.line(failed, names=True)


def test_structs_behind_pointers() -> None:
    text = show.line(info(), names=True)
    assert "{info={bpf_fd=prog#1, info_len=232 => 208, info={type=" in text
    assert "=> {type=BPF_PROG_TYPE_KPROBE, id=77" in text
    assert 'name="count"' in text
    assert "map_ids=[5]" in text
    detail = "\n".join(show.detail(info()))
    assert "info.info, after the call:" in detail
    assert "id = 77" in detail
    assert "info.info.map_ids, after the call:" in detail
    # Of something else it is bytes.
    assert "id = 77" not in "\n".join(show.detail(info("obj")))


def test_every_byte() -> None:
    lines = list(show.detail(named(create(), load())[1]))
    shown = [line for line in lines if line.startswith(" ") and "  " in line[4:]]
    assert any("insn_cnt = 4" in line for line in shown)
    assert "  \t" not in "\n".join(lines)
    assert "     0  18 11 00 00 09 00 00 00  r1 = map#1 ll\n        00 00 00 00 00 00 00 00\n" in "\n".join(lines)
    assert lines[-1] == '  "GPL"'


def test_what_could_not_be_read_is_said() -> None:
    call = load()
    call.memory["insns"] = Pointee(error="EFAULT", address=0x1234)
    assert "insns=0x1234 /* EFAULT */" in show.line(call)
    assert "/* redacted */" in show.line(bpf("MAP_LOOKUP_ELEM", {"key": 5}, memory={"key": Pointee(error="redacted", size=4)}))
    odd = Call("bpf", command=999, size=3, attr=b"\1\2\3", result=-1, errno=22)
    assert show.line(odd) == 'bpf(0x3e7, "\\x01\\x02\\x03", 3) = -1 EINVAL <0.000000>'
    common = Call("bpf", command=Cmd.MAP_FREEZE | Cmd.COMMON_ATTRS, size=4, attr=b"\7\0\0\0", common=bytes(24), common_size=24)
    assert show.line(common).startswith("bpf(BPF_MAP_FREEZE|BPF_COMMON_ATTRS, {map_fd=7}, 4, {")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: None, None),
        (lambda call: setattr(call, "attr", call.attr[:12] + b"\1" + call.attr[13:]), "insns"),
        (lambda call: setattr(call, "attr", b"\3" + call.attr[1:]), "prog_type"),
        (lambda call: setattr(call, "attr", call.attr[:-4]), "the attr's size"),
        (lambda call: setattr(call, "attr", call.attr[:24] + b"\5" + call.attr[25:]), "log_level"),
        (lambda call: setattr(call, "size", 3), "size"),
        (lambda call: setattr(call, "command", 18), "the command"),
        (lambda call: call.memory.pop("license"), "license"),
        (lambda call: call.memory.update(license=Pointee(b"MIT", address=0x7F00_0000_2000)), "license, byte 0"),
        (lambda call: call.memory.update(license=Pointee(items=[b"GPL"], address=0x7F00_0000_2000)), "license"),
        (lambda call: call.fds.update({"insns@4": Fd("map#2", 9)}), "insns@4"),
        (lambda call: call.args.update(more=1), "more"),
    ],
)
def test_differences(change, expected) -> None:  # type: ignore[no-untyped-def]
    """The first field that differs, where both are told."""
    _, made = named(create(), load())
    _, recorded = named(create(), load())
    # Another run has other addresses.
    other = bytearray(made.attr)
    struct.pack_into("=Q", other, 8, 0x5555)
    made.attr = bytes(other)
    change(recorded)
    found = difference(recorded, made)
    assert (None if found is None else found[0]) == expected


def test_nothing_of_an_address_is_left_in_a_redacted_call() -> None:
    call = load()
    wide = bytearray(INSNS)
    wide[1] = 0x01
    struct.pack_into("=I", wide, 4, KERNEL & 0xFFFFFFFF)
    struct.pack_into("=I", wide, 12, KERNEL >> 32)
    call.memory["insns"] = Pointee(bytes(wide), address=0x7F00_0000_1000)
    call.outputs["log_buf"] = Pointee(b"R1=%016x, -1 and 0x%x\0" % (KERNEL, KERNEL), address=1)
    call.value = b"secret"
    call.args = {"at": KERNEL, "more": [KERNEL, -1, 2**64 - 1]}
    found = redacted(call)
    assert found.memory["insns"].data is not None
    assert struct.pack("=I", KERNEL & 0xFFFFFFFF) not in found.memory["insns"].data
    assert found.outputs["log_buf"].data == b"R1=%016x, -1 and 0x%016x\0" % (0, 0)
    assert {pointee.address for pointee in (*found.memory.values(), *found.outputs.values())} == {None}
    assert codec.decode(5, found.attr).values["insns"] == 1
    assert codec.decode(5, found.attr).values["log_buf"] == 0
    assert found.value == {"left_out": 6}
    assert found.args == {"at": 0, "more": [0, -1, 2**64 - 1]}
    # The call itself stays as it is.
    assert call.memory["insns"].address is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"address":%d,"count":3}' % KERNEL, b'{"address":%s0,"count":3}' % (b" " * 19)),
        (b"[%d]" % 2**63, b"[%s0]" % (b" " * 18)),
        (b"[%d, %d, %d]" % (2**63 - 1, 2**64 - 1, 10**19 * 2 - 1), None),
        (b"1%d %d1" % (KERNEL, KERNEL), None),
    ],
)
def test_decimal_addresses_in_what_was_printed(text: bytes, expected: bytes | None) -> None:
    """Numbers that are none stay, and JSON stays JSON."""
    assert without_addresses(text) == (text if expected is None else expected)


def test_names_know_what_they_are_told() -> None:
    names = Names()
    assert names.of(1, 5) == Fd("fd 5", 5)
    made = names.new(1, 5, "file", 3)
    assert names.of(1, 5) is made
    names.forked(2, 1)
    names.forked(1, 2)
    assert names.of(2, 5) is made
    names.closed(1, 5)
    assert names.of(2, 5).made_by is None
    assert (made.kind, Fd("fd 5", 5).kind) == ("file", "fd")
