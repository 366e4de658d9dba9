#!/usr/bin/env python3
"""Start-up: from exec to everything attached, as a multiple of an empty Python, both in one run.

    tools/vm run -k 6.12 -- python3 tools/bench/startup.py [--runs N] [PATTERN ...]

Prints the medians, their ratio, and the peak memory (VmHWM) of both.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time


def spawn(argv: list[str]) -> int:
    quiet = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, quiet, 1), (os.POSIX_SPAWN_DUP2, quiet, 2)]
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    os.close(quiet)
    return pid


def peak_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def empty_python() -> float:
    start = time.perf_counter()
    os.waitpid(spawn(["python3", "-c", "pass"]), 0)
    return time.perf_counter() - start


def attached(argv: list[str], ready: str) -> tuple[float, int]:
    """Seconds until the ready file was there, and the peak memory up to the end."""
    start = time.perf_counter()
    pid = spawn([*argv, "--ready-file", ready])
    # Rarely enough not to slow the only CPU down, often enough for the ratio.
    while not os.path.exists(ready):
        time.sleep(0.005)
        if time.perf_counter() - start > 60:
            sys.exit(f"{' '.join(argv)} was not attached within a minute")
    seconds = time.perf_counter() - start
    os.kill(pid, signal.SIGINT)
    peak = 0
    while not os.waitpid(pid, os.WNOHANG)[0]:
        peak = max(peak, peak_kib(pid))
        time.sleep(0.001)
    os.unlink(ready)
    return seconds, peak


def empty_peak() -> int:
    pid = spawn(["python3", "-c", "import time; time.sleep(1)"])
    time.sleep(0.8)
    peak = peak_kib(pid)
    os.waitpid(pid, 0)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("patterns", nargs="*", default=["tcp_*"])
    args = parser.parse_args()
    ready = os.path.join(tempfile.mkdtemp(), "ready")
    argv = ["rawkm", "count", *args.patterns]
    pairs = []
    peaks = []
    attached(argv, ready)  # warm the page cache
    for _ in range(args.runs):
        empty = empty_python()
        seconds, peak = attached(argv, ready)
        pairs.append((empty, seconds))
        peaks.append(peak)
    empty = statistics.median(pair[0] for pair in pairs)
    full = statistics.median(pair[1] for pair in pairs)
    base = empty_peak()
    print(f"python3 -c pass    {empty * 1e3:8.1f} ms   {base:8} KiB")
    print(f"{' '.join(argv):18} {full * 1e3:8.1f} ms   {max(peaks):8} KiB")
    print(f"ratio              {full / empty:8.2f}      {max(peaks) / base:8.2f}")


if __name__ == "__main__":
    main()
