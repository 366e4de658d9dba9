"""--explain: every byte of every attr, and nothing that strace would not say."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from ..lib import CALL, rawkm

FUNCTIONS = ["tcp_v4_connect", "inet_csk_accept", CALL]
LINE = re.compile(r" {4} *(\d+)  ((?:[0-9a-f]{2} ?)+?) *(?:  (\S.*?) = (.*))?")
CALLED = re.compile(r"bpf\((BPF_\w+), (.*), (\d+)\) = (-?\d+)(.*)")


class Explained:
    """One bpf(2) call: its line, and the bytes that are shown under it."""

    def __init__(self, match: re.Match[str]) -> None:
        self.command, self.inline, size, result, _ = match.groups()
        self.size, self.result = int(size), int(result)
        self.bytes = bytearray()
        self.fields: dict[str, str] = {}

    def add(self, match: re.Match[str]) -> None:
        assert int(match[1]) == len(self.bytes), (self.command, match[0])
        self.bytes += bytes.fromhex(match[2])
        if match[3]:
            assert match[3] not in self.fields, match[0]
            self.fields[match[3]] = match[4]


def calls(text: str) -> list[Explained]:
    """The bpf calls, each with the rows that follow it up to the next line of another kind."""
    found: list[Explained] = []
    current: Explained | None = None
    for line in text.splitlines():
        called = CALLED.fullmatch(line)
        row = LINE.fullmatch(line)
        if called:
            current = Explained(called)
            found.append(current)
        elif row and current:
            current.add(row)
        else:
            current = None
    return found


def test_every_byte_of_every_attr() -> None:
    """Each byte once, without a gap, as many as were sent; before or after the subcommand."""
    for argv in (["--explain", "count", *FUNCTIONS], ["count", *FUNCTIONS, "--explain"]):
        done = rawkm(*argv, "--json", "--by", "addrs", "--", "true")
        assert done.status == 0, done
        found = calls(done.err)
        assert {call.command for call in found} >= {
            "BPF_MAP_CREATE",
            "BPF_PROG_LOAD",
            "BPF_PROG_TEST_RUN",
            "BPF_RAW_TRACEPOINT_OPEN",
            "BPF_LINK_CREATE",
            "BPF_OBJ_GET_INFO_BY_FD",
        }
        for call in found:
            assert len(call.bytes) == call.size, (call.command, len(call.bytes), call.size)
        (link,) = [call for call in found if call.command == "BPF_LINK_CREATE"]
        _link_create(link, done.summary["attached"])
    assert done.of("summary"), "stdout is for JSON alone"


def _link_create(link: Explained, count: int) -> None:
    """The bytes say what include/uapi/linux/bpf.h puts there, and each field's text what its bytes do."""
    prog_fd, target_fd, attach_type, flags, km_flags, cnt, syms, addrs, cookies = struct.unpack_from("=6I3Q", link.bytes)
    assert (target_fd, attach_type, flags, km_flags, cnt) == (0, 42, 0, 0, count)
    assert prog_fd > 2
    assert syms == 0 != addrs
    assert link.fields == {
        "link_create.prog_fd": str(prog_fd),
        "link_create.target_fd": "0",
        "link_create.attach_type": "BPF_TRACE_KPROBE_MULTI",
        "link_create.flags": "0",
        "link_create.kprobe_multi.flags": "0",
        "link_create.kprobe_multi.cnt": "3",
        "link_create.kprobe_multi.syms": "NULL",
        "link_create.kprobe_multi.addrs": hex(addrs),
        "link_create.kprobe_multi.cookies": hex(cookies) if cookies else "NULL",
    }


def test_strace_sees_the_same(tmp_path: Path) -> None:
    """The same call, by strace and by --explain: character by character, for names and for addresses."""
    for by in "syms", "addrs":
        trace = tmp_path / by
        prefix = ["strace", "-f", "-e", "trace=bpf", "-v", "-s", "256", "-o", str(trace)]
        done = rawkm("count", *FUNCTIONS, "--by", by, "--explain", "--json", "--", "true", prefix=prefix)
        assert done.status == 0, done
        ours = [call for call in calls(done.err) if call.command == "BPF_LINK_CREATE"]
        theirs = [CALLED.search(line) for line in trace.read_text().splitlines() if "BPF_LINK_CREATE" in line]
        assert len(ours) == len(theirs) == 1
        assert theirs[0]
        command, inline, size, result, _ = theirs[0].groups()
        assert (ours[0].command, ours[0].inline, ours[0].size, ours[0].result) == (command, inline, int(size), int(result))
        assert "kprobe_multi={flags=0, cnt=3, " in inline
        # Every bpf call that strace saw is explained, in its order, with its size and result.
        lines = trace.read_text().splitlines()
        seen = [(m[1], int(m[3]), int(m[4])) for m in map(CALLED.search, lines) if m]
        assert len(seen) == len([line for line in lines if "bpf(" in line])
        explained = [(call.command, call.size, call.result) for call in calls(done.err)]
        assert sorted(explained) == sorted(seen)


def test_explain_of_every_command() -> None:
    """list, doctor and trace, too; stdout is as without."""
    for argv in (["list", CALL], ["doctor"], ["trace", CALL, "--buffer", "perf", "--", "true"]):
        done = rawkm("--explain", *argv)
        assert done.status == 0, done
        assert "openat(" in done.err or "bpf(" in done.err
        for call in calls(done.err):
            assert len(call.bytes) == call.size
        assert "openat(" not in done.out
    assert "perf_event_open({" in done.err
