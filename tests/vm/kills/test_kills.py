"""SIGKILL, SIGTERM and Ctrl-C at random moments of attach and detach, over all mechanisms: nothing is left behind.

RAWKM_KILLS: how often each signal (by default once a mechanism); it goes on until some run was ended before its time.
The seed is printed when a test fails.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from rawkm import features
from rawkm.cli import main
from rawkm.link import tracefs_kprobe

from ..lib import KERNEL, TRACEFS, Inventory, wait_for

KPROBES = Path("/sys/kernel/debug/kprobes/list")
PATTERNS = ["inet_c*", "inet_l*", "tcp_v4_c*"]

MECHANISMS = {
    "kprobe-multi": features.kprobe_multi,
    "kprobe-session": features.kprobe_session,
    "fentry-multi": features.fentry_multi,
    "fentry": features.fentry,
    "kprobe": features.kprobe,
    "tracefs-kprobe": features.tracefs_kprobe,
}
HERE = [name for name, probe in MECHANISMS.items() if features.ask(KERNEL, probe).state == features.YES]
TIMES = int(os.environ.get("RAWKM_KILLS", len(HERE)))


def start(backend: str, log: Path) -> int:
    """A rawkm, in a child that needs not start anew."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        code = main.run(["count", *PATTERNS, "--backend", backend, "-d", "0.05"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def attached() -> str:
    """What ftrace and the kprobes have on at the moment."""
    return (TRACEFS / "enabled_functions").read_text() + (KPROBES.read_text() if KPROBES.exists() else "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "int"])
def test_nothing_is_left(number: signal.Signals, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    log = tmp_path / "log"
    before, quiet = Inventory(), attached()
    lasts: dict[str, float] = {}
    hit = 0
    for backend in HERE:
        begun = time.monotonic()
        assert os.waitpid(start(backend, log), 0)[1] == 0, log.read_text()
        lasts[backend] = time.monotonic() - begun
    turn = 0
    while turn < TIMES or not hit:
        assert turn < TIMES + 100, "no run was ended early"
        backend = HERE[turn % len(HERE)]
        pid = start(backend, log)
        time.sleep(moments.uniform(0, lasts[backend]))
        os.kill(pid, number)
        hit += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
        case = f"seed {seed}, turn {turn}, {backend}: {log.read_text()}"
        assert "Traceback" not in log.read_text(), case
        wait_for(lambda: not [each for each in Inventory().since(before) if "rawkm_" not in each], case, 20)
        events = (TRACEFS / "kprobe_events").read_text().splitlines()
        if number != signal.SIGKILL:
            assert events == [], case
        elif events:
            assert len(tracefs_kprobe.leftovers(KERNEL)) == len(events), case
            removed, kept = tracefs_kprobe.clean(KERNEL)
            assert (len(removed), kept) == (len(events), []), case
            assert (TRACEFS / "kprobe_events").read_text() == "", case
        wait_for(lambda: attached() == quiet, f"{case} {attached()}", 20)
        turn += 1


def test_the_next_run_tells_of_what_is_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(20):
        pid = start("tracefs-kprobe", log)
        wait_for((TRACEFS / "kprobe_events").read_text, "an event")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left = len((TRACEFS / "kprobe_events").read_text().splitlines())
        if left:
            break
    assert left
    assert os.waitpid(start("tracefs-kprobe", log), 0)[1] == 0
    assert "killed rawkm left" in log.read_text()
    assert "doctor --clean" in log.read_text()
    assert len(tracefs_kprobe.leftovers(KERNEL)) == left, "it removes its own only"
    tracefs_kprobe.clean(KERNEL)
    assert (TRACEFS / "kprobe_events").read_text() == ""
