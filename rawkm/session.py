"""A trace from its targets to its account: load, attach, activate, read, deactivate, detach, account."""

from __future__ import annotations

from errno import EACCES, EPERM
from time import perf_counter

from rawkm import backend
from rawkm.errors import NotSupportedError, RawkmError, SyscallError
from rawkm.host import cpus
from rawkm.programs import common, count
from rawkm.programs.locate import AddressTable, Cookie

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from rawkm.backend import Attachment
    from rawkm.buffers import Batch, PerfBuf, RingBuf
    from rawkm.errors import Culprit
    from rawkm.maps import Map
    from rawkm.prog import Program, ProgramSpec
    from rawkm.scope import Tree
    from rawkm.syscall.kernel import Kernel, Memory
    from rawkm.targets import Target


class Account:
    """What a trace came to. Times in milliseconds; None where the kernel cannot tell."""

    __slots__ = (
        "attach_ms",
        "attach_syscall_ms",
        "attached",
        "backend",
        "detach_ms",
        "dropped",
        "hits",
        "missed",
        "recursion_misses",
        "unfollowed",
    )

    def __init__(self) -> None:
        self.backend = ""
        self.attached = 0
        self.attach_ms = 0.0
        self.attach_syscall_ms = 0.0
        self.detach_ms = 0.0
        self.hits = 0
        self.dropped = 0
        self.missed: int | None = None
        self.recursion_misses: int | None = None
        self.unfollowed = 0


class Session:
    """One program on many functions. A subclass per job says which program and what to make of its maps.

    ``attach()``, ``activate()``, the job's own reading, ``finish()``; ``close()`` from any state.
    """

    def __init__(self, kernel: Kernel, targets: Sequence[Target], *, tree: Tree | None = None) -> None:
        self.kernel = kernel
        self.targets = targets
        self.account = Account()
        self.culprits: list[Culprit] = []
        # The indexes of the targets that are attached.
        self.attached: list[int] = []
        self.cpus = max(cpus.possible(kernel)) + 1
        self._tree = tree
        self._prog: Program | None = None
        self._attachment: Attachment | None = None
        self._memory: list[Memory] = []
        self._switch: Memory | None = None
        # Whether the program asks for them.
        self._cookies = True
        self._before: tuple[int | None, int | None] = (None, None)

    # -- for the jobs ----------------------------------------------------------------------------------------------------------

    def _spec(self) -> ProgramSpec:
        raise AssertionError("each job has its program")

    def _opened(self, maps: dict[str, Map]) -> None:
        """The program is loaded: map what is to be read."""

    def _detaching(self) -> None:
        """The link is about to go: ask it what only it knows."""

    def _counted(self) -> None:
        """Everything has come to rest: fill in ``account.hits`` and ``account.dropped``."""

    def _map(self, m: Map, *, writable: bool = False) -> Memory:
        memory = m.mmap(writable=writable)
        self._memory.append(memory)
        return memory

    @property
    def fds(self) -> list[int]:
        """For a poller: readable when there may be something to read."""
        return []

    # -- life ------------------------------------------------------------------------------------------------------------------

    def attach(self, *, by: str = backend.AUTO, step: Callable[[], None] = lambda: None) -> None:
        """Loads the program and attaches it; nothing is recorded yet. ``step``: as in backend.attach.

        Raises NotSupportedError where the kernel or container forbids it, AttachError when no target is left.
        """
        start = perf_counter()
        self._prog = self._load()
        self._switch = self._map(self._prog.maps[common.SWITCH.name], writable=True)
        self._opened(self._prog.maps)
        self._attachment = backend.attach(self._prog, self.targets, by=by, cookies=self._cookies, step=step)
        self.account.attach_ms = (perf_counter() - start) * 1e3
        self.account.backend = self._attachment.backend
        self.attached = self._attachment.attached
        self.account.attached = len(self.attached)
        self.account.attach_syscall_ms = self._attachment.syscall_ms
        self.culprits = self._attachment.culprits

    def _load(self) -> Program:
        maps = {} if self._tree is None else self._tree.maps
        try:
            return self._spec().load(self.kernel, maps)
        except SyscallError as err:
            if err.errno == EPERM:
                from rawkm.host import caps, denied

                raise denied.error(self.kernel, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON) from None
            # An old kernel lacks a helper, or has smaller maps, long before it is asked for its link type: say what counts.
            from rawkm import features

            answer = features.kprobe_multi(self.kernel)
            if answer.state == features.NO:
                raise answer.error() from None
            raise

    def activate(self) -> None:
        """From now on hits are recorded, on all functions alike."""
        assert self._switch is not None
        # What the kernel refused while it was still attaching is nobody's event.
        self._before = self._refused()
        self._switch.store_u64(0, 1)

    def _refused(self) -> tuple[int | None, int | None]:
        """(missed, recursion misses) so far."""
        assert self._attachment is not None and self._prog is not None
        misses = self._prog.info()["recursion_misses"]
        assert isinstance(misses, int)
        return self._attachment.link.info().missed, misses

    def finish(self) -> Account:
        """Stops recording, detaches and makes up the account."""
        account = self.account
        if self._switch is not None:
            self._switch.store_u64(0, 0)
        if self._attachment is not None and self._prog is not None:
            account.missed, account.recursion_misses = map(_since, self._refused(), self._before)
            self._detaching()
            start = perf_counter()
            self._attachment.link.close()
            account.detach_ms = (perf_counter() - start) * 1e3
            self._counted()
        if self._tree is not None:
            account.unfollowed = self._tree.unfollowed
        return account

    def close(self) -> None:
        """Detaches if that has not happened, and gives everything back."""
        if self._attachment is not None:
            self._attachment.link.close()
        while self._memory:
            self._memory.pop().close()
        if self._prog is not None:
            self._prog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _since(now: int | None, before: int | None) -> int | None:
    return None if now is None else now - (before or 0)


class CountSession(Session):
    """Hits per function."""

    _counts: Memory
    _table: AddressTable | None = None

    def _spec(self) -> ProgramSpec:
        n = len(self.targets)
        spec = count.counters(n, self.cpus)
        if spec.value > count.MOST_BYTES:
            raise RawkmError(f"{n} functions on {self.cpus} CPUs are too many counters for one map: choose fewer functions")
        follow = None if self._tree is None else self._tree.follow
        addresses = [target.address for target in self.targets if target.address is not None]
        if len(addresses) == n:
            modules = [target.address for target in self.targets if target.module and target.address is not None]
            self._table = AddressTable.plan(addresses, modules)
            self._cookies = self._table is None
        return count.program(spec, n, self.cpus, self._table or Cookie(n), follow)

    def _opened(self, maps: dict[str, Map]) -> None:
        if self._table is not None:
            with maps[self._table.spec.name].mmap() as memory:
                self._table.fill(memory.view)
        self._counts = self._map(maps["counts"])

    def counts(self) -> list[int]:
        """The hits so far, in the order of the targets."""
        n = len(self.targets)
        words = self._counts.view[: 8 * n * self.cpus].cast("Q")
        totals: list[int] = words[:n].tolist()
        for cpu in range(1, self.cpus):
            row = words[cpu * n : (cpu + 1) * n].tolist()
            # A CPU that saw nothing costs one comparison.
            if any(row):
                totals = [a + b for a, b in zip(totals, row, strict=True)]
        return totals

    def learn_addresses(self) -> None:
        """Fills in the symbol addresses that an attach by name did not need: the link knows them by now, by cookie.

        Hidden ones stay None, as do all before Linux 6.9, whose link info has no cookies.
        """
        if self._attachment is None or self._attachment.link.fd < 0:
            return
        if all(target.address is not None for target in self.targets):
            return
        info = self._attachment.link.info(lists=True)
        if len(set(info.cookies)) < len(info.cookies):
            return
        for address, index in zip(info.addrs, info.cookies, strict=True):
            if address and index < len(self.targets):
                self.targets[index].address = address

    def _detaching(self) -> None:
        self.learn_addresses()

    def _counted(self) -> None:
        self.account.hits = sum(self.counts())


class TraceSession(Session):
    """A record per hit. ``perf``: through a perf buffer of ``size`` bytes per CPU, else a ring buffer of ``size`` bytes."""

    _ledger: Memory

    def __init__(
        self, kernel: Kernel, targets: Sequence[Target], *, tree: Tree | None = None, perf: bool = False, size: int
    ) -> None:
        super().__init__(kernel, targets, tree=tree)
        self._perf = perf
        self._size = size
        self._reader: RingBuf | PerfBuf | None = None

    def _spec(self) -> ProgramSpec:
        from rawkm.buffers.ringbuf import ring_size
        from rawkm.programs import trace

        events = trace.perf_array(self.cpus) if self._perf else trace.ring(ring_size(self._size))
        follow = None if self._tree is None else self._tree.follow
        return trace.program(events, trace.ledger(self.cpus), self.cpus, follow)

    def _opened(self, maps: dict[str, Map]) -> None:
        # Imported here: counting, which must start fast, needs none of it.
        from rawkm.buffers import PerfBuf, RingBuf
        from rawkm.programs import trace

        self._ledger = self._map(maps["ledger"])
        if self._perf:
            try:
                self._reader = PerfBuf(maps["events"], trace.HIT, size=self._size)
            except SyscallError as err:
                if err.errno in (EACCES, EPERM):
                    raise self._perf_denied(err) from None
                raise
        else:
            self._reader = RingBuf(maps["events"], trace.HIT)

    def _perf_denied(self, err: SyscallError) -> RawkmError:
        from rawkm import features

        answer = features.perf_buffer(self.kernel)
        if answer.state != features.NO:
            return err
        return NotSupportedError("--buffer perf does not work here", answer.evidence, help=f"{answer.help}; or use --buffer ring")

    @property
    def fds(self) -> list[int]:
        """As in Session."""
        return [] if self._reader is None else self._reader.fds

    def read(self) -> Batch:
        """The records that have come."""
        assert self._reader is not None
        return self._reader.read()

    def _counted(self) -> None:
        from rawkm.programs import trace

        self.account.hits = trace.ledger_sum(self._ledger.view, trace.HITS, self.cpus)
        self.account.dropped = trace.ledger_sum(self._ledger.view, trace.DROPPED, self.cpus)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        super().close()
