"""trace: a line per hit, none unaccounted for, none that could harm a terminal."""

from __future__ import annotations

import os
import re
import select
import time
from datetime import datetime
from pathlib import Path

from ..lib import CALL, PATIENCE, SUMMARY, Done, Running, Worker, rawkm, work

MANY = 20_000


def test_hits_are_events_or_dropped() -> None:
    """A function hit a known number of times, through a buffer that is large enough and one that is far too small."""
    few = 3_000
    for buffer in "ring", "perf":
        large = rawkm("trace", CALL, "--json", "--buffer", buffer, "--", *work("getppid", str(few)))
        _accounts(large, few)
        assert large.summary["dropped"] == 0, large
        small = rawkm("trace", CALL, "--json", "--buffer", buffer, "--buffer-size", "4096", "--", *work("getppid", str(MANY)))
        _accounts(small, MANY)
        assert 0 < small.summary["dropped"] < MANY, small
        assert any("dropped" in note and "--buffer-size" in note for note in small.notes), small


def _accounts(done: Done, hits: int) -> None:
    assert done.status == 0, done
    summary = done.summary
    assert summary["hits"] == hits, done
    assert len(done.of("event")) + summary["dropped"] == hits, (len(done.of("event")), summary)
    assert summary["missed"] == 0


def test_sizes_of_buffers() -> None:
    """--buffer-size is rounded up, never down; K and M; the default of both kinds is enough for a burst of 3,000."""
    for buffer, size in (("ring", "150001"), ("perf", "150001"), ("ring", "256k"), ("perf", "1M")):
        done = rawkm("trace", CALL, "--json", "--buffer", buffer, "--buffer-size", size, "--", *work("getppid", "2500"))
        _accounts(done, 2500)
        assert done.summary["dropped"] == 0, done
    for wrong in "0", "12X", "3G", "-1", "":
        done = rawkm("trace", CALL, "--buffer-size", wrong)
        assert done.status == 2, done
        assert done.out == ""


def test_events_as_json() -> None:
    before = time.monotonic_ns()
    with Worker() as worker, Running("trace", CALL, "tcp_v4_connect", "--json", "--", *worker.argv, fds=worker.fds) as running:
        worker.do("getppid 1")
        between = time.monotonic_ns()
        worker.do("connect 1", "thread getppid 1", "fork getppid 1")
        after = time.monotonic_ns()
        worker.stop()
        done = running.end()
    events = done.of("event")
    assert len(events) == 4, done
    for event in events:
        assert list(event) == ["type", "ts_ns", "cpu", "pid", "tid", "comm", "function"]
        assert event["cpu"] == 0
        assert event["comm"] == "python3"
    first, connect, thread, fork = events
    assert before < first["ts_ns"] < between < connect["ts_ns"] < thread["ts_ns"] < fork["ts_ns"] < after
    assert [event["function"] for event in events] == [CALL, "tcp_v4_connect", CALL, CALL]
    assert first["pid"] == first["tid"] == connect["pid"] == thread["pid"]
    assert thread["tid"] != thread["pid"]
    assert fork["pid"] == fork["tid"] != first["pid"]
    assert [key for key in done.summary if key != "unfollowed"] == SUMMARY


def test_events_come_at_once() -> None:
    """Through a pipe too, one at a time, in both kinds of buffer."""
    for flags in ["--buffer", "ring"], ["--buffer", "perf", "--json"]:
        read, write = os.pipe()
        with Worker() as worker, Running("trace", CALL, *flags, "--", *worker.argv, stdout=write, fds=worker.fds) as running:
            os.close(write)
            for _ in range(3):
                worker.do("getppid 1")
                text = b""
                while CALL.encode() not in text:
                    assert select.select([read], [], [], PATIENCE)[0], f"nothing came: {text!r}"
                    text += os.read(read, 4096)
            worker.stop()
            assert running.end().status == 0
        os.close(read)


LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d{6}) +(\d+) +(\d+) +(\d+) (.{16}) (\S+)")


def test_events_in_text() -> None:
    start = datetime.now()
    done = rawkm("trace", CALL, "--", *work("getppid", "5"))
    end = datetime.now()
    head, *lines = done.out.splitlines()
    assert head.split() == ["TIME", "CPU", "PID", "TID", "COMM", "FUNCTION"]
    assert len(lines) == 5, done
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        when, cpu, pid, tid, comm, function = match.groups()
        assert start.time() <= datetime.strptime(when, "%H:%M:%S.%f").time() <= end.time() or end.date() > start.date(), line
        assert (int(cpu), comm.rstrip(), function) == (0, "python3", CALL)
        assert pid == tid
        for group, heading in enumerate(("CPU", "PID", "TID"), 2):
            assert match.end(group) == head.index(heading) + len(heading), (head, line)
        assert match.start(5) == head.index("COMM")
        assert match.start(6) == head.index("FUNCTION")


def test_a_limit_is_met_exactly(tmp_path: Path) -> None:
    """-n N: N events, though more come; then the command is ended, too."""
    for n, flags in ((1, ["--json"]), (7, ["--json", "--buffer", "perf"]), (7, [])):
        with Worker() as worker, Running("trace", CALL, "-n", str(n), *flags, "--", *worker.argv, fds=worker.fds) as running:
            # The first batch has more than it takes; and then there is only silence.
            worker.do("getppid 300")
            done = running.end()
        assert done.status == 0, done
        if flags:
            assert len(done.of("event")) == n, done
            assert done.summary["hits"] + done.summary["dropped"] >= n
            assert done.summary["command_status"] == 143
        else:
            assert len(done.out.splitlines()) == n + 1, done
    assert rawkm("trace", CALL, "-n", "0").status == 2


# Escape sequences, control characters of both kinds, line ends, what is no UTF-8, what turns the direction of text.
HOSTILE = [
    b"\x1b[2J\x1b[31m\x07\r",
    b"\x9b31m\xff\xfe\x80a",
    b"a\nb\r\nc\td\x7f",
    "‮evil‏".encode(),
    b"\xc2\x9b31mX\xe2\x80\xa8y",
    b'"},{"x":"',
    b"\\x1b[31m",
]
ALLOWED = re.compile(rb"[\n\x20-\x7e]*")


def test_hostile_names_never_reach_stdout() -> None:
    for flags in [], ["--json"]:
        with Worker() as worker, Running("trace", CALL, *flags, "--", *worker.argv, fds=worker.fds) as running:
            for name in HOSTILE:
                worker.do(f"name {name.hex()}", "getppid 1")
            worker.stop()
            done = running.end()
        assert done.status == 0
        if flags:
            assert ALLOWED.fullmatch(done.raw), done.raw
            names = [event["comm"] for event in done.of("event")]
            assert len(names) == len(HOSTILE)
        else:
            head, *lines = done.raw.decode().splitlines()
            assert done.raw.count(b"\n") == len(HOSTILE) + 1, done.raw
            assert len(lines) == len(HOSTILE)
            assert all(char.isprintable() for line in lines for char in line), lines
            names = [line[head.index("COMM") :] for line in lines]
            assert all(line.endswith(f" {CALL}") for line in lines)
        assert len(set(names)) == len(names)


def test_hostile_words_never_reach_the_terminal() -> None:
    bad = "x\x1b[31m\n\x9by"
    for argv in (
        ["count", bad],
        ["count", f"/{bad}[/"],
        ["count", CALL, "--", bad],
        ["count", CALL, "--deny", bad],
        [bad],
        ["list", bad],
        ["count", f"{bad}:*"],
        ["count", CALL, "--ready-file", f"/nowhere/{bad}"],
        ["count", CALL, "-d", bad],
        ["count", CALL, "--by", bad],
    ):
        done = rawkm(*argv)
        assert done.status in (1, 2), done
        for text in done.out, done.err:
            assert all(char.isprintable() for line in text.split("\n") for char in line), (argv, text)
