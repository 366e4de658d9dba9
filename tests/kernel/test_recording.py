"""Record, replay, dry run and repro on the running kernel: what is written is enough to do it all again without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Not even root's right to read what belongs to others.
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]

# In a process of its own: it maps, stores, loads, polls, looks things up, starts a command, and prints what it saw.
RUN = """
import sys
from rawkm.cli import abi_cmd
from rawkm.maps import MapSpec
from rawkm.objects import ids
from rawkm.errors import SyscallError
from rawkm.uapi import packed
from rawkm.uapi.constants import MapFlag, MapType
from tests.kernel.fillers import by_perf, by_reserve, perf_array, ring, run as fill, PAIR
from rawkm.buffers import PerfBuf, RingBuf
from rawkm.stops import Stops

def run(args, kernel):
    with MapSpec("counts", MapType.ARRAY, key=4, value=16, max_entries=2, flags=MapFlag.MMAPABLE).create(kernel) as m:
        with m.mmap(writable=True) as memory:
            memory.store_u64(8, 0x1122334455667788)
            with m.mmap(writable=True) as table:
                table.view[16:20] = b"abcd"
            print(m.lookup(0).hex(), m.lookup(1).hex(), memory.load_u32(8), bytes(memory.read(0, 32)))
    with MapSpec("hash", MapType.HASH, key=4, value=8, max_entries=9).create(kernel) as m:
        m.update(7, 8)
        print(m.lookup(7), m.lookup(9), list(m.items()), m.delete(1), m.info()["max_entries"])
    with by_reserve(ring(4096)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        fill(prog, 3)
        print(list(rb.read().rows()), len(rb.poll(0.01)), prog.info()["type"], prog.info()["run_cnt"])
    try:
        kernel.bpf(packed.MAP_CREATE, {"map_type": 999})
    except SyscallError as err:
        print(err)
    print(len(list(ids(kernel, "map"))) > 0, kernel.uname(), kernel.getpid() > 0, kernel.list_dir("/proc/self/task") != [])
    print(kernel.read_file("/proc/self/stat"), kernel.identity("/proc/self/ns/pid"), kernel.utc_offset(0))
    with Stops(kernel) as stops:
        child = kernel.start(["sh", "-c", "exit 5"], seed=lambda: print(kernel.read_file("/proc/self/comm") and "", end=""))
        stops.watch(seconds=20, command=child, pid=None)
        child.go()
        while not stops.wait():
            pass
        print(child.status, kernel.time_ns(), kernel.monotonic())
        child.end()
    print("last words", file=sys.stderr)
    return 4

abi_cmd.run = run
from rawkm.cli.main import run as main
sys.exit(main(sys.argv[1:]))
"""


def rawkm(*argv: str, code: str = RUN, powerless: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """rawkm, with `rawkm abi show` doing what RUN says. ``powerless``: without any capability."""
    return subprocess.run(
        [*(POWERLESS if powerless else []), sys.executable, "-B", "-c", code, *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    path = tmp_path_factory.mktemp("recording") / "run.rkm"
    done = rawkm("abi", "show", "--record", str(path))
    assert done.returncode == 4, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    return path, done


def verify(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return rawkm("replay", "--verify", str(path), powerless=True, **env)


def test_a_run_replays_without_a_kernel(recorded: tuple[Path, Any]) -> None:
    path, done = recorded
    for seed in ("1", "2"):
        again = verify(path, PYTHONHASHSEED=seed)
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout
        assert again.stderr.startswith(done.stderr)
        assert "output and exit status 4 as recorded" in again.stderr


def test_no_system_call_of_the_run_is_made(recorded: tuple[Path, Any], tmp_path: Path) -> None:
    """Where it is replayed, the kernel would have refused all of it."""
    path, _ = recorded
    done = rawkm("abi", "show", powerless=True)
    assert done.returncode == 1
    assert "bpf(BPF_MAP_CREATE) was refused with EPERM" in done.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    commands = {line["cmd"] for line in lines if line.get("name") == "bpf"}
    assert {0, 1, 2, 5, 10, 12, 15} <= commands
    names = {line["name"] for line in lines if line["t"] in ("call", "seam")}
    assert {"mmap", "munmap", "load", "store", "read", "fill", "clone", "ended", "clock", "epoll_wait", "signalled"} <= names
    assert lines[0]["argv"] == ["abi", "show"]
    assert lines[-1]["status"] == 4


def changed(path: Path, change: Callable[[dict[str, Any]], bool]) -> Path:
    """The recording with the first line changed that ``change`` changes."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        record = json.loads(line)
        if change(record):
            lines[number] = json.dumps(record)
            break
    else:
        raise AssertionError("nothing was changed")
    copy = path.with_name("changed.rkm")
    copy.write_text("\n".join(lines) + "\n")
    return copy


def in_attr(command: int, offset: int) -> Callable[[dict[str, Any]], bool]:
    def change(record: dict[str, Any]) -> bool:
        if record.get("cmd") != command:
            return False
        attr = bytearray.fromhex(record["attr"])
        attr[offset] ^= 1
        record["attr"] = attr.hex()
        return True

    return change


def setting(name: str, key: str, value: object, **where: object) -> Callable[[dict[str, Any]], bool]:
    def change(record: dict[str, Any]) -> bool:
        if record.get("name") != name or any(record.get(k) != v for k, v in where.items()) or key not in record:
            return False
        if isinstance(value, dict) and key != "value":
            record[key] = {**record[key], **value}
        else:
            record[key] = value
        return True

    return change


def exit_status(record: dict[str, Any]) -> bool:
    """The command ended otherwise."""
    if record.get("name") != "ended" or record.get("value") != 5:
        return False
    record["value"] = 6
    return True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_attr(0, 8), ["bpf(BPF_MAP_CREATE)", "value_size is 16, the recording has 17"]),
        (in_attr(0, 30), ["bpf(BPF_MAP_CREATE)", 'map_name is "counts", the recording has "cotnts"']),
        (in_attr(5, 4), ["bpf(BPF_PROG_LOAD)", "insn_cnt is"]),
        (in_attr(5, 13), ["bpf(BPF_PROG_LOAD)", "insns is 0x", "where its memory was"]),
        (in_attr(1, 0), ["bpf(BPF_MAP_LOOKUP_ELEM)", "map_fd is"]),
        (in_attr(1, 5), ["bpf(BPF_MAP_LOOKUP_ELEM)", "(hole at 4)"]),
        (in_attr(15, 4), ["bpf(BPF_OBJ_GET_INFO_BY_FD)", "info.info_len is"]),
        (setting("bpf", "size", 91, cmd=0), ["bpf(BPF_MAP_CREATE)", "size is 92, the recording has 91"]),
        (
            setting("bpf", "fds", {"map_fd": "map#2"}, cmd=1),
            ["bpf(BPF_MAP_LOOKUP_ELEM)", "map_fd is map#1, the recording has map#2"],
        ),
        (setting("bpf", "mem", {"key": {"hex": "05000000"}}, cmd=2), ["bpf(BPF_MAP_UPDATE_ELEM)", "key, byte 0"]),
        (setting("mmap", "args", {"length": 31}), ["mmap", "length is 32, the recording has 31"]),
        (setting("store", "args", {"value": 5}), ["store", "value is 1234605616436508552, the recording has 5"]),
        (setting("fill", "value", {"text": "abce"}), ["fill", "mem#2, byte 0"]),
        (setting("openat", "args", {"path": "/etc/shadow"}), ["openat", "path is /proc/"]),
        (setting("close", "name", "open"), ["the call is close, the recording has open"]),
        (setting("bpf", "makes", "map#7", cmd=0), ["bpf(BPF_MAP_CREATE)", "what it makes is map#1, the recording has map#7"]),
        (setting("getpid", "name", "getppid"), ["the call is getpid, the recording has getppid"]),
        # Only the kernel's answers can tell what it said: the output differs then.
        (setting("uname", "value", ["9.9.9", "vax"]), ["stdout, line", "9.9.9"]),
        (exit_status, ["stdout, line", "6 "]),
    ],
)
def test_a_changed_recording(recorded: tuple[Path, Any], change: Callable[[dict[str, Any]], bool], words: list[str]) -> None:
    """The call and the field are named; status 1."""
    done = verify(changed(recorded[0], change))
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rawkm: the run differs from its recording: "), done.stderr
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr


def test_recordings_that_are_too_short_or_too_long(recorded: tuple[Path, Any]) -> None:
    path, _ = recorded
    lines = path.read_text().splitlines(keepends=True)
    calls = [number for number, line in enumerate(lines) if json.loads(line)["t"] in ("call", "seam")]
    short = path.with_name("short.rkm")
    short.write_text("".join(lines[: calls[30]]))
    done = verify(short)
    assert done.returncode == 1
    assert "after the last recorded call: what comes next is" in done.stderr
    long = path.with_name("long.rkm")
    long.write_text("".join([*lines[: calls[-1] + 1], lines[calls[-1]], *lines[calls[-1] + 1 :]]))
    done = verify(long)
    assert done.returncode == 1
    assert "what comes next is nothing, the recording has" in done.stderr
    killed = path.with_name("killed.rkm")
    killed.write_text("".join(lines[:-1]))
    assert "its end is missing" in verify(killed).stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("read", "value", 5), "read: it cannot have the value '5'"),
        (setting("read", "value", {"ref": "none"}), "no blob 'none'"),
        (setting("clock", "value", "noon"), "clock: it cannot have the value 'noon'"),
        (setting("epoll_wait", "value", [[]]), "epoll_wait: it cannot have the value"),
        (setting("bpf", "after", "00", cmd=10), "the attr has"),
        (setting("bpf", "out", {"value": {"hex": "00"}}, cmd=1), "value has 16 bytes, 1 are recorded for it"),
        (setting("bpf", "out", {"key": {"hex": "00000000"}}, cmd=1), "key is nothing that the kernel writes to"),
    ],
)
def test_a_recording_that_makes_no_sense(
    recorded: tuple[Path, Any], change: Callable[[dict[str, Any]], bool], words: str
) -> None:
    done = verify(changed(recorded[0], change))
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_shown(recorded: tuple[Path, Any]) -> None:
    path, _ = recorded
    done = rawkm("replay", str(path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("# rawkm abi show (rawkm 0")
    assert lines[-1] == "# exit status 4"
    assert 'map_name="counts"' in lines[1]
    assert lines[1].partition(" <")[0].endswith(" = map#1")
    lookups = [line for line in lines if "BPF_MAP_LOOKUP_ELEM" in line]
    assert "map_fd=map#1" in lookups[0]
    assert 'value=[16 bytes] => "\\x00\\x00' in lookups[0]
    assert any("= -1 ENOENT" in line for line in lookups)
    [bad] = [line for line in lines if "map_type=0x3e7" in line]
    assert "= -1 EINVAL" in bad
    loaded = next(line for line in lines if "BPF_PROG_LOAD" in line)
    assert "imm=map#" in loaded
    assert "clock" not in done.stdout
    detail = rawkm("replay", "--explain", "--seams", str(path)).stdout
    assert "clock(clock=CLOCK_MONOTONIC): " in detail
    assert "max_entries = 2" in detail
    assert " exit" in detail
    assert "info.info, after the call:" in detail


def test_redacted(recorded: tuple[Path, Any], tmp_path: Path) -> None:
    """No address and no content of a file; it can be shown, but not verified."""
    path = tmp_path / "redacted.rkm"
    done = rawkm("abi", "show", "--redact", "--record", str(path))
    assert done.returncode == 4
    assert done.stdout.count("\n") > 5
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for content in (*record.get("mem", {}).values(), *record.get("out", {}).values()):
            assert "at" not in content
        if record.get("name") == "read":
            assert set(record["value"]) <= {"left_out"}
        if record.get("cmd") == 1:
            assert bytes.fromhex(record["attr"])[8:24].count(0) == 14
    shown = rawkm("replay", str(path))
    assert shown.returncode == 0
    assert "redacted" in shown.stdout.splitlines()[0]
    refused = rawkm("replay", "--verify", str(path))
    assert refused.returncode == 1
    assert "redacted" in refused.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is no recording"),
        (b"\xff\xfe", "this is no recording"),
        (b"{}\n", "this is no recording"),
        (b'{"t":"head","rkm":2}\n', "version 2 of the format"),
    ],
)
def test_no_recording(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "none.rkm"
    path.write_bytes(content)
    for argv in (["replay", str(path)], ["replay", "--verify", str(path)], ["repro", str(path)]):
        done = rawkm(*argv)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["replay", "/no/such"], 1, "cannot be read: No such file"),
        (["abi", "show", "--record", "/no/such/file"], 1, "the recording /no/such/file cannot be made"),
        (["abi", "show", "--redact"], 2, "--redact goes with --record"),
        (["abi", "show", "--dry-run", "--record", "/tmp/x"], 2, "--dry-run makes no calls that could be recorded"),
        (["replay", "--record", "/tmp/x", "y"], 2, "takes neither --record nor"),
        (["abi", "show", "--record", "/dev/full"], 1, "the recording /dev/full cannot be written: No space left"),
    ],
)
def test_wrong_usage(argv: list[str], status: int, words: str) -> None:
    done = rawkm(*argv)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_repro_makes_the_same_calls(recorded: tuple[Path, Any], tmp_path: Path) -> None:
    """With nothing but the standard library; and it notices when a call ends differently."""
    script = rawkm("repro", str(recorded[0])).stdout
    path = tmp_path / "repro.py"
    path.write_text(script)
    command = [sys.executable, "-I", "-S", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 not as recorded" in done.stdout
    assert int(done.stdout.split()[0]) > 30
    assert "import rawkm" not in script and "from rawkm" not in script
    path.write_text(script.replace("'0200000004000000 10", "'e703000004000000 10", 1))
    assert path.read_text() != script
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60, check=False)
    assert done.returncode == 1, done.stdout
    assert "call 1, bpf(BPF_MAP_CREATE): EINVAL, recorded: success" in done.stdout


DRY = RUN.replace("def run(args, kernel):", "def run(args, kernel):\n    print('answers of nobody')", 1)


def test_a_dry_run_changes_nothing() -> None:
    """Every call that would do something is shown and not made; the command is not started."""
    strace = rawkm("abi", "show", "--dry-run", code=DRY)
    assert strace.returncode == 0, strace.stderr
    lines = strace.stdout.splitlines()
    assert "answers of nobody" not in strace.stdout
    assert lines[0].startswith("bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY,")
    assert lines[0].endswith(" = map#1")
    assert "*(u64 *)(mem#1 + 8) = 0x1122334455667788" in lines
    assert "rawkm: dry run: " in strace.stderr


def test_a_dry_run_of_what_only_reads() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rawkm", "abi", "decode", "--cmd", "MAP_FREEZE", "05000000", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    assert "map_fd = 5" in done.stdout
    assert "no call would be made that changes anything" in done.stderr
