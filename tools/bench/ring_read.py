#!/usr/bin/env python3
"""Reading a ring buffer: whole batches against a loop over records, on the same records, in one run.

    python3 tools/bench/ring_read.py [--runs N] [--size BYTES]

Fills rings again and again (a socket filter under BPF_PROG_TEST_RUN; needs root and Linux 5.8) and empties them by

    loop     a struct.unpack_from for the header and one for the record, per record: what most readers do
    rows     RingBuf.read() and a tuple per record
    column   RingBuf.read() and one field of each record
    read     RingBuf.read() alone: headers checked, records copied out, their space given back

and prints the medians in records per second, and as a multiple of the loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rawkm.asm import DW, R0, R1, R2, R3, R4, R10, Add, Mov, call, exit_, map_ptr, store
from rawkm.buffers import Batch, RingBuf
from rawkm.buffers.ringbuf import ring_size
from rawkm.maps import Map, MapSpec
from rawkm.prog import ProgramSpec
from rawkm.programs.trace import schema
from rawkm.syscall import PAGE_SIZE, open_kernel
from rawkm.uapi.constants import Helper, MapType, ProgType

HIT = schema()
BUSY, DISCARD = 1 << 31, 1 << 30


def filler(ring: MapSpec) -> ProgramSpec:
    """Sends one record of the size of a trace's, with the time in it."""
    size = HIT.size
    insns = [
        call(Helper.ktime_get_ns),
        Mov.imm(R1, 0),
        *(store(R10, -at, R1, DW) for at in range(8, size + 8, 8)),
        HIT.store(R10, "ts", R0, at=-size),
        HIT.store(R10, "func", R0, at=-size),
        map_ptr(R1, ring),
        Mov.reg(R2, R10),
        Add.imm(R2, -size),
        Mov.imm(R3, size),
        Mov.imm(R4, 0),
        call(Helper.ringbuf_output),
        Mov.imm(R0, 0),
        exit_(),
    ]
    return ProgramSpec("fill", ProgType.SOCKET_FILTER, insns=insns)


def record_loop(ring: Map) -> Callable[[], int]:
    """A reader that takes one record at a time and gives its space back at once."""
    size = ring.spec.max_entries
    consumer = ring.kernel.mmap(ring.fd, PAGE_SIZE, writable=True)
    data = ring.kernel.mmap(ring.fd, PAGE_SIZE + 2 * size, offset=PAGE_SIZE)
    header, record = struct.Struct("=II"), struct.Struct("=" + HIT.format)

    def drain() -> int:
        view = data.view
        position = consumer.load_u64(0)
        rows = []
        while position < data.load_u64(0):
            at = PAGE_SIZE + position % size
            length, _ = header.unpack_from(view, at)
            if length & BUSY:
                break
            if not length & DISCARD:
                rows.append(record.unpack_from(view, at + 8))
            position += (length & ~(BUSY | DISCARD)) + 8 + 7 & ~7
            consumer.store_u64(0, position)
        return len(rows)

    return drain


def by_batches(ring: Map, use: Callable[[Batch], object]) -> Callable[[], int]:
    reader = RingBuf(ring, HIT)

    def drain() -> int:
        count = 0
        while len(batch := reader.read()):
            use(batch)
            count += len(batch)
        return count

    return drain


READERS: dict[str, Callable[[Map], Callable[[], int]]] = {
    "loop": record_loop,
    "rows": lambda ring: by_batches(ring, lambda batch: list(batch.rows())),
    "column": lambda ring: by_batches(ring, lambda batch: batch.column("func")),
    "read": lambda ring: by_batches(ring, len),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="how often each reader empties its ring (default 15)")
    parser.add_argument("--size", type=int, default=4 << 20, help="bytes of a ring (default 4 MiB)")
    args = parser.parse_args()
    kernel = open_kernel()
    size = ring_size(args.size)
    full = (size - 1) // (8 + HIT.size)
    # A ring each, filled by the same program: a ring has one reader.
    progs = {name: filler(MapSpec("ring", MapType.RINGBUF, max_entries=size)).load(kernel) for name in READERS}
    drains = {name: make(progs[name].maps["ring"]) for name, make in READERS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in READERS}
    for turn in range(args.runs + 1):
        for name, drain in drains.items():
            progs[name].test_run(data=bytes(64), repeat=full)
            start = time.perf_counter()
            count = drain()
            seconds = time.perf_counter() - start
            if count != full:
                sys.exit(f"{name} read {count} of {full} records")
            if turn:  # the first one maps the pages in
                speeds[name].append(count / seconds)
    base = statistics.median(speeds["loop"])
    print(f"{full:,} records of {HIT.size} bytes, {args.runs} times, on {os.uname().machine}")
    for name, values in speeds.items():
        median = statistics.median(values)
        print(f"{name:8} {median / 1e6:8.2f} million records/s  {median / base:6.1f} x")


if __name__ == "__main__":
    main()
