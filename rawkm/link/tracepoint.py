"""tracepoint: a program on a classic tracepoint, by its perf event (Linux 4.7). It reads the record that tracefs describes."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM

from rawkm.errors import SyscallError, UsageError
from rawkm.host.tracefs import TraceFs
from rawkm.link import perf_event
from rawkm.link.perf_kprobe import open_event, perf_denied
from rawkm.link.refusal import refusal
from rawkm.link.tracefs_kprobe import event_id
from rawkm.uapi.constants import PerfType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.answer import Answer
    from rawkm.link.perf_event import PerfEventLink
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

FEATURE = "tracepoints"

_HINTS = {
    ENOENT: "this kernel has no such tracepoint, or tracefs cannot be read",
    EACCES: "the program reads beyond the record, or perf events are not allowed",
    EPERM: "perf events are not allowed",
    EINVAL: "the program is of another type",
}


def attach(prog: Program, name: str, *, cookie: int = 0) -> PerfEventLink:
    """Attaches ``prog`` (TRACEPOINT) to the tracepoint ``name``, "group:event". ``cookie`` needs Linux 5.15.

    Raises AttachError: ENOENT for an unknown one, EACCES without the right to read tracefs or to open perf events.
    """
    group, colon, event = name.partition(":")
    if not (group and colon and event) or "/" in name:
        raise UsageError(f"{name!r} is no tracepoint: write group:event, as in sched:sched_switch")
    try:
        with TraceFs(prog.kernel) as tracefs:
            id = event_id(tracefs, group, event)
        fd = open_event(prog.kernel, {"type": PerfType.TRACEPOINT, "config": id, "sample_period": 1})
    except SyscallError as err:
        raise refusal(err, {err.errno: err.hint} if err.hint else _HINTS, "tracepoint") from None
    return perf_event.attach(prog, fd, cookie=cookie, hints=_HINTS, backend="tracepoint")


def probe(kernel: Kernel) -> Answer:
    """By opening the event of one that every kernel has."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer
    from rawkm.errors import errno_name

    with TraceFs(kernel) as tracefs:
        try:
            id = event_id(tracefs, "sched", "sched_switch")
        except SyscallError as err:
            return Answer(FEATURE, NO, err.hint or str(err), "raw tracepoints need no tracefs")
    try:
        kernel.close(open_event(kernel, {"type": PerfType.TRACEPOINT, "config": id}))
    except SyscallError as err:
        if err.errno in (EACCES, EPERM):
            return perf_denied(kernel, FEATURE, err)
        return Answer(FEATURE, UNKNOWN, f"perf_event_open (tracepoint) → {errno_name(err.errno)}")
    return Answer(FEATURE, YES, "perf_event_open of sched:sched_switch")
