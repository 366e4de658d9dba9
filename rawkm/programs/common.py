"""What every program at a hit begins with: the switch, the filter, and the row of this CPU.

R6 holds the context throughout; R7 to R9 belong to the program; the stack below -64 too.
"""

from __future__ import annotations

from rawkm.asm import (
    DW,
    R0,
    R1,
    R6,
    JEq,
    JGe,
    Mov,
    Mul,
    call,
    exit_,
    label,
    load,
    map_value,
)
from rawkm.maps import MapSpec
from rawkm.uapi.constants import Helper, MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item
    from rawkm.programs.follow import Follow

# One u64: programs do nothing while it is 0. Everything is attached first, then this is set, and cleared before the end: what
# is counted is what happened in between, on all functions alike.
SWITCH = MapSpec("switch", MapType.ARRAY, key=4, value=8, max_entries=1, flags=MapFlag.MMAPABLE)

OUT = "out"


def rows(name: str, size: int, cpus: int) -> MapSpec:
    """``cpus`` rows of ``size`` bytes as the single value of an array map that can be mmapped.

    A program adds to its own CPU's row by a plain load and store: the kernel runs one such program at a time on a CPU
    (bpf_prog_active). A per-CPU array would take a helper call per hit and a system call per look.
    """
    return MapSpec(name, MapType.ARRAY, key=4, value=size * cpus, max_entries=1, flags=MapFlag.MMAPABLE)


def prologue(follow: Follow | None) -> list[Item]:
    """Keeps the context in R6, and leaves when the switch is off or the current task is not followed."""
    items: list[Item] = [
        Mov.reg(R6, R1),
        map_value(R1, SWITCH),
        load(R1, R1, 0, DW),
        JEq.imm(R1, 0, OUT),
    ]
    if follow is not None:
        items += follow.check(OUT)
    return items


def cpu_row(size: int, cpus: int) -> list[Item]:
    """R0 = the offset of this CPU's row, proved to be in range."""
    return [
        call(Helper.get_smp_processor_id),
        JGe.imm(R0, cpus, OUT),
        Mul.imm(R0, size),
    ]


def epilogue() -> list[Item]:
    return [label(OUT), Mov.imm(R0, 0), exit_()]
