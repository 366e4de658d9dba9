"""The time to attach and to detach, and the kernel memory in between, by mechanism and number of functions."""

from __future__ import annotations

from contextlib import contextmanager
from errno import EADDRNOTAVAIL, EBUSY, EILSEQ, EINVAL, ENOENT, ESRCH

from rawkm.answer import YES
from rawkm.asm import R0, Mov, exit_
from rawkm.bench import candidates, memory
from rawkm.bench.mechanisms import Attached
from rawkm.bench.stats import median
from rawkm.errors import AttachError, RawkmError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rawkm.bench.candidates import Candidate
    from rawkm.bench.mechanisms import Mechanism
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

_EMPTY = (Mov.imm(R0, 0), exit_())
# What the kernel says to a function that it does not take; 524 is its ENOTSUPP.
_REFUSED = (EINVAL, ENOENT, ESRCH, EBUSY, EILSEQ, EADDRNOTAVAIL, 524)
_RLIMIT_NOFILE = 7  # include/uapi/asm-generic/resource.h


class Result:
    """Medians in seconds; memory in bytes, None when estimated. ``estimated``: too slow to be measured, so as many times what
    ``measured_at`` functions took.

    ``load``: PROG_LOAD of what is attached. ``refused``: functions that the kernel did not take, others were taken for them.
    """

    __slots__ = ("attach", "detach", "estimated", "load", "measured_at", "mechanism", "memory", "n", "refused", "rounds")

    def __init__(self, mechanism: str, n: int) -> None:
        self.mechanism = mechanism
        self.n = n
        self.measured_at = n
        self.load = self.attach = self.detach = 0.0
        self.memory: int | None = None
        self.rounds = 0
        self.refused = 0
        self.estimated = False

    @property
    def up(self) -> float:
        """From nothing to attached."""
        return self.load + self.attach


class Bench:
    """``rounds``: as many measurements of each at most, fewer of what takes seconds; ``limit``: what is expected to take more
    seconds than this is not measured but estimated. ``step`` is called between attaches, and may raise to end it all.
    """

    def __init__(self, kernel: Kernel, *, rounds: int = 3, limit: float = 20.0, step: Callable[[], None] = lambda: None) -> None:
        self._kernel = kernel
        self._rounds = rounds
        self._limit = limit
        self._step = step

    def run(
        self, mechanisms: Sequence[Mechanism], numbers: Sequence[int], tell: Callable[[Result], None] = lambda _: None
    ) -> list[Result]:
        """Each mechanism in turn at each number of functions. ``tell`` gets each result when it is there."""
        numbers = sorted(set(numbers))
        pool = self._pool(max(numbers) * 2)
        results: list[Result] = []
        with _room_for_files(self._kernel, max(numbers)):
            for n in numbers:
                for mechanism in mechanisms:
                    if mechanism.answer(self._kernel).state != YES:
                        continue
                    before = [r for r in results if r.mechanism == mechanism.name and not r.estimated]
                    result = self._measure(mechanism, n, pool, before[-1] if before else None)
                    results.append(result)
                    tell(result)
        return results

    def _pool(self, number: int) -> list[Candidate]:
        """Functions that every mechanism takes, as far as can be told before."""
        pool = candidates.choose(self._kernel, number)
        if not pool[0].id:
            return pool
        from rawkm.btf.kernel import vmlinux

        btf = vmlinux(self._kernel)
        return [candidate for candidate in pool if candidates.takes_trampoline(btf, candidate.id)]

    def _measure(self, mechanism: Mechanism, n: int, pool: list[Candidate], before: Result | None) -> Result:
        result = Result(mechanism.name, min(n, len(pool)))
        if before is not None and not mechanism.many:
            factor = result.n / before.n
            if (before.up + before.detach) * factor > self._limit:
                result.load = before.load * factor if mechanism.loads_each else before.load
                result.attach, result.detach = before.attach * factor, before.detach * factor
                result.measured_at, result.estimated = before.n, True
                return result
        chosen = candidates.spread(pool, result.n)
        if mechanism.many:
            chosen = self._accepted(mechanism, chosen, pool, result)
        rows: list[tuple[float, float, float, float]] = []
        while len(rows) < self._rounds and sum(sum(row[:3]) for row in rows) < self._limit / 2:
            rows.append(self._once(mechanism, chosen, pool, result))
        result.load, result.attach, result.detach, held = (median([row[i] for row in rows]) for i in range(4))
        result.memory = int(held)
        result.rounds = len(rows)
        return result

    def _once(
        self, mechanism: Mechanism, chosen: list[Candidate], pool: list[Candidate], result: Result
    ) -> tuple[float, float, float, float]:
        """(load, attach, detach in seconds, bytes of memory) of one round."""
        kernel = self._kernel
        # What the last round left is given back a little later.
        kernel.sleep(0.05)
        before = memory.used(kernel)
        with Attached() as attached:
            start = kernel.monotonic()
            if mechanism.many:
                prog = mechanism.load(kernel, attached, _EMPTY, chosen[0])
                loaded = kernel.monotonic()
                mechanism.attach_all(attached, prog, chosen)
            else:
                used = set(chosen)
                spare = iter([candidate for candidate in pool if candidate not in used])
                loaded = self._one_by_one(mechanism, attached, chosen, spare)
                # Of the functions that one round did without, the next ones know.
                result.refused = max(result.refused, len(chosen) - len(used & set(chosen)))
            up = kernel.monotonic()
            held = memory.used(kernel) - before
            middle = kernel.monotonic()
            attached.detach(self._step)
            return loaded - start, up - loaded, kernel.monotonic() - middle, float(held)

    def _one_by_one(self, mechanism: Mechanism, attached: Attached, chosen: list[Candidate], spare: Iterator[Candidate]) -> float:
        """Loads, then attaches; the time in between. A function that is refused is replaced in ``chosen``."""

        def load(at: int) -> Program:
            while True:
                try:
                    return mechanism.load(self._kernel, attached, _EMPTY, chosen[at])
                except SyscallError:
                    if not mechanism.loads_each:
                        raise
                    chosen[at] = _next(spare)

        programs = [load(at) for at in range(len(chosen) if mechanism.loads_each else 1)]
        loaded = self._kernel.monotonic()
        attach = mechanism.attacher(self._kernel, attached)
        for at in range(len(chosen)):
            self._step()
            prog = programs[at if mechanism.loads_each else 0]
            while True:
                try:
                    attach(prog, chosen[at])
                    break
                except AttachError as err:
                    if err.errno not in _REFUSED:
                        raise
                    chosen[at] = _next(spare)
                    prog = load(at) if mechanism.loads_each else prog
        return loaded

    def _accepted(self, mechanism: Mechanism, chosen: list[Candidate], pool: list[Candidate], result: Result) -> list[Candidate]:
        """As many that the kernel takes. It does not say which it refuses: they are found by halving, and others stand in."""
        used = set(chosen)
        spare = iter([candidate for candidate in pool if candidate not in used])
        good: list[Candidate] = []
        parts = [chosen]
        while parts:
            self._step()
            part = parts.pop()
            with Attached() as attached:
                try:
                    mechanism.attach_all(attached, mechanism.load(self._kernel, attached, _EMPTY, part[0]), part)
                except AttachError as err:
                    if err.errno not in _REFUSED:
                        raise
                    if len(part) > 1:
                        parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                    else:
                        result.refused += 1
                        parts.append([_next(spare)])
                    continue
            good += part
        return good


def _next(spare: Iterator[Candidate]) -> Candidate:
    candidate = next(spare, None)
    if candidate is None:
        raise RawkmError("the kernel refuses too many functions: measure with fewer (-n)")
    return candidate


@contextmanager
def _room_for_files(kernel: Kernel, number: int) -> Iterator[None]:
    """A file descriptor or two per function, where the limit can be raised."""
    soft, hard = kernel.rlimit(_RLIMIT_NOFILE)
    wanted = max(soft, 2 * number + 64)
    if wanted > soft:
        try:
            kernel.rlimit(_RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except SyscallError:
            kernel.rlimit(_RLIMIT_NOFILE, (min(wanted, hard), hard))
    try:
        yield
    finally:
        kernel.rlimit(_RLIMIT_NOFILE, (soft, hard))
