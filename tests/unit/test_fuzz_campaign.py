"""tools/fuzz-campaign: what it makes of what the guests say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from fuzz_campaign import Guest, _report, _run, _script, compare


def guest(kernel: str, *lines: object, status: int = 0) -> Guest:
    found = Guest(kernel)
    found.status = status
    for line in lines:
        found._line(line if isinstance(line, str) else json.dumps(line))
    return found


def answer(n: int, errno: str | None, *, explained: bool = True, known: bool = True) -> dict[str, object]:
    return {
        "n": n,
        "command": "map_create",
        "call": f"call {n}",
        "errno": errno,
        "explained": explained,
        "known": known,
        "rules": [],
    }


def test_kernels_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = guest("5.10", answer(0, "EINVAL"), answer(1, "EINVAL"), answer(2, "E2BIG"), answer(3, None), answer(4, "EPERM"))
    new = guest(
        "7.2",
        answer(0, "EINVAL"),
        answer(1, "accepted"),
        answer(2, "accepted", known=False),
        answer(3, "accepted"),
        answer(4, "accepted", explained=False),
    )
    assert compare([old, new], str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "5 calls: 1 alike, 1 differences that the model explains" in out
    assert "1 in what is beyond the model, 1 unexplained; 1 not made" in out
    assert "DIFFERENT call 4: 5.10 EPERM, 7.2 accepted" in out
    kept = [json.loads(line)["n"] for line in (tmp_path / "differences.jsonl").read_text().splitlines()]
    assert kept == [1, 2, 4]
    assert compare([old], str(tmp_path)) == 0


def test_a_guest_that_dies_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = guest("6.1", "last: <link_create: ...>", {"type": "summary", "campaign": "attr", "seconds": 1}, status=125)
    dead.last.append("Kernel panic - not syncing")
    assert _report(dead, ["attr", "stateful"], str(tmp_path)) == 1
    assert "THE GUEST ENDED with status 125 before stateful" in capsys.readouterr().out
    kept = (tmp_path / "last-6.1.txt").read_text()
    assert "last: <link_create: ...>" in kept and "Kernel panic" in kept


def test_findings_and_leaks_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finding = {
        "type": "finding",
        "what": "map_create: map_name",
        "expected": "EINVAL",
        "seen": "accepted",
        "pytest": "P",
        "c": "C",
    }
    ended = {"type": "summary", "campaign": "attr", "calls": 5, "unexplained": 1, "leaks": 1, "seconds": 2}
    cell = {"type": "cell", "command": "map_create", "place": "size", "class": "0", "errno": "EINVAL", "calls": 3}
    found = guest("6.12", finding, {"type": "leak", "what": "map 7"}, cell, ended, status=1)
    assert _report(found, ["attr"], str(tmp_path)) == 2
    assert (tmp_path / "6.12-1.py").read_text() == "P\n"
    assert json.loads((tmp_path / "coverage-6.12.jsonl").read_text()) == cell
    assert "LEFT BEHIND map 7" in capsys.readouterr().out


def test_the_guests_script() -> None:
    script = _script({"attr": "--calls 9", "stateful": "--examples 2"}, 3, "--calls 40")
    assert "rawkm fuzz attr --json --seed 3 --calls 9 --last /dev/stderr --coverage" in script
    assert "--calls 40 --examples 1 --answers" in script
    assert script.endswith("exit $bad")


def test_some_guests_at_a_time() -> None:
    now, most = 0, 0

    class Counted(Guest):
        def run(self, script: str, timeout: float) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            self.status = 0
            now -= 1

    guests = [Counted(name) for name in "abcd"]
    ended = list(_run(guests, "", 2, 1.0))
    assert {one.kernel for one in ended} == set("abcd")
    assert [one.status for one in guests] == [0] * 4 and most <= 2
