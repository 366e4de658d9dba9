"""Each recording in this directory, replayed: the same calls, the same output, the same status.

They were made in guests by tools/golden, which makes them afresh when a command has learned something.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rawkm.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDINGS = sorted(HERE.glob("*.rkm"))
REDACTED = [path for path in RECORDINGS if path.name.startswith("redacted")]
WHOLE = [path for path in RECORDINGS if path not in REDACTED]
# No capability is left: bpf(2) would be refused, and so would most of the files.
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
# These have nothing to replay: they show recordings, record other programs, or make calls that pass no seam.
WITHOUT = {
    name for name in main.COMMANDS if not getattr(main.module(name), "RECORDABLE", True) or hasattr(main.module(name), "RECORDS")
}


def rawkm(*argv: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [*(POWERLESS if os.geteuid() == 0 else []), sys.executable, "-B", "-m", "rawkm", *argv]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TZ": "Asia/Kathmandu", **env}
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=variables, timeout=120, check=False)


def recorded(path: Path) -> tuple[dict[str, object], dict[str, object]]:
    """The first and the last line."""
    lines = path.read_text().splitlines()
    return json.loads(lines[0]), json.loads(lines[-1])


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_the_same_again(path: Path) -> None:
    """Another order of sets and another time zone than theirs change nothing."""
    done = rawkm("replay", "--verify", str(path), PYTHONHASHSEED=str(len(path.stem)))
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"rawkm: verified: " in done.stderr.splitlines()[-1]


def test_every_command_has_one() -> None:
    """A command that can be recorded has a recording here; what is in git stays small."""
    commands = {str(recorded(path)[0]["argv"][0]) for path in WHOLE}  # type: ignore[index]
    assert commands == set(main.COMMANDS) - WITHOUT
    assert max(path.stat().st_size for path in RECORDINGS) < 200_000


def test_what_they_show() -> None:
    """They were made by runs that did something, on several kernels."""
    kernels = {str(recorded(path)[0]["kernel"]).rsplit(".", 1)[0] for path in WHOLE}
    assert {kernel.split("+")[0] for kernel in kernels} >= {"6.1", "6.12", "7.2"}
    statuses = {recorded(path)[1]["status"] for path in WHOLE}
    assert statuses == {0, 1, 3}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_it_is_shown(path: Path) -> None:
    """Every line of it, by every byte."""
    done = rawkm("replay", "--explain", "--seams", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("# rawkm ")
    assert lines[-1].startswith("# exit status ")
    assert not any(char in done.stdout for char in (b"\x1b", b"\x07", b"\r"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_it_can_be_made_a_script(path: Path) -> None:
    script = rawkm("repro", str(path)).stdout
    compile(script, path.stem, "exec")
    assert b"import rawkm" not in script


@pytest.mark.parametrize("path", REDACTED, ids=lambda path: path.stem)
def test_redacted_ones_hold_no_address(path: Path) -> None:
    text = path.read_text()
    assert '"at":' not in text
    assert "ffffffff8" not in text and "ffffffffc0" not in text
    assert '"left_out":' in text
    assert rawkm("replay", "--verify", str(path)).returncode == 1
