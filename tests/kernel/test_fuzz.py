"""What campaigns stand on, on the running kernel: cases and their reproducers, the search for what is left behind."""

from __future__ import annotations

import gc
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawkm.cli import main
from rawkm.fuzz import leaks, recorded, reproducers
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.case import Case, Check, Data, Step, run
from rawkm.fuzz.findings import Finding, Store
from rawkm.maps import MapSpec
from rawkm.recording import Header, Writer
from rawkm.recording.header import CALLS
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.raw import Block, RawBpf
from rawkm.uapi.constants import Cmd, MapType

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _collecting_again() -> Iterator[None]:
    yield
    gc.enable()


def array_case(seen_first: int, *, update: tuple[int, ...] = (0,)) -> Case:
    """An array of one value: 7 is stored, ``seen_first`` is expected."""
    return Case(
        [
            Step(Cmd.MAP_CREATE, struct.pack("=IIII", MapType.ARRAY, 4, 8, 1), note="an array"),
            Step(
                Cmd.MAP_UPDATE_ELEM,
                bytes(32),
                fds={0: 0},
                pointers={8: Data(bytes(4)), 16: Data(struct.pack("=Q", 7))},
                expect=update,
            ),
            Step(
                Cmd.MAP_LOOKUP_ELEM,
                bytes(32),
                fds={0: 0},
                pointers={8: Data(bytes(4)), 16: Data(bytes(8))},
                checks=[Check("value", 0, struct.pack("=Q", seen_first), pointer=16)],
            ),
        ],
        title='an "array" */ that holds 7',
        text="line one\nline \\ two",
    )


GOOD, BAD_VALUE, BAD_ERRNO = array_case(7), array_case(8), array_case(7, update=(22, 7))


def test_raw_calls(kernel: LiveKernel) -> None:
    raw = RawBpf()
    attr = bytearray(struct.pack("=IIII", MapType.ARRAY, 4, 8, 1))
    fd = raw.call(Cmd.MAP_CREATE, attr)
    assert fd > 0
    kernel.close(fd)
    assert raw.call(Cmd.MAP_CREATE, attr, 4097) == -7
    assert raw.call(Cmd.MAP_CREATE, bytearray(), 0) == -22
    assert raw.call(9999, attr) == -22
    info = Block(bytes(80))
    with MapSpec("raw", MapType.ARRAY, key=4, value=8, max_entries=3).create(kernel) as m:
        assert raw.call(Cmd.OBJ_GET_INFO_BY_FD, bytearray(struct.pack("=IIQ", m.fd, 80, 0)), pointers={8: info}) == 0
    assert struct.unpack_from("=IIIII", info.data)[2:] == (4, 8, 3)


def test_a_case_is_as_expected_or_not(kernel: LiveKernel) -> None:
    raw = RawBpf()
    assert run(GOOD, kernel, raw) == []
    (difference,) = run(BAD_VALUE, kernel, raw)
    assert str(difference) == "BPF_MAP_LOOKUP_ELEM value: expected 0800000000000000, seen 0700000000000000"
    (difference,) = run(BAD_ERRNO, kernel, raw)
    assert str(difference) == "BPF_MAP_UPDATE_ELEM: expected EINVAL or E2BIG, seen accepted"


@pytest.mark.parametrize(("case", "status"), [(GOOD, 0), (BAD_VALUE, 1), (BAD_ERRNO, 1)])
def test_all_reproducers_say_the_same(case: Case, status: int, tmp_path: Path, kernel: LiveKernel) -> None:
    recording = recorded.record(case, kernel, RawBpf())
    paths = Store(str(tmp_path / "found")).keep(Finding(case, "BPF_MAP_LOOKUP_ELEM value", "8", "7"), recording)
    by_end = {Path(path).suffix: path for path in paths}
    program = str(tmp_path / "program")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, by_end[".c"]], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == status, done
    assert ("reproduced" in done.stdout) == bool(status)
    test = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", by_end[".py"]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert test.returncode == status, test.stdout
    assert main.run(["fuzz", "replay", by_end[".rkm"]]) == status
    with open(by_end[".rkm"], "rb") as file:
        assert recorded.to_json(recorded.read(file)) == recorded.to_json(case)


def test_repr_is_the_case() -> None:
    names = {"Step": Step, "Data": Data, "Check": Check}
    for case in (GOOD, BAD_VALUE, BAD_ERRNO):
        assert repr([eval(repr(step), names) for step in case.steps]) == repr(list(case.steps))
        assert reproducers.as_c(case) == reproducers.as_c(
            Case([eval(repr(step), names) for step in case.steps], title=case.title, text=case.text)
        )


def test_what_is_left_behind_is_found(kernel: LiveKernel) -> None:
    before = leaks.Inventory(kernel)
    assert leaks.since(kernel, before) == []
    with MapSpec("left", MapType.ARRAY, key=4, value=8, max_entries=1).create(kernel) as m:
        found = leaks.since(kernel, before, patience=0)
        assert f"map {m.info()['id']!r}" in found
        assert any(left.startswith(f"fd {m.fd} ") for left in found)
    assert leaks.since(kernel, before) == []


def test_a_campaign_ends_with_1_when_something_is_left(kernel: LiveKernel) -> None:
    rows: list[object] = []
    with Campaign("none", kernel, examples=1, seed=1, report=rows.append) as campaign:
        campaign.look_for_leaks()
        assert campaign.status == 0
        campaign.found(Finding(BAD_VALUE, "value", "8", "7"))
    assert campaign.status == 1
    assert campaign.summary()["unexplained"] == 1
    assert len(rows) == 1


def test_recordings_without_a_failure_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other: list[bytes] = []
    Writer(other.append, Header(CALLS))
    for name, data, words in (
        ("other", b"".join(other), "none of a failure"),
        ("empty", b"", "no recording"),
        ("cut", b'{"t":"case","steps":[{}\n', "damaged"),
        ("wrong", b'{"t":"case","title":"","text":"","kernel":"","cpu":null,"steps":[{}]}\n', "damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        assert main.run(["fuzz", "replay", str(tmp_path / name)]) == 1
        said = capfd.readouterr()
        assert words in said.err and len(said.err.splitlines()) == 1, said


def test_what_disturbs_needs_consent(tmp_path: Path, capfd: pytest.CaptureFixture[str], kernel: LiveKernel) -> None:
    case = Case([Step(Cmd.LINK_CREATE, bytes(64), expect=())])
    path = tmp_path / "link.rkm"
    path.write_bytes(recorded.record(case, kernel, RawBpf()))
    assert main.run(["fuzz", "replay", str(path)]) == 2
    assert "--i-own-this-kernel" in capfd.readouterr().err
    assert main.run(["fuzz", "replay", str(path), "--i-own-this-kernel"]) == 0
