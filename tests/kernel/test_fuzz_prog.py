"""`rawkm fuzz prog` on the running kernel: no difference, and planted ones are found and made small."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawkm.asm import interp
from rawkm.cli import main
from rawkm.fuzz import prog_campaign, recorded
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.findings import Finding, Store
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.raw import RawBpf

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _collecting_again() -> Iterator[None]:
    yield
    gc.enable()


def test_the_kernel_agrees_with_the_interpreter(capfd: pytest.CaptureFixture[str]) -> None:
    status = main.run(["fuzz", "prog", "--examples", "150", "--seed", "11", "--json"])
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert status == 0, summary
    assert summary["type"] == "summary" and summary["examples"] == 150
    assert summary["unexplained"] == summary["leaks"] == 0
    assert summary["accepted"] <= summary["calls"]
    # What should be taken is taken.
    assert summary["loaded"]["valid"] > 50
    assert summary["refused"].get("valid", 0) <= summary["known"].get("reg-invariants", 0)
    assert summary["refused"]["broken"] > 0


def test_the_same_seed_makes_the_same_programs(capfd: pytest.CaptureFixture[str]) -> None:
    rows = []
    for _ in range(2):
        assert main.run(["fuzz", "prog", "--examples", "40", "--seed", "3", "--json"]) == 0
        rows.append(json.loads(capfd.readouterr().out.splitlines()[-1]))
    for row in rows:
        del row["seconds"]
    assert rows[0] == rows[1]


def campaign_with(kernel: LiveKernel, seed: int, examples: int) -> tuple[Campaign, list[Finding]]:
    found: list[Finding] = []

    class Keeping(Campaign):
        def found(self, finding: Finding) -> None:
            super().found(finding)
            found.append(finding)

    with Keeping("prog", kernel, examples=examples, seed=seed, report=lambda _: None) as campaign:
        prog_campaign.run(campaign, {})
        campaign.look_for_leaks()
    return campaign, found


def test_a_planted_fault_is_found_and_made_small(
    kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(interp.ALU, "Xor", interp.ALU["Or"])
    monkeypatch.setattr(prog_campaign, "ENOUGH", 1)
    campaign, found = campaign_with(kernel, seed=5, examples=400)
    assert campaign.status == 1 and campaign.unexplained == len(found) > 0 and not campaign.leaks
    finding = found[0]
    listing = [line for line in finding.case.text.splitlines() if " = " in line or " ^= " in line or line == "exit"]
    # Two operands, the operation, and what shows it: R0, or the registers in the map.
    assert any("^= " in line for line in listing), finding.case.text
    assert len(listing) <= 7, finding.case.text
    # Without the fault in the model, its reproducers still say what was expected, and so they all fail.
    monkeypatch.undo()
    paths = {
        Path(path).suffix: path for path in Store(str(tmp_path)).keep(finding, recorded.record(finding.case, kernel, RawBpf()))
    }
    program = str(tmp_path / "program")
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", program, paths[".c"]], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "reproduced"), done
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", paths[".py"]]
    assert subprocess.run(test, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True).returncode == 1
    assert main.run(["fuzz", "replay", paths[".rkm"], "--out", str(tmp_path / "again"), "--json"]) == 1
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert rows[0]["type"] == "difference" and rows[-1]["reproduced"] is True
    again = {path.suffix: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert again[".c"] == Path(paths[".c"]).read_bytes() and again[".py"] == Path(paths[".py"]).read_bytes()
    # To other commands it is a recording as any.
    assert main.run(["replay", paths[".rkm"]]) == 0
    assert "BPF_PROG_LOAD" in capfd.readouterr().out
