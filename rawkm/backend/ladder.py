"""Which mechanism: the one that is named, or the best of those that work here."""

from __future__ import annotations

from rawkm.backend import multi
from rawkm.backend.model import Partial, Unavailable
from rawkm.errors import NotSupportedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.model import Attachment, Job, Need, Step

AUTO = multi.AUTO
BACKENDS = ("kprobe-multi", "kprobe-session", "fentry-multi", "fentry", "fexit", "kprobe", "tracefs-kprobe")

# Of so few functions each gets a trampoline: it is cheaper at each hit, and a kernel too old to have a better way does not
# tell what a kprobe misses. Of more, attaching and detaching them takes too long.
_FEW = 8


def rungs(need: Need, count: int) -> list[str]:
    """What ``auto`` tries, best first. A kprobe session does nothing here that kprobe-multi does not."""
    trampoline = "fexit" if need.at_return else "fentry"
    singles = [trampoline, "kprobe"] if count <= _FEW else ["kprobe", trampoline]
    return ["kprobe-multi", "fentry-multi", *singles, "tracefs-kprobe"]


def attach(job: Job, need: Need, *, backend: str, by: str, step: Step) -> tuple[Attachment, list[tuple[str, str]]]:
    """The attachment, and the rungs that could not be taken, each with the reason.

    A backend that is named is not replaced by another: NotSupportedError says why it does not work here.
    """
    if backend != AUTO:
        return _attach(job, need, backend, by, step, auto=False), []
    tried: list[tuple[str, str]] = []
    partial = ""
    for name in rungs(need, len(job.targets)):
        try:
            return _attach(job, need, name, by, step, auto=True), tried
        except Unavailable as err:
            if isinstance(err, Partial):
                partial = name
            tried.append((name, err.evidence))
            job.unload()
    if partial:
        return _attach(job, need, partial, by, step, auto=False), [(name, why) for name, why in tried if name != partial]
    reasons = "; ".join(f"{name}: {reason}" for name, reason in tried)
    raise NotSupportedError("there is no way to attach here", reasons)


def _attach(job: Job, need: Need, name: str, by: str, step: Step, *, auto: bool) -> Attachment:
    if name == "kprobe-multi" or name == "kprobe-session":
        return multi.attach_job(job, need, by=by, step=step, session=name == "kprobe-session")
    if name == "fentry-multi":
        from rawkm.backend import trampolines_multi

        return trampolines_multi.attach(job, need, step=step)
    if name in ("fentry", "fexit"):
        from rawkm.backend import trampolines

        return trampolines.attach(job, need, name, step=step, auto=auto)
    if name in ("kprobe", "tracefs-kprobe"):
        from rawkm.backend import kprobes

        return kprobes.attach(job, need, name, by=by, step=step)
    raise UsageError(f"there is no backend {name!r}: {', '.join((AUTO, *BACKENDS))}")
