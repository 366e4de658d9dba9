"""Counting hits per function, in a row of counters per CPU."""

from __future__ import annotations

from rawkm.asm import R0, R1, R7, R8, Add, Lsh, Mov, map_value
from rawkm.programs.common import OUT, cpu_row, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item
    from rawkm.maps import MapSpec
    from rawkm.prog import ProgramSpec
    from rawkm.programs.context import Context
    from rawkm.programs.follow import Follow
    from rawkm.programs.locate import Locator
    from rawkm.programs.mute import Mute

# The verifier lets an offset into a map value reach 2^29 - 1 (kernel/bpf/verifier.c, BPF_MAX_VAR_OFF).
MOST_BYTES = (1 << 29) - 1


def counters(functions: int, cpus: int) -> MapSpec:
    """A u64 per function and CPU, the functions of one CPU side by side."""
    return rows("counts", 8 * functions, cpus)


def seen(functions: int, cpus: int) -> MapSpec:
    """As ``counters``, for hits of everybody where only some tasks' are counted."""
    return rows("seen", 8 * functions, cpus)


def program(
    context: Context,
    counts: MapSpec,
    functions: int,
    cpus: int,
    locate: Locator,
    follow: Follow | None = None,
    mute: Mute | None = None,
) -> ProgramSpec:
    """Adds 1 to ``counts[cpu][index]``. With ``mute``, a muted function's hits are not even looked at, and with ``follow``, too,
    everybody's hits of the others are counted in ``seen``."""
    increment = _increment(context, counts, functions, cpus)
    if mute is None:
        return context.program("rawkm_count", [*locate.code(OUT), *increment], follow)
    unfiltered = [] if follow is None else _increment(context, seen(functions, cpus), functions, cpus)
    first = [*locate.code(OUT), *mute.check(OUT)]
    return context.program("rawkm_count", increment, follow, first=first, unfiltered=unfiltered)


def _increment(context: Context, counts: MapSpec, functions: int, cpus: int) -> list[Item]:
    """``counts[cpu][R7]``; clobbers R0 to R5 and R8."""
    return [
        *cpu_row(8 * functions, cpus),
        Mov.reg(R8, R7),
        Lsh.imm(R8, 3),
        Add.reg(R8, R0),
        map_value(R1, counts),
        Add.reg(R1, R8),
        *context.increment(R1, 0),
    ]
