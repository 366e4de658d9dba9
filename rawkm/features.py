"""What this kernel and container can do, found by doing it: yes, no or unknown, each with its evidence."""

from __future__ import annotations

from errno import EACCES, EPERM

from rawkm.answer import NO as NO
from rawkm.answer import UNKNOWN as UNKNOWN
from rawkm.answer import YES as YES
from rawkm.answer import Answer as Answer
from rawkm.answer import refused
from rawkm.asm import R0, Mov, exit_
from rawkm.errors import BTFError, NotSupportedError, SyscallError
from rawkm.host import caps, cpus, sysctl
from rawkm.link import kprobe_multi as _kprobe_multi
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import AttachType, MapFlag, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.answer import Probe
    from rawkm.syscall.kernel import Kernel

_EMPTY = ProgramSpec(
    "rawkm_probe",
    ProgType.KPROBE,
    attach_type=AttachType.TRACE_KPROBE_MULTI,
    insns=[Mov.imm(R0, 0), exit_()],
)

_answers: dict[tuple[int, Probe], tuple[Kernel, Answer]] = {}


def ask(kernel: Kernel, probe: Probe) -> Answer:
    """``probe``'s answer, asked for once: a conclusive one is kept, for what is unknown may be known next time."""
    known = _answers.get((id(kernel), probe))
    if known is not None and known[0] is kernel:
        return known[1]
    answer = probe(kernel)
    if answer.state != UNKNOWN:
        _answers[id(kernel), probe] = kernel, answer
    return answer


# -- ways to attach ------------------------------------------------------------------------------------------------------------

kprobe_multi = _kprobe_multi.probe


def kprobe_session(kernel: Kernel) -> Answer:
    """Linux 6.10."""
    from rawkm.link.kprobe_session import probe

    return probe(kernel)


def fentry_multi(kernel: Kernel) -> Answer:
    """Linux 7.2."""
    from rawkm.link.tracing_multi import probe

    return probe(kernel)


def fentry(kernel: Kernel) -> Answer:
    """Linux 5.5."""
    from rawkm.link.tracing import probe

    return probe(kernel)


def fexit(kernel: Kernel) -> Answer:
    """Linux 5.5."""
    from rawkm.link.tracing import probe

    return probe(kernel, AttachType.TRACE_FEXIT)


def fsession(kernel: Kernel) -> Answer:
    """Linux 7.0."""
    from rawkm.link.tracing import probe

    return probe(kernel, AttachType.TRACE_FSESSION)


def kprobe(kernel: Kernel) -> Answer:
    """A kprobe as a perf event: Linux 4.17."""
    from rawkm.link.perf_kprobe import probe

    return probe(kernel)


def tracefs_kprobe(kernel: Kernel) -> Answer:
    """A kprobe in tracefs."""
    from rawkm.link.tracefs_kprobe import probe

    return probe(kernel)


def perf_link(kernel: Kernel) -> Answer:
    """Links to perf events, and with them cookies: Linux 5.15."""
    from rawkm.link.perf_event import probe

    return probe(kernel)


def raw_tracepoint(kernel: Kernel) -> Answer:
    """Linux 4.17."""
    from rawkm.link.raw_tracepoint import probe

    return probe(kernel)


def tracepoint(kernel: Kernel) -> Answer:
    """A tracepoint as a perf event: Linux 4.7."""
    from rawkm.link.tracepoint import probe

    return probe(kernel)


# -- the other things a trace needs --------------------------------------------------------------------------------------------


def bpf_maps(kernel: Kernel) -> Answer:
    """Whether bpf(2) makes maps at all."""
    spec = MapSpec("rawkm_probe", MapType.ARRAY, key=4, value=8, max_entries=1, flags=MapFlag.MMAPABLE)
    try:
        with spec.create(kernel) as m, m.mmap():
            return Answer("bpf maps", YES, "MAP_CREATE and mmap of an array map")
    except SyscallError as err:
        return refused(kernel, "bpf maps", err, "make maps", caps.CAP_BPF)


def loading(kernel: Kernel) -> Answer:
    """Whether a tracing program can be loaded."""
    try:
        _EMPTY.load(kernel).close()
    except SyscallError as err:
        return refused(kernel, "tracing programs", err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    return Answer("tracing programs", YES, "PROG_LOAD of a kprobe program")


def ring_buffer(kernel: Kernel) -> Answer:
    """Linux 5.8."""
    from rawkm.buffers.ringbuf import ring_size

    try:
        MapSpec("rawkm_probe", MapType.RINGBUF, max_entries=ring_size(1)).create(kernel).close()
    except SyscallError as err:
        return refused(kernel, "ring buffer", err, "make a ring buffer", caps.CAP_BPF)
    return Answer("ring buffer", YES, "MAP_CREATE")


def perf_buffer(kernel: Kernel) -> Answer:
    """Whether a per-CPU perf event for BPF output can be opened."""
    from rawkm.buffers.perfbuf import output_event

    try:
        kernel.close(output_event(kernel, cpus.online(kernel)[0], 1 << 12))
    except SyscallError as err:
        if err.errno in (EACCES, EPERM):
            from rawkm.link.perf_kprobe import perf_denied

            return perf_denied(kernel, "perf buffer", err)
        return refused(kernel, "perf buffer", err, "open per-CPU perf events")
    return Answer("perf buffer", YES, "perf_event_open of a BPF output event on one CPU")


def function_list(kernel: Kernel) -> Answer:
    """Whether the kernel's list of traceable functions can be read, and where."""
    from rawkm.host.tracefs import TraceFs

    with TraceFs(kernel) as tracefs:
        for name in ("available_filter_functions_addrs", "available_filter_functions"):
            chunks = tracefs.chunks(name)
            if chunks is not None:
                lines = sum(chunk.count(b"\n") for chunk in chunks)
                return Answer("function list", YES, f"{tracefs.place}/{name}: {lines:,} functions")
        return Answer("function list", NO, "; ".join(tracefs.reasons), "globs use BTF instead, exact names need no list")


def symbol_addresses(kernel: Kernel) -> Answer:
    """Whether /proc/kallsyms shows addresses."""
    from rawkm.host import kallsyms

    try:
        if kallsyms.visible(kernel):
            return Answer("symbol addresses", YES, f"{kallsyms.PATH} shows them")
    except SyscallError as err:
        return Answer("symbol addresses", NO, str(err))
    restrict = sysctl.number(kernel, "kernel/kptr_restrict")
    help = "kernel.kptr_restrict=1 or 0 shows them to CAP_SYSLOG" if restrict == 2 else "CAP_SYSLOG shows them"
    return Answer("symbol addresses", NO, f"{kallsyms.PATH} shows zeros (kernel.kptr_restrict is {restrict})", help)


def kernel_btf(kernel: Kernel) -> Answer:
    """Whether the kernel tells its types."""
    from rawkm.btf.kernel import VMLINUX, vmlinux

    try:
        btf = vmlinux(kernel)
    except (SyscallError, BTFError) as err:
        return Answer("kernel BTF", NO, str(err), "a kernel built with CONFIG_DEBUG_INFO_BTF=y has it")
    return Answer("kernel BTF", YES, f"{VMLINUX}: {btf.last_id:,} types")


def process_trees(kernel: Kernel) -> Answer:
    """Whether forks can be followed in the kernel."""
    from rawkm.scope import Tree

    try:
        Tree(kernel).close()
    except SyscallError as err:
        return refused(kernel, "process trees", err, "follow forks", caps.CAP_BPF, caps.CAP_PERFMON)
    except NotSupportedError as err:
        return Answer("process trees", NO, err.evidence, err.help)
    return Answer("process trees", YES, "raw tracepoints sched_process_fork and sched_process_free")


ALL = (
    bpf_maps,
    loading,
    kprobe_multi,
    kprobe_session,
    fentry_multi,
    fentry,
    fexit,
    fsession,
    kprobe,
    tracefs_kprobe,
    perf_link,
    raw_tracepoint,
    tracepoint,
    ring_buffer,
    perf_buffer,
    function_list,
    symbol_addresses,
    kernel_btf,
    process_trees,
)
