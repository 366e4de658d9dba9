"""rawkm bench on every kernel: what it measures, small."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path
from xml.etree import ElementTree

from ..lib import Inventory, Running, rawkm, wait_for

RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
HERE = {"fentry", "fexit", "kprobe", "kretprobe", "tracefs-kprobe"}
if RELEASE >= (6, 12):
    HERE |= {"kprobe-multi", "kretprobe-multi", "kprobe-session"}
if RELEASE >= (7, 2):
    HERE |= {"fentry-multi", "fexit-multi"}
MANY = {name for name in HERE if "multi" in name or "session" in name}


def test_attach(tmp_path: Path) -> None:
    """Each mechanism that is here; one link is faster than one per function, what takes too long is estimated, and said to be."""
    plot = tmp_path / "attach.svg"
    done = rawkm("bench", "attach", "-n", "2,1000", "--rounds", "1", "--limit", "5", "--json", "-o", str(plot), timeout=300)
    assert done.status == 0, done
    rows = done.of("attach")
    assert {(row["mechanism"], row["n"]) for row in rows} == {(name, n) for name in HERE for n in (2, 1000)}
    machine = done.rows[0]
    assert machine["type"] == "machine" and machine["kernel"] == os.uname().release
    for row in rows:
        assert row["attach_s"] > 0 and row["detach_s"] > 0, row
        estimated = row["measured_at"] < row["n"]
        assert (row["memory_bytes"] is None) is (row["rounds"] == 0) is estimated
        if row["n"] == 1000:
            assert estimated is (row["mechanism"] not in MANY), row
    for name in MANY:
        (big,) = [row for row in rows if row["mechanism"] == name and row["n"] == 1000]
        (small,) = [row for row in rows if row["mechanism"] == "kprobe" and row["n"] == 2]
        assert big["attach_s"] / 1000 < small["attach_s"] / 2 / 10, (big, small)
        assert big["memory_bytes"] > 8 * 1000
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")


def test_hit() -> None:
    """A hit costs time, and every one of them was counted, or it would have been an error."""
    done = rawkm(
        "bench", "hit", "--rounds", "1", "--csv", "--only", "fentry", "--only", "kprobe", "--only", "kprobe-multi", timeout=120
    )
    assert done.status == 0, done
    rows = list(csv.DictReader(done.out.splitlines()))
    assert {row["mechanism"] for row in rows} == {"fentry", "kprobe", "kprobe-multi"} & HERE
    for row in rows:
        assert row["at"] == "entry" and row["kernel"] == os.uname().release
        assert float(row["empty_ns"]) > 10 and float(row["count_ns"]) > 10, row


def test_interrupted() -> None:
    """In the middle of many single attaches: one sentence, and nothing is left, not in tracefs either."""
    before = Inventory()
    events = Path("/sys/kernel/tracing/kprobe_events")
    for number in (signal.SIGINT, signal.SIGTERM):
        with Running("bench", "attach", "-n", "1000", "--limit", "1000", "--only", "tracefs-kprobe") as running:
            wait_for(lambda: "rawkm_" in events.read_text(), "a probe in tracefs", timeout=300)
            time.sleep(1)
            done = running.end(number)
        assert done.status == 1, done
        assert "interrupted" in done.err and "Traceback" not in done.err
        assert "rawkm_" not in events.read_text()
    assert Inventory().since(before) == []


def test_what_is_not_here_is_said() -> None:
    done = rawkm("bench", "hit", "--only", "fentry-multi", "--rounds", "1")
    if "fentry-multi" in HERE:
        assert done.status == 0, done
    else:
        assert "fentry-multi" in done.refused(3)
