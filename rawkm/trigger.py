"""Hits at will: a kernel function that nobody needs, called as often as wanted.

It is the kernel's bpf_get_numa_node_id, which a BPF program calls as a helper: a program of some hundred such
calls (BPF_PROG_TEST_RUN, repeated) hits it that often with next to nothing in between. Run-time statistics (BPF_ENABLE_STATS)
would not do to learn what a hit costs: they leave out how the kernel gets to the program, which is most of it.
"""

from __future__ import annotations

from rawkm.asm import R0, Mov, call, exit_
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import Helper, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

FUNCTION = "bpf_get_numa_node_id"
CALLS = 250
# So long should a run take: short enough that now and then nothing else happens in one, long enough for the clock.
_RUN = 0.001
# What net/bpf/test_run.c wants of a packet at least.
_PACKET = bytes(14)


class Trigger:
    """Calls the function, and says how long a call takes. ``calls``: how many there were."""

    def __init__(self, kernel: Kernel) -> None:
        insns = [*[call(Helper.get_numa_node_id)] * CALLS, Mov.imm(R0, 0), exit_()]
        self._prog: Program = ProgramSpec("rawkm_trigger", ProgType.SOCKET_FILTER, insns=insns).load(kernel)
        self._kernel = kernel
        self.calls = 0

    def run(self, repeat: int) -> float:
        """Seconds per call, the mean of ``repeat`` times CALLS."""
        start = self._kernel.monotonic()
        self._prog.test_run(data=_PACKET, repeat=repeat)
        self.calls += repeat * CALLS
        return (self._kernel.monotonic() - start) / (repeat * CALLS)

    def best(self, seconds: float) -> float:
        """Seconds per call, the best of many short runs of about so long in all: what else runs on the machine only ever adds."""
        repeat = max(1, int(_RUN / (min(self.run(1) for _ in range(3)) * CALLS)))
        return min(self.run(repeat) for _ in range(max(3, int(seconds / _RUN))))

    def close(self) -> None:
        self._prog.close()

    def __enter__(self) -> Trigger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
