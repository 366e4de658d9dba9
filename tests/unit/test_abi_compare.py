"""The tables against BTF, and BTF against BTF. The kernels are made here: small ones, wrong in one place each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rawkm.btf import Btf, kinds
from rawkm.btf.build import Builder
from rawkm.errors import BTFError
from rawkm.uapi import compare, constants, packed, tables
from rawkm.uapi.compare import NEWER, NOT_YET, UNUSED, WRONG, Change, Finding
from rawkm.uapi.layout import Layout

CMD = ("BPF_MAP_CREATE", 0), ("BPF_MAP_LOOKUP_ELEM", 1)


def kernel(
    *members: tuple[str, int, int],
    size: int = 168,
    commands: tuple[tuple[str, int], ...] = CMD,
    extend: Callable[[Builder], object] | None = None,
) -> Btf:
    """A kernel with these members (path without dots, offset, size) of union bpf_attr and commands."""
    b = Builder()
    types = {size: b.integer(f"u{size * 8}", size) for size in (4, 8)}
    for chars in {size for _, _, size in members} - {4, 8}:
        types[chars] = b.array(b.integer("char", 1, signed=True), types[4], chars)
    inner = b.composite("", size, [(path, types[length], at * 8, 0) for path, at, length in members])
    b.composite("bpf_attr", size, [("", inner, 0, 0)], union=True)
    b.enum("bpf_cmd", commands)
    if extend:
        extend(b)
    return Btf(b.build())


RIGHT = (("map_type", 0, 4), ("key_size", 4, 4), ("map_name", 28, 16), ("map_extra", 64, 8))


def states(btf: Btf, *states: str) -> list[Finding]:
    return [finding for finding in compare.check(btf).findings if finding.state in states]


def test_a_kernel_that_agrees() -> None:
    report = compare.check(kernel(*RIGHT))
    assert not report.of(WRONG) and not report.of(NEWER)
    assert (report.members, report.enumerators) == (4, 2)
    missing = {(f.where, f.name): f for f in report.of(NOT_YET)}
    assert missing["union bpf_attr", "link_create.kprobe_multi.cnt"].ours == (20, 4)
    assert missing["enum bpf_cmd", "BPF_COMMON_ATTRS"].ours == 1 << 16
    assert ("struct bpf_common_attr", "log_buf") in missing
    assert ("struct perf_event_attr", "disabled (bits)") in missing
    # Enums of which this kernel has nothing at all.
    assert {f.where for f in report.of(UNUSED)} >= {"enum bpf_map_type", "enum with BPF_ANY"}
    assert "enum bpf_cmd" not in {f.where for f in report.of(UNUSED)}


@pytest.mark.parametrize(
    ("member", "finding"),
    [
        (("map_type", 4, 4), Finding(WRONG, "union bpf_attr", "map_type", (0, 4), (4, 4))),
        (("map_extra", 64, 4), Finding(WRONG, "union bpf_attr", "map_extra", (64, 8), (64, 4))),
        (("map_name", 28, 15), Finding(WRONG, "union bpf_attr", "map_name", (28, 16), (28, 15))),
        (("brand_new", 164, 4), Finding(NEWER, "union bpf_attr", "brand_new", None, (164, 4))),
    ],
)
def test_a_member(member: tuple[str, int, int], finding: Finding) -> None:
    members = [*(m for m in RIGHT if m[0] != member[0]), member]
    found = states(kernel(*members), WRONG, NEWER)
    # What is packed on the hot path is checked as well.
    also = [f for f in found if f.where.startswith("union bpf_attr, packed ")]
    assert [f.name for f in also] == ([finding.name] if finding.state == WRONG else [])
    assert [f for f in found if f not in also] == [finding]


def test_a_member_beyond_ours_is_not_wrong() -> None:
    assert states(kernel(*RIGHT, ("brand_new", 168, 8), size=176), WRONG, NEWER) == [
        Finding(NEWER, "union bpf_attr", "brand_new", None, (168, 8))
    ]


def test_the_size_counts_when_the_members_are_the_same() -> None:
    def add(b: Builder) -> None:
        u64, u32 = b.integer("u64", 8), b.integer("u32", 4)
        places = [("log_buf", u64, 0), ("log_size", u32, 64), ("log_level", u32, 96), ("log_true_size", u32, 128)]
        b.composite("bpf_common_attr", 32, [(name, type, bit, 0) for name, type, bit in places])

    assert states(kernel(*RIGHT, extend=add), WRONG) == [Finding(WRONG, "struct bpf_common_attr", "(size)", 24, 32)]


def test_enumerators() -> None:
    found = states(kernel(*RIGHT, commands=(("BPF_MAP_CREATE", 1), ("BPF_BREW", 39), ("__MAX_BPF_CMD", 40))), WRONG, NEWER)
    assert found == [
        Finding(WRONG, "enum bpf_cmd", "BPF_MAP_CREATE", 0, 1),
        Finding(NEWER, "enum bpf_cmd", "BPF_BREW", None, 39),
        Finding(WRONG, "constants.Cmd", "BPF_MAP_CREATE", 0, 1),
    ]


def test_enumerators_of_more_than_32_bits() -> None:
    def old(b: Builder) -> None:
        b.enum("", [("BPF_F_INDEX_MASK", 0xFFFFFFFF), ("BPF_F_CTXLEN_MASK", 0)])

    def new(b: Builder) -> None:
        b.enum("", [("BPF_F_INDEX_MASK", 0xFFFFFFFF), ("BPF_F_CTXLEN_MASK", 0xFFFFF << 32)], size=8, wide=True)

    def wrong(b: Builder) -> None:
        b.enum("", [("BPF_F_CTXLEN_MASK", 0xFFFF << 32)], size=8, wide=True)

    assert not states(kernel(*RIGHT, extend=old), WRONG)
    assert not states(kernel(*RIGHT, extend=new), WRONG)
    assert {f.name for f in states(kernel(*RIGHT, extend=wrong), WRONG)} == {"BPF_F_CTXLEN_MASK"}


def test_a_field_moved_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = [(p, 24 if p == "map_extra" else at, size, type) for p, at, size, type in tables.ATTR[0]]
    monkeypatch.setattr(tables, "ATTR", (tuple(moved), *tables.ATTR[1:]))
    assert states(kernel(*RIGHT), WRONG) == [Finding(WRONG, "union bpf_attr", "map_extra", (24, 8), (64, 8))]


def test_a_field_moved_in_what_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = packed.MAP_CREATE
    fields = ("key_size", "map_type", *old.fields[2:])
    new = Layout(old.command, old.variant, old.cmd, old.name, old.size, old.format, fields)
    monkeypatch.setattr(packed, "MAP_CREATE", new)
    found = states(kernel(*RIGHT), WRONG)
    assert {(f.where, f.name) for f in found} == {
        ("union bpf_attr, packed map_create", "map_type"),
        ("union bpf_attr, packed map_create", "key_size"),
    }


def test_a_constant_changed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from rawkm.uapi import names

    monkeypatch.setattr(constants.Cmd, "MAP_LOOKUP_ELEM", 2)
    names.members.cache_clear()
    try:
        assert states(kernel(*RIGHT), WRONG) == [Finding(WRONG, "constants.Cmd", "BPF_MAP_LOOKUP_ELEM", 2, 1)]
    finally:
        names.members.cache_clear()


def test_masks_of_bit_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    from rawkm.uapi import names

    def add(b: Builder) -> None:
        u64 = b.integer("u64", 8)
        b.composite("perf_event_attr", 48, [("disabled", u64, 320, 1), ("precise_ip", u64, 335, 2)])

    assert not states(kernel(*RIGHT, extend=add), WRONG)
    right = constants.PerfAttrFlag.precise_ip
    monkeypatch.setattr(constants.PerfAttrFlag, "precise_ip", right >> 1)
    names.members.cache_clear()
    try:
        assert states(kernel(*RIGHT, extend=add), WRONG) == [
            Finding(WRONG, "constants.PerfAttrFlag", "precise_ip", right >> 1, right)
        ]
    finally:
        names.members.cache_clear()


def test_a_renamed_field_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = [("map_typo" if p == "map_type" else p, at, size, type) for p, at, size, type in tables.ATTR[0]]
    monkeypatch.setattr(tables, "ATTR", (tuple(renamed), *tables.ATTR[1:]))
    assert states(kernel(*RIGHT), WRONG) == [Finding(WRONG, "union bpf_attr", "map_typo", (0, 4), None)]


def test_diff() -> None:
    before = kernel(("map_type", 0, 4), ("key_size", 4, 4), ("old", 8, 4), size=16)
    after = kernel(("map_type", 0, 4), ("key_size", 8, 8), ("new", 4, 4), commands=(*CMD, ("BPF_MAP_UPDATE_ELEM", 2)))
    assert compare.diff(before, before) == []
    assert compare.diff(before, after) == [
        Change("union bpf_attr", "(size)", 16, 168),
        Change("union bpf_attr", "key_size", (4, 4), (8, 8)),
        Change("union bpf_attr", "old", (8, 4), None),
        Change("union bpf_attr", "new", None, (4, 4)),
        Change("enum bpf_cmd", "BPF_MAP_UPDATE_ELEM", None, 2),
    ]


def test_btf_of_something_else() -> None:
    b = Builder()
    b.ref(kinds.TYPEDEF, b.integer("int", 4, signed=True), "bpf_attr")
    for question in (lambda: compare.check(Btf(b.build())), lambda: compare.diff(kernel(*RIGHT), Btf(b.build()))):
        with pytest.raises(BTFError, match="no union bpf_attr"):
            question()
