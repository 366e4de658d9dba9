"""Ctrl-C in the middle of thousands of attaches, one by one: it says how far it is, ends at once, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import time

import pytest

from rawkm import features

from ..lib import KERNEL, TRACEFS, Running, wait_for

MECHANISMS = {"fentry": features.fentry, "kprobe": features.kprobe, "tracefs-kprobe": features.tracefs_kprobe}
HERE = [name for name, probe in MECHANISMS.items() if features.ask(KERNEL, probe).state == features.YES]


def attached() -> str:
    return (TRACEFS / "enabled_functions").read_text()


@pytest.mark.parametrize("backend", HERE)
def test_interrupted_among_ten_thousand(backend: str) -> None:
    before, events = attached(), (TRACEFS / "kprobe_events").read_text()
    with Running("count", "vmlinux:[a-h]*", "--backend", backend, "-d", "1") as running:
        wait_for(lambda: "(Ctrl-C ends this)" in running.said() or running.process.poll() is not None, "a line on progress")
        asked = time.monotonic()
        done = running.end(signal.SIGINT, timeout=120)
        took = time.monotonic() - asked
    assert done.status != 0, done
    assert "Traceback" not in done.err, done
    many, progress, last = done.notes[0], done.notes[1], done.notes[-1]
    number = re.fullmatch(rf"{backend}: ([0-9,]+) functions are attached one by one; the kernel needs about [0-9,]+ MiB.*", many)
    assert number, done
    assert int(number[1].replace(",", "")) > 9_000, done
    assert re.fullmatch(rf"attached [0-9,]+ of {number[1]} functions \(Ctrl-C ends this\)", progress), done
    assert last == "interrupted before anything was attached", done
    assert took < 60, (took, done)
    assert (TRACEFS / "kprobe_events").read_text() == events
    wait_for(lambda: attached() == before, "the end of the last one")
