"""What a probe found out: yes, no or unknown, with its evidence."""

from __future__ import annotations

from errno import EACCES, EPERM

from rawkm.errors import NotSupportedError, errno_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rawkm.errors import SyscallError
    from rawkm.syscall.kernel import Kernel

    Probe = Callable[[Kernel], "Answer"]

YES, NO, UNKNOWN = "yes", "no", "unknown"


class Answer:
    """``state``: YES, NO or UNKNOWN; ``evidence``: what was tried and what came back; ``help``: what would change it, or ""."""

    __slots__ = ("evidence", "feature", "help", "state")

    def __init__(self, feature: str, state: str, evidence: str, help: str = "") -> None:
        self.feature = feature
        self.state = state
        self.evidence = evidence
        self.help = help

    def __repr__(self) -> str:
        return f"Answer({self.feature!r}, {self.state}, {self.evidence!r})"

    def error(self) -> NotSupportedError:
        return NotSupportedError(f"{self.feature} does not work here", self.evidence, help=self.help)


def refused(kernel: Kernel, feature: str, err: SyscallError, purpose: str, *needed: int) -> Answer:
    """What a refused call means: a missing permission is a no, anything else is not known."""
    evidence = f"{err.call} → {errno_name(err.errno)}"
    if err.errno in (EPERM, EACCES):
        from rawkm.host import denied

        why, help = denied.explain(kernel, purpose, *needed)
        return Answer(feature, NO, f"{evidence}: {why}", help)
    return Answer(feature, UNKNOWN, f"{evidence}{': ' if err.hint else ''}{err.hint}")
