"""What this kernel and container can do, found by doing it: yes, no or unknown, each with its evidence."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM, ESRCH

from rawkm.asm import R0, Mov, exit_
from rawkm.errors import AttachError, BTFError, NotSupportedError, SyscallError, errno_name
from rawkm.host import caps, denied
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import AttachType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

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


def load_kprobe(kernel: Kernel) -> Answer | Program:
    """An empty kprobe_multi program, or why none can be loaded."""
    try:
        return _EMPTY.load(kernel)
    except SyscallError as err:
        evidence = f"{err.call} → {errno_name(err.errno)}"
        if err.errno == EPERM:
            why, help = denied.explain(kernel, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
            return Answer("loading programs", NO, f"{evidence}: {why}", help)
        return Answer("loading programs", UNKNOWN, f"{evidence} {err}")


def kprobe_multi(kernel: Kernel) -> Answer:
    """Whether one link can attach many functions: by asking for a function that does not exist.

    The kernel says ESRCH when it looked for the name (5.19 and later). Nothing is attached.
    """
    from rawkm.link import kprobe_multi as link

    prog = load_kprobe(kernel)
    if isinstance(prog, Answer):
        return prog
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
        btf = Btf(kernel.read_file("/sys/kernel/btf/vmlinux"))
        btf.member_offset("bpf_attr", "link_create.kprobe_multi.cnt")
    except SyscallError:
        return None
    except BTFError:
        return False
    return True
