"""What every program at a hit uses: the switch, and the row of this CPU."""

from __future__ import annotations

from rawkm.asm import R0, JGe, Mul, call
from rawkm.maps import MapSpec
from rawkm.uapi.constants import Helper, MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item

# One u64: programs do nothing while it is 0. Everything is attached first, then this is set, and cleared before the end: what
# is counted is what happened in between, on all functions alike.
SWITCH = MapSpec("switch", MapType.ARRAY, key=4, value=8, max_entries=1, flags=MapFlag.MMAPABLE)

OUT = "out"


def rows(name: str, size: int, cpus: int) -> MapSpec:
    """``cpus`` rows of ``size`` bytes as the single value of an array map that can be mmapped.

    A program adds to its own CPU's row (``Context.increment``). A per-CPU array would take a helper call per hit and a system
    call per look.
    """
    return MapSpec(name, MapType.ARRAY, key=4, value=size * cpus, max_entries=1, flags=MapFlag.MMAPABLE)


def cpu_row(size: int, cpus: int) -> list[Item]:
    """R0 = the offset of this CPU's row, proved to be in range."""
    return [
        call(Helper.get_smp_processor_id),
        JGe.imm(R0, cpus, OUT),
        Mul.imm(R0, size),
    ]
