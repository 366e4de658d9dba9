"""rawkm doctor on every kernel: each answer, what is missing, and the difference between two reports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ..lib import Row, ids, nobody, rawkm, root_without, setting

KEYS = ["type", "can_trace", "kernel", "machine", "capabilities", "confinement", "settings", "checks", "grants", "leftovers"]
# Docker's defaults, as user 0 (docs.docker.com/engine/containers/run, "Runtime privilege and Linux capabilities").
DOCKER = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap"
)


# The first of these kernels (5.10, 6.1, 6.12, 7.2) that has it. 6.1 is built without CONFIG_FPROBE.
SINCE = {
    "bpf maps": (5, 10),
    "tracing programs": (5, 10),
    "kprobe_multi": (6, 12),
    "kprobe_session": (6, 12),
    "fentry_multi": (7, 2),
    "fentry": (5, 10),
    "fexit": (5, 10),
    "fsession": (7, 2),
    "kprobe": (5, 10),
    "tracefs_kprobe": (5, 10),
    "perf event links": (6, 1),
    "raw tracepoints": (5, 10),
    "tracepoints": (5, 10),
    "ring buffer": (5, 10),
    "perf buffer": (5, 10),
    "function list": (5, 10),
    "symbol addresses": (5, 10),
    "kernel BTF": (5, 10),
    "process trees": (5, 10),
}


def report(*capabilities: str) -> Row:
    done = rawkm("doctor", "--json", prefix=nobody(*capabilities))
    assert "Traceback" not in done.err, done
    (found,) = done.rows
    return found


@pytest.fixture(scope="module")
def here() -> Row:
    """The report of root, whom nothing shuts in; it takes the guest seconds."""
    before = {kind: ids(kind) for kind in ("prog", "map", "link")}
    done = rawkm("doctor", "--json")
    assert done.err == ""
    assert {kind: ids(kind) for kind in before} == before
    (found,) = done.rows
    assert done.status == 0
    return found


@pytest.fixture(scope="module")
def here_text() -> str:
    return rawkm("doctor").out


def test_evidence_for_each_check(here: Row, here_text: str) -> None:
    assert list(here) == KEYS
    assert here["kernel"] == os.uname().release
    assert here["machine"] == os.uname().machine
    assert here["settings"]["lockdown"] == "none"
    assert here["confinement"] == {
        "container": None,
        "evidence": None,
        "user_namespace": False,
        "seccomp": "off",
        "blocked": {},
        "label": None,
    }
    states = {check["feature"]: check["state"] for check in here["checks"]}
    for check in here["checks"]:
        assert list(check) == ["feature", "state", "evidence", "help"]
        assert len(check["evidence"]) > 5, check
        assert f"{check['state']:7}  {check['evidence']}" in here_text
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert here["can_trace"] is True
    assert states == {feature: "yes" if release >= since else "no" for feature, since in SINCE.items()}


def test_doctor_with_ftrace_switched_off(here_text: str) -> None:
    """Then nothing fires, though everything can be attached."""
    with setting("kernel/ftrace_enabled", 0):
        assert "ftrace_enabled is 0" in rawkm("doctor").out
    assert "ftrace_enabled is 0" not in here_text


def test_doctor_without_any_capability() -> None:
    done = rawkm("doctor", "--json", prefix=nobody())
    assert done.status == 3, done
    (report,) = done.rows
    assert report["can_trace"] is False
    assert report["capabilities"] == []
    assert "Traceback" not in done.err


def test_capabilities_dropped_one_by_one() -> None:
    """What is not there is named, and nothing else."""
    everything = ["bpf", "perfmon", "syslog", "dac_read_search"]
    for gone in (None, *everything):
        found = report(*(cap for cap in everything if cap != gone))
        wanted = [] if gone is None else [f"CAP_{gone.upper()}"]
        assert [row["grant"] for row in found["grants"]["missing"]] == wanted
        assert sorted(found["capabilities"]) == sorted(f"CAP_{cap.upper()}" for cap in everything if cap != gone)


def test_in_a_container_as_docker_makes_it() -> None:
    """Another PID namespace, Docker's capabilities, no tracefs: the command line and the manifest say what it takes."""
    script = (
        'umount -l /sys/kernel/tracing /sys/kernel/debug; exec setpriv --bounding-set "$0" --inh-caps "$0" rawkm doctor --json'
    )
    kept = ",".join(["-all", *(f"+{cap}" for cap in DOCKER.split(","))])
    done = rawkm(prefix=["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, kept, "--json"])
    found = json.loads(done.out)
    assert done.status == 3
    assert found["confinement"]["container"] == "unknown"
    assert "PID namespace" in found["confinement"]["evidence"]
    command = found["grants"]["docker"]
    assert command.startswith("docker run --cap-add ") and command.endswith(" IMAGE")
    assert " -v /sys/kernel/tracing:/sys/kernel/tracing:ro" in command
    assert "--cap-add SYSLOG" in command and "DAC_READ_SEARCH" not in command, "user 0 reads what is root's"
    assert "seccomp" not in command and "--user" not in command and "userns" not in command
    manifest = found["grants"]["kubernetes"]
    for option in command.split(" --cap-add ")[1:]:
        assert option.split()[0] in manifest
    assert "readOnly: true" in manifest


def test_what_a_container_here_would_need(here: Row, here_text: str) -> None:
    """Asked from outside, where nothing is missing."""
    assert here["confinement"]["container"] is None
    assert here["grants"]["missing"] == []
    assert here["grants"]["docker"] == (
        "docker run --cap-add BPF --cap-add PERFMON --cap-add SYSLOG -v /sys/kernel/tracing:/sys/kernel/tracing:ro IMAGE"
    )
    assert here["grants"]["docker"] in here_text
    assert "a container on this kernel would need" in here_text


def test_user_namespace() -> None:
    done = rawkm("doctor", "--json", prefix=["unshare", "--user", "--map-root-user"])
    (found,) = done.rows
    assert done.status == 3
    assert found["confinement"]["user_namespace"] is True
    assert {"CAP_BPF", "CAP_PERFMON"} <= {row["grant"] for row in found["grants"]["missing"]}


def test_the_difference(tmp_path: Path, here: Row) -> None:
    """Between root and a process without CAP_SYSLOG."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text(json.dumps(here))
    b.write_text(rawkm("doctor", "--json", prefix=root_without("syslog")).out)
    done = rawkm("doctor", "--diff", str(a), str(b))
    assert done.status == 1
    assert done.out.splitlines()[2:] == [
        "capabilities of A only: CAP_SYSLOG",
        "symbol addresses: yes → no",
        "  - /proc/kallsyms shows them",
        "  + /proc/kallsyms shows zeros (kernel.kptr_restrict is 0)",
    ]
    assert rawkm("doctor", "--diff", str(a), str(a)).status == 0


def write(path: Path, line: str) -> None:
    """To the end of a file of tracefs, which takes no other writing."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def test_what_a_killed_run_left() -> None:
    """An event with the name of a process that is no more is reported and removed; a living one's and other people's stay."""
    events = Path("/sys/kernel/tracing/kprobe_events")
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    dead, alive, foreign = "rawkm_4194303_77/p0", f"rawkm_{os.getpid()}_{start}/p0", "other/p0"
    for event in (dead, alive, foreign):
        write(events, f"p:{event} tcp_v4_connect\n")
    try:
        (found,) = rawkm("doctor", "--json").rows
        assert found["leftovers"] == [{"event": dead, "where": "tcp_v4_connect", "pid": 4194303}]
        done = rawkm("doctor", "--clean")
        assert (done.status, done.out) == (0, f"removed {dead} on tcp_v4_connect\n"), done
        text = events.read_text()
        assert dead not in text and alive in text and foreign in text
        assert rawkm("doctor", "--clean").out == "nothing was left behind\n"
    finally:
        for event in (alive, foreign):
            write(events, f"-:{event}\n")
