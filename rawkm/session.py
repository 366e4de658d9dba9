"""A trace from its targets to its account: load, attach, activate, read, deactivate, detach, account."""

from __future__ import annotations

from errno import EACCES, EPERM

from rawkm.backend import ladder
from rawkm.backend.model import Need, no_step
from rawkm.errors import NotSupportedError, RawkmError, SyscallError
from rawkm.host import cpus
from rawkm.programs import common, count
from rawkm.programs.locate import AddressTable, Constant, Cookie

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from rawkm.backend.model import Attachment, Step
    from rawkm.buffers import Batch, PerfBuf, RingBuf
    from rawkm.errors import Culprit
    from rawkm.maps import Map
    from rawkm.prog import Program, ProgramSpec
    from rawkm.programs.context import Context
    from rawkm.programs.locate import Locator
    from rawkm.programs.mute import Mute
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
        "tried",
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
        # Backends that could not be taken, each with the reason.
        self.tried: list[tuple[str, str]] = []
        self.unfollowed = 0


class Session:
    """One job on many functions. A subclass per job says which program and what to make of its maps.

    ``attach()``, ``activate()``, the job's own reading, ``finish()``; ``close()`` from any state. ``need``: when it shall run.
    """

    def __init__(self, kernel: Kernel, targets: Sequence[Target], *, tree: Tree | None = None, need: Need | None = None) -> None:
        self.kernel = kernel
        self.targets = targets
        self.account = Account()
        self.culprits: list[Culprit] = []
        # The indexes of the targets that are attached.
        self.attached: list[int] = []
        self.cpus = max(cpus.possible(kernel)) + 1
        self.need = need or Need()
        # Whether the program asks for them.
        self.cookies = True
        self._tree = tree
        self._progs: list[Program] = []
        self._maps: dict[str, Map] = {}
        self._attachment: Attachment | None = None
        self._memory: list[Memory] = []
        self._switch: Memory | None = None
        self._before: tuple[int | None, int | None] = (None, None)
        # What should be known before it happens: set by who can show it.
        self.on_remark: Callable[[str], None] = _nobody_listens

    # -- for the jobs ----------------------------------------------------------------------------------------------------------

    def _spec(self, context: Context, locate: Locator | None) -> ProgramSpec:  # noqa: ARG002
        """``locate``: None leaves the choice to the job."""
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

    def attach(self, *, backend: str = ladder.AUTO, by: str = ladder.AUTO, step: Step = no_step) -> None:
        """Loads the program and attaches it; nothing is recorded yet. ``step``: called before each of many steps.

        ``backend``: one of ladder.BACKENDS. Raises NotSupportedError where the kernel or container forbids it, AttachError when
        no target is left.
        """
        start = self.kernel.monotonic()
        attachment, self.account.tried = ladder.attach(self, self.need, backend=backend, by=by, step=step)
        self._attachment = attachment
        self.account.attach_ms = (self.kernel.monotonic() - start) * 1e3
        self.account.backend = attachment.backend
        self.attached = attachment.attached
        self.account.attached = len(self.attached)
        self.account.attach_syscall_ms = attachment.syscall_ms
        self.culprits = attachment.culprits

    def load(self, context: Context, index: int | None = None) -> Program:
        """As model.Job wants it."""
        if not self._maps and self._tree is not None:
            self._maps = dict(self._tree.maps)
        spec = self._spec(context, None if index is None else Constant(index))
        try:
            prog = spec.load(self.kernel, self._maps)
        except SyscallError as err:
            if err.errno == EPERM:
                from rawkm.host import caps, denied

                raise denied.error(self.kernel, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON) from None
            raise
        self._progs.append(prog)
        if self._switch is None:
            self._maps = prog.maps
            self._switch = self._map(prog.maps[common.SWITCH.name], writable=True)
            self._opened(prog.maps)
        return prog

    def remark(self, text: str) -> None:
        """As model.Job wants it; ``on_remark`` is who listens."""
        self.on_remark(text)

    def unload(self) -> None:
        """Gives back everything that ``load`` made."""
        while self._memory:
            self._memory.pop().close()
        while self._progs:
            self._progs.pop().close()
        self._maps = {}
        self._switch = None

    def activate(self) -> None:
        """From now on hits are recorded, on all functions alike."""
        assert self._switch is not None
        # What the kernel refused while it was still attaching is nobody's event.
        self._before = self._refused()
        self._switch.store_u64(0, 1)

    def _refused(self) -> tuple[int | None, int | None]:
        """(missed, recursion misses) so far."""
        assert self._attachment is not None
        return self._attachment.missed(), self._attachment.recursion_misses()

    def finish(self, step: Step = no_step) -> Account:
        """Stops recording, detaches and makes up the account."""
        account = self.account
        if self._switch is not None:
            self._switch.store_u64(0, 0)
        if self._attachment is not None:
            account.missed, account.recursion_misses = map(_since, self._refused(), self._before)
            self._detaching()
            start = self.kernel.monotonic()
            self._attachment.close(step)
            account.detach_ms = (self.kernel.monotonic() - start) * 1e3
            self._counted()
        if self._tree is not None:
            account.unfollowed = self._tree.unfollowed
        return account

    def close(self) -> None:
        """Detaches if that has not happened, and gives everything back."""
        if self._attachment is not None:
            self._attachment.close()
        self.unload()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _nobody_listens(_text: str) -> None:
    pass


def _since(now: int | None, before: int | None) -> int | None:
    return None if now is None else now - (before or 0)


class CountSession(Session):
    """Hits per function."""

    _counts: Memory
    _table: AddressTable | None = None
    _mute: Mute | None = None

    def _spec(self, context: Context, locate: Locator | None) -> ProgramSpec:
        n = len(self.targets)
        spec = count.counters(n, self.cpus)
        if spec.value > count.MOST_BYTES:
            raise RawkmError(f"{n} functions on {self.cpus} CPUs are too many counters for one map: choose fewer functions")
        follow = None if self._tree is None else self._tree.follow
        self._table = None
        addresses = [target.address for target in self.targets if target.address is not None]
        if locate is None and len(addresses) == n:
            modules = [target.address for target in self.targets if target.module and target.address is not None]
            self._table = AddressTable.plan(addresses, modules)
        self.cookies = self._table is None
        return count.program(context, spec, n, self.cpus, locate or self._table or Cookie(n), follow, self._mute)

    def _opened(self, maps: dict[str, Map]) -> None:
        if self._table is not None:
            with maps[self._table.spec.name].mmap() as memory:
                self._table.fill(memory.view)
        self._counts = self._map(maps["counts"])

    def counts(self) -> list[int]:
        """The hits so far, in the order of the targets."""
        return self._sums(self._counts)

    def _sums(self, rows: Memory) -> list[int]:
        """Over the CPUs, per target."""
        n = len(self.targets)
        words = rows.read(0, 8 * n * self.cpus).cast("Q")
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
        if self._attachment is None or all(target.address is not None for target in self.targets):
            return
        if not self._attachment.backend.startswith("kprobe-multi") or not self._attachment.links:
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
    """A record per hit. ``perf``: through a perf buffer of ``size`` bytes per CPU, else a ring buffer of ``size`` bytes.

    ``arguments``: how many of each call's to record; at return, what was returned is.
    """

    _ledger: Memory

    def __init__(
        self,
        kernel: Kernel,
        targets: Sequence[Target],
        *,
        tree: Tree | None = None,
        need: Need | None = None,
        arguments: int = 0,
        perf: bool = False,
        size: int,
    ) -> None:
        super().__init__(kernel, targets, tree=tree, need=need)
        from rawkm.programs import trace

        self.schema = trace.schema(arguments=arguments, returned=self.need.at_return)
        self._perf = perf
        self._size = size
        self._reader: RingBuf | PerfBuf | None = None

    def _spec(self, context: Context, locate: Locator | None) -> ProgramSpec:
        from rawkm.buffers.ringbuf import ring_size
        from rawkm.programs import trace

        events = trace.perf_array(self.cpus) if self._perf else trace.ring(ring_size(self._size))
        follow = None if self._tree is None else self._tree.follow
        locate = locate or Cookie(len(self.targets))
        return trace.program(context, self.schema, events, trace.ledger(self.cpus), self.cpus, locate, follow)

    def _opened(self, maps: dict[str, Map]) -> None:
        # Imported here: counting, which must start fast, needs none of it.
        from rawkm.buffers import PerfBuf, RingBuf

        self._ledger = self._map(maps["ledger"])
        if self._perf:
            try:
                self._reader = PerfBuf(maps["events"], self.schema, size=self._size)
            except SyscallError as err:
                if err.errno in (EACCES, EPERM):
                    raise self._perf_denied(err) from None
                raise
        else:
            self._reader = RingBuf(maps["events"], self.schema)

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

        ledger = self._ledger.read(0, trace.ledger(self.cpus).value)
        self.account.hits = trace.ledger_sum(ledger, trace.HITS, self.cpus)
        self.account.dropped = trace.ledger_sum(ledger, trace.DROPPED, self.cpus)

    def unload(self) -> None:
        """As in Session."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        super().unload()
