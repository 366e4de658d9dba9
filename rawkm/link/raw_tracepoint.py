"""raw_tracepoint: a program on a tracepoint's raw arguments (Linux 4.17). Needs neither tracefs nor perf events."""

from __future__ import annotations

from errno import EINVAL, ENOENT

from rawkm.errors import SyscallError
from rawkm.handle import Handle
from rawkm.link.refusal import refusal
from rawkm.uapi import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.answer import Answer
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value

_HINTS = {
    ENOENT: "this kernel has no such tracepoint",
    EINVAL: "the program reads more arguments than the tracepoint has",
}


class RawTracepointLink(Handle):
    """A live link. Closing it detaches."""

    __slots__ = ()


def attach(prog: Program, name: str) -> RawTracepointLink:
    """Attaches ``prog`` (RAW_TRACEPOINT) to the tracepoint ``name``. Raises AttachError: ENOENT for an unknown one."""
    values: dict[str, Value] = {"raw_tracepoint.name": name, "raw_tracepoint.prog_fd": prog.fd}
    try:
        fd = prog.kernel.bpf(packed.RAW_TRACEPOINT_OPEN, values).ret
    except SyscallError as err:
        raise refusal(err, _HINTS, "raw-tracepoint") from None
    return RawTracepointLink(prog.kernel, fd)


def probe(kernel: Kernel) -> Answer:
    """Whether programs can be attached to tracepoints' raw arguments: by asking for one that does not exist."""
    from rawkm.answer import UNKNOWN, YES, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.host import caps
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    feature = "raw tracepoints"
    spec = ProgramSpec("rawkm_probe", ProgType.RAW_TRACEPOINT, insns=[Mov.imm(R0, 0), exit_()])
    try:
        with spec.load(kernel) as prog:
            attach(prog, "rawkm_probe_no_such_tracepoint").close()
    except SyscallError as err:
        if err.errno == ENOENT:
            return Answer(feature, YES, "RAW_TRACEPOINT_OPEN → ENOENT for a name that does not exist")
        return refused(kernel, feature, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    return Answer(feature, UNKNOWN, "RAW_TRACEPOINT_OPEN attached to a tracepoint that should not exist")
