"""rawkm doctor on whatever kernel this is: an answer with evidence to everything, and no way to attach claimed that is not there."""

from __future__ import annotations

import json

import pytest

from rawkm.cli.main import run
from rawkm.host import sysctl
from rawkm.syscall import open_kernel


def test_every_answer_has_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["doctor", "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert status == (0 if report["can_trace"] else 3)
    states = {check["feature"]: check["state"] for check in report["checks"]}
    for check in report["checks"]:
        assert check["state"] in ("yes", "no", "unknown") and check["evidence"], check
    if report["can_trace"]:
        assert "yes" in (states[name] for name in ("kprobe_multi", "fentry_multi", "fentry", "kprobe", "tracefs_kprobe"))
    assert report["leftovers"] == []
    assert run(["doctor"]) == status
    text = capsys.readouterr().out
    assert all(check["evidence"] in text for check in report["checks"])


def test_lockdown_is_named_where_it_stands_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where securityfs, which tells of it, is not mounted."""
    level = sysctl.lockdown(open_kernel())
    run(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["lockdown"] == level
    (listed,) = [check for check in report["checks"] if check["feature"] == "function list"]
    if level not in (None, "none") and "EPERM" in listed["evidence"]:
        assert f"locked down ({level})" in listed["evidence"]
        assert not any("-v /sys/kernel/tracing" in row["grant"] for row in report["grants"]["missing"])
