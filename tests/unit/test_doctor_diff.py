"""The difference between two reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rawkm.cli.main import run
from rawkm.doctor.diff import differences, is_report

REPORT: dict[str, Any] = {
    "type": "doctor",
    "can_trace": True,
    "kernel": "6.12.1",
    "machine": "x86_64",
    "capabilities": ["CAP_BPF", "CAP_PERFMON"],
    "confinement": {"container": None, "blocked": {}, "seccomp": "off"},
    "settings": {"kernel.kptr_restrict": 0, "lockdown": None},
    "checks": [
        {"feature": "bpf maps", "state": "yes", "evidence": "MAP_CREATE", "help": None},
        {"feature": "kprobe_multi", "state": "yes", "evidence": "LINK_CREATE → ESRCH", "help": None},
    ],
    "grants": {"docker": None},
}


@pytest.fixture
def other() -> dict[str, Any]:
    return copy.deepcopy(REPORT)


def test_the_same(other: dict[str, Any]) -> None:
    other["grants"] = {"docker": "follows from the rest"}
    assert differences(REPORT, other) == []


def test_each_kind_of_difference(other: dict[str, Any]) -> None:
    other["kernel"] = "6.1.9"
    other["can_trace"] = False
    other["capabilities"] = ["CAP_PERFMON", "CAP_SYSLOG"]
    other["confinement"] = {"container": "docker", "blocked": {"bpf": "EPERM"}, "seccomp": "filter"}
    other["settings"] = {"kernel.kptr_restrict": 2, "CONFIG_FPROBE": "n"}
    other["checks"][0]["evidence"] = "MAP_CREATE and more"
    other["checks"][1] = {"feature": "kprobe_multi", "state": "no", "evidence": "EOPNOTSUPP", "help": "x"}
    other["checks"].append({"feature": "new", "state": "unknown", "evidence": "EIO", "help": None})
    assert differences(REPORT, other) == [
        "kernel: 6.12.1 → 6.1.9",
        "can_trace: yes → no",
        "capabilities of A only: CAP_BPF",
        "capabilities of B only: CAP_SYSLOG",
        "container: not known → docker",
        "blocked: none → bpf (EPERM)",
        "seccomp: off → filter",
        "kernel.kptr_restrict: 0 → 2",
        "CONFIG_FPROBE: not known → n",
        "bpf maps: yes in both",
        "  - MAP_CREATE",
        "  + MAP_CREATE and more",
        "kprobe_multi: yes → no",
        "  - LINK_CREATE → ESRCH",
        "  + EOPNOTSUPP",
        "new: not tried → unknown",
        "  + EIO",
    ]
    assert "  - EIO" in differences(other, REPORT)


@pytest.mark.parametrize("data", [None, [], {}, {"type": "doctor"}, {**REPORT, "checks": [1]}, {**REPORT, "settings": 3}])
def test_what_is_no_report(data: object) -> None:
    assert is_report(REPORT)
    assert not is_report(data)


def test_the_command(tmp_path: Path, other: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Its status is diff's; a hostile report does not reach the terminal raw."""
    a, b, c = (tmp_path / name for name in "abc")
    other["kernel"] = "6.12.1\x1b[31m"
    a.write_text(json.dumps(REPORT))
    b.write_text(json.dumps(other))
    c.write_bytes(b"\xff\xfe")
    assert run(["doctor", "--diff", str(a), str(a)]) == 0
    assert capsys.readouterr().out == ""
    assert run(["doctor", "--diff", str(a), str(b)]) == 1
    out = capsys.readouterr().out
    assert "kernel: 6.12.1 → 6.12.1\\x1b[31m" in out and "\x1b" not in out
    for argv in (
        ["--diff", str(a)],
        ["--diff", str(a), str(c)],
        ["--diff", str(a), str(tmp_path)],
        ["--diff", str(a), str(b), "--json"],
    ):
        assert run(["doctor", *argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1, captured
