"""Counts are exact, whoever is counted and however the program was attached."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from ..lib import SUMMARY, SYS, Done, Row, Running, Worker, rawkm, work

N = 40


def test_exact_for_a_command_by_addresses_and_by_names() -> None:
    for by, backend in (("addrs", "kprobe-multi (addrs)"), ("syms", "kprobe-multi (syms)")):
        done = rawkm("count", "tcp_v4_connect", "inet_csk_accept", "--by", by, "--json", "--", *work("connect", str(N)))
        assert done.status == 0, done
        assert done.counts == {"tcp_v4_connect": N, "inet_csk_accept": N}, done
        summary = done.summary
        assert summary["hits"] == 2 * N, done
        assert summary["attached"] == 2
        assert summary["backend"] == backend
        assert summary["dropped"] == summary["missed"] == summary["recursion_misses"] == 0
        assert summary["command_status"] == 0


def test_the_command_is_counted_from_its_first_moment_to_its_last() -> None:
    """It starts when everything is attached, and what it does when it dies is counted."""
    for what in "count", "trace":
        done = rawkm(what, SYS + "execve", "do_exit", "--json", "--", "true")
        assert done.status == 0, done
        assert done.summary["hits"] == 2, done


def test_one_rawkm_in_another() -> None:
    """Both count the same function at the same time, and each is right."""
    inner = ["rawkm", "count", "tcp_v4_connect", "--json", "--", *work("connect", str(N))]
    done = rawkm("count", "tcp_v4_connect", "--json", "--", *inner)
    assert done.counts == {"tcp_v4_connect": N}, done
    assert done.summary["recursion_misses"] == 0
    row = next(line for line in done.err.splitlines() if line.startswith('{"type":"count"'))
    assert json.loads(row)["count"] == N


def test_exact_for_everybody(tmp_path: Path) -> None:
    """Without a scope, from the ready file on, in text: the table, and the footer on stderr."""
    ready = tmp_path / "ready"
    with Running("count", "tcp_v4_connect", "tcp_v6_connect", "--ready-file", str(ready)) as running, Worker() as worker:
        worker.start()
        worker.do(f"connect {N}")  # before: not counted, unless it is attached already
        running.until(str(ready))
        worker.do(f"connect {N}", "fork connect 2")
        with Worker() as other:
            other.start().do("connect 3")
        done = running.end(signal.SIGINT)
    assert done.status == 0
    head, row = done.out.splitlines()
    assert head.split() == ["FUNCTION", "COUNT"]
    name, count = row.split()
    assert name == "tcp_v4_connect"
    assert N + 5 <= int(count) <= 2 * N + 5
    _footer(done, attached=2, hits=int(count))


def _footer(done: Done, *, attached: int, hits: int) -> None:
    """Backend, functions attached, resolve, attach and detach time, hits, dropped, missed, recursion misses: in words."""
    text = "\n".join(done.notes)
    for piece in (
        "kprobe-multi",
        f"{attached} function",
        "resolve ",
        "attach ",
        "detach ",
        f"{hits} hit",
        "0 dropped",
        "0 missed",
        "recursion miss",
    ):
        assert piece in text, (piece, done)


def test_rounds_add_up_to_the_hits() -> None:
    """-i: each round has its number, its time and its own hits; the last one what came after it."""
    with (
        Worker() as worker,
        Running("count", "tcp_v4_connect", "-i", "0.5", "--json", "--", *worker.argv, fds=worker.fds) as running,
    ):
        for number in (5, 7, 11):
            worker.do(f"connect {number}")
            time.sleep(0.6)
        worker.do("connect 13")
        worker.stop()
        done = running.end()
    rows = done.of("count")
    assert [list(row) for row in rows] == [["type", "function", "module", "address", "count", "interval", "ts_ns"]] * len(rows)
    assert sum(row["count"] for row in rows) == done.summary["hits"] == 5 + 7 + 11 + 13, done
    assert len(rows) >= 3, "connections of at least three rounds"
    for key in ("interval", "ts_ns"):
        values = [row[key] for row in rows]
        assert values == sorted(set(values)), done
    gaps = [(b["ts_ns"] - a["ts_ns"]) / (b["interval"] - a["interval"]) for a, b in zip(rows, rows[1:], strict=False)]
    assert all(0 < gap < 3e9 for gap in gaps), gaps


def test_rounds_in_text() -> None:
    done = rawkm("count", "tcp_v4_connect", "-i", "0.4", "-d", "4")
    assert done.status == 0
    times = [line for line in done.out.splitlines() if line.startswith("-- ")]
    assert len(times) >= 4, done
    assert all(len(line) == len("-- 12:34:56") for line in times), done


def test_rows_as_json() -> None:
    """Exactly the keys that are promised, in --zero and --top too; a function without a hit only with --zero."""
    command = ["--", *work("connect", "3")]
    patterns = ["tcp_v4_connect", "tcp_v6_connect", "inet_csk_accept"]
    done = rawkm("count", *patterns, "--json", "--zero", *command)
    assert done.counts == {"tcp_v4_connect": 3, "inet_csk_accept": 3, "tcp_v6_connect": 0}
    for row in done.of("count"):
        assert list(row) == ["type", "function", "module", "address", "count"]
        _symbol(row)
    assert [key for key in done.summary if key in SUMMARY] == SUMMARY, done
    assert set(done.summary) - set(SUMMARY) <= {"unfollowed"}, done
    for key in ("resolve_ms", "attach_ms", "attach_syscall_ms", "detach_ms"):
        assert 0 < done.summary[key] < 60_000, done
    assert done.summary["attach_syscall_ms"] <= done.summary["attach_ms"]

    done = rawkm("count", *patterns, "--json", *command)
    assert done.counts == {"tcp_v4_connect": 3, "inet_csk_accept": 3}
    done = rawkm("count", *patterns, "--json", "--top", "1", "-a", *command)
    assert len(done.of("count")) == 1
    assert done.summary["hits"] == 6


def _symbol(row: Row) -> None:
    """The address is the symbol's, and the function is of the kernel image."""
    with open("/proc/kallsyms") as file:
        for line in file:
            if line.rstrip().endswith(f" {row['function']}"):
                assert row["address"] == int(line.split()[0], 16), row
                assert row["module"] is None
                return
    raise AssertionError(row)


def test_text_of_top_and_zero() -> None:
    command = ["--", *work("connect", "3")]
    done = rawkm("count", "tcp_v4_connect", "tcp_v6_connect", "inet_csk_accept", "--zero", *command)
    assert sorted(line.split() for line in done.out.splitlines()[1:]) == [
        ["inet_csk_accept", "3"],
        ["tcp_v4_connect", "3"],
        ["tcp_v6_connect", "0"],
    ]
    done = rawkm("count", "tcp_v4_connect", "inet_csk_accept", "--top", "1", *command)
    lines = done.out.splitlines()
    assert len(lines) == 3
    assert "1 more function with 3 hits" in lines[2], done
