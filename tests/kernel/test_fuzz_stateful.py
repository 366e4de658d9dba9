"""The state machine of maps, programs and links, on the running kernel; and that it notices when its model is wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from rawkm.cli import main
from rawkm.errors import RecordingError
from rawkm.fuzz import leaks, machine, recorded
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.case import UNLINK, Case, Check, Data, Pin, Step
from rawkm.fuzz.case import run as run_case
from rawkm.fuzz.findings import Store
from rawkm.fuzz.state_machine import BpfMachine, DifferenceError, Node
from rawkm.fuzz.stateful_campaign import run
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.raw import RawBpf
from rawkm.uapi.constants import MapType

ROOT = Path(__file__).parents[2]
SETTINGS = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def test_runs_agree_and_leave_nothing(kernel: LiveKernel) -> None:
    before = leaks.Inventory(kernel)
    bpf = machine(kernel)
    run_state_machine_as_test(bpf, settings=SETTINGS)
    bpf.pool.close()
    assert leaks.since(kernel, before) == []


def test_an_element_that_the_model_forgets_is_found(kernel: LiveKernel) -> None:
    class Forgets(machine(kernel)):  # type: ignore[misc]
        def _holds(self, node: Node, key: int) -> bool:
            return key in node.elements and key != 2

    with pytest.raises(DifferenceError) as caught:
        run_state_machine_as_test(Forgets, settings=settings(SETTINGS, max_examples=300, phases=[Phase.generate]))
    Forgets.pool.close()
    assert caught.value.steps[-1].startswith("MAP_LOOKUP_ELEM")
    assert (caught.value.expected, caught.value.seen) == ("ENOENT", "accepted")


def test_a_campaign_reports_what_it_finds(kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, object]] = []
    campaign = Campaign("stateful", kernel, examples=40, seed=1, report=lambda row: rows.append(dict(row)))
    monkeypatch.setattr(BpfMachine, "_update_errno", lambda *_: 0)
    run(campaign, {"steps": 20})
    assert campaign.unexplained == 1
    assert rows[0]["what"] == "MAP_UPDATE_ELEM" and rows[0]["expected"] == "accepted"
    assert "MAP_CREATE" in str(rows[0]["text"])
    assert campaign.calls > campaign.done >= 1


SAME = BpfMachine._same


def _other_type(machine: BpfMachine, node: Node, fd: int) -> None:
    """As if arrays were hashes."""
    if node.kind == "map":
        node.type = MapType.HASH
    SAME(machine, node, fd)


def _all_is_gone(machine: BpfMachine) -> None:
    """As if an object went with any of its fds."""
    for node in machine._nodes:
        machine._gone(node.kind, node.id)


def _any_update(*_: object) -> int:
    return 0


# What the machine is made to believe, and what is then found: an errno, something in what is told, an id that is still there.
FAULTS = {
    "errno": ("_update_errno", _any_update, "MAP_UPDATE_ELEM"),
    "told": ("_same", _other_type, "the type of map"),
    "gone": ("_settle", _all_is_gone, "to which nothing refers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_three_reproducers_of_a_run(name: str, kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    method, wrong, what = FAULTS[name]
    rows: list[dict[str, object]] = []
    campaign = Campaign(
        "stateful", kernel, examples=150, seed=1, report=lambda row: rows.append(dict(row)), store=Store(str(tmp_path / "found"))
    )
    with monkeypatch.context() as patched:
        patched.setattr(BpfMachine, "patience", 0.3)
        patched.setattr(BpfMachine, method, wrong)
        run(campaign, {"steps": 20})
    assert campaign.unexplained == 1 and what in str(rows[0]["what"]), rows
    files = rows[0]["files"]
    assert isinstance(files, list)
    paths = {Path(path).suffix: path for path in files}
    program = str(tmp_path / "program")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, paths[".c"]], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 1 and "reproduced" in done.stdout, done
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", paths[".py"]]
    test = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert test.returncode == 1 and "Difference" not in test.stderr, test
    assert main.run(["fuzz", "replay", paths[".rkm"]]) == 1
    with open(paths[".rkm"], "rb") as file:
        case = recorded.read(file)
    # Only the last step is one that the kernel does not do as the model says.
    found = run_case(case, kernel, RawBpf())
    assert {difference.step for difference in found} == {len(case.steps) - 1}
    names = {"Step": Step, "Data": Data, "Check": Check, "Pin": Pin}
    assert repr([eval(repr(step), names) for step in case.steps]) == repr(list(case.steps))


def test_runs_without_a_difference_are_cases_without_one(kernel: LiveKernel) -> None:
    """Pins, ids, what is told of programs and their maps, what is gone: all of a run can be made again."""
    scripts: list[list[Step]] = []

    class Kept(machine(kernel)):  # type: ignore[misc]
        def teardown(self) -> None:
            super().teardown()
            scripts.append(self._script.steps)

    how = settings(SETTINGS, max_examples=40, phases=[Phase.generate])
    run_state_machine_as_test(Kept, settings=how)
    Kept.pool.close()
    raw = RawBpf()
    seen = set()
    for steps in scripts:
        assert run_case(Case(steps), kernel, raw) == []
        seen |= {step.name for step in steps}
        seen |= {"a map of a program" for step in steps for check in step.checks if check.inner is not None}
    assert seen >= {
        "close",
        "unlink",
        "BPF_OBJ_PIN",
        "BPF_OBJ_GET",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_PROG_GET_FD_BY_ID",
        "a map of a program",
    }


def test_a_recording_unlinks_nothing_but_its_own_pins(tmp_path: Path) -> None:
    """Whoever wrote it: a pin is a name in the bpffs that the replay has for itself."""
    good = Case([Step(UNLINK, bytes(8), pointers={0: Pin("pin1")})])
    text = json.dumps({"t": "case", **recorded.to_json(good)}, separators=(",", ":"))
    precious = tmp_path / "precious"
    precious.write_text("kept")
    damaged = [
        text.replace('"pin1"', f'"../../../..{precious}"'),
        text.replace('{"pin":"pin1"}', f'{{"data":"{bytes(str(precious), "utf-8").hex()}","pointers":{{}},"fds":{{}}}}'),
        text.replace('{"0":{"pin":"pin1"}}', "{}"),
        text.replace('"cmd":-2', '"cmd":-1'),
    ]
    assert recorded.to_json(recorded.read(io.BytesIO(text.encode()))) == recorded.to_json(good)
    for one in damaged:
        assert one != text
        with pytest.raises(RecordingError, match="damaged"):
            recorded.read(io.BytesIO(one.encode()))
    assert precious.read_text() == "kept"


def test_nodes_say_what_they_are() -> None:
    assert Node("map", 1, 3, 77).name == "map 77"
