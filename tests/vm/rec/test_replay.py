"""Record here, replay as nobody: the same output from the file alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from rawkm.recording.content import unpack_blob

from .. import lib
from ..lib import CALL, Done, Running, Worker, ids, nobody, work

RUNS = {
    "count": ["count", "tcp_v4_c*", CALL, "--", *work("connect", "3")],
    "count-addrs": ["count", "tcp_*", "--by", "addrs", "--json", "--", *work("connect", "3")],
    "count-interval": ["count", CALL, "-i", "0.2", "-d", "0.7", "-p", "1"],
    "trace-perf": ["trace", CALL, "--buffer", "perf", "--json", "--", *work("getppid", "9")],
    "doctor": ["doctor", "--json"],
}


# Every call of a recording is decoded by construct, in an emulator.
PATIENCE = 4 * lib.PATIENCE


def rawkm(*argv: str, prefix: Sequence[str] = ()) -> Done:
    return lib.rawkm(*argv, prefix=prefix, timeout=PATIENCE)


def recorded(path: Path, *argv: str) -> str:
    """The run's output; its recording is everybody's to read."""
    done = rawkm("--record", str(path), *argv)
    assert done.status in (0, 1), done
    path.chmod(0o644)
    return done.out


@pytest.fixture
def open_dir(tmp_path: Path) -> Path:
    """A directory that nobody may look into."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", RUNS)
def test_every_command(name: str, open_dir: Path) -> None:
    path = open_dir / "run.rkm"
    out = recorded(path, *RUNS[name])
    before = ids("prog") | ids("map") | ids("link")
    done = rawkm("replay", "--verify", str(path), prefix=nobody())
    assert done.status == 0, done
    assert done.out == out
    assert done.notes[-1].startswith("verified: ")
    # Fewer, when what the recorded run gave back was still on its way out.
    assert ids("prog") | ids("map") | ids("link") <= before


def test_one_byte_of_one_attr(open_dir: Path) -> None:
    """The call and the field are named, whichever byte it is."""
    path = open_dir / "run.rkm"
    recorded(path, "count", "tcp_v4_connect", CALL, "--", *work("getppid", "1"))
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line).get("cmd") == 28)
    calls = [json.loads(line) for line in lines[: number + 1]]
    call = sum(line["t"] == "call" for line in calls)
    for offset, field in ((0, "prog_fd"), (20, "kprobe_multi.cnt"), (25, "kprobe_multi.syms")):
        record = dict(calls[-1])
        attr = bytearray.fromhex(record["attr"])
        attr[offset] ^= 4
        record["attr"] = attr.hex()
        path.write_text("\n".join([*lines[:number], json.dumps(record), *lines[number + 1 :]]) + "\n")
        done = rawkm("replay", "--verify", str(path), prefix=nobody())
        assert done.status == 1, done
        assert f"call {call}, bpf(BPF_LINK_CREATE): link_create." in done.notes[-1], done
        assert field in done.notes[-1], done


def test_signals_and_kills(open_dir: Path) -> None:
    """A run ended by Ctrl-C replays to its end; one that was killed left whole lines."""
    ready = open_dir / "ready"
    for number in (signal.SIGINT, signal.SIGKILL):
        path = open_dir / f"{number}.rkm"
        with Worker() as worker, Running("count", CALL, "--record", str(path), "--ready-file", str(ready)) as running:
            running.until(str(ready))
            worker.start()
            worker.do("getppid 3")
            worker.stop()
            done = running.end(number, timeout=PATIENCE)
        path.chmod(0o644)
        ready.unlink()
        for line in path.read_text().splitlines():
            assert json.loads(line)["t"] in ("head", "blob", "call", "seam", "end")
        again = rawkm("replay", "--verify", str(path), prefix=nobody())
        if number == signal.SIGINT:
            assert (again.status, again.out) == (0, done.out), again
            assert not ready.exists(), "a replay makes no file"
        else:
            assert again.status == 1, again
            assert "what comes next" in again.notes[-1], again


def addresses(recording: Path) -> int:
    """How many functions' addresses are in the file: as text, in decimal, or as bytes; what is compressed in it, too."""
    lines = recording.read_text().splitlines()
    blobs = [unpack_blob(line) for line in map(json.loads, lines) if line["t"] == "blob" and "left_out" not in line]
    text = "\n".join(lines + [blob.decode("latin-1") for blob in blobs] + [blob.hex() for blob in blobs])
    symbols = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    found = [int(address, 16) for address, kind, name, *_ in symbols if kind in "tT" and name.startswith("tcp_")]
    assert len(found) > 100 and all(found)
    return sum(f"{it:x}" in text or str(it) in text or it.to_bytes(8, "little").hex() in text for it in found)


def test_redacted(open_dir: Path) -> None:
    """No address of a function that was attached is in the file, however it is written, though without --redact all are."""
    path = open_dir / "run.rkm"
    argv = ["tcp_*", "--by", "addrs", "--json", "--", *work("connect", "1")]
    recorded(path, "count", *argv)
    assert addresses(path) > 100
    recorded(path, "count", "--redact", *argv)
    assert addresses(path) == 0
    text = path.read_text()
    link = next(record for line in text.splitlines() if (record := json.loads(line)).get("cmd") == 28)
    assert "at" not in link["mem"]["link_create.kprobe_multi.addrs"]
    shown = rawkm("replay", str(path), prefix=nobody())
    assert shown.status == 0
    assert "addrs=[0, 0, " in shown.out
    assert rawkm("replay", "--verify", str(path), prefix=nobody()).status == 1


def test_a_dry_run(tmp_path: Path) -> None:
    """strace sees no call of bpf(2) at all, and the command is not started."""
    trace, mark = tmp_path / "trace", tmp_path / "mark"
    prefix = ["strace", "-f", "-o", str(trace), "-e", "trace=bpf,perf_event_open,mount,execve,clone,fork,vfork"]
    done = rawkm("count", "tcp_v4_*", "--dry-run", "--", "touch", str(mark), prefix=prefix)
    assert done.status == 0, done
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("bpf(BPF_LINK_CREATE, ")]
    assert any(line.endswith(" = link#1") for line in lines)
    assert "*(u64 *)(mem#1 + 0) = 0x1" in lines, "the switch"
    assert done.notes[-1].startswith("dry run: ")
    made = [line for line in trace.read_text().splitlines() if "(" in line and "execve" not in line and "exited" not in line]
    assert made == []
    assert not mark.exists()


def test_it_costs_little(tmp_path: Path) -> None:
    """The file of a long run grows by what happened, not by how often it was looked."""
    path = tmp_path / "run.rkm"
    recorded(path, "count", CALL, "-d", "3")
    short = path.stat().st_size
    recorded(path, "count", CALL, "-d", "6")
    assert path.stat().st_size - short < 40_000
    assert os.stat(path).st_mode & 0o777 == 0o644
