"""The tables against real kernels: the running one, and the four that tools/vm has, by their BTF."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.btf import Btf
from rawkm.cli import abi_cmd
from rawkm.syscall.live import LiveKernel
from rawkm.uapi import compare, show, tables

ROOT = Path(__file__).resolve().parents[2]
RUNNING = "running"
KERNELS = (RUNNING, "5.10", "6.1", "6.12", "7.2")

# Stable releases brought these to 6.12.
BROUGHT = re.compile(r"link_create\.cgroup\..*|aux_action")


def path_of(kernel: str) -> str:
    if kernel == RUNNING:
        return "/sys/kernel/btf/vmlinux"
    command = [str(ROOT / "tools" / "vm"), "path", "-k", kernel, "btf"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def release_of(kernel: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release if kernel == RUNNING else kernel)[:2]))


@pytest.mark.parametrize("which", KERNELS)
def test_check_agrees(which: str, kernel: LiveKernel, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["check"] if which == RUNNING else ["check", "--btf", path_of(which)]
    assert abi_cmd.run(abi_cmd.parse(argv), kernel) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    print(last)
    found = re.fullmatch(r"(\d+) members and (\d+) enumerators agree; 0 wrong, (\d+) not yet here, (\d+) newer here", last)
    assert found
    members, enumerators, not_yet, newer = map(int, found.groups())
    assert members > 270 and enumerators > 630
    assert (not_yet == 0) == (release_of(which) >= release_of(tables.KERNEL))
    # What a kernel up to the tables' own has is in the tables.
    assert newer == 0 or release_of(which) >= release_of(tables.KERNEL)


@pytest.mark.parametrize("which", KERNELS)
def test_since(which: str) -> None:
    """What is not there yet is newer than the kernel; what is there is not."""
    report = compare.check(Btf(Path(path_of(which)).read_bytes()))
    missing = {
        (finding.where.split()[1], finding.name)
        for finding in report.of(compare.NOT_YET)
        if finding.where.startswith(("struct", "union")) and "(bits)" not in finding.name
    }
    members = [("bpf_attr", path) for group in tables.ATTR for path, *_ in group]
    members += [(struct, path) for struct, (_, group) in tables.STRUCTS.items() for path, *_ in group]
    for struct, path in members:
        release = show.since(path, struct)
        assert release, (struct, path)
        is_newer = tuple(map(int, release.split("."))) > release_of(which)
        if (struct, path) in missing:
            assert is_newer, (struct, path, release)
        elif not path.startswith("__reserved"):
            assert not is_newer or BROUGHT.fullmatch(path), (struct, path, release)


def test_a_field_moved_by_hand_in_the_table_is_found(tmp_path: Path) -> None:
    """In a copy of the source, by the command itself."""
    subprocess.run(["cp", "-r", str(ROOT / "rawkm"), str(tmp_path / "rawkm")], check=True)
    table = tmp_path / "rawkm" / "uapi" / "tables.py"
    text = table.read_text()
    program = (
        "import sys; from rawkm.cli import abi_cmd; from rawkm.syscall import open_kernel;"
        "sys.exit(abi_cmd.run(abi_cmd.parse(['check']), open_kernel()))"
    )
    moves = [
        ('"link_create.kprobe_multi.cnt", 20, 4', '"link_create.kprobe_multi.cnt", 24, 4'),
        ('"map_flags", 16, 4', '"map_flags", 20, 4'),
        ('"recursion_misses", 208, 8', '"recursion_misses", 208, 4'),
        ('"BPF_TRACE_KPROBE_MULTI", 42', '"BPF_TRACE_KPROBE_MULTI", 47'),
        ('"key_size", 4, 4', '"key_sice", 4, 4'),
    ]
    for old, new in moves:
        assert text.count(old) == 1
        table.write_text(text.replace(old, new))
        # -B: two edits in one second look the same to the cache of compiled modules.
        done = subprocess.run(
            [sys.executable, "-B", "-c", program],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": ""},
            check=False,
        )
        assert done.returncode == 1, done.stderr
        wrong = done.stdout.partition("wrong, ")[2]
        assert new.split('"')[1] in wrong, done.stdout


def test_diff_of_two_kernels(kernel: LiveKernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert abi_cmd.run(abi_cmd.parse(["diff", path_of("6.1"), path_of("6.12")]), kernel) == 0
    out = capsys.readouterr().out
    assert "  ~ size: 144 bytes -> 152 bytes\n" in out
    assert "  + link_create.uprobe_multi.cnt at 48, 4 bytes\n" in out
    assert "enum bpf_cmd:\n  + BPF_TOKEN_CREATE = 36\n" in out
    assert abi_cmd.run(abi_cmd.parse(["diff", path_of("7.2"), path_of("7.2")]), kernel) == 0
    assert capsys.readouterr().out.startswith("no difference")
