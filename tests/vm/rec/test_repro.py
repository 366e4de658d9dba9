"""Scripts made of recordings: the same calls with the same results, without rawkm."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ..lib import CALL, Done, work
from .test_replay import rawkm

GOLDEN = Path(__file__).parents[2] / "golden"
# Isolated and without site-packages: nothing but the standard library.
ALONE = ["python3", "-I", "-S"]
CALLED = re.compile(r"(bpf|perf_event_open)\((BPF_\w+)?.* = (-?\d+)(?: (\w+))?")


def script(path: Path, recording: Path) -> Path:
    done = rawkm("repro", str(recording))
    assert done.status == 0, done
    path.write_text(done.out)
    return path


def alone(path: Path, *prefix: str) -> Done:
    done = subprocess.run([*prefix, *ALONE, str(path)], capture_output=True, cwd="/tmp", check=False)
    return Done([str(path)], done.returncode, done.stdout, done.stderr, 0.0)


def test_there_is_no_rawkm() -> None:
    assert subprocess.run([*ALONE, "-c", "import rawkm"], capture_output=True, cwd="/tmp", check=False).returncode == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["count", "tcp_*", "--", *work("connect", "1")],
        ["trace", CALL, "--buffer", "perf", "--", *work("getppid", "1")],
        ["doctor"],
    ],
    ids=lambda argv: "-".join(argv[:3]).replace("*", "all"),
)
def test_the_same_calls_and_results(argv: list[str], tmp_path: Path) -> None:
    """strace sees the recorded calls of bpf and perf_event_open in their order, each ending as it did."""
    recording, trace = tmp_path / "run.rkm", tmp_path / "trace"
    assert rawkm("--record", str(recording), *argv).status == 0
    path = script(tmp_path / "repro.py", recording)
    strace = ["strace", "-f", "-v", "-s", "64", "-e", "trace=bpf,perf_event_open", "-o", str(trace)]
    done = alone(path, *strace)
    assert done.status == 0, done
    assert ", 0 not as recorded; " in done.out
    expected = []
    for line in recording.read_text().splitlines():
        call = json.loads(line)
        if call["t"] == "call" and call["name"] in ("bpf", "perf_event_open"):
            expected.append((call["name"], call.get("cmd"), call.get("errno", 0) == 0))
    lines = [line for line in trace.read_text().splitlines() if "(" in line]
    seen = [match for match in map(CALLED.search, lines) if match]
    assert len(seen) == len(expected)
    assert [(m[1], int(m[3]) >= 0) for m in seen] == [(name, fine) for name, _, fine in expected]
    counted: dict[int | None, set[str | None]] = {}
    for match, (_, cmd, _) in zip(seen, expected, strict=True):
        counted.setdefault(cmd, set()).add(match[2])
    assert all(len(names) == 1 for names in counted.values()), counted


def test_on_another_boot(tmp_path: Path) -> None:
    """A recording made in another guest: its kernel addresses are moved to where this boot has them."""
    name = {"6.12": "count-addrs", "7.2": "count-top"}[".".join(os.uname().release.split(".")[:2])]
    recording = GOLDEN / f"{name}.rkm"
    path = script(tmp_path / "repro.py", recording)
    done = alone(path)
    # Debian may have another 7.2 or 6.12 by now, which may answer differently: the script knows.
    same = os.uname().release in recording.read_text().partition("\n")[0]
    assert done.status == 0 or not same, done
    assert ("note: recorded on" in done.out) == (not same), done
    if name == "count-addrs":
        assert "SYMBOL = ('tcp_" in path.read_text()


def test_it_notices(tmp_path: Path) -> None:
    """A call that ends differently is named."""
    recording = tmp_path / "run.rkm"
    assert rawkm("--record", str(recording), "count", CALL, "--by", "syms", "-d", "0.1").status == 0
    path = script(tmp_path / "repro.py", recording)
    path.write_text(path.read_text().replace(CALL, CALL[:-1] + "q"))
    done = alone(path)
    assert done.status == 1, done
    assert re.search(r"call \d+, bpf\(BPF_LINK_CREATE\): ESRCH, recorded: success", done.out), done
