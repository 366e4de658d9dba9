"""Attaching and detaching under the other processor's feet: code is patched that it is running.

With one emulator thread (the default of tools/vm), for two trip over that: on Linux 7.2 the other processor has been seen to run
into the breakpoint of a patch that was over, and the kernel to panic ("Oops: int3").
"""

from __future__ import annotations

import signal
from pathlib import Path

from ..lib import CALL, Running, ids, rawkm
from .test_smp import both, script


def test_a_limit_on_two_processors() -> None:
    """The trace ends while both still call the function."""
    done = rawkm("trace", CALL, "--json", "-n", "100", "--", "sh", "-c", script("getppid", 5000))
    assert done.status == 0, done
    assert len(done.of("event")) == 100, done


def test_the_whole_kernel_on_two_processors(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    links = ids("link")
    with Running("count", "*", "--json", "--ready-file", str(ready)) as running:
        running.until(str(ready))
        assert len(ids("link") - links) == 1
        both("connect", 10)
        done = running.end(signal.SIGINT)
    assert done.status == 0, done
    assert done.summary["attached"] > 30_000
    assert done.counts["tcp_v4_connect"] in range(1, 21), done.summary
    # Below 1 % on a machine that has its CPUs for itself, as in tests/vm/whole.
    assert done.summary["recursion_misses"] < done.summary["hits"] / 33, done.summary
