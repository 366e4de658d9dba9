"""kprobes made by writing to tracefs's kprobe_events, for kernels and containers where perf's own kprobes are not to be had.

Such a probe is an event with a name, which stays when its maker dies. Ours are named after the process that made them, so that
those of a killed one are found (``leftovers``) and removed (``clean``).
"""

from __future__ import annotations

from errno import EACCES, EADDRNOTAVAIL, EBUSY, EEXIST, EINVAL, ENOENT, EPERM

from rawkm.errors import NotSupportedError, SyscallError, UsageError
from rawkm.host.tracefs import TraceFs
from rawkm.link import perf_event
from rawkm.link.perf_kprobe import open_event, perf_denied
from rawkm.link.refusal import refusal
from rawkm.uapi.constants import PerfType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawkm.answer import Answer
    from rawkm.link.perf_event import PerfEventLink
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

FEATURE = "tracefs_kprobe"
FILE = "kprobe_events"
_GROUP = "rawkm_"

HINTS = {
    ENOENT: "the kernel has no function of this name",
    EADDRNOTAVAIL: "several functions have this name",
    EINVAL: "the kernel has no such function, has several of this name, or does not allow a kprobe there",
    EEXIST: "the event is there already",
    EACCES: "kprobe_events belongs to root (CAP_DAC_OVERRIDE opens it to others)",
    EPERM: "the kernel is locked down, or perf events are not allowed",
}


class TracefsKprobe:
    """A live probe. Closing it detaches the program and removes the event."""

    __slots__ = ("_maker", "event", "link")

    def __init__(self, maker: Maker, event: str, link: PerfEventLink) -> None:
        self._maker = maker
        self.event = event
        self.link = link

    def missed(self) -> int | None:
        """As PerfEventLink.missed."""
        return self.link.missed()

    @property
    def kernel(self) -> Kernel:
        """As PerfEventLink.kernel."""
        return self.link.kernel

    def give_up(self) -> int:
        """As Handle.give_up; the event stays until its maker is closed."""
        return self.link.give_up()

    def close(self) -> None:
        """A second call does nothing."""
        if self.link.fd >= 0:
            self.link.close()
            self._maker.remove(self.event)

    def __enter__(self) -> TracefsKprobe:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Maker:
    """Makes probes in tracefs, and takes away at its own end what is still there. One per process is enough."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._tracefs = TraceFs(kernel)
        pid = kernel.getpid()
        self.group = f"{_GROUP}{pid}_{_start_time(kernel, pid) or 0}"
        self._number = 0
        self._made: set[str] = set()

    def attach(
        self, prog: Program, *, name: str | None = None, address: int | None = None, retprobe: bool = False, cookie: int = 0
    ) -> TracefsKprobe:
        """Attaches ``prog`` (KPROBE, no attach type) to the function ``name`` or at ``address``. ``cookie`` needs Linux 5.15.

        Raises AttachError: EINVAL (5.10, 6.1: ENOENT) for a name that is not there, EACCES for who may not write kprobe_events.
        """
        if (name is None) == (address is None):
            raise UsageError("a kprobe takes either a name or an address")
        where = name if address is None else f"{address:#x}"
        event = f"{'r' if retprobe else 'p'}{self._number}"
        self._number += 1
        try:
            # Before it is there: a signal may end us at any time, and a name too many does no harm.
            self._made.add(event)
            try:
                self._tracefs.append(FILE, f"{'r' if retprobe else 'p'}:{self.group}/{event} {where}\n")
            except SyscallError:
                self._made.discard(event)
                raise
            try:
                fd = open_event(self._kernel, {"type": PerfType.TRACEPOINT, "config": self._id(event), "sample_period": 1})
                link = perf_event.attach(prog, fd, cookie=cookie, hints=HINTS, backend="tracefs-kprobe")
            except BaseException:
                self.remove(event)
                raise
        except SyscallError as err:
            raise refusal(err, HINTS, "tracefs-kprobe") from None
        return TracefsKprobe(self, event, link)

    def _id(self, event: str) -> int:
        return event_id(self._tracefs, self.group, event)

    def remove(self, event: str) -> None:
        """Takes the event away; nothing must be attached to it."""
        if event in self._made:
            _remove(self._tracefs, f"{self.group}/{event}")
            self._made.discard(event)

    def close(self) -> None:
        """Removes what is left, whatever happened before."""
        for event in sorted(self._made):
            try:
                self.remove(event)
            except SyscallError:
                continue
        self._tracefs.__exit__()

    def __enter__(self) -> Maker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def event_id(tracefs: TraceFs, group: str, event: str) -> int:
    """The number by which perf_event_open knows a tracepoint. Raises SyscallError, with what stands in the way as its hint."""
    path = f"events/{group}/{event}/id"
    chunks = tracefs.chunks(path)
    if chunks is None:
        raise SyscallError(f"openat({path})", ENOENT, hint="; ".join(tracefs.reasons))
    return int(b"".join(chunks))


def _remove(tracefs: TraceFs, event: str) -> None:
    try:
        tracefs.append(FILE, f"-:{event}\n")
    except SyscallError as err:
        if err.errno != ENOENT:
            raise


# -- what killed processes left ------------------------------------------------------------------------------------------------


class Leftover:
    """An event of a rawkm that is no more. ``event``: "rawkm_1234_5678/p0"; ``where``: what it probes; ``pid``: who made it."""

    __slots__ = ("event", "pid", "where")

    def __init__(self, event: str, where: str, pid: int) -> None:
        self.event = event
        self.where = where
        self.pid = pid

    def __repr__(self) -> str:
        return f"Leftover({self.event!r}, {self.where!r})"


def leftovers(kernel: Kernel) -> list[Leftover]:
    """The events in kprobe_events that a rawkm made which does not live any more; none where the file cannot be read."""
    with TraceFs(kernel) as tracefs:
        chunks = tracefs.chunks(FILE)
        text = b"" if chunks is None else b"".join(chunks)
    return list(_dead(kernel, text.decode("utf-8", "backslashreplace").splitlines()))


def _dead(kernel: Kernel, lines: Iterable[str]) -> Iterable[Leftover]:
    """A line is ``p:GROUP/EVENT WHERE`` or ``r16:GROUP/EVENT WHERE``."""
    living: dict[str, bool] = {}
    for line in lines:
        head, _, where = line.partition(" ")
        event = head.partition(":")[2]
        group = event.partition("/")[0]
        pid, _, start = group.removeprefix(_GROUP).partition("_")
        if not group.startswith(_GROUP) or not pid.isdecimal() or not start.isdecimal():
            continue
        if group not in living:
            living[group] = _start_time(kernel, int(pid)) == int(start)
        if not living[group]:
            yield Leftover(event, where, int(pid))


def clean(kernel: Kernel) -> tuple[list[Leftover], list[tuple[Leftover, SyscallError]]]:
    """Removes what ``leftovers`` finds: (removed, what could not be removed and why; EBUSY: somebody uses it)."""
    removed: list[Leftover] = []
    kept: list[tuple[Leftover, SyscallError]] = []
    with TraceFs(kernel) as tracefs:
        for leftover in leftovers(kernel):
            try:
                _remove(tracefs, leftover.event)
            except SyscallError as err:
                err.hint = "somebody uses it" if err.errno == EBUSY else HINTS.get(err.errno, "")
                kept.append((leftover, err))
            else:
                removed.append(leftover)
    return removed, kept


def _start_time(kernel: Kernel, pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with its number, its name for ever. None when it is not there."""
    try:
        # proc_pid_stat(5): the 22nd field; the command's name, in brackets, may hold anything.
        return int(kernel.read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (SyscallError, IndexError, ValueError):
        return None


def probe(kernel: Kernel) -> Answer:
    """Whether kprobe_events can be written to, by removing an event that does not exist; and perf events be opened."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer
    from rawkm.errors import errno_name

    with TraceFs(kernel) as tracefs:
        chunks = tracefs.chunks(FILE)
        if chunks is None:
            help = "a kernel built with CONFIG_KPROBE_EVENTS=y has it, and root may read and write it"
            return Answer(FEATURE, NO, "; ".join(tracefs.reasons), help)
        try:
            tracefs.append(FILE, f"-:{_GROUP}probe/no_such_event\n")
        except SyscallError as err:
            said = f"writing to {FILE} → {errno_name(err.errno)}"
            if err.errno in (EACCES, EPERM):
                return Answer(FEATURE, NO, said, HINTS[err.errno])
            if err.errno != ENOENT:
                return Answer(FEATURE, UNKNOWN, said)
        else:
            return Answer(FEATURE, UNKNOWN, "an event that should not exist could be removed")
        try:
            kernel.close(open_event(kernel, {"type": PerfType.TRACEPOINT, "config": event_id(tracefs, "sched", "sched_switch")}))
        except SyscallError as err:
            if err.errno in (EACCES, EPERM):
                return perf_denied(kernel, FEATURE, err)
            return Answer(
                FEATURE, UNKNOWN, f"{said} for an event that does not exist, but perf_event_open → {errno_name(err.errno)}"
            )
        except NotSupportedError as err:
            return Answer(FEATURE, NO, err.evidence, err.help)
    return Answer(FEATURE, YES, f"{said} for an event that does not exist")
