"""tools/fuzz-campaign with a guest whose kernel panics in the middle: that is a finding, and what is known of it is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "fuzz-campaign"


def test_a_guest_that_dies(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "-k", "6.12", "--short", "--only", "attr", "--crash", "200", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done
    kept = tmp_path / "last-6.12.txt"
    assert f"THE GUEST ENDED with status 125 before attr (its last words: {kept})" in done.stdout, done
    lines = kept.read_text().splitlines()
    # The calls before, the newest last, then the kernel's own words.
    calls = [at for at, line in enumerate(lines) if line.startswith("last: ")]
    panic = next(at for at, line in enumerate(lines) if "sysrq triggered crash" in line)
    assert len(calls) > 20 and calls[-1] < panic, lines
    assert any("Kernel panic - not syncing" in line for line in lines), lines
    assert any("sysrq_handle_crash" in line for line in lines), lines
