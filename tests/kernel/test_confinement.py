"""What shuts a process in, seen from inside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.host import caps, confinement
from rawkm.syscall import nr, open_kernel

# Installs a seccomp filter by which a system call ends in an errno, and asks.
_SHUT_IN = """
import ctypes, json, struct, sys
number, errno = int(sys.argv[1]), int(sys.argv[2])
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7fff0000)]
insns = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *insn) for insn in code))
prog = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(insns)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog, 0, 0) == 0
from rawkm.host import confinement
from rawkm.syscall import open_kernel
kernel = open_kernel()
found = confinement.Blocked(kernel, may_bpf=sys.argv[3] == "1")
print(json.dumps([confinement.seccomp(kernel), found.calls, sorted(found.unsure)]))
"""

BPF, PERF = nr.numbers()


def inside(number: int, errno: int, may_bpf: int = 1) -> list[object]:
    argv = [sys.executable, "-c", _SHUT_IN, str(number), str(errno), str(may_bpf)]
    answer: list[object] = json.loads(subprocess.run(argv, capture_output=True, check=True, cwd=Path(__file__).parents[2]).stdout)
    return answer


def test_nothing_is_blocked_here() -> None:
    kernel = open_kernel()
    mask = caps.effective(kernel)
    assert confinement.Blocked(kernel, may_bpf=caps.has(mask, caps.CAP_BPF)).calls == {}
    assert confinement.seccomp(kernel) == "off"
    assert confinement.user_namespace(kernel) is False
    assert confinement.file_uid(kernel) == 0


@pytest.mark.parametrize(("number", "name"), [(BPF, "bpf"), (PERF, "perf_event_open"), (nr.FSCONFIG, "fsconfig")], ids=str)
def test_a_filter_is_told_from_the_kernel(number: int, name: str) -> None:
    assert inside(number, 1) == ["filter", {name: "EPERM"}, []]
    assert inside(number, 38) == ["filter", {name: "ENOSYS"}, []]


def test_without_the_capability_bpf_may_have_been_refused_by_the_kernel() -> None:
    assert inside(BPF, 1, may_bpf=0) == ["filter", {"bpf": "EPERM"}, ["bpf"]]


def test_a_user_namespace() -> None:
    code = "from rawkm.host import confinement; from rawkm.syscall import open_kernel; print(confinement.user_namespace(open_kernel()))"
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout == "True\n"


def test_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a mark in the environment or the file system; else by the PID namespace."""
    kernel = open_kernel()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert confinement.container(kernel) == ("kubernetes", "KUBERNETES_SERVICE_HOST is set")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    marked = next((path for _, path in confinement._MARKS if Path(path).exists()), None)
    kind, evidence = confinement.container(kernel)
    if marked:
        assert kind and evidence == f"{marked} exists"
    code = (
        "from rawkm.host import confinement; from rawkm.syscall import open_kernel; print(*confinement.container(open_kernel()))"
    )
    monkeypatch.setattr(confinement, "_MARKS", ())
    argv = ["unshare", "--pid", "--fork", sys.executable, "-c", f"from rawkm.host import confinement as c; c._MARKS = (); {code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("unknown this is not the first PID namespace")
