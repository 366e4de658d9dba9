"""BTF: every kind decoded, the questions answered, damage refused. The data is made here, byte by byte where it matters."""

from __future__ import annotations

import struct

import pytest

from rawkm.btf import ENUM, FUNC, STRUCT, TYPEDEF, UNION, Array, Btf, Composite, Enum, Int, Proto, Ref, kinds
from rawkm.btf.build import Builder
from rawkm.errors import BTFError
from rawkm.uapi import names
from rawkm.uapi.constants import BtfKind


def small() -> tuple[Btf, dict[str, int]]:
    """A miniature vmlinux: a task_struct, a bpf_attr with anonymous members, an enum, two functions."""
    b = Builder()
    ids = {}
    ids["int"] = b.integer("int", 4, signed=True)
    ids["u32"] = b.ref(kinds.TYPEDEF, b.integer("unsigned int", 4), "u32")
    ids["u64"] = b.integer("unsigned long long", 8)
    ids["char"] = b.integer("char", 1, signed=True)
    ids["comm"] = b.array(ids["char"], ids["int"], 16)
    ids["list"] = b.composite("list_head", 16, [])
    ids["list*"] = b.ref(kinds.PTR, ids["list"])
    ids["task"] = b.composite(
        "task_struct",
        64,
        [
            ("flags", ids["u32"], 0, 0),
            ("in_iowait", ids["u32"], 33, 1),
            ("pid", ids["int"], 64, 0),
            ("tgid", b.ref(kinds.CONST, b.ref(kinds.VOLATILE, ids["int"])), 96, 0),
            ("comm", ids["comm"], 128, 0),
            ("next", ids["list*"], 256, 0),
        ],
    )
    multi = b.composite("", 16, [("flags", ids["u32"], 0, 0), ("cnt", ids["u32"], 32, 0), ("syms", ids["u64"], 64, 0)])
    inner = b.composite("", 16, [("target_btf_id", ids["u32"], 0, 0), ("kprobe_multi", multi, 0, 0)], union=True)
    create = b.composite("", 32, [("prog_fd", ids["u32"], 0, 0), ("", inner, 128, 0)])
    elem = b.composite("", 16, [("map_fd", ids["u32"], 0, 0), ("key", ids["u64"], 64, 0)])
    ids["attr"] = b.composite("bpf_attr", 32, [("", elem, 0, 0), ("link_create", create, 0, 0)], union=True)
    ids["enum"] = b.enum("bpf_cmd", [("BPF_MAP_CREATE", 0), ("BPF_ODD", -1 & 0xFFFFFFFF)], signed=True)
    ids["enum64"] = b.enum("wide", [("BIG", 1 << 40), ("NEG", -5 & (1 << 64) - 1)], size=8, signed=True, wide=True)
    ids["proto"] = b.proto(ids["int"], [("sk", ids["list*"]), ("size", ids["u64"]), ("", 0)])
    ids["func"] = b.func("tcp_sendmsg", ids["proto"])
    ids["func2"] = b.func("tcp_close", ids["proto"], linkage=0)
    ids["twin"] = b.func("tcp_close", ids["proto"], linkage=0)
    ids["var"] = b.var("runqueues", ids["task"])
    ids["section"] = b.section(".data..percpu", 64, [(ids["var"], 0, 64)])
    ids["float"] = b.floating("double", 8)
    ids["fwd"] = b.fwd("module")
    ids["tag"] = b.decl_tag("kfunc", ids["func"])
    ids["type_tag"] = b.ref(kinds.TYPE_TAG, ids["list"], "rcu")
    return Btf(b.build()), ids


def test_kinds_are_those_of_the_header() -> None:
    ours = {name: value for name, value in vars(kinds).items() if f"BTF_KIND_{name}" in names.members(BtfKind)}
    assert ours == {n.removeprefix("BTF_KIND_"): v for n, v in names.members(BtfKind).items() if n != "BTF_KIND_UNKN"}
    assert set(kinds.TRAILING) == set(ours.values())


def test_every_kind_is_decoded() -> None:
    btf, ids = small()
    number = btf.type(ids["int"])
    assert isinstance(number, Int)
    assert (number.name, number.size, number.bits, number.signed) == ("int", 4, 32, True)
    array = btf.type(ids["comm"])
    assert isinstance(array, Array)
    assert (array.type, array.index_type, array.count) == (ids["char"], ids["int"], 16)
    task = btf.type(ids["task"])
    assert isinstance(task, Composite)
    assert (task.kind, task.size, len(task.members)) == (STRUCT, 64, 6)
    iowait = task.members[1]
    assert (iowait.name, iowait.bit_offset, iowait.bits, iowait.type) == ("in_iowait", 33, 1, ids["u32"])
    func = btf.type(ids["func2"])
    assert isinstance(func, Ref)
    assert (func.kind, func.name, func.type, func.extra) == (FUNC, "tcp_close", ids["proto"], 0)
    tag = btf.type(ids["tag"])
    assert isinstance(tag, Ref)
    assert (tag.name, tag.type, tag.extra) == ("kfunc", ids["func"], 0xFFFFFFFF)
    proto = btf.type(ids["proto"])
    assert isinstance(proto, Proto)
    assert proto.params[-1] == ("", 0)
    assert [btf.type(ids[name]).kind for name in ("float", "fwd", "var", "section", "enum64")] == [16, 7, 14, 15, 19]
    assert btf.type(0).kind == 0
    assert btf.last_id == ids["type_tag"]
    assert all(btf.type(id).id == id for id in range(btf.last_id + 1))


def test_find() -> None:
    btf, ids = small()
    assert btf.find("task_struct", STRUCT) == ids["task"]
    assert btf.find("bpf_attr", UNION) == ids["attr"]
    assert btf.find("u32", TYPEDEF) == ids["u32"]
    assert btf.find_all("tcp_close", FUNC) == [ids["func2"], ids["twin"]]
    assert btf.find_all("close", FUNC) == []  # the end of another name
    assert btf.find_all("", STRUCT) == []
    assert btf.find_all("a\0b", STRUCT) == []
    assert list(btf.of_kind(FUNC)) == [ids["func"], ids["func2"], ids["twin"]]
    with pytest.raises(BTFError, match="no struct bpf_attr"):
        btf.find("bpf_attr", STRUCT)


def test_merged_tails_are_found() -> None:
    b = Builder()
    b.integer("long int", 8)
    data = bytearray(b.build())
    at = struct.unpack_from("=I", data, 24)[0]
    struct.pack_into("=I", data, 24, at + 5)  # "int", inside "long int"
    assert Btf(data).find("int", kinds.INT) == 1


def test_functions() -> None:
    assert list(small()[0].functions()) == [b"tcp_sendmsg", b"tcp_close", b"tcp_close"]


def test_members() -> None:
    btf, ids = small()
    assert btf.member_offset("task_struct", "tgid") == 12
    assert btf.member_offset(ids["task"], "comm") == 16
    assert btf.member_offset("bpf_attr", "key") == 8
    assert btf.member_offset("bpf_attr", "link_create") == 0
    assert btf.member_offset("bpf_attr", "link_create.target_btf_id") == 16
    assert btf.member_offset("bpf_attr", "link_create.kprobe_multi.cnt") == 20
    place = btf.member("task_struct", "in_iowait")
    assert (place.bit_offset, place.bits) == (33, 1)
    for path in ("nope", "pid.x", "", "link_create.nope", "comm.x"):
        with pytest.raises(BTFError, match="has no member"):
            btf.member("task_struct", path)
    with pytest.raises(BTFError, match="inside a byte"):
        btf.member_offset("task_struct", "in_iowait")
    with pytest.raises(BTFError, match="no struct or union nothing"):
        btf.member_offset("nothing", "x")


def test_flatten() -> None:
    btf, ids = small()
    assert btf.flatten("bpf_attr") == {
        "map_fd": (0, 4),
        "key": (8, 8),
        "link_create.prog_fd": (0, 4),
        "link_create.target_btf_id": (16, 4),
        "link_create.kprobe_multi.flags": (16, 4),
        "link_create.kprobe_multi.cnt": (20, 4),
        "link_create.kprobe_multi.syms": (24, 8),
    }
    task = btf.flatten(ids["task"])
    assert task["in_iowait"] == (4, 1)
    assert task["comm"] == (16, 16)
    assert task["next"] == (32, 8)
    with pytest.raises(BTFError, match="has no members"):
        btf.flatten(ids["int"])


def test_sizes() -> None:
    btf, ids = small()
    sizes = {"u32": 4, "comm": 16, "list*": 8, "attr": 32, "enum64": 8, "float": 8, "var": 64, "type_tag": 16}
    assert {name: btf.sizeof(ids[name]) for name in sizes} == sizes
    for name in ("func", "proto", "fwd"):
        with pytest.raises(BTFError, match="has no size"):
            btf.sizeof(ids[name])


def test_enums() -> None:
    btf, ids = small()
    assert btf.enum_values("bpf_cmd") == {"BPF_MAP_CREATE": 0, "BPF_ODD": -1}
    assert btf.enum_values(ids["enum64"]) == {"BIG": 1 << 40, "NEG": -5}
    enum = btf.type(ids["enum"])
    assert isinstance(enum, Enum)
    assert enum.kind == ENUM
    for wrong in ("task_struct", ids["int"]):
        with pytest.raises(BTFError):
            btf.enum_values(wrong)


def test_function_arguments() -> None:
    btf, ids = small()
    assert btf.func_args("tcp_sendmsg") == (("sk", ids["list*"]), ("size", ids["u64"]), ("", 0))
    assert btf.prototype(ids["func"]).type == ids["int"]
    for wrong in ("nothing", ids["int"]):
        with pytest.raises(BTFError):
            btf.func_args(wrong)


def test_split() -> None:
    base, ids = small()
    b = Builder(base)
    own = b.composite("veth_priv", 8, [("peer", ids["list*"], 0, 0)])
    twin = b.composite("task_struct", 8, [])
    func = b.func("veth_xmit", ids["proto"])
    module = Btf(b.build(), base)
    assert (own, module.first_id, module.last_id) == (base.last_id + 1, base.last_id + 1, func)
    assert module.type(ids["task"]) is base.type(ids["task"])
    assert module.find("veth_priv", STRUCT) == own
    assert module.find_all("task_struct", STRUCT) == [ids["task"], twin]
    assert module.flatten("veth_priv") == {"peer": (0, 8)}
    assert list(module.functions()) == [b"veth_xmit"]
    assert module.func_args("veth_xmit")[0] == ("sk", ids["list*"])
    with pytest.raises(BTFError, match="there is no BTF type"):
        base.type(own)


def test_a_split_may_name_its_types_with_strings_of_the_base() -> None:
    base, ids = small()
    b = Builder(base)
    b._offsets["tcp_sendmsg"] = base._name_offsets("tcp_sendmsg")[0]
    func = b.func("tcp_sendmsg", ids["proto"])
    module = Btf(b.build(), base)
    assert list(module.functions()) == [b"tcp_sendmsg"]
    assert module.find_all("tcp_sendmsg", FUNC) == [ids["func"], func]


# -- the container -------------------------------------------------------------------------------------------


def header(
    *, magic: int = 0xEB9F, version: int = 1, size: int = 24, types: bytes = b"", strings: bytes = b"\0", extra: bytes = b""
) -> bytes:
    head = struct.pack("=HBBIIIII", magic, version, 0, size, 0, len(types), len(types), len(strings))
    return head + extra + types + strings


def test_longer_headers_are_honoured() -> None:
    """Linux 7.1 and later write 32 bytes: layout_off and layout_len follow."""
    number = struct.pack("=IIII", 1, 1 << 24, 4, 32)
    data = header(size=32, types=number, strings=b"\0int\0", extra=struct.pack("=II", 0, 0))
    assert Btf(data).find("int", kinds.INT) == 1
    data = header(size=40, types=number, strings=b"\0int\0", extra=bytes(16))
    assert Btf(data).find("int", kinds.INT) == 1


def test_the_layout_section_tells_how_long_unknown_kinds_are() -> None:
    unknown = struct.pack("=III", 1, 21 << 24 | 2, 0) + bytes(4 + 2 * 8)
    types = unknown + struct.pack("=IIII", 1, 1 << 24, 4, 32)
    strings = b"\0int\0"
    layout = b"".join(struct.pack("=BBH", *((4, 8, 0) if kind == 21 else (0, 0, 0))) for kind in range(22))
    extra = struct.pack("=II", len(types) + len(strings), len(layout))
    btf = Btf(header(size=32, types=types, strings=strings, extra=extra) + layout)
    assert btf.find("int", kinds.INT) == 2
    assert btf.type(1).kind == 21
    with pytest.raises(BTFError, match="type 1 is of the unknown kind 21"):
        Btf(header(types=types, strings=strings))


def test_a_vlen_of_more_than_16_bits() -> None:
    """Linux 7.1 widened vlen to 24 bits and the kind to 7."""
    b = Builder()
    count = 70_000
    b.enum("many", [("", i) for i in range(count)])
    btf = Btf(b.build())
    found = btf.type(1)
    assert isinstance(found, Enum)
    assert len(found.values) == count


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "shorter than its header"),
        (bytes(24), "not BTF data"),
        (header(magic=0x9FEB), "the other byte order"),
        (header(version=2), "version 2"),
        (header(size=20), "header of 20 bytes"),
        (header(size=4096), "header of 4096 bytes"),
        (header(types=bytes(6)), "no multiple of 4"),
        (header(strings=b""), "NUL"),
        (header(strings=b"x\0"), "NUL"),
        (header(strings=b"\0x"), "NUL"),
        (header()[:-1], "ends behind the data"),
        (header(types=bytes(12)), "unknown kind 0"),
        (header(types=struct.pack("=III", 0, 31 << 24, 0)), "unknown kind 31"),
        (header(types=struct.pack("=III", 0, 1 << 24, 0)), "ends behind the type section"),
        (header(types=struct.pack("=III", 0, 4 << 24 | 9, 0)), "ends behind the type section"),
        (header(types=struct.pack("=IIII", 0, 2 << 24, 0, 0)), "ends behind the type section"),
        (header(types=struct.pack("=IIIII", 0, 2 << 24, 0, 0, 2 << 24)), "ends behind the type section"),
        (header(size=32, extra=struct.pack("=II", 0, 99)), "layout section"),
    ],
)
def test_damaged_containers(data: bytes, message: str) -> None:
    with pytest.raises(BTFError, match=message):
        Btf(data)


def test_circles_end() -> None:
    b = Builder()
    b.ref(kinds.CONST, 2)
    b.ref(kinds.VOLATILE, 1)
    b.array(3, 1, 2)
    b.composite("self", 4, [("", 4, 0, 0)])
    b.composite("named", 4, [("again", 5, 0, 0)])
    b.composite("wide", 4, [("", 7, 0, 0)] * 2)
    b.composite("", 4, [("", 8, 0, 0)] * 2)
    b.composite("", 4, [("", 7, 0, 0)] * 2)
    btf = Btf(b.build())
    for ask in (
        lambda: btf.resolve(1),
        lambda: btf.sizeof(3),
        lambda: btf.flatten("self"),
        lambda: btf.flatten("named"),
        lambda: btf.flatten("wide"),
        lambda: btf.member("wide", "x"),
        lambda: btf.member("self", "x"),
    ):
        with pytest.raises(BTFError):
            ask()


def test_names_and_types_outside() -> None:
    btf = Btf(header(types=struct.pack("=IIIIII", 99, 2 << 24, 7, 99, 12 << 24, 1)))
    with pytest.raises(BTFError, match="behind the string section"):
        btf.type(1)
    with pytest.raises(BTFError, match="behind the string section"):
        btf.functions()
    with pytest.raises(BTFError, match="no BTF type 3"):
        btf.type(3)
    with pytest.raises(BTFError, match="no BTF type -1"):
        btf.type(-1)


def test_leaves_know_types_and_bits() -> None:
    btf, ids = small()
    leaves = btf.leaves("task_struct")
    assert set(leaves) == set(btf.flatten("task_struct"))
    iowait = leaves["in_iowait"]
    assert (iowait.bit_offset, iowait.bits, iowait.type) == (33, 1, ids["u32"])
    assert (leaves["comm"].bit_offset, leaves["comm"].bits, leaves["comm"].type) == (128, 0, ids["comm"])
    assert btf.leaves("bpf_attr")["link_create.kprobe_multi.cnt"].bit_offset == 160
    with pytest.raises(BTFError, match="has no members"):
        btf.leaves(ids["int"])
