"""The cost of one hit, by mechanism: what a call of a traced function takes longer than the same call untraced."""

from __future__ import annotations

from rawkm.answer import YES
from rawkm.asm import DW, R0, R1, R2, R3, Add, JGe, Lsh, Mov, call, exit_, label, load, map_value, store
from rawkm.bench import candidates
from rawkm.bench.mechanisms import BOTH, Attached
from rawkm.bench.stats import median
from rawkm.errors import RawkmError
from rawkm.host import cpus
from rawkm.maps import MapSpec
from rawkm.trigger import FUNCTION, Trigger
from rawkm.uapi.constants import Helper, MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawkm.asm import Item
    from rawkm.bench.mechanisms import Mechanism
    from rawkm.maps import Map
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

_EMPTY: tuple[Item, ...] = (Mov.imm(R0, 0), exit_())


class Result:
    """Nanoseconds per call of the function, medians: ``empty`` for a program that does nothing, ``count`` for one that counts.

    At ``at``: "entry", "return", or "both" for a program that runs twice per call.
    """

    __slots__ = ("at", "count", "empty", "mechanism", "rounds")

    def __init__(self, mechanism: str, at: str, empty: float, count: float, rounds: int) -> None:
        self.mechanism = mechanism
        self.at = at
        self.empty = empty
        self.count = count
        self.rounds = rounds


class Bench:
    """Each mechanism once per round; the middle of all rounds counts. From each is taken what a call takes when nothing is on the
    function: the least that was seen, as one function has one cost. ``step``: called between measurements.
    """

    def __init__(
        self, kernel: Kernel, *, rounds: int = 5, seconds: float = 0.05, step: Callable[[], None] = lambda: None
    ) -> None:
        self._kernel = kernel
        self._rounds = rounds
        self._seconds = seconds
        self._step = step
        self._cpus = max(cpus.possible(kernel)) + 1

    def run(self, mechanisms: Sequence[Mechanism]) -> list[Result]:
        """Of the mechanisms that this kernel has. Raises RawkmError when a program missed a hit, or the function is not there."""
        chosen = [mechanism for mechanism in mechanisms if mechanism.answer(self._kernel).state == YES]
        taken: dict[tuple[str, bool], list[float]] = {(m.name, counting): [] for m in chosen for counting in (False, True)}
        bare: list[float] = []
        candidate = candidates.named(self._kernel, FUNCTION)
        with Trigger(self._kernel) as trigger:
            for _ in range(self._rounds):
                for mechanism in chosen:
                    for counting in (False, True):
                        self._step()
                        bare.append(trigger.best(self._seconds))
                        taken[mechanism.name, counting].append(self._taken(trigger, mechanism, candidate, counting))
        empty, count = (
            {m.name: 1e9 * (median(taken[m.name, counting]) - min(bare)) for m in chosen} for counting in (False, True)
        )
        return [Result(m.name, m.at, empty[m.name], count[m.name], self._rounds) for m in chosen]

    def _taken(self, trigger: Trigger, mechanism: Mechanism, candidate: candidates.Candidate, counting: bool) -> float:
        """Seconds per call with the mechanism's program on the function."""
        kernel = self._kernel
        counts = MapSpec("counts", MapType.ARRAY, key=4, value=8 * self._cpus, max_entries=1, flags=MapFlag.MMAPABLE)
        with Attached() as attached:
            maps: dict[str, Map] = {}
            insns = _EMPTY
            if counting:
                insns = _counting(counts, self._cpus, cookie=mechanism.many)
            prog = mechanism.load(kernel, attached, insns, candidate, maps)
            if mechanism.many:
                mechanism.attach_all(attached, prog, [candidate])
            else:
                mechanism.attacher(kernel, attached)(prog, candidate)
            # Some kprobes get faster a little later (kernel/kprobes.c, OPTIMIZE_DELAY).
            kernel.sleep(0.1)
            before = trigger.calls
            seen = _total(prog, counts) if counting else 0
            taken = trigger.best(self._seconds)
            if counting:
                runs = (trigger.calls - before) * (2 if mechanism.at == BOTH else 1)
                missed = runs - (_total(prog, counts) - seen)
                if missed:
                    raise RawkmError(f"{mechanism.name} missed {missed:,} of {runs:,} hits: the measurement is worth nothing")
        return taken


def _counting(counts: MapSpec, cpus: int, *, cookie: bool) -> tuple[Item, ...]:
    """As count's program: which function (by its cookie, where one program is on many), then this CPU's counter of it."""
    which: list[Item] = [Mov.imm(R0, 0)]
    if cookie:
        which = [call(Helper.get_attach_cookie), JGe.imm(R0, 1, "out")]
    return (
        *which,
        call(Helper.get_smp_processor_id),
        JGe.imm(R0, cpus, "out"),
        Mov.reg(R3, R0),
        Lsh.imm(R3, 3),
        map_value(R1, counts),
        Add.reg(R1, R3),
        load(R2, R1, 0, DW),
        Add.imm(R2, 1),
        store(R1, 0, R2, DW),
        label("out"),
        Mov.imm(R0, 0),
        exit_(),
    )


def _total(prog: Program, counts: MapSpec) -> int:
    value = prog.maps[counts.name].lookup(0)
    assert value is not None
    return sum(memoryview(value).cast("Q"))
