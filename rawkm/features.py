"""What this kernel and container can do, found by doing it: yes, no or unknown, each with its evidence."""

from __future__ import annotations

from errno import EACCES, EINVAL, EOPNOTSUPP, EPERM, ESRCH

from rawkm.asm import R0, Mov, exit_
from rawkm.errors import AttachError, BTFError, NotSupportedError, SyscallError, errno_name
from rawkm.host import caps, cpus, denied, sysctl
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import AttachType, MapFlag, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

VMLINUX_BTF = "/sys/kernel/btf/vmlinux"

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


# A name that no kernel has: resolving it fails before anything is attached.
_NO_SUCH_FUNCTION = "rawkm_probe_no_such_function"

_EMPTY = ProgramSpec(
    "rawkm_probe",
    ProgType.KPROBE,
    attach_type=AttachType.TRACE_KPROBE_MULTI,
    insns=[Mov.imm(R0, 0), exit_()],
)


def kprobe_multi(kernel: Kernel) -> Answer:
    """Whether one link can attach many functions: by asking for a function that does not exist.

    The kernel says ESRCH when it looked for the name (5.19 and later). Nothing is attached.
    """
    from rawkm.link import kprobe_multi as link

    try:
        prog = _EMPTY.load(kernel)
    except SyscallError as err:
        return _refused(kernel, "kprobe_multi", err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    with prog:
        try:
            link.attach(prog, syms=[_NO_SUCH_FUNCTION]).close()
        except AttachError as err:
            return _judge(kernel, err)
    return Answer("kprobe_multi", UNKNOWN, f"LINK_CREATE attached to {_NO_SUCH_FUNCTION}, which should not exist")


def _judge(kernel: Kernel, err: AttachError) -> Answer:
    evidence = f"LINK_CREATE (kprobe_multi) → {errno_name(err.errno)}"
    if err.errno == ESRCH:
        return Answer("kprobe_multi", YES, f"{evidence} for a name that does not exist")
    if err.errno == EOPNOTSUPP:
        from rawkm.host import kconfig

        config = kconfig.load(kernel)
        said = config.get("FPROBE")
        seen = f", and {config.source} says so" if said == "n" else ""
        return Answer(
            "kprobe_multi",
            NO,
            f"{evidence}: CONFIG_FPROBE is off in this kernel{seen}",
            "a kernel built with CONFIG_FPROBE=y is needed",
        )
    if err.errno == EINVAL:
        fields = _attr_has_kprobe_multi(kernel)
        if fields is False:
            return Answer(
                "kprobe_multi",
                NO,
                f"{evidence}: this kernel's union bpf_attr (its BTF) has no link_create.kprobe_multi",
                "Linux 5.18 or newer with CONFIG_FPROBE=y is needed",
            )
        return Answer("kprobe_multi", UNKNOWN if fields else NO, f"{evidence}: too old for kprobe_multi, or a 5.18 kernel")
    return Answer("kprobe_multi", UNKNOWN, evidence)


def _attr_has_kprobe_multi(kernel: Kernel) -> bool | None:
    """Whether the kernel's own bpf_attr knows the fields; None when its BTF cannot be read."""
    from rawkm.btf import Btf

    try:
        btf = Btf(kernel.read_file(VMLINUX_BTF))
        btf.member_offset("bpf_attr", "link_create.kprobe_multi.cnt")
    except SyscallError:
        return None
    except BTFError:
        return False
    return True


# -- the other things a trace needs --------------------------------------------------------------------------------------------


def _refused(kernel: Kernel, feature: str, err: SyscallError, purpose: str, *needed: int) -> Answer:
    """What a refused call means: a missing permission is a no, anything else is not known."""
    evidence = f"{err.call} → {errno_name(err.errno)}"
    if err.errno in (EPERM, EACCES):
        why, help = denied.explain(kernel, purpose, *needed)
        return Answer(feature, NO, f"{evidence}: {why}", help)
    return Answer(feature, UNKNOWN, f"{evidence}{': ' if err.hint else ''}{err.hint}")


def bpf_maps(kernel: Kernel) -> Answer:
    """Whether bpf(2) makes maps at all."""
    spec = MapSpec("rawkm_probe", MapType.ARRAY, key=4, value=8, max_entries=1, flags=MapFlag.MMAPABLE)
    try:
        with spec.create(kernel) as m, m.mmap():
            return Answer("bpf maps", YES, "MAP_CREATE and mmap of an array map")
    except SyscallError as err:
        return _refused(kernel, "bpf maps", err, "make maps", caps.CAP_BPF)


def loading(kernel: Kernel) -> Answer:
    """Whether a tracing program can be loaded."""
    try:
        _EMPTY.load(kernel).close()
    except SyscallError as err:
        return _refused(kernel, "tracing programs", err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    return Answer("tracing programs", YES, "PROG_LOAD of a kprobe program")


def ring_buffer(kernel: Kernel) -> Answer:
    """Linux 5.8."""
    from rawkm.buffers.ringbuf import ring_size

    try:
        MapSpec("rawkm_probe", MapType.RINGBUF, max_entries=ring_size(1)).create(kernel).close()
    except SyscallError as err:
        return _refused(kernel, "ring buffer", err, "make a ring buffer", caps.CAP_BPF)
    return Answer("ring buffer", YES, "MAP_CREATE")


def perf_buffer(kernel: Kernel) -> Answer:
    """Whether a per-CPU perf event for BPF output can be opened."""
    from rawkm.buffers.perfbuf import output_event

    try:
        kernel.close(output_event(kernel, cpus.online(kernel)[0], 1 << 12))
    except SyscallError as err:
        level = sysctl.number(kernel, "kernel/perf_event_paranoid")
        strict = level is not None and level > 2
        need = caps.CAP_SYS_ADMIN if strict else caps.CAP_PERFMON
        answer = _refused(kernel, "perf buffer", err, "open per-CPU perf events", need)
        if strict:
            answer.evidence += f" (kernel.perf_event_paranoid is {level})"
        return answer
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
    from rawkm.btf import Btf

    try:
        btf = Btf(kernel.read_file(VMLINUX_BTF))
    except (SyscallError, BTFError) as err:
        return Answer("kernel BTF", NO, str(err), "a kernel built with CONFIG_DEBUG_INFO_BTF=y has it")
    return Answer("kernel BTF", YES, f"{VMLINUX_BTF}: {btf.last_id:,} types")


def process_trees(kernel: Kernel) -> Answer:
    """Whether forks can be followed in the kernel."""
    from rawkm.scope import Tree

    try:
        Tree(kernel).close()
    except SyscallError as err:
        return _refused(kernel, "process trees", err, "follow forks", caps.CAP_BPF, caps.CAP_PERFMON)
    except NotSupportedError as err:
        return Answer("process trees", NO, err.evidence, err.help)
    return Answer("process trees", YES, "raw tracepoints sched_process_fork and sched_process_free")


ALL = (
    bpf_maps,
    loading,
    kprobe_multi,
    ring_buffer,
    perf_buffer,
    function_list,
    symbol_addresses,
    kernel_btf,
    process_trees,
)
