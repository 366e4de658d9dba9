"""The generated constants, and the way back to their UAPI names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.uapi import constants, names
from rawkm.uapi.constants import (
    AttachType,
    Cmd,
    Helper,
    KprobeMultiFlag,
    MapFlag,
    MapType,
    MapUpdate,
    PerfAttrFlag,
    PerfFlag,
    PerfRecord,
    ProgFlag,
    RingbufFlag,
)

ROOT = Path(__file__).resolve().parents[2]


def test_values_that_the_rest_of_the_project_stands_on() -> None:
    assert Cmd.LINK_CREATE == 28
    assert AttachType.TRACE_KPROBE_MULTI == 42
    assert AttachType.TRACE_KPROBE_SESSION == 56
    assert AttachType.TRACE_FSESSION_MULTI == 61
    assert MapType.RINGBUF == 27
    assert Helper.get_func_ip == 173
    assert MapFlag.RB_OVERWRITE == 1 << 19
    assert KprobeMultiFlag.RETURN == 1
    assert RingbufFlag.BUSY_BIT == 1 << 31
    assert PerfFlag.FD_CLOEXEC == 8
    assert PerfRecord.SAMPLE == 9
    assert Cmd.COMMON_ATTRS == 1 << 16


def test_no_constant_is_the_moving_end_of_an_enum() -> None:
    for namespace in vars(constants).values():
        if isinstance(namespace, type):
            assert not [n for n in names.members(namespace) if n.startswith("__") or n.endswith("_MAX")], namespace


@pytest.mark.parametrize(
    ("namespace", "value", "text"),
    [
        (AttachType, 42, "BPF_TRACE_KPROBE_MULTI"),
        (Cmd, 10, "BPF_PROG_TEST_RUN"),
        (Helper, 14, "BPF_FUNC_get_current_pid_tgid"),
        (MapType, 19, "BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED"),
        (MapType, 0x63, "0x63 /* BPF_MAP_TYPE_??? */"),
        (MapUpdate, 4, "BPF_F_LOCK"),
        (MapUpdate, 0, "BPF_ANY"),
        (RingbufFlag, 1 << 30, "BPF_RINGBUF_DISCARD_BIT"),
    ],
)
def test_name(namespace: type, value: int, text: str) -> None:
    assert names.name(namespace, value) == text


@pytest.mark.parametrize(
    ("namespace", "value", "text"),
    [
        (MapFlag, 5, "BPF_F_NO_PREALLOC|BPF_F_NUMA_NODE"),
        (MapFlag, 0, "0"),
        (MapUpdate, 0, "BPF_ANY"),
        (MapFlag, 0x80000005, "BPF_F_NO_PREALLOC|BPF_F_NUMA_NODE|0x80000000"),
        (MapFlag, 0x80000000, "0x80000000 /* BPF_F_??? */"),
        (ProgFlag, 1 << 16 | 16, "BPF_F_SLEEPABLE|BPF_F_TOKEN_FD"),
        (PerfAttrFlag, PerfAttrFlag.disabled | PerfAttrFlag.watermark, "disabled|watermark"),
    ],
)
def test_flags(namespace: type, value: int, text: str) -> None:
    assert names.flags(namespace, value) == text


def test_a_mask_of_several_bits_is_a_number() -> None:
    low = PerfAttrFlag.precise_ip & -PerfAttrFlag.precise_ip
    assert names.flags(PerfAttrFlag, low * 2) == "precise_ip=2"


def test_regenerating_changes_nothing() -> None:
    """From the newest kernel's headers: $RAWKM_UAPI_HEADERS, or what tools/vm has of 7.2."""
    command = [sys.executable, str(ROOT / "tools" / "gen_uapi"), "--check"]
    if headers := os.environ.get("RAWKM_UAPI_HEADERS"):
        command += ["--include", headers]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_newer_header_may_add_but_not_change() -> None:
    import importlib.machinery
    import importlib.util

    loader = importlib.machinery.SourceFileLoader("gen_uapi", str(ROOT / "tools" / "gen_uapi"))
    spec = importlib.util.spec_from_loader("gen_uapi", loader)
    assert spec
    tool = importlib.util.module_from_spec(spec)
    sys.modules["gen_uapi"] = tool
    try:
        loader.exec_module(tool)
    finally:
        del sys.modules["gen_uapi"]
    old = "headers of Linux 7.2.1; do\nclass A:\n    X = 1\n    Y = 0xFF\n"
    assert tool.check("7.2.1", old, old) == 0
    assert tool.check("7.2.1", old + "    Z = 2\n", old) == 1
    assert tool.check("7.3.0", old + "    Z = 2\n", old) == 0
    assert tool.check("7.3.0", old.replace("0xFF", "0xFE"), old) == 1
    assert tool.check("7.3.0", old.replace("    X = 1\n", ""), old) == 1
    # tables.py: members, bit-fields and enumerators.
    table = """headers of Linux 7.2.1; do
ATTR: tuple[Members, ...] = (
    (
        ("map_type", 0, 4, "u"),
    ),
    (("enable_stats.type", 0, 4, "u"),),
STRUCTS: dict[str, tuple[int, Members]] = {
    "bpf_prog_info": (
        232,
        (
            ("type", 0, 4, "u"),
BITS: dict[str, Bits] = {
    "bpf_prog_info": (("gpl_compatible", 672, 1),),
ENUMS: tuple[tuple[str, Enumerators], ...] = (
        (("BPF_MAY_GOTO", 0),),
"""
    assert len(tool.committed_values(table)) == 5
    assert tool.check("7.3.0", table.replace("232", "240") + '        ("BPF_NEW", 7),\n', table) == 0
    for gone in ('"map_type", 0', '"enable_stats.type", 0', '("type", 0, 4', '"gpl_compatible", 672', '"BPF_MAY_GOTO", 0'):
        assert tool.check("7.3.0", table.replace(gone, gone.replace("0", "8").replace("672", "673")), table) == 1
        assert tool.check("7.3.0", table.replace(gone, gone.replace('"', '"x', 1)), table) == 1
