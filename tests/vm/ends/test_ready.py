"""--ready-file, the statuses, and what is said when the command line is wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ..lib import CALL, Running, Worker, ids, rawkm, work


def test_the_ready_file(tmp_path: Path) -> None:
    """Gone when rawkm has begun; there, whole and alone, when everything is attached, and counting."""
    ready = tmp_path / "ready"
    ready.write_text("old")
    links = ids("link")
    with Worker() as worker, Running("count", "*", "--deny", "seq_*", "--json", "--ready-file", str(ready)) as running:
        worker.start()
        while ready.exists():
            time.sleep(0.001)
        assert ids("link") == links, "removed at the start, not when it is attached"
        while not ready.exists():
            time.sleep(0.001)
        assert ready.read_text() == f"{running.pid}\n"
        assert len(ids("link") - links) == 1
        assert os.listdir(tmp_path) == ["ready"]
        worker.do("connect 5")
        worker.stop()
        done = running.end(signal.SIGINT)
    assert done.counts["tcp_v4_connect"] == 5, done
    assert done.summary["attached"] > 30_000


def test_a_ready_file_that_cannot_be(tmp_path: Path) -> None:
    for place in "/proc/ready", f"{tmp_path}/none/ready", str(tmp_path):
        done = rawkm("count", CALL, "--ready-file", place, "--", *work("getppid", "1"))
        assert done.status == 1, done
        assert len(done.notes) >= 1 and place in done.notes[-1], done
        assert "Traceback" not in done.err


def test_a_ready_file_of_a_run_that_fails(tmp_path: Path) -> None:
    """The old file is gone, and no new one comes."""
    ready = tmp_path / "ready"
    for argv in (["no_such_function"], [CALL, "--max-funcs", "1", "tcp_v4_connect"]):
        ready.write_text("old")
        assert rawkm("count", *argv, "--ready-file", str(ready)).status == 1
        assert not ready.exists()


def test_wrong_usage() -> None:
    """Status 2 and a sentence on stderr, before anything is done."""
    for argv in (
        ["count"],
        ["count", CALL, "-d", "0"],
        ["count", CALL, "-d", "soon"],
        ["count", CALL, "-i", "-1"],
        ["count", CALL, "-p", "1", "--", "true"],
        ["count", CALL, "-a"],
        ["count", CALL, "-a", "-p", "1"],
        ["count", CALL, "--by", "magic"],
        ["count", CALL, "--missing", "maybe"],
        ["count", CALL, "--max-funcs", "0"],
        ["count", "/(/"],
        ["count", "tcp_[a"],
        ["count", "a b"],
        ["count", ""],
        ["trace", CALL, "--buffer", "pipe"],
        ["list", CALL, "--", "true"],
        ["measure"],
        ["--what"],
        [],
    ):
        done = rawkm(*argv)
        assert done.status == 2, done
        assert done.out == "", done
        assert done.err, argv
        assert "Traceback" not in done.err, done


def test_failures() -> None:
    """Status 1 and one sentence."""
    for argv, words in (
        (["count", "no_such_function"], ["no_such_function"]),
        (["count", "zzz_*"], ["zzz_*"]),
        (["count", "no_such_module:*"], ["no_such_module"]),
        (["count", CALL, "--", "no-such-command"], ["no-such-command"]),
        (["count", CALL, "--", "/etc"], ["/etc"]),
    ):
        sentence = rawkm(*argv).refused(1)
        assert all(word in sentence for word in words), sentence
    script = Path("/tmp/no-interpreter")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    done = rawkm("count", CALL, "--json", "--", str(script))
    assert done.status == 1, done
    assert str(script) in done.err, done
    assert "Traceback" not in done.err, done
