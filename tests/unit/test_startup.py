"""What a start imports. Each module costs milliseconds on a small machine, before the first hit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.btf.build import Builder

ROOT = Path(__file__).parents[2]

# Runs rawkm against a kernel that says yes to everything, up to the LINK_CREATE: then tells which modules are
# there.
SPY = """
import os, sys
import ctypes  # there is no bpf(2) without it; what it imports is not ours to choose
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from rawkm.syscall.kernel import Reply
from rawkm.syscall.live import LiveKernel

BASE = "/sys/kernel/tracing/available_filter_functions"
files = {
    BASE: b"tcp_sendmsg\\ntcp_recvmsg\\ntwin\\ntwin\\nvfs_read\\n",
    BASE + "_addrs": b"1004 tcp_sendmsg\\n1104 tcp_recvmsg\\n1204 twin\\n1304 twin\\n1404 vfs_read\\n",
    "/proc/kallsyms": b"".join(
        b"%016x t %s\\n" % line
        for line in ((0x1000, b"tcp_sendmsg"), (0x1100, b"tcp_recvmsg"), (0x1200, b"twin"), (0x1300, b"twin"))
    ),
    "/sys/kernel/btf/vmlinux": bytes.fromhex(sys.argv[2]),
    "/sys/devices/system/cpu/possible": b"0-3\\n",
    "/sys/devices/system/cpu/online": b"0-3\\n",
}
commands = []

def bpf(self, layout, values):
    commands.append(layout.command)
    if layout.command == "LINK_CREATE":
        print(*commands)
        print(*sorted(set(sys.modules) - before))
        sys.stdout.flush()
        os._exit(0)
    if layout.command in ("MAP_CREATE", "PROG_LOAD", "RAW_TRACEPOINT_OPEN"):
        return Reply(memory(), layout, bytes(layout.size))
    return Reply(0, layout, bytes(layout.size))

def memory(*args, **kwargs):
    fd = os.memfd_create("kernel")
    os.ftruncate(fd, 1 << 26)
    return fd

really = LiveKernel.read_chunks

def read_chunks(self, path, *, dir_fd=None):
    yield from [files[path]] if path in files else really(self, path)

LiveKernel.bpf = bpf
LiveKernel.perf_event_open = memory
LiveKernel.ioctl = lambda *args: 0
LiveKernel.read_chunks = read_chunks
LiveKernel.identity = lambda self, path: (0, 0xEFFFFFFC)
from rawkm.cli.main import run
sys.exit(run(sys.argv[3:]))
"""

# Of the standard library: what is built in, or as small.
ALLOWED = {
    "__future__",
    "_signal",
    "_struct",
    "array",
    "errno",
    "fcntl",
    "gc",
    "itertools",
    "math",
    "mmap",
    "os",
    "resource",
    "select",
    "struct",
    "time",
}
# Following a process tree and starting a command may take more, but nothing of these.
NEVER = ("construct", "dataclasses", "typing", "re", "argparse", "subprocess", "json", "inspect")


def btf() -> str:
    """A kernel's BTF with what following a process tree asks for."""
    builder = Builder()
    number = builder.integer("int", 4, signed=True)
    builder.composite("task_struct", 16, [("pid", number, 32, 0), ("tgid", number, 64, 0)])
    return builder.build().hex()


def imported(*argv: str) -> tuple[list[str], set[str]]:
    """The bpf(2) commands up to the first LINK_CREATE, and the modules imported until then."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SPY, str(ROOT), btf(), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    commands, modules = done.stdout.splitlines()[-2:]
    assert commands.split()[-1] == "LINK_CREATE"
    return commands.split(), set(modules.split())


@pytest.mark.parametrize(
    "line",
    [
        "count tcp_*",
        "count tcp_* udp_* vfs_read -d 5 --json --ready-file /nonexistent/ready --max-funcs 9",
        "count *tcp* --deny *_recv*",
        "count *",
        "count twin",
        "count tcp_* --by addrs",
        "trace tcp_*",
        "trace tcp_* --buffer perf --buffer-size 64K",
    ],
)
def test_imports_before_the_attach(line: str) -> None:
    commands, modules = imported(*line.split())
    assert "PROG_LOAD" in commands
    others = {name for name in modules if name.partition(".")[0] != "rawkm"}
    assert others - ALLOWED == set()
    # It went the real way.
    assert {"rawkm.cli.args", "rawkm.session", "rawkm.syscall.live", "rawkm.uapi.packed"} <= modules


@pytest.mark.parametrize("line", ["count tcp_* -- true", "trace tcp_* -- true", "count tcp_* -p 1"])
def test_imports_before_the_attach_with_a_process_tree(line: str) -> None:
    commands, modules = imported(*line.split())
    assert "RAW_TRACEPOINT_OPEN" in commands
    assert modules.isdisjoint(NEVER)
    assert "rawkm.programs.follow" in modules


def test_a_pattern_that_needs_re_gets_it() -> None:
    """The test above would see it if it were imported."""
    assert "re" in imported("count", "/^tcp_/")[1]
    assert "argparse" in imported("count", "tcp_*", "-d5")[1]
