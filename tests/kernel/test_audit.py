"""rawkm audit on this kernel: real programs are traced, and are none the worse for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from errno import ENOSYS
from pathlib import Path
from typing import Any

import pytest

from tests import stracetext

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(__file__).with_name("audited.py"))
RAWKM = [sys.executable, "-m", "rawkm"]
PYTHON = [sys.executable, "-S", "-E"]
Row = dict[str, Any]

# The machine may be busy.
PATIENCE = 60.0


def audit(*options: str, program: list[str], prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [*(prefix or []), *RAWKM, "audit", *options, "--", *program]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)


def rows(*words: str, options: tuple[str, ...] = ()) -> tuple[list[Row], Row]:
    """The calls of audited.py, and the summary."""
    done = audit("--json", *options, program=[*PYTHON, PROGRAM, *words])
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[-1]["command_status"] == 0, done.stderr
    return found[:-1], found[-1]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
    return found


def ended(pid: int) -> bool:
    """Whether or not its parent has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def tracer_of(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    raise AssertionError("no TracerPid")


def test_every_field_and_pointee() -> None:
    create, update, lookup, info, load, refused = rows("calls")[0]
    assert create["command"] == "MAP_CREATE"
    assert create["values"]["map_type"] == 2 and create["values"]["map_name"] == b"counts".ljust(16, b"\0").hex()
    assert create["fds"]["result"]["kind"] == "map" and create["fds"]["result"]["name"] == "counts"
    assert update["memory"]["key"]["hex"] == "01000000" and update["memory"]["value"]["hex"] == "6712000000000000"
    assert lookup["written"]["value"]["hex"] == "6712000000000000" and "value" not in lookup["memory"]
    assert lookup["fds"]["map_fd"]["name"] == "counts"
    assert info["after"] == {"info.info_len": info["after"]["info.info_len"]} and 80 <= info["after"]["info.info_len"] < 256
    assert info["info"]["values"]["max_entries"] == 4
    assert bytes.fromhex(info["info"]["values"]["name"]).rstrip(b"\0") == b"counts"
    assert info["info"]["values"]["id"] == create["fds"]["result"]["id"]
    assert load["memory"]["insns"]["hex"] == "b70000002a0000009500000000000000"
    assert bytes.fromhex(load["memory"]["license"]["hex"]) == b"GPL"
    assert b"processed 2 insns" in bytes.fromhex(load["written"]["log_buf"]["hex"])
    assert load["fds"]["result"]["kind"] == "prog" and load["result"] > 0
    assert refused["errno"] == "EINVAL" and refused["result"] == -1
    assert b"exit" in bytes.fromhex(refused["written"]["log_buf"]["hex"])


def test_what_cannot_be_read_is_said() -> None:
    calls, summary = rows("hostile")
    assert summary["unknown"] == 2 and summary["unreadable"] == 3
    assert [call["unreadable"] for call in calls if "unreadable" in call] == ["EFAULT"] * 3
    (path,) = [call for call in calls if call["command"] == "OBJ_GET"]
    assert path["memory"]["pathname"] == {
        "address": path["memory"]["pathname"]["address"],
        "hex": b"/sys".hex(),
        "error": "EFAULT",
    }
    shown = audit("-o", "/dev/stderr", program=[*PYTHON, PROGRAM, "hostile"]).stderr
    assert "bpf(BPF_MAP_CREATE, 0x10 /* cannot be read: EFAULT */, 72) = -1 EFAULT (Bad address)" in shown
    assert 'bpf(0x1267 /* BPF_??? */, "\\x01\\x02\\x03", 3) = -1 EINVAL (Invalid argument)' in shown
    assert "insns=0x10 /* cannot be read: EFAULT */, license=0x20 /* cannot be read: EFAULT */" in shown
    assert "{map_type=BPF_MAP_TYPE_ARRAY, key_size=4} /* only 8 of 72 bytes could be read: EFAULT */" in shown
    assert "bpf(BPF_PROG_LOAD|BPF_COMMON_ATTRS, " in shown and ", 8, {log_buf=NULL, log_size=0, " in shown


@pytest.mark.parametrize("options", [(), ("--no-seccomp",)])
def test_threads_children_and_what_they_execute(options: tuple[str, ...]) -> None:
    calls, summary = rows("family", options=options)
    names = [bytes.fromhex(call["values"]["map_name"]).rstrip(b"\0").decode() for call in calls]
    assert names == ["first", "thread", "child", "grandchild", "spawned", "executed"]
    first, thread, child, grandchild, spawned, executed = ((call["pid"], call["tid"]) for call in calls)
    assert first[0] == first[1] == thread[0] != thread[1]
    assert executed == first
    assert len({first[0], child[0], grandchild[0], spawned[0]}) == 4
    assert summary["made"] == {f'map "{name}"': 1 for name in names}


def test_signals_and_stops_come_as_they_are_sent() -> None:
    """The program itself asserts it."""
    calls, _ = rows("signals")
    assert len([call for call in calls if call["command"] == "MAP_UPDATE_ELEM"]) >= 50


def test_a_filter_costs_the_program_nothing_it_had() -> None:
    """Its status, its output and its errors are as without; a set-user-ID program gets its rights."""
    script = "echo out; echo err >&2; kill -TERM $$"
    done = audit("-q", program=["sh", "-c", script])
    assert done.returncode == 0 and done.stdout == "out\n"
    assert "err\n" in done.stderr and "rawkm: the command ended with status 143\n" in done.stderr


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], list[list[str]]], Path]]:
    """An audit of a program that goes on until it is told to stop: (audit, the lines it has written, its file)."""
    path = tmp_path / "beats"
    argv = [*RAWKM, "audit", "-o", str(tmp_path / "calls"), "--", *PYTHON, PROGRAM, "beats", str(path)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)

    def lines() -> list[list[str]]:
        return [line.split() for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    wait_for(lambda: len(lines()) > 3, "the program's calls")
    yield process, lines, path
    Path(f"{path}.stop").touch()
    pid = int(lines()[0][1])
    wait_for(lambda: ended(pid), "the program's end")
    process.kill()
    process.wait()


def went_on(lines: Callable[[], list[list[str]]]) -> list[str]:
    """The answers to twenty more calls."""
    before = len(lines())
    wait_for(lambda: len(lines()) > before + 20, "more calls of the program")
    return [line[1] for line in lines()[before:]]


def test_killing_the_auditor_leaves_the_program_working(beating: Any) -> None:
    """With a signal that nothing can catch: no call fails, neither then nor later."""
    process, lines, path = beating
    process.kill()
    process.wait()
    went_on(lines)
    assert {line[1] for line in lines()[1:]} == {"0"}
    guard = tracer_of(int(lines()[0][1]))
    assert Path(f"/proc/{guard}/comm").read_text() == "rawkm-guard\n"
    Path(f"{path}.stop").touch()
    wait_for(lambda: ended(guard), "the guard's end")


def test_what_a_command_leaves_behind_can_be_left_alone(tmp_path: Path) -> None:
    """The command has ended, a child of it has not: Ctrl-C ends the audit, and the child goes on."""
    path = tmp_path / "beats"
    argv = [*RAWKM, "audit", "-q", "--", *PYTHON, PROGRAM, "sleeper", str(path)]
    # A file, not a pipe: the child keeps its stderr.
    with (tmp_path / "said").open("w") as file, subprocess.Popen(argv, cwd=ROOT, stderr=file) as process:
        # A second of them: the command has ended long since.
        wait_for(lambda: path.exists() and path.read_text().count("\n") > 20, "the child's calls")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    said = (tmp_path / "said").read_text()
    assert "what the command has started goes on, and rawkm-guard (process " in said
    pid = int(path.read_text().split()[1])
    before = path.read_text().count("\n")
    wait_for(lambda: path.read_text().count("\n") > before + 5, "more calls of the child")
    Path(f"{path}.stop").touch()
    wait_for(lambda: ended(pid), "the child's end")
    assert {line.split()[1] for line in path.read_text().splitlines()[1:]} == {"0"}


def test_killing_the_guard_leaves_the_program_working(beating: Any) -> None:
    """The auditor puts another one in its place, and goes on."""
    process, lines, path = beating
    pid = int(lines()[0][1])
    guard = tracer_of(pid)
    assert guard != process.pid
    os.kill(guard, signal.SIGKILL)
    wait_for(lambda: tracer_of(pid) not in (0, guard), "another tracer")
    assert set(went_on(lines)) == {"0"}
    Path(f"{path}.stop").touch()
    assert process.wait(PATIENCE) == 0
    text = (path.parent / "calls").read_text().splitlines()
    # Nothing is missing but what came in between, which the kernel refused, and the last that the guard had not yet told.
    between = [line for line in lines()[1:] if line[1] == str(-ENOSYS)]
    assert len(lines()) - len(between) - len(text) <= 5


def test_attaching_to_a_process_and_letting_go(tmp_path: Path) -> None:
    """It goes on untraced, and its calls in between were seen."""
    path = tmp_path / "beats"
    program = subprocess.Popen([*PYTHON, PROGRAM, "beats", str(path)])
    try:
        wait_for(lambda: path.exists() and len(path.read_text()) > 20, "the program's calls")
        argv = [*RAWKM, "audit", "--json", "-p", str(program.pid), "-d", "1"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        calls = [json.loads(line) for line in done.stdout.splitlines()]
        assert {call.get("command") for call in calls[:-1]} == {"MAP_UPDATE_ELEM"}
        assert {call["pid"] for call in calls[:-1]} == {program.pid}
        assert tracer_of(program.pid) == 0
    finally:
        Path(f"{path}.stop").touch()
        assert program.wait(PATIENCE) == 0
    assert {line.split()[1] for line in path.read_text().splitlines()[1:]} == {"0"}


# Still root, which owns the files that Python needs to read, but without a single capability.
POWERLESS = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]


def test_one_sentence_where_it_cannot_trace() -> None:
    done = audit("-q", program=["/nonexistent/program"])
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    argv = [*POWERLESS, *RAWKM, "audit", "-p", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 3, done.stderr
    assert "CAP_SYS_PTRACE is missing" in done.stderr and done.stderr.count("\n") == 1
    traced = subprocess.Popen(["sleep", "60"])
    try:
        first = subprocess.Popen([*RAWKM, "audit", "-q", "-p", str(traced.pid)], cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_for(lambda: tracer_of(traced.pid), "the first tracer")
        argv = [*RAWKM, "audit", "-p", str(traced.pid)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
        assert done.returncode == 3 and f"it is traced by process {tracer_of(traced.pid)} already" in done.stderr
        first.terminate()
        assert first.wait(PATIENCE) == 0
        assert tracer_of(traced.pid) == 0
    finally:
        traced.kill()
        traced.wait()


def test_without_capabilities() -> None:
    """Whoever may run a program may audit it."""
    done = audit(program=[*PYTHON, PROGRAM, "named", "x"], prefix=POWERLESS)
    assert done.returncode == 0, done.stderr
    assert "no_new_privs" in done.stderr and "bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY, " in done.stderr


def test_strace_prints_the_same(tmp_path: Path) -> None:
    """Debian's bpftool asks the kernel some 5,000 questions; two runs of it, without address randomisation, make the same calls."""
    program = ["setarch", "-R", "bpftool", "feature", "probe", "kernel"]
    ours_file, theirs_file = tmp_path / "ours", tmp_path / "theirs"
    done = audit("--json", "-o", str(ours_file), program=program)
    assert done.returncode == 0, done.stderr
    options = ["-f", "-e", "trace=bpf", "-v", "-X", "raw", "-s", "65536", "-o", str(theirs_file)]
    subprocess.run(["strace", *options, *program], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    ours = [json.loads(line) for line in ours_file.read_text().splitlines()]
    summary = ours.pop()
    theirs = stracetext.calls(theirs_file.read_text())
    assert len(ours) == len(theirs) == summary["calls"] > 5000
    assert summary["unknown"] == summary["unreadable"] == 0
    wrong = [
        f"call {at}: {difference}"
        for at, (mine, his) in enumerate(zip(ours, theirs, strict=True))
        for difference in stracetext.differences(his, mine)
    ]
    assert wrong == []


def test_a_recording_shows_the_same_calls(tmp_path: Path) -> None:
    path = tmp_path / "audit.rkm"
    done = audit("--record", str(path), program=[*PYTHON, PROGRAM, "calls"])
    assert done.returncode == 0 and done.stderr.endswith("rawkm: 6 bpf(2) calls\n"), done.stderr
    shown = subprocess.run([*RAWKM, "replay", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert shown.returncode == 0, shown.stderr
    head, create, update, lookup, info, load, refused = shown.stdout.splitlines()
    assert head.startswith(f"# other programs' calls: {sys.executable} -S -E {PROGRAM} calls")
    assert 'map_name="counts"}, 44) = map#1' in create
    assert 'map_fd=map#1, key="\\x01\\x00\\x00\\x00", value="\\x67\\x12' in update
    assert 'value=[8 bytes] => "\\x67\\x12' in lookup
    assert "info_len=256 => " in info and 'name="counts"' in info
    assert "= prog#1 <" in load and "processed 2 insns" in load
    assert "= -1 EINVAL <" in refused and "exit" in refused
