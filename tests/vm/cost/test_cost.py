"""What a start costs, against an empty Python, both in one run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ..lib import PATIENCE, wait_for, work

ROOT = Path(__file__).resolve().parents[3]


def test_from_exec_to_attached() -> None:
    """`count 'tcp_*'`: at most 5.2 times the wall time of `python3 -c pass`, and 2.5 times its memory; medians of 5."""
    argv = [sys.executable, str(ROOT / "tools" / "bench" / "startup.py"), "--runs", "5"]
    text = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(text)
    match = re.search(r"^ratio +([\d.]+) +([\d.]+)$", text, re.MULTILINE)
    assert match, text
    wall, memory = map(float, match.groups())
    assert wall <= 5.2, text
    assert memory <= 2.5, text


def test_imports_before_it_is_attached(tmp_path: Path) -> None:
    """Neither construct nor dataclasses, nor others that cost as much."""
    for what in "count", "trace":
        ready = tmp_path / what
        argv = [sys.executable, "-X", "importtime", "-m", "rawkm", what, "tcp_*", "--json", "--ready-file", str(ready)]
        for scope in [], ["--", *work("getppid", "1")]:
            ready.unlink(missing_ok=True)
            with tempfile.TemporaryFile() as file:
                process = subprocess.Popen([*argv, *scope], stdout=subprocess.DEVNULL, stderr=file)
                wait_for(ready.exists, "the ready file")
                file.seek(0)
                text = file.read().decode()
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 0
            modules = {line.rpartition("|")[2].strip() for line in text.splitlines() if line.startswith("import time:")}
            assert "rawkm.session" in modules
            for costly in "construct", "dataclasses", "inspect", "argparse", "subprocess", "hypothesis", "pyroute2":
                assert costly not in modules, (what, scope, costly)
