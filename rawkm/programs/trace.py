"""One record per hit, through a ring buffer or a perf buffer, with every hit and every drop counted."""

from __future__ import annotations

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
    R9,
    R10,
    Add,
    Ja,
    JEq,
    JNe,
    Mov,
    call,
    label,
    ld_imm64,
    load,
    map_ptr,
    map_value,
    store,
)
from rawkm.buffers.schema import Schema
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.programs.common import OUT, cpu_row, epilogue, prologue, rows
from rawkm.uapi.constants import AttachType, Helper, MapType, OutputFlag, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item
    from rawkm.programs.follow import Follow

HIT = Schema("Hit", ts="u64", pid_tgid="u64", func="u32", cpu="u32", comm="char[16]")

# Per CPU, a cache line: hits seen, records that found no room.
_LEDGER_ROW = 64
HITS, DROPPED = 0, 8


def ring(size: int) -> MapSpec:
    return MapSpec("events", MapType.RINGBUF, max_entries=size)


def perf_array(cpus: int) -> MapSpec:
    return MapSpec("events", MapType.PERF_EVENT_ARRAY, key=4, value=4, max_entries=cpus)


def ledger(cpus: int) -> MapSpec:
    return rows("ledger", _LEDGER_ROW, cpus)


def ledger_sum(view: memoryview, field: int, cpus: int) -> int:
    """The sum over all CPUs of HITS or DROPPED."""
    return sum(view[: _LEDGER_ROW * cpus].cast("Q")[field // 8 :: _LEDGER_ROW // 8].tolist())


def program(events: MapSpec, ledger: MapSpec, cpus: int, follow: Follow | None = None) -> ProgramSpec:
    """Counts the hit, then sends a HIT record; counts what finds no room."""
    if events.type == MapType.RINGBUF:
        send = _by_ring(events)
    else:
        send = _by_perf(events)
    insns = [
        *prologue(follow),
        *cpu_row(_LEDGER_ROW, cpus),
        map_value(R7, ledger),
        Add.reg(R7, R0),
        *_count(HITS),
        *send,
        label("dropped"),
        *_count(DROPPED),
        *epilogue(),
    ]
    return ProgramSpec("rawkm_trace", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_MULTI, insns=insns)


def _count(field: int) -> list[Item]:
    return [load(R1, R7, field, DW), Add.imm(R1, 1), store(R7, field, R1, DW)]


def _fill(base: int, at: int) -> list[Item]:
    """Fills the record at ``base + at``. Clobbers R0 to R5."""
    return [
        call(Helper.ktime_get_ns),
        HIT.store(base, "ts", R0, at=at),
        call(Helper.get_current_pid_tgid),
        HIT.store(base, "pid_tgid", R0, at=at),
        Mov.reg(R1, R6),
        call(Helper.get_attach_cookie),
        HIT.store(base, "func", R0, at=at),
        call(Helper.get_smp_processor_id),
        HIT.store(base, "cpu", R0, at=at),
        Mov.reg(R1, base),
        Add.imm(R1, at + HIT.offset("comm")),
        Mov.imm(R2, 16),
        call(Helper.get_current_comm),
    ]


def _by_ring(events: MapSpec) -> list[Item]:
    return [
        map_ptr(R1, events),
        Mov.imm(R2, HIT.size),
        Mov.imm(R3, 0),
        call(Helper.ringbuf_reserve),
        JEq.imm(R0, 0, "dropped"),
        Mov.reg(R9, R0),
        *_fill(R9, 0),
        Mov.reg(R1, R9),
        Mov.imm(R2, 0),
        call(Helper.ringbuf_submit),
        Ja(OUT),
    ]


def _by_perf(events: MapSpec) -> list[Item]:
    # Below what the filter uses of the stack.
    at = -64 - HIT.size
    return [
        *_fill(R10, at),
        Mov.reg(R1, R6),
        map_ptr(R2, events),
        ld_imm64(R3, OutputFlag.CURRENT_CPU),
        Mov.reg(R4, R10),
        Add.imm(R4, at),
        Mov.imm(R5, HIT.size),
        call(Helper.perf_event_output),
        JNe.imm(R0, 0, "dropped"),
        Ja(OUT),
    ]
