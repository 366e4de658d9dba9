"""Counting within a budget: what a hit costs is measured on the link that is in use, then watched."""

from __future__ import annotations

from rawkm.backend import ladder
from rawkm.backend.model import no_step
from rawkm.budget.control import PERIOD, Budget
from rawkm.errors import NotSupportedError, UsageError
from rawkm.host import cpus
from rawkm.programs.mute import Mute
from rawkm.session import CountSession
from rawkm.targets import Pattern, Target, resolve
from rawkm.trigger import FUNCTION, Trigger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.backend.model import Need, Step
    from rawkm.budget.control import Change
    from rawkm.maps import Map
    from rawkm.scope import Tree
    from rawkm.session import Account
    from rawkm.syscall.kernel import Kernel, Memory

# How long the cost of a hit is measured, each time.
_SECONDS = 0.05


class BudgetedCount(CountSession):
    """As CountSession, with one target more, the last, which is hit at will to learn what a hit costs; its counts read 0.

    ``budget``: there from ``activate()`` on. With a process tree, the cost is that of a hit by somebody who is not in it.
    """

    budget: Budget
    _muted: Memory
    _seen: Memory

    def __init__(
        self, kernel: Kernel, targets: Sequence[Target], *, percent: float, tree: Tree | None = None, need: Need | None = None
    ) -> None:
        self._percent = percent
        self._own = len(targets)
        super().__init__(kernel, [*targets, _trigger(kernel, targets)], tree=tree, need=need)
        self._mute = Mute(len(self.targets))
        self._trigger = Trigger(kernel)
        self._without = 0.0
        self._base: list[int] = []
        self._at = 0.0
        self._hits: list[int] = []

    def attach(self, *, backend: str = ladder.AUTO, by: str = ladder.AUTO, step: Step = no_step) -> None:
        """As Session.attach. Raises NotSupportedError when the function that is hit at will cannot be attached."""
        self._without = self._trigger.best(_SECONDS)
        super().attach(backend=backend, by=by, step=step)
        if self._own not in self.attached:
            raise NotSupportedError("--budget", f"the kernel refuses {FUNCTION}, by which the cost of a hit is measured")
        self.attached.remove(self._own)
        self.account.attached -= 1

    def _opened(self, maps: dict[str, Map]) -> None:
        super()._opened(maps)
        assert self._mute is not None
        self._muted = self._map(maps[self._mute.spec.name], writable=True)
        self._seen = self._counts if self._tree is None else self._map(maps["seen"])

    def activate(self) -> None:
        """Measures, then begins: what was counted meanwhile is not part of it."""
        super().activate()
        hit = max(self._trigger.best(_SECONDS) - self._without, 1e-9)
        self._set(self._own, 1)
        muted = max(self._trigger.best(_SECONDS) - self._without, 0.0)
        self._set(self._own, 0)
        self.budget = Budget(self._percent, cpus=len(cpus.online(self.kernel)), hit=hit, muted_hit=muted)
        self._base = super().counts()
        self._at = self.kernel.monotonic()
        self._hits = self._sums(self._seen)

    def counts(self) -> list[int]:
        """As CountSession.counts."""
        totals = super().counts()
        if self._base:
            totals = [total - before for total, before in zip(totals, self._base, strict=True)]
        totals[self._own] = 0
        return totals

    def look(self) -> Change | None:
        """Mutes and unmutes as the budget asks; None when it is not time to look yet."""
        now = self.kernel.monotonic()
        seconds = now - self._at
        if seconds < PERIOD:
            return None
        hits = self._sums(self._seen)
        news = [a - b for a, b in zip(hits, self._hits, strict=True)]
        self._at, self._hits = now, hits
        change = self.budget.look(now, seconds, news)
        for index in change.muted:
            self._set(index, 1)
        for index in change.unmuted:
            self._set(index, 0)
        return change

    def _set(self, index: int, value: int) -> None:
        self._muted.store_u64(8 * index, value)

    def finish(self, step: Step = no_step) -> Account:
        """As Session.finish."""
        account = super().finish(step)
        self._trigger.close()
        return account

    def close(self) -> None:
        """As Session.close."""
        self._trigger.close()
        super().close()


def _trigger(kernel: Kernel, targets: Sequence[Target]) -> Target:
    """The function that is hit at will, known as the others are: by address where they are."""
    if any(target.name == FUNCTION for target in targets):
        raise UsageError(f"--budget calls {FUNCTION} itself, to learn what a hit costs: leave that function out (--deny)")
    if all(target.address is None for target in targets):
        return Target(FUNCTION)
    from rawkm.host.deny import DenyList

    found = resolve(kernel, [Pattern(f"vmlinux:{FUNCTION}")], deny=DenyList(builtin=False), addresses=True).ok
    if len(found) != 1:
        raise NotSupportedError(
            "--budget", f"the kernel has no traceable function {FUNCTION}, by which the cost of a hit is measured"
        )
    return found[0]
