"""fentry, fexit, fsession: one program on one function, through a trampoline that the kernel writes for it (Linux 5.5).

The function is chosen at load (``ProgramSpec.attach_btf_id``). What the program reads are the function's arguments, at fexit also
what it returned.
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EINVAL, EPERM

from rawkm.errors import SyscallError
from rawkm.handle import Handle
from rawkm.link.refusal import refusal
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.answer import Answer
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value

_ENOTSUPP = 524
_HINTS = {
    EBUSY: "the function cannot be traced (notrace), or the program is attached already",
    E2BIG: "too many programs are on this function",
    EINVAL: "the kernel does not let a program of this kind on this function",
    _ENOTSUPP: "the kernel cannot make a trampoline for this function (its arguments, or this architecture)",
}

# Does nothing; the kernel calls it when somebody test-runs a program (net/bpf/test_run.c), and nobody else does.
HARMLESS = "bpf_fentry_test1"


class TracingLink(Handle):
    """A live link. Closing it detaches."""

    __slots__ = ()

    def missed(self) -> int:
        """Trampolines miss nothing but recursion, which the program's info tells."""
        return 0

    def info(self) -> dict[str, int | bytes]:
        """struct bpf_link_info: ``tracing.attach_type`` and, from Linux 5.13 on, what it is attached to."""
        return self.kernel.obj_info(self.fd, packed.LINK_INFO_TRACING)[0]


def attach(prog: Program, *, cookie: int = 0) -> TracingLink:
    """Attaches ``prog`` (TRACING) to the function that it was loaded for.

    By LINK_CREATE (5.19), else, without a cookie, by RAW_TRACEPOINT_OPEN, which older kernels have for this. Raises AttachError:
    EBUSY for a function that is notrace, 524 for one without a trampoline, E2BIG for one with too many programs, EINVAL for a
    cookie on an old kernel.
    """
    values: dict[str, Value] = {
        "link_create.prog_fd": prog.fd,
        "link_create.attach_type": prog.spec.attach_type,
        "link_create.tracing.cookie": cookie,
    }
    kernel = prog.kernel
    try:
        return TracingLink(kernel, kernel.bpf(packed.LINK_CREATE_TRACING, values).ret)
    except SyscallError as err:
        if err.errno != EINVAL or cookie:
            raise refusal(err, _HINTS, _NAMES.get(prog.spec.attach_type, "tracing")) from None
    try:
        return TracingLink(kernel, kernel.bpf(packed.RAW_TRACEPOINT_OPEN, {"raw_tracepoint.prog_fd": prog.fd}).ret)
    except SyscallError as err:
        raise refusal(err, _HINTS, _NAMES.get(prog.spec.attach_type, "tracing")) from None


_NAMES = {AttachType.TRACE_FENTRY: "fentry", AttachType.TRACE_FEXIT: "fexit", AttachType.TRACE_FSESSION: "fsession"}


def probe(kernel: Kernel, attach_type: int = AttachType.TRACE_FENTRY) -> Answer:
    """Whether such a program can be attached, by attaching one to a function that nobody calls."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.btf.kernel import function_id, knows_name
    from rawkm.errors import AttachError, BTFError, errno_name
    from rawkm.host import caps
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    name = _NAMES[attach_type]
    try:
        id = function_id(kernel, HARMLESS)
    except SyscallError as err:
        return Answer(name, NO, f"it names functions by their BTF id, and {err}", "a kernel with CONFIG_DEBUG_INFO_BTF=y has it")
    except BTFError as err:
        return Answer(name, UNKNOWN, f"there is nothing to try it on: {err}")
    spec = ProgramSpec(
        "rawkm_probe", ProgType.TRACING, attach_type=attach_type, attach_btf_id=id, insns=[Mov.imm(R0, 0), exit_()]
    )
    try:
        with spec.load(kernel) as prog, attach(prog):
            return Answer(name, YES, f"attached to {HARMLESS}")
    except AttachError as err:
        said = f"attaching to {HARMLESS} → {errno_name(err.errno)}"
        return Answer(name, NO if err.errno == _ENOTSUPP else UNKNOWN, f"{said}: {err.hint}" if err.hint else said)
    except SyscallError as err:
        said = f"PROG_LOAD ({name}) → {errno_name(err.errno)}"
        if err.errno == EINVAL:
            if knows_name(kernel, f"BPF_TRACE_{name.upper()}"):
                return Answer(name, UNKNOWN, said)
            return Answer(name, NO, f"{said}: this kernel has none")
        if err.errno == EPERM and _loads_kprobes(kernel):
            return Answer(name, NO, f"{said}, though kprobe programs load: a security module forbids tracing programs")
        return refused(kernel, name, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)


def _loads_kprobes(kernel: Kernel) -> bool:
    from rawkm.asm import R0, Mov, exit_
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    try:
        ProgramSpec("rawkm_probe", ProgType.KPROBE, insns=[Mov.imm(R0, 0), exit_()]).load(kernel).close()
    except SyscallError:
        return False
    return True
