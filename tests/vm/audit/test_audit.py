"""The audit of Debian's own BPF programs, and of the whole machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import stracetext

from ..lib import Done, Running, nobody, rawkm, root_without, setting, wait_for

PROGRAM = [sys.executable, "-S", "-E", str(Path(__file__).parents[2] / "kernel" / "audited.py")]
BPFTRACE = ["bpftrace", "-e", 'kprobe:do_nanosleep { @[comm] = count(); } interval:ms:300 { print(@); printf("beat\\n"); }']


def calls(done: Done) -> list[dict[str, Any]]:
    """All of them decoded: none of an unknown command, none unreadable."""
    assert done.status == 0, done
    assert done.summary["unknown"] == done.summary["unreadable"] == 0, done
    found = done.of("call")
    assert len(found) == done.summary["calls"] > 0
    assert all(call["command"] and call["values"] for call in found)
    return found


def commands(found: list[dict[str, Any]]) -> set[str]:
    return {call["command"] for call in found}


def test_bpftool() -> None:
    found = calls(
        rawkm("audit", "--json", "--", "sh", "-c", "bpftool prog show; bpftool map show; bpftool link show; bpftool btf show")
    )
    assert commands(found) >= {"PROG_GET_NEXT_ID", "MAP_GET_NEXT_ID", "LINK_GET_NEXT_ID", "BTF_GET_NEXT_ID", "OBJ_GET_INFO_BY_FD"}
    assert len({call["pid"] for call in found}) == 4


@contextmanager
def other(*program: str) -> Iterator[None]:
    """A program that runs meanwhile."""
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def until(wanted: str, program: list[str]) -> list[dict[str, Any]]:
    """The calls of a program that is ended when it has made this one."""
    path = Path("/tmp/calls")
    path.write_bytes(b"")
    mark, seen = f'"command":"{wanted}"'.encode(), b""
    # The program's own output is none of ours.
    with (
        open(os.devnull, "wb") as null,
        Running("audit", "--json", "-o", str(path), "--", *program, stdout=null) as running,
        path.open("rb") as file,
    ):

        def made() -> bool:
            nonlocal seen
            # The kernel's BTF is among what they read, megabytes a line: never twice, and a word may come in two pieces.
            seen = seen[-len(mark) :] + file.read()
            assert running.process.poll() is None, running.end()
            return mark in seen

        wait_for(made, f"its {wanted}", timeout=240)
        done = running.end(signal.SIGTERM, timeout=120)
    return calls(Done(["--json"], done.status, path.read_bytes(), done.err.encode(), 0))


def test_bpftrace() -> None:
    found = until("MAP_GET_NEXT_KEY", BPFTRACE)
    assert commands(found) >= {"MAP_CREATE", "PROG_LOAD", "MAP_GET_NEXT_KEY"}
    # Every program is told apart, and its instructions are there.
    loads = [call for call in found if call["command"] == "PROG_LOAD"]
    assert all(len(call["memory"]["insns"]["hex"]) == 16 * call["values"]["insn_cnt"] for call in loads)
    assert any((call["fds"].get("map_fd") or {}).get("name") for call in found)


def test_libbpf_tools() -> None:
    found = until("LINK_CREATE", ["execsnoop"])
    assert commands(found) >= {"BTF_LOAD", "MAP_CREATE", "PROG_LOAD", "LINK_CREATE"}
    load = next(call for call in found if call["command"] == "PROG_LOAD" and call["values"]["func_info_cnt"])
    size = load["values"]["func_info_cnt"] * load["values"]["func_info_rec_size"]
    assert len(load["memory"]["func_info"]["hex"]) == 2 * size


def test_strace_prints_the_same() -> None:
    """Of libbpf's and bpftool's calls, with their info structs, names and BTF."""
    program = ["bpftool", "prog", "show"]
    # At the same addresses both times.
    with setting("kernel/randomize_va_space", 0), other("execsnoop"):
        wait_for(lambda: b"tracepoint" in subprocess.check_output(["bpftool", "prog"]), "execsnoop's programs", timeout=120)
        ours = calls(rawkm("audit", "--json", "--", *program, timeout=120))
        options = ["-f", "-e", "trace=bpf", "-v", "-X", "raw", "-s", "65536", "-o", "/tmp/strace"]
        subprocess.run(["strace", *options, *program], check=True, stdout=subprocess.DEVNULL)
    theirs = stracetext.calls(Path("/tmp/strace").read_text())
    assert len(ours) == len(theirs) > 5
    assert [d for mine, his in zip(ours, theirs, strict=True) for d in stracetext.differences(his, mine)] == []


def test_killing_the_auditor_of_bpftrace() -> None:
    """By a signal that nothing can catch: bpftrace goes on, and its bpf(2) works."""
    out = Path("/tmp/bpftrace.out")
    with out.open("wb") as file, Running("audit", "-q", "--", *BPFTRACE, stdout=file) as running:
        wait_for(lambda: out.read_bytes().count(b"beat") > 1, "bpftrace's output", timeout=120)
        (child,) = (
            int(p)
            for p in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            if Path(f"/proc/{p}/comm").read_text() == "bpftrace\n"
        )
        running.end(signal.SIGKILL)
        before = out.read_bytes()
        wait_for(lambda: out.read_bytes()[len(before) :].count(b"beat") > 4, "more of bpftrace's output")
        os.kill(child, signal.SIGINT)
        wait_for(lambda: not os.path.exists(f"/proc/{child}"), "bpftrace's end")
    text = out.read_bytes().decode()
    assert "ENOSYS" not in text and "rror" not in text, text
    # It could read its map to the end, which takes bpf(2).
    assert "@[" in text[len(before) :], text


def test_the_whole_machine_and_one_program_see_the_same(tmp_path: Path) -> None:
    """The same calls by ptrace and by tracepoints, but for what only one of them can know."""
    ready = tmp_path / "ready"
    with Running("audit", "--system", "--json", "--ready-file", str(ready)) as system:
        system.until(str(ready))
        one = calls_of(rawkm("audit", "--json", "--", *PROGRAM, "calls"))
        done = system.end(signal.SIGTERM)
    assert done.status == 0, done
    assert done.summary["dropped_calls"] == done.summary["dropped_pieces"] == 0
    assert done.summary["own_calls"] > 0
    # Tracepoints' programs cannot be preempted before Linux 7.0.
    assert done.summary["passed_by"] == 0 or int(os.uname().release.partition(".")[0]) >= 7
    assert not any(call["pid"] == system.pid for call in done.of("call"))
    pid = one[0]["pid"]
    all_ = [call for call in done.of("call") if call["pid"] == pid]
    assert len(all_) == len(one) == 6
    for ours, theirs in zip(all_, one, strict=True):
        for key in "cmd", "command", "tid", "comm", "size", "attr", "values", "after", "memory", "result", "errno":
            assert ours[key] == theirs[key], key
    update, lookup, info, load, refused = all_[1:]
    assert update["fds"]["map_fd"]["name"] == "counts"
    assert lookup["written"]["value"]["hex"] == "6712000000000000"
    assert info["info"]["values"] == one[3]["info"]["values"]
    assert "processed 2 insns" in bytes.fromhex(load["written"]["log_buf"]["hex"]).decode()
    assert refused["written"] == one[5]["written"]


def test_what_the_kernel_passed_by_is_said(tmp_path: Path) -> None:
    """Where programs can be preempted, a storm of system calls from several processes passes some by."""
    ready = tmp_path / "ready"
    with Running("audit", "--system", "-q", "--ready-file", str(ready)) as system:
        system.until(str(ready))
        storm = "import os, time\nend = time.monotonic() + 5\nwhile time.monotonic() < end: os.getppid()"
        for process in [subprocess.Popen(["python3", "-S", "-E", "-c", storm]) for _ in range(4)]:
            assert process.wait(60) == 0
        done = system.end(signal.SIGTERM)
    assert done.status == 0, done
    preempted = int(os.uname().release.partition(".")[0]) >= 7
    assert any("passed our programs by" in note for note in done.notes) == preempted, done


def calls_of(done: Done) -> list[dict[str, Any]]:
    assert done.status == 0, done
    return done.of("call")


def test_the_whole_machine_sees_links(tmp_path: Path) -> None:
    """The functions that somebody attaches to, by name, and what cannot be read is said."""
    ready = tmp_path / "ready"
    with Running("audit", "--system", "--json", "--ready-file", str(ready)) as system:
        system.until(str(ready))
        functions = ["inet_csk_accept", "inet_listen", "tcp_v4_connect"]
        assert rawkm("count", *functions, "--by", "syms", "--", "true").status == 0
        subprocess.run([*PROGRAM, "hostile"], check=True)
        done = system.end(signal.SIGINT)
    (link,) = [call for call in done.of("call") if call["command"] == "LINK_CREATE"]
    assert link["variant"] == "kprobe_multi"
    # In the order in which they lie in memory.
    assert sorted(link["memory"]["link_create.kprobe_multi.syms"]["strings"]) == functions
    assert len(link["memory"]["link_create.kprobe_multi.cookies"]["hex"]) == 2 * 24
    assert link["fds"]["link_create.prog_fd"]["name"] == "rawkm_count"
    hostile = [call for call in done.of("call") if call.get("unreadable")]
    assert [call["unreadable"] for call in hostile] == ["EFAULT"] * 3
    bad = next(call for call in done.of("call") if call["command"] == "PROG_LOAD" and call["errno"] == "EFAULT")
    assert bad["memory"]["insns"]["error"] == bad["memory"]["license"]["error"] == "EFAULT"


def test_who_may_see_the_whole_machine() -> None:
    done = rawkm("audit", "--system", "-d", "1", "-q", prefix=nobody("bpf", "perfmon"))
    assert done.status == 0, done
    text = rawkm("audit", "--system", "-d", "1", prefix=nobody("bpf")).refused(3)
    assert "CAP_PERFMON" in text, text


@pytest.mark.parametrize(("scope", "status"), [(1, 0), (2, 3)])
def test_yama(scope: int, status: int) -> None:
    """With 1 one's own children may be traced, with 2 nobody may without CAP_SYS_PTRACE."""
    with setting("kernel/yama/ptrace_scope", scope):
        done = rawkm("audit", "-q", "--", *PROGRAM, "hostile", prefix=nobody())
        assert done.status == status, done
        if status:
            assert "kernel.yama.ptrace_scope is 2, and CAP_SYS_PTRACE is missing" in done.refused(3)
    assert rawkm("audit", "-q", "--", "true", prefix=root_without("sys_ptrace")).status == 0
