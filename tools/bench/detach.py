#!/usr/bin/env python3
"""Detaching one by one against detaching by several threads, both in one run, on a kernel with probes.

    tools/vm run -k 6.12 -- python3 tools/bench/detach.py [-n FUNCTIONS] [--threads N] [--rounds R]

A line per mechanism: seconds one by one, seconds by threads, and how many times as fast the threads are (medians).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rawkm.answer import YES
from rawkm.asm import R0, Mov, exit_
from rawkm.bench import candidates
from rawkm.bench.mechanisms import ALL, Attached, Mechanism
from rawkm.errors import AttachError, SyscallError
from rawkm.syscall import open_kernel
from rawkm.syscall.kernel import Kernel

EMPTY = (Mov.imm(R0, 0), exit_())


def attach(kernel: Kernel, mechanism: Mechanism, pool: list[candidates.Candidate], count: int) -> Attached:
    """``count`` functions of the pool that the kernel takes, each with a link of its own."""
    attached = Attached()
    attach_one = mechanism.attacher(kernel, attached)
    prog = None if mechanism.loads_each else mechanism.load(kernel, attached, EMPTY, pool[0])
    for candidate in pool:
        if len(attached.links) == count:
            break
        try:
            attach_one(prog or mechanism.load(kernel, attached, EMPTY, candidate), candidate)
        except (AttachError, SyscallError):
            continue
    return attached


def detach(attached: Attached, threads: int) -> float:
    """Seconds."""
    links, attached.links = attached.links, []

    def close() -> None:
        while True:
            try:
                links.pop()()
            except IndexError:
                return

    start = time.monotonic()
    if threads == 1:
        close()
    else:
        workers = [threading.Thread(target=close) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, metavar="FUNCTIONS")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    kernel = open_kernel()
    pool = candidates.choose(kernel, 4 * args.n)
    for mechanism in ALL:
        if mechanism.many or mechanism.answer(kernel).state != YES:
            continue
        times: dict[int, list[float]] = {1: [], args.threads: []}
        count = 0
        for _ in range(args.rounds):
            for threads, seconds in times.items():
                with attach(kernel, mechanism, pool, args.n) as attached:
                    count = len(attached.links)
                    seconds.append(detach(attached, threads))
        one, many = (statistics.median(seconds) for seconds in times.values())
        print(
            f"{mechanism.name:16} {count} functions: {one:.3f} s, by {args.threads} threads {many:.3f} s: {one / many:.2f}x",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
