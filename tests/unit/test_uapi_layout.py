"""Layouts: packing, unpacking, the errors of bad values, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.errors import UsageError
from rawkm.uapi import fields, layouts, names, packed, tables
from rawkm.uapi.constants import AttachType, Cmd, LinkType, PerfEventLinkType
from rawkm.uapi.layout import Layout

ROOT = Path(__file__).resolve().parents[2]
KPROBE_MULTI = packed.LINK_CREATE_KPROBE_MULTI


def all_packed() -> list[Layout]:
    return [value for value in vars(packed).values() if isinstance(value, Layout)]


def test_regenerating_changes_nothing() -> None:
    command = [sys.executable, str(ROOT / "tools" / "gen_packed"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hot_path_imports_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules);"
        "import rawkm.uapi.packed, rawkm.uapi.constants;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    allowed = {"rawkm", "struct", "_struct", "errno", "__future__"}
    assert not [n for n in done.stdout.split() if n not in allowed and not n.startswith("rawkm.")]
    assert set(done.stdout.split()) >= {"rawkm.uapi.packed", "rawkm.uapi.layout"}
    assert not {"rawkm.uapi.fields", "rawkm.uapi.names"} & set(done.stdout.split())


def test_pack_kprobe_multi() -> None:
    attr = KPROBE_MULTI.pack(
        {
            "link_create.prog_fd": 4,
            "link_create.attach_type": AttachType.TRACE_KPROBE_MULTI,
            "link_create.kprobe_multi.flags": 1,
            "link_create.kprobe_multi.cnt": 3,
            "link_create.kprobe_multi.addrs": 0x1122334455667788,
        }
    )
    assert type(attr) is bytearray
    assert len(attr) == 48
    word = [int.from_bytes(attr[at : at + 4], sys.byteorder) for at in range(0, 24, 4)]
    assert word == [4, 0, 42, 0, 1, 3]
    assert int.from_bytes(attr[32:40], sys.byteorder) == 0x1122334455667788


def test_pack_leaves_holes_zero_and_pads_names() -> None:
    attr = packed.MAP_LOOKUP_ELEM.pack({"map_fd": 0xFFFFFFFF, "key": 2**64 - 1})
    assert attr[4:8] == bytes(4)
    attr = packed.MAP_CREATE.pack({"map_name": b"counts"})
    assert attr[28:44] == b"counts" + bytes(10)


def test_pack_signed() -> None:
    attr = packed.OBJ_PIN.pack({"path_fd": -100})
    assert packed.OBJ_PIN.unpack(attr)["path_fd"] == -100


@pytest.mark.parametrize(
    ("layout", "values", "message"),
    [
        (packed.MAP_CREATE, {"map_typ": 1}, "map_create has no field 'map_typ'; did you mean map_type?"),
        (KPROBE_MULTI, {"cnt": 1}, "did you mean link_create.kprobe_multi.cnt?"),
        (packed.ENABLE_STATS, {"zzz": 1}, "enable_stats has no field 'zzz'; it has enable_stats.type"),
        (packed.MAP_CREATE, {"map_type": -1}, "map_create: map_type takes 0 to 4294967295, not -1"),
        (packed.MAP_CREATE, {"btf_fd": 1 << 32}, "map_create: btf_fd takes 0 to 4294967295, not 4294967296"),
        (
            packed.OBJ_PIN,
            {"path_fd": 1 << 31},
            "obj_pin: path_fd takes -2147483648 to 2147483647, not 2147483648",
        ),
        (packed.MAP_CREATE, {"map_name": b"x" * 17}, "map_create: map_name takes at most 16 bytes, not 17"),
        (packed.MAP_CREATE, {"map_name": "x"}, "map_create: map_name takes bytes, not str"),
        (packed.MAP_CREATE, {"map_type": 1.0}, "map_create: map_type takes an int, not float"),
        (packed.MAP_CREATE, {"map_type": b"x"}, "map_create: map_type takes an int, not bytes"),
        (
            packed.MAP_LOOKUP_ELEM,
            {"value": 1, "next_key": 2},
            "map_lookup_elem: next_key and value are one place; they cannot be 2 and 1",
        ),
    ],
)
def test_pack_errors(layout: Layout, values: dict[str, int | bytes], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        layout.pack(values)
    assert message in str(caught.value)


def test_aliases_reach_one_place() -> None:
    first, second = (
        packed.LINK_GET_NEXT_ID.pack({"start_id": 7}),
        packed.LINK_GET_NEXT_ID.pack({"link_id": 7}),
    )
    assert first == second
    assert packed.MAP_GET_NEXT_KEY.pack({"next_key": 9, "value": 9}) == packed.MAP_GET_NEXT_KEY.pack({"value": 9})
    assert KPROBE_MULTI.pack({"link_create.target_ifindex": 3})[4:8] == (3).to_bytes(4, sys.byteorder)


def test_unpack_short_data_reads_zeros() -> None:
    attr = KPROBE_MULTI.pack({"link_create.attach_type": 42, "link_create.kprobe_multi.cnt": 0x01020304})
    values = KPROBE_MULTI.unpack(attr[:22])
    assert values["link_create.attach_type"] == 42
    low_half = 0x0304 if sys.byteorder == "little" else 0x01020000
    assert values["link_create.kprobe_multi.cnt"] == low_half
    assert values["link_create.kprobe_multi.cookies"] == 0
    assert KPROBE_MULTI.unpack(b"") == dict.fromkeys(KPROBE_MULTI.fields, 0)


def test_unpack_ignores_what_follows() -> None:
    attr = packed.ENABLE_STATS.pack({"enable_stats.type": 5})
    assert packed.ENABLE_STATS.unpack(bytes(attr) + b"\xff" * 60) == {"enable_stats.type": 5}


def test_offset() -> None:
    assert KPROBE_MULTI.offset("link_create.kprobe_multi.cookies") == (40, 8)
    assert packed.MAP_LOOKUP_ELEM.offset("next_key") == (16, 8)
    assert packed.MAP_CREATE.offset("map_name") == (28, 16)
    assert packed.MAP_LOOKUP_BATCH.offset("batch.map_fd") == (36, 4)
    assert packed.PROG_INFO.offset("recursion_misses") == (208, 8)
    with pytest.raises(UsageError, match="did you mean"):
        packed.MAP_CREATE.offset("map_nam")


def test_sizes_are_those_of_linux_7_2() -> None:
    assert packed.PROG_LOAD.size == 168
    assert packed.PERF_EVENT_ATTR.size == 144
    assert packed.PROG_INFO.size == 232
    assert packed.MAP_INFO.size == 104
    assert packed.LINK_INFO_KPROBE_MULTI.size == 64


def test_pointer_kinds() -> None:
    kinds = dict(KPROBE_MULTI.pointers)
    assert kinds == {
        "link_create.kprobe_multi.syms": "cstrs",
        "link_create.kprobe_multi.addrs": "u64s",
        "link_create.kprobe_multi.cookies": "u64s",
    }
    assert dict(packed.PROG_LOAD.pointers)["log_buf"] == "out"
    assert dict(packed.MAP_UPDATE_ELEM.pointers)["value"] == "in"
    assert dict(packed.MAP_LOOKUP_ELEM.pointers)["value"] == "out"
    assert packed.PERF_EVENT_ATTR_KPROBE.pointers == (("kprobe_func", "cstr"),)


def test_names_are_unique_and_lead_to_the_definition() -> None:
    found = [layout.name for layout in all_packed()]
    assert sorted(found) == sorted(layouts.PACKED)
    assert len({definition.name for definition in layouts.DEFINITIONS}) == len(layouts.DEFINITIONS)
    for layout in all_packed():
        definition = layouts.named(layout.name)
        for attribute in (
            "command",
            "variant",
            "cmd",
            "name",
            "size",
            "format",
            "fields",
            "pointers",
            "aliases",
        ):
            assert getattr(definition, attribute) == getattr(layout, attribute), layout.name
    with pytest.raises(UsageError):
        layouts.named("nothing")


def test_variants_of_link_create_follow_the_attach_type() -> None:
    def variant(attach_type: int) -> str:
        return layouts.for_attr(Cmd.LINK_CREATE, KPROBE_MULTI.pack({"link_create.attach_type": attach_type})).variant

    assert variant(AttachType.TRACE_KPROBE_MULTI) == "kprobe_multi"
    assert variant(AttachType.TRACE_KPROBE_SESSION) == "kprobe_multi"
    assert variant(AttachType.PERF_EVENT) == "perf_event"
    assert variant(AttachType.TRACE_FEXIT) == "tracing"
    assert variant(AttachType.TCX_EGRESS) == "tcx"
    assert variant(AttachType.NETKIT_PEER) == "netkit"
    assert variant(AttachType.NETFILTER) == "netfilter"
    assert variant(AttachType.TRACE_ITER) == "iter"
    assert variant(AttachType.TRACE_UPROBE_SESSION) == "uprobe_multi"
    assert variant(AttachType.TRACE_FSESSION_MULTI) == "tracing_multi"
    assert variant(AttachType.LSM_CGROUP) == variant(AttachType.CGROUP_UNIX_CONNECT) == "cgroup"
    assert variant(AttachType.XDP) == variant(AttachType.STRUCT_OPS) == variant(4711) == ""
    # attach_type 0 is CGROUP_INET_INGRESS.
    assert layouts.for_attr(Cmd.LINK_CREATE, b"").variant == "cgroup"
    assert layouts.for_attr(Cmd.MAP_CREATE | Cmd.COMMON_ATTRS, b"").name == "map_create"
    with pytest.raises(UsageError, match="4711"):
        layouts.for_attr(4711, b"")


def test_variants_of_link_info_follow_the_type() -> None:
    def name(type: int, event: int = 0) -> str:
        data = packed.LINK_INFO_PERF_EVENT_KPROBE.pack({"type": type, "perf_event.type": event})
        return layouts.for_link_info(bytes(data)).name

    assert name(LinkType.KPROBE_MULTI) == "link_info.kprobe_multi"
    assert name(LinkType.PERF_EVENT, PerfEventLinkType.KRETPROBE) == "link_info.perf_event.kprobe"
    assert name(LinkType.PERF_EVENT, PerfEventLinkType.URETPROBE) == "link_info.perf_event.uprobe"
    assert name(LinkType.PERF_EVENT, PerfEventLinkType.EVENT) == "link_info.perf_event.event"
    assert name(LinkType.PERF_EVENT, 4711) == "link_info.perf_event"
    assert name(LinkType.TRACING) == "link_info.tracing"
    assert name(4711) == "link_info"
    # Linux 7.2 has no info of a tracing_multi link.
    without = {type for type in names.members(LinkType).values() if name(type) == "link_info"}
    assert without == {LinkType.UNSPEC, LinkType.TRACING_MULTI}


def test_every_role_points_at_fields_that_exist() -> None:
    for definition in layouts.DEFINITIONS:
        for member in definition.members:
            role = member.role
            assert not role.of or role.of in definition.fields, (definition.name, member.path)
            assert (role.names is not None) == (role.kind in ("flags", "enum")), (
                definition.name,
                member.path,
            )
            if role.kind != "hole":
                for since in (member.since, *member.also.values()):
                    assert tuple(map(int, since.split("."))) >= (2, 6), (definition.name, member.path)


def test_every_command_and_every_member_has_a_definition() -> None:
    commands = set(names.members(Cmd).values()) - {Cmd.COMMON_ATTRS}
    assert len(commands) == 39
    assert {definition.cmd for definition in layouts.DEFINITIONS} == commands | {-1}
    described: dict[str, set[str]] = {}
    for definition in layouts.DEFINITIONS:
        struct = "bpf_attr" if definition.cmd >= 0 else fields.c_name(definition.command)
        described.setdefault(struct, set()).update(definition.fields, (alias for alias, _ in definition.aliases))
    assert described["bpf_attr"] == {path for group in tables.ATTR for path, *_ in group}
    for struct, (_, members) in tables.STRUCTS.items():
        words = {"flags", "gpl_compatible"} & described[struct] - {path for path, *_ in members}
        assert described[struct] - words == {path for path, *_ in members}, struct


def test_commands_have_every_member_of_their_struct() -> None:
    """Also those that the command ignores, and every name of each place."""
    for definition in layouts.DEFINITIONS:
        if definition.cmd >= 0 and definition.cmd != Cmd.LINK_CREATE:
            (group,) = [g for g in tables.ATTR if any(path == definition.fields[0] for path, *_ in g)]
            ours = {path: definition.offset(path) for path in (*definition.fields, *(a for a, _ in definition.aliases))}
            assert ours == {path: (offset, size) for path, offset, size, _ in group}


def test_a_definition_that_leaves_something_out_or_contradicts_the_tables_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"nothing is said about iter_create\.flags"):
        fields.define("ITER_CREATE", "", fields.field("iter_create.link_fd", since="5.8"))
    with pytest.raises(AssertionError, match=r"iter_create\.flags is not at the place of iter_create\.link_fd"):
        fields.define("ITER_CREATE", "", fields.field("iter_create.link_fd", since="5.8", also={"iter_create.flags": "5.8"}))
    with pytest.raises(AssertionError, match=r"iter_info at 16 lies in the member before it"):
        both = [fields.field(f"link_create.{name}", since="5.10") for name in ("target_btf_id", "iter_info")]
        fields.define("LINK_CREATE", "", *both, whole=False)
