"""One record per hit, through a ring buffer or a perf buffer, with every hit and every drop counted."""

from __future__ import annotations

from rawkm.asm import (
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
    Ja,
    JEq,
    JNe,
    Mov,
    call,
    label,
    ld_imm64,
    map_ptr,
    map_value,
)
from rawkm.buffers.schema import Schema
from rawkm.maps import MapSpec
from rawkm.programs.common import OUT, cpu_row, rows
from rawkm.uapi.constants import Helper, MapType, OutputFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item
    from rawkm.prog import ProgramSpec
    from rawkm.programs.context import Context
    from rawkm.programs.follow import Follow
    from rawkm.programs.locate import Locator

_FIELDS = {"ts": "u64", "pid_tgid": "u64", "func": "u32", "cpu": "u32", "comm": "char[16]"}

# Per CPU, a cache line: hits seen, records that found no room.
_LEDGER_ROW = 64
HITS, DROPPED = 0, 8


def schema(*, arguments: int = 0, returned: bool = False) -> Schema:
    """The record: when, who, which function; then ``ret`` if asked for, and ``arg0`` … of the ``arguments`` asked for."""
    more = {"ret": "u64"} if returned else {}
    more.update((f"arg{number}", "u64") for number in range(arguments))
    return Schema("Hit", **_FIELDS, **more)


def ring(size: int) -> MapSpec:
    return MapSpec("events", MapType.RINGBUF, max_entries=size)


def perf_array(cpus: int) -> MapSpec:
    return MapSpec("events", MapType.PERF_EVENT_ARRAY, key=4, value=4, max_entries=cpus)


def ledger(cpus: int) -> MapSpec:
    return rows("ledger", _LEDGER_ROW, cpus)


def ledger_sum(view: memoryview, field: int, cpus: int) -> int:
    """The sum over all CPUs of HITS or DROPPED."""
    return sum(view[: _LEDGER_ROW * cpus].cast("Q")[field // 8 :: _LEDGER_ROW // 8].tolist())


def program(
    context: Context,
    hit: Schema,
    events: MapSpec,
    ledger: MapSpec,
    cpus: int,
    locate: Locator,
    follow: Follow | None = None,
) -> ProgramSpec:
    """Counts the hit, then sends a record of the schema ``hit``; counts what finds no room."""
    body = [
        *locate.code(OUT),
        Mov.reg(R8, R7),
        *cpu_row(_LEDGER_ROW, cpus),
        map_value(R7, ledger),
        Add.reg(R7, R0),
        *context.increment(R7, HITS),
        *(_by_ring if events.type == MapType.RINGBUF else _by_perf)(context, hit, events),
        label("dropped"),
        *context.increment(R7, DROPPED),
    ]
    return context.program("rawkm_trace", body, follow)


def _fill(context: Context, hit: Schema, base: int, at: int) -> list[Item]:
    """Fills the record at ``base + at``. R8 holds the function's index; clobbers R0 to R5."""
    items: list[Item] = [
        call(Helper.ktime_get_ns),
        hit.store(base, "ts", R0, at=at),
        call(Helper.get_current_pid_tgid),
        hit.store(base, "pid_tgid", R0, at=at),
        hit.store(base, "func", R8, at=at),
        call(Helper.get_smp_processor_id),
        hit.store(base, "cpu", R0, at=at),
        Mov.reg(R1, base),
        Add.imm(R1, at + hit.offset("comm")),
        Mov.imm(R2, 16),
        call(Helper.get_current_comm),
    ]
    for field in hit.fields[len(_FIELDS) :]:
        items += context.returned() if field == "ret" else context.argument(int(field.removeprefix("arg")))
        items.append(hit.store(base, field, R0, at=at))
    return items


def _by_ring(context: Context, hit: Schema, events: MapSpec) -> list[Item]:
    return [
        map_ptr(R1, events),
        Mov.imm(R2, hit.size),
        Mov.imm(R3, 0),
        call(Helper.ringbuf_reserve),
        JEq.imm(R0, 0, "dropped"),
        Mov.reg(R9, R0),
        *_fill(context, hit, R9, 0),
        Mov.reg(R1, R9),
        Mov.imm(R2, 0),
        call(Helper.ringbuf_submit),
        Ja(OUT),
    ]


def _by_perf(context: Context, hit: Schema, events: MapSpec) -> list[Item]:
    # Below what the filter uses of the stack.
    at = -64 - hit.size
    return [
        *_fill(context, hit, R10, at),
        Mov.reg(R1, R6),
        map_ptr(R2, events),
        ld_imm64(R3, OutputFlag.CURRENT_CPU),
        Mov.reg(R4, R10),
        Add.imm(R4, at),
        Mov.imm(R5, hit.size),
        call(Helper.perf_event_output),
        JNe.imm(R0, 0, "dropped"),
        Ja(OUT),
    ]
