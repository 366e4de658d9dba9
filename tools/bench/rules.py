#!/usr/bin/env python3
"""The errno model against the kernel on the same calls, in one run.

    python3 tools/bench/rules.py [--count CALLS]

Calls of bpf(2) that fail early and late, as a fuzzer makes them: predictions and real calls (through rawkm.syscall.raw) a second,
and their ratio. Exits with 1 where fewer than 10,000 predictions are made a second.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rawkm.host.facts import describe
from rawkm.rules import Call, Memory, Obj, predict
from rawkm.syscall import open_kernel
from rawkm.syscall.raw import RawBpf
from rawkm.uapi.constants import Cmd, MapType

FLOOR = 10_000
CLOSED = 1000


def calls() -> list[tuple[int, bytes]]:
    """(command, attr): none of them makes anything."""
    elem = struct.pack("=I4xQQQ", CLOSED, 0, 0, 0)
    create = struct.pack("=IIIII", MapType.ARRAY, 4, 8, 1, 1 << 30)
    multi = struct.pack("=IIIIIIQQQ", CLOSED, 0, 42, 0, 2, 1, 0, 0, 0)
    load = struct.pack("=IIQQ", 2, 2, 0, 0)
    return [
        (Cmd.MAP_LOOKUP_ELEM, elem),
        (Cmd.MAP_CREATE, create),
        (Cmd.LINK_CREATE, multi),
        (Cmd.PROG_LOAD, load),
        (Cmd.MAP_UPDATE_ELEM, elem + b"\1"),
        (Cmd.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", CLOSED, 0, 0)),
    ]


def rate(count: int, make: Callable[[int, bytes], object]) -> float:
    work = calls()
    start = time.perf_counter()
    for i in range(count):
        make(*work[i % len(work)])
    return count / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60_000, metavar="CALLS")
    count = parser.parse_args().count
    facts = describe(open_kernel())
    fds = {n: Obj("file") for n in range(3)}
    memory = Memory(whole=True)
    raw = RawBpf()
    predictions = rate(count, lambda cmd, attr: predict(Call(cmd, attr, fds=fds, memory=memory), facts))
    made = rate(count, lambda cmd, attr: raw.call(cmd, bytearray(attr)))
    print(f"{predictions:,.0f} predictions/s, {made:,.0f} calls/s: {predictions / made:.2f} predictions in the time of one call")
    return 0 if predictions >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
