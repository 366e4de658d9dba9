"""What every campaign has: limits, counts, the rights it may use, what it found, and the summary line.

A campaign module has ``run(campaign, options)``; it tells the campaign of every example, call and finding.
"""

from __future__ import annotations

import os
from time import monotonic

from rawkm.errors import NotSupportedError, SyscallError, UsageError
from rawkm.fuzz import leaks
from rawkm.fuzz.lastcalls import LastCalls
from rawkm.syscall.raw import RawBpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rawkm.fuzz.findings import Finding, Store
    from rawkm.syscall.live import LiveKernel

    Row = Mapping[str, object]

# What tools/vm puts into a guest that exists to be broken.
GUEST_MARK = "/vm/settings"

_RLIMIT_AS = 9  # include/uapi/asm-generic/resource.h
_MEMORY = 4 << 30


class TimeIsUp(BaseException):
    """The campaign's seconds are over: ends the example that runs, and then the campaign.

    No Exception: hypothesis would take it for a failure, and shrink.
    """


class Campaign:
    """One run of one campaign.

    ``examples``: how many it shall try; ``seed``: what they are made from (the same seed, the same examples); ``seconds``: when
    it ends at the latest, None for never. ``own``: the user says that this kernel may be broken. ``report``: takes each row of
    the output. ``store``: where findings are kept, None for nowhere.

    Counts: ``done`` examples, ``calls`` of bpf(2) that were judged, of which ``accepted`` succeeded; ``unexplained`` differences;
    ``leaks``: what was left in the kernel.
    """

    def __init__(
        self,
        name: str,
        kernel: LiveKernel,
        *,
        examples: int,
        seed: int,
        report: Callable[[Row], None],
        own: bool = False,
        seconds: float | None = None,
        store: Store | None = None,
        last: str | None = None,
    ) -> None:
        self.name = name
        self.kernel = kernel
        self.examples = examples
        self.seed = seed
        self.report = report
        self.owned = own or in_guest()
        self.store = store
        self.done = self.calls = self.accepted = self.unexplained = 0
        self.leaks: list[str] = []
        self.extra: dict[str, object] = {}
        self._last = None if last is None else LastCalls(last)
        self._deadline = None if seconds is None else monotonic() + seconds
        self._before = leaks.Inventory(kernel)
        self._start = monotonic()

    def __enter__(self) -> Campaign:
        limit_memory(self.kernel)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._last is not None:
            self._last.close()
            self._last = None

    def example(self, words: str | Callable[[], str]) -> None:
        """Before an example runs: counts it, writes it to the last calls. Raises TimeIsUp when the time is over."""
        self.done += 1
        self.again(words)

    def again(self, words: str | Callable[[], str]) -> None:
        """As ``example``, for what is tried while a finding is made smaller: it does not count."""
        if self._deadline is not None and monotonic() > self._deadline:
            raise TimeIsUp
        if self._last is not None:
            self._last.write(words if isinstance(words, str) else words())

    def call(self, accepted: bool) -> None:
        """A call of bpf(2) was made and judged."""
        self.calls += 1
        self.accepted += accepted

    def found(self, finding: Finding) -> None:
        """A difference that nothing explains, once it has been shrunk."""
        from rawkm.fuzz import recorded

        self.unexplained += 1
        recording = recorded.record(finding.case, self.kernel, RawBpf())
        files = [] if self.store is None else self.store.keep(finding, recording)
        self.report({"type": "finding", **finding.row(recording), "files": files})

    def need_owned(self, what: str) -> None:
        """Raises UsageError where the user has not said that this kernel is theirs to break and it is no test guest."""
        if not self.owned:
            raise UsageError(
                f"{what} may disturb a machine that others use: run it in a test guest (tools/vm run -k 7.2 -- rawkm fuzz ...), "
                "or say --i-own-this-kernel"
            )

    def look_for_leaks(self) -> None:
        """At the end: what is there more than at the start."""
        self.leaks = leaks.since(self.kernel, self._before)
        for left in self.leaks:
            self.report({"type": "leak", "what": left})

    def summary(self) -> dict[str, object]:
        """The last row."""
        return {
            "type": "summary",
            "campaign": self.name,
            "seed": self.seed,
            "examples": self.done,
            "calls": self.calls,
            "accepted": self.accepted,
            "unexplained": self.unexplained,
            "leaks": len(self.leaks),
            "seconds": round(monotonic() - self._start, 3),
            **self.extra,
        }

    @property
    def status(self) -> int:
        """The exit status: 1 on a finding."""
        return 1 if self.unexplained or self.leaks else 0


def in_guest() -> bool:
    """Whether this machine says that it is a test guest."""
    return os.path.exists(GUEST_MARK)


def limit_memory(kernel: LiveKernel) -> None:
    """No more than a few GiB of addresses for this process, so that a mistake ends it and not the machine."""
    soft, hard = kernel.rlimit(_RLIMIT_AS)
    if soft < 0 or soft > _MEMORY:
        try:
            kernel.rlimit(_RLIMIT_AS, (_MEMORY, hard))
        except SyscallError as err:
            raise NotSupportedError("a limit on the memory of this process", str(err)) from None
