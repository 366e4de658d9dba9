"""`rawkm why` on this kernel: refused calls, each with its reason."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rawkm.errors import UsageError
from rawkm.recording import Call, Fd, Pointee
from rawkm.syscall.live import LiveKernel
from rawkm.uapi import encode
from rawkm.uapi.codec import number as codec_number
from rawkm.uapi.constants import AttachType, Cmd, ProgType
from rawkm.why import explain
from rawkm.why.answer import Answer
from tests.witnesses.world import RETURN_0

REFUSE = [sys.executable, "-m", "tests.witnesses.refuse"]

# kind: (command, errno, the rule, the change that helps: field and value, or "" where there is none)
KINDS = {
    "beyond": ("MAP_LOOKUP_ELEM", "E2BIG", "attr_tail", "byte 500", "0"),
    "inside": ("MAP_LOOKUP_ELEM", "EINVAL", "map_lookup_elem.tail", "byte 40", "0"),
    "closed": ("MAP_LOOKUP_ELEM", "EBADF", "map_lookup_elem.map_fd_open", "", ""),
    "kind": ("MAP_LOOKUP_ELEM", "EINVAL", "map_lookup_elem.map_fd_kind", "", ""),
    "key_size": ("MAP_CREATE", "EINVAL", "map_create.hash_key_size", "key_size", "4"),
    "log": ("PROG_LOAD", "EINVAL", "prog_load.log_level", "log_level", "1"),
    "map_flags": ("MAP_CREATE", "EINVAL", "map_create.array_flags", "map_flags", "BPF_F_MMAPABLE"),
    "info_len": ("OBJ_GET_INFO_BY_FD", "E2BIG", "obj_get_info_by_fd.map_tail", "bytes 290 to 299 of info.info", "0"),
    "prog_flags": ("PROG_LOAD", "EINVAL", "prog_load.prog_flags", "prog_flags", "0"),
    "index": ("MAP_UPDATE_ELEM", "E2BIG", "map_update_elem.index", "key", "0"),
    "frozen": ("MAP_UPDATE_ELEM", "EPERM", "map_update_elem.frozen", "", ""),
    "in_use": ("MAP_LOOKUP_ELEM", "EFAULT", "map_lookup_elem.key", "key", "readable memory of zeros"),
}


def why(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rawkm", "why", *args], capture_output=True, text=True)


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    done = why("--all", "--json", "--", *REFUSE, *KINDS)
    found = rows(done)
    assert len(found) == len(KINDS), done.stderr
    return dict(zip(KINDS, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reason(kind: str, answers: dict[str, dict[str, Any]]) -> None:
    command, code, rule, field, now = KINDS[kind]
    answer = answers[kind]
    assert (answer["command"], answer["errno"]) == (command, code)
    assert answer["rule"]["name"] == rule
    assert answer["rule"]["text"] in answer["answer"]
    if not field:
        assert answer["findings"] == []
        return
    first = answer["findings"][0]
    assert first["accepted"]
    assert [(change["field"], change["now"]) for change in first["changes"]] == [(field, now)]


def test_the_verifier_speaks_for_itself() -> None:
    done = why("--", *REFUSE, "verifier")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "BPF_PROG_LOAD was refused with EACCES: the verifier says: R0 !read_ok"


def test_two_faults() -> None:
    """The first change gets to the second check, and says so."""
    (answer,) = rows(why("--json", "--", *REFUSE, "two"))
    (finding,) = answer["findings"]
    assert not finding["accepted"] and finding["errno"] == "EINVAL"
    assert finding["changes"][0]["field"] == "key_size"


def test_a_recording_of_rawkm_itself(tmp_path: Path) -> None:
    """What doctor asks for and does not get is explained, call by call."""
    file = str(tmp_path / "run.rkm")
    subprocess.run([sys.executable, "-m", "rawkm", "doctor", "--record", file], capture_output=True)
    done = why(file, "--json", "--all")
    found = rows(done)
    assert found, done.stderr
    assert {answer["type"] for answer in found} == {"why"}
    for answer in found:
        assert answer["answer"].startswith(f"BPF_{answer['command']} was refused with {answer['errno']}: ")
        assert answer["tried"] or answer["obstacle"] or answer["verifier"]


def test_nothing_refused() -> None:
    done = why("--", "true")
    assert done.returncode == 1
    assert done.stderr == "rawkm: no call of bpf(2) was made\n"


def test_wrong_usage() -> None:
    assert why().returncode == 2
    assert why("x.rkm", "--", "true").returncode == 2


# -- what is not made again ------------------------------------------------------------------------------------------------


def _refused(number: int, command: str, values: dict[str, Any], code: int, **more: Any) -> Call:
    attr = encode(command, values)
    call = Call("bpf", command=codec_number(command), size=len(attr), attr=attr, result=-1, errno=code, **more)
    call.number = number
    return call


def _loaded(number: int, prog_type: int) -> Call:
    """A program that was loaded before, as prog#1."""
    attr = encode("PROG_LOAD", {"prog_type": prog_type, "insn_cnt": 2, "insns": 8, "license": 16})
    memory = {"insns": Pointee(RETURN_0), "license": Pointee(b"GPL")}
    call = Call("bpf", command=Cmd.PROG_LOAD, size=len(attr), attr=attr, memory=memory, result=7, makes=Fd("prog#1", 7, number))
    call.number = number
    return call


def _explained(kernel: LiveKernel, *calls: Call) -> Answer:
    return explain(kernel, calls, calls[-1])


def test_what_would_leave_something_behind(kernel: LiveKernel) -> None:
    call = _refused(1, "OBJ_PIN", {"file_flags": 1}, errno.EINVAL)
    answer = _explained(kernel, call)
    assert answer.obstacle == "it would leave something behind"
    assert answer.tried == 0
    assert answer.reason().startswith("file_flags must be 0")


def test_programs_that_do_more_than_look_on(kernel: LiveKernel) -> None:
    """An XDP program is not attached, not even for a moment; the rule is known all the same."""
    values = {"link_create.prog_fd": 7, "link_create.attach_type": AttachType.TRACE_FENTRY}
    call = _refused(2, "LINK_CREATE", values, errno.EINVAL, fds={"link_create.prog_fd": Fd("prog#1", 7, 1)})
    answer = _explained(kernel, _loaded(1, ProgType.XDP), call)
    assert "more than look on" in answer.obstacle
    assert answer.tried == 0
    assert answer.rule is not None and answer.rule.name == "link_create.attach_type"


def test_objects_of_others(kernel: LiveKernel) -> None:
    """A map that was found by its id is somebody's: nothing is written to it."""
    found = _refused(1, "MAP_GET_FD_BY_ID", {"map_id": 1}, 0, makes=Fd("map#1", 7, 1))
    call = _refused(2, "MAP_UPDATE_ELEM", {"map_fd": 7, "key": 1}, errno.EPERM, fds={"map_fd": Fd("map#1", 7, 1)})
    answer = _explained(kernel, found, call)
    assert answer.obstacle == "it would change what is in use"
    assert answer.tried == 0


def test_packets_are_not_sent(kernel: LiveKernel) -> None:
    values = {"test.prog_fd": 7, "test.flags": 2}
    call = _refused(2, "PROG_TEST_RUN", values, errno.EINVAL, fds={"test.prog_fd": Fd("prog#1", 7, 1)})
    assert _explained(kernel, _loaded(1, ProgType.XDP), call).obstacle == "it would send packets"


def test_what_was_left_out(kernel: LiveKernel) -> None:
    call = _refused(1, "BTF_LOAD", {"btf": 1, "btf_size": 8}, errno.EINVAL, memory={"btf": Pointee(error="redacted")})
    assert _explained(kernel, call).obstacle == "the recording was redacted"


def test_calls_that_cannot_be_explained(kernel: LiveKernel) -> None:
    fine = _refused(1, "MAP_FREEZE", {}, 0)
    with pytest.raises(UsageError, match="was not refused"):
        _explained(kernel, fine)
    other = Call("openat", errno=errno.ENOENT)
    with pytest.raises(UsageError, match="only calls of bpf"):
        _explained(kernel, other)
    unknown = Call("bpf", command=99, errno=errno.EINVAL, attr=bytes(8), size=8)
    assert _explained(kernel, unknown).obstacle == "rawkm does not know the command"
