"""Counting hits per function, in a row of counters per CPU."""

from __future__ import annotations

from rawkm.asm import DW, R0, R1, R2, R7, Add, Lsh, load, map_value, store
from rawkm.prog import ProgramSpec
from rawkm.programs.common import OUT, cpu_row, epilogue, prologue, rows
from rawkm.uapi.constants import AttachType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.maps import MapSpec
    from rawkm.programs.follow import Follow
    from rawkm.programs.locate import AddressTable, Cookie

# The verifier lets an offset into a map value reach 2^29 - 1 (kernel/bpf/verifier.c, BPF_MAX_VAR_OFF).
MOST_BYTES = (1 << 29) - 1


def counters(functions: int, cpus: int) -> MapSpec:
    """A u64 per function and CPU, the functions of one CPU side by side."""
    return rows("counts", 8 * functions, cpus)


def program(
    counts: MapSpec, functions: int, cpus: int, locate: Cookie | AddressTable, follow: Follow | None = None
) -> ProgramSpec:
    """Adds 1 to ``counts[cpu][index]``."""
    insns = [
        *prologue(follow),
        *locate.code(OUT),
        Lsh.imm(R7, 3),
        *cpu_row(8 * functions, cpus),
        Add.reg(R7, R0),
        map_value(R1, counts),
        Add.reg(R1, R7),
        load(R2, R1, 0, DW),
        Add.imm(R2, 1),
        store(R1, 0, R2, DW),
        *epilogue(),
    ]
    return ProgramSpec("rawkm_count", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_MULTI, insns=insns)
