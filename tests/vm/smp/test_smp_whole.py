"""The whole kernel on two processors.

With one emulator thread (the default of tools/vm): attaching patches code under the other processor's feet, and the
emulator's own threads have been seen to trip over that.
"""

from __future__ import annotations

import signal
from pathlib import Path

from ..lib import Running, ids
from .test_smp import both


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
