"""kprobe and kretprobe as perf events: one function each, by name or address (Linux 4.17, CONFIG_KPROBE_EVENTS).

The event needs CAP_PERFMON; where kernel.perf_event_paranoid is 3 (Debian), CAP_SYS_ADMIN.
"""

from __future__ import annotations

from errno import E2BIG, EACCES, EADDRNOTAVAIL, EEXIST, EILSEQ, EINVAL, EMFILE, ENODEV, ENOENT, EPERM

from rawkm.errors import NotSupportedError, SyscallError, UsageError
from rawkm.link import perf_event
from rawkm.link.refusal import refusal
from rawkm.uapi.constants import PerfFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.answer import Answer
    from rawkm.link.perf_event import PerfEventLink
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value

FEATURE = "kprobe"
PMU = "/sys/bus/event_source/devices/kprobe"

HINTS = {
    ENOENT: "the kernel has no function of this name",
    EADDRNOTAVAIL: "several functions have this name: give the address",
    EINVAL: "the kernel does not allow a kprobe there (blacklisted, notrace, or no code)",
    EILSEQ: "no instruction begins there",
    E2BIG: "the name is too long, or too many programs are on this function",
    EEXIST: "the event has a program already",
    EACCES: "perf events are not allowed (CAP_PERFMON, or CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3)",
    EPERM: "perf events are not allowed (CAP_PERFMON, or CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3)",
    EMFILE: "too many open files",
}


class Pmu:
    """The kernel's kprobe PMU: its ``type``, and the bit of ``config`` that makes a kretprobe."""

    __slots__ = ("retprobe", "type")

    def __init__(self, type: int, retprobe: int) -> None:
        self.type = type
        self.retprobe = retprobe


def read_pmu(kernel: Kernel) -> Pmu:
    """Raises NotSupportedError where the kernel has none."""
    try:
        number = int(kernel.read_file(f"{PMU}/type"))
        # "config:0"
        field, _, bit = kernel.read_file(f"{PMU}/format/retprobe").decode().strip().partition(":")
    except SyscallError as err:
        if err.errno != ENOENT:
            raise
        help = "a kernel built with CONFIG_KPROBE_EVENTS=y has it; sysfs must be mounted"
        raise NotSupportedError(f"{FEATURE} does not work here", f"there is no {PMU}", help=help) from None
    except ValueError:
        field = bit = ""
    if field != "config" or not bit.isdecimal():
        raise NotSupportedError(f"{FEATURE} does not work here", f"{PMU} is not as known")
    return Pmu(number, 1 << int(bit))


def attach(
    prog: Program,
    *,
    name: str | None = None,
    address: int | None = None,
    offset: int = 0,
    retprobe: bool = False,
    cookie: int = 0,
    pmu: Pmu | None = None,
) -> PerfEventLink:
    """Attaches ``prog`` (KPROBE, no attach type) to the function ``name`` (``offset`` bytes into it) or at ``address``.

    ``cookie`` needs Linux 5.15. ``pmu``: what ``read_pmu`` gave, to save reading it each time. Raises AttachError: ENOENT for an
    unknown name, EADDRNOTAVAIL for an ambiguous one (5.10: the first is taken), EINVAL for what is blacklisted, EACCES without
    the right to open perf events.
    """
    if (name is None) == (address is None):
        raise UsageError("a kprobe takes either a name or an address")
    kernel = prog.kernel
    pmu = pmu or read_pmu(kernel)
    values: dict[str, Value] = {
        "type": pmu.type,
        "config": pmu.retprobe if retprobe else 0,
        "kprobe_func": name,
        "probe_offset": offset if address is None else address + offset,
    }
    try:
        event = open_event(kernel, values)
    except SyscallError as err:
        raise refusal(err, HINTS, "kretprobe" if retprobe else FEATURE) from None
    return perf_event.attach(prog, event, cookie=cookie, hints=HINTS, backend=FEATURE)


def open_event(kernel: Kernel, values: dict[str, Value]) -> int:
    """For every task. One CPU has to be named, but the programs of a probe are the probe's, and run on all."""
    try:
        return kernel.perf_event_open(values, pid=-1, cpu=0, flags=PerfFlag.FD_CLOEXEC)
    except SyscallError as err:
        if err.errno != ENODEV:  # CPU 0 is offline
            raise
        from rawkm.host import cpus

        return kernel.perf_event_open(values, pid=-1, cpu=cpus.online(kernel)[0], flags=PerfFlag.FD_CLOEXEC)


def probe(kernel: Kernel) -> Answer:
    """By opening an event for a function that does not exist."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer
    from rawkm.errors import errno_name
    from rawkm.link.kprobe_multi import NO_SUCH_FUNCTION

    try:
        found = read_pmu(kernel)
        kernel.close(open_event(kernel, {"type": found.type, "kprobe_func": NO_SUCH_FUNCTION}))
    except NotSupportedError as err:
        return Answer(FEATURE, NO, err.evidence, err.help)
    except SyscallError as err:
        if err.errno == ENOENT:
            return Answer(FEATURE, YES, "perf_event_open (kprobe) → ENOENT for a name that does not exist")
        if err.errno in (EACCES, EPERM):
            return perf_denied(kernel, FEATURE, err)
        return Answer(FEATURE, UNKNOWN, f"perf_event_open (kprobe) → {errno_name(err.errno)}")
    return Answer(FEATURE, UNKNOWN, f"perf_event_open (kprobe) took {NO_SUCH_FUNCTION}, which should not exist")


def perf_denied(kernel: Kernel, feature: str, err: SyscallError) -> Answer:
    """What EPERM and EACCES of perf_event_open mean, which asks for more where kernel.perf_event_paranoid says so."""
    from rawkm.answer import refused
    from rawkm.host import caps, sysctl

    level = sysctl.number(kernel, "kernel/perf_event_paranoid")
    strict = level is not None and level > 2
    answer = refused(kernel, feature, err, "open perf events", caps.CAP_SYS_ADMIN if strict else caps.CAP_PERFMON)
    if strict:
        answer.evidence += f" (kernel.perf_event_paranoid is {level})"
    return answer
