"""Programs that BPF_PROG_TEST_RUN can run as often as wanted, to fill ring buffers and perf buffers with numbered records."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    Add,
    Item,
    Ja,
    JEq,
    JNe,
    Mod,
    Mov,
    Xor,
    atomic_add,
    call,
    exit_,
    label,
    ld_imm64,
    map_ptr,
    map_value,
    store,
)
from rawkm.buffers import Schema
from rawkm.maps import MapSpec
from rawkm.prog import Program, ProgramSpec
from rawkm.uapi.constants import Helper, MapFlag, MapType, OutputFlag, ProgType

PACKET = bytes(64)

#: ``check`` is the complement of ``number``; ``cpu`` is where the program ran.
NUMBERED = Schema("Numbered", number="u64", check="u64", cpu="u32")
#: 16 bytes, 24 with the ring buffer's header.
PAIR = Schema("Pair", number="u64", check="u64")

#: How many records were sent or tried, how many found no room, and what the helper said last.
STATE = MapSpec("state", MapType.ARRAY, key=4, value=24, max_entries=1, flags=MapFlag.MMAPABLE)


def ring(size: int) -> MapSpec:
    return MapSpec("ring", MapType.RINGBUF, max_entries=size)


def perf_array(entries: int | None = None) -> MapSpec:
    if entries is None:
        entries = os.sysconf("SC_NPROCESSORS_CONF")
    return MapSpec("events", MapType.PERF_EVENT_ARRAY, key=4, value=4, max_entries=entries)


def _take_number() -> list[Item]:
    """R6 = the context, R7 = the state, R8 = the next number; unique though several CPUs may run it."""
    return [
        Mov.reg(R6, R1),
        map_value(R7, STATE),
        Mov.imm(R8, 1),
        atomic_add(R7, 0, R8, DW, fetch=True),
    ]


def _fill(schema: Schema, base: int, at: int = 0) -> list[Item]:
    """Writes the record of number R8 at ``base + at``, R9 or R10."""
    items: list[Item] = []
    if "cpu" in schema.fields:
        items += [call(Helper.get_smp_processor_id), schema.store(base, "cpu", R0, at=at)]
    if "check" in schema.fields:
        items += [Mov.reg(R1, R8), Xor.imm(R1, -1), schema.store(base, "check", R1, at=at)]
    return [*items, schema.store(base, "number", R8, at=at)]


def _dropped() -> list[Item]:
    return [label("dropped"), store(R7, 16, R0, DW), Mov.imm(R1, 1), atomic_add(R7, 8, R1, DW), Mov.imm(R0, 0), exit_()]


def by_reserve(target: MapSpec, schema: Schema = PAIR, *, flags: int = 0, discard_every: int = 0, odd: int = 0) -> ProgramSpec:
    """Reserves, fills, submits. Each ``discard_every``-th number is discarded, in a record of ``odd`` bytes if that is given."""
    insns = [*_take_number()]
    if discard_every:
        insns += [
            Mov.reg(R1, R8),
            Mod.imm(R1, discard_every),
            JNe.imm(R1, 0, "keep"),
            map_ptr(R1, target),
            Mov.imm(R2, odd or schema.size),
            Mov.imm(R3, 0),
            call(Helper.ringbuf_reserve),
            JEq.imm(R0, 0, "dropped"),
            Mov.reg(R1, R0),
            Mov.imm(R2, flags),
            call(Helper.ringbuf_discard),
            Ja("out"),
            label("keep"),
        ]
    insns += [
        map_ptr(R1, target),
        Mov.imm(R2, schema.size),
        Mov.imm(R3, 0),
        call(Helper.ringbuf_reserve),
        JEq.imm(R0, 0, "dropped"),
        Mov.reg(R9, R0),
        *_fill(schema, R9),
        Mov.reg(R1, R9),
        Mov.imm(R2, flags),
        call(Helper.ringbuf_submit),
        label("out"),
        Mov.imm(R0, 1),
        exit_(),
        *_dropped(),
    ]
    return ProgramSpec("by_reserve", ProgType.SOCKET_FILTER, insns=insns)


def by_output(target: MapSpec, schema: Schema = PAIR, *, flags: int = 0) -> ProgramSpec:
    """Fills a record on the stack, then ringbuf_output."""
    insns = [
        *_take_number(),
        *_zero(schema.size),
        *_fill(schema, R10, -schema.size),
        map_ptr(R1, target),
        Mov.reg(R2, R10),
        Add.imm(R2, -schema.size),
        Mov.imm(R3, schema.size),
        Mov.imm(R4, flags),
        call(Helper.ringbuf_output),
        JNe.imm(R0, 0, "dropped"),
        Mov.imm(R0, 1),
        exit_(),
        *_dropped(),
    ]
    return ProgramSpec("by_output", ProgType.SOCKET_FILTER, insns=insns)


def by_perf(
    target: MapSpec, schema: Schema = PAIR, *, type: int = ProgType.SOCKET_FILTER, index: int = OutputFlag.CURRENT_CPU
) -> ProgramSpec:
    """Fills a record on the stack, then perf_event_output."""
    insns = [
        *_take_number(),
        *_zero(schema.size),
        *_fill(schema, R10, -schema.size),
        Mov.reg(R1, R6),
        map_ptr(R2, target),
        ld_imm64(R3, index),
        Mov.reg(R4, R10),
        Add.imm(R4, -schema.size),
        Mov.imm(R5, schema.size),
        call(Helper.perf_event_output),
        JNe.imm(R0, 0, "dropped"),
        Mov.imm(R0, 1),
        exit_(),
        *_dropped(),
    ]
    return ProgramSpec("by_perf", type, insns=insns)


def _zero(size: int) -> list[Item]:
    return [Mov.imm(R1, 0), *(store(R10, -at, R1, DW) for at in range(8, size + 8, 8))]


class Ledger:
    """What the program counted: ``tried``, ``dropped``, and ``error``, what the helper said to the last one dropped."""

    def __init__(self, prog: Program) -> None:
        raw = prog.maps["state"].lookup(0)
        assert raw is not None
        self.tried, self.dropped, self.error = struct.unpack("=QQq", raw)


def run(prog: Program, times: int = 1) -> None:
    """Runs a socket filter that often, on the CPU where the caller is."""
    if times:
        prog.test_run(data=PACKET, repeat=times)


def numbers(rows: Sequence[tuple[int | bytes, ...]]) -> list[int]:
    """The numbers of records whose check agrees."""
    found = []
    for row in rows:
        number, check = row[0], row[1]
        assert isinstance(number, int)
        assert check == ~number & (1 << 64) - 1, f"a torn record: {row}"
        found.append(number)
    return found


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """This thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
