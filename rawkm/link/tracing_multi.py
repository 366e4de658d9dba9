"""tracing_multi: fentry, fexit or fsession on many functions by one BPF_LINK_CREATE (Linux 7.2).

Functions are named by their BTF ids. All or nothing, as with kprobe_multi: the errno does not say whose fault it is.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT, ENOMEM

from rawkm.errors import SyscallError, UsageError
from rawkm.handle import Handle
from rawkm.link.refusal import refusal
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.answer import Answer
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value

_HINTS = {
    EINVAL: "an id is no function's, given twice, or of a function that the kernel leaves alone",
    ENOENT: "a function is not traceable",
    E2BIG: "more than 1,048,576 functions",
    ENOMEM: "too many functions for the memory there is",
}
_NAMES = {
    AttachType.TRACE_FENTRY_MULTI: "fentry-multi",
    AttachType.TRACE_FEXIT_MULTI: "fexit-multi",
    AttachType.TRACE_FSESSION_MULTI: "fsession-multi",
}


class TracingMultiLink(Handle):
    """A live link. Closing it detaches."""

    __slots__ = ()

    def missed(self) -> int:
        """Trampolines miss nothing but recursion, which the program's info tells."""
        return 0

    def info(self) -> dict[str, int | bytes]:
        """struct bpf_link_info: ``id`` and ``prog_id``. Linux 7.2 tells no more."""
        return self.kernel.obj_info(self.fd, packed.LINK_INFO)[0]


def attach(prog: Program, ids: Sequence[int], *, cookies: Sequence[int] | None = None) -> TracingMultiLink:
    """Attaches ``prog`` (TRACING, attach type FENTRY_MULTI, FEXIT_MULTI or FSESSION_MULTI) to the functions with the BTF ``ids``.

    ``cookies``: one per function. Raises AttachError: EINVAL for an id that is none, is there twice or is denied, ENOENT for a
    function that is not traceable.
    """
    if not ids:
        raise UsageError("tracing_multi needs at least one function")
    if cookies is not None and len(cookies) != len(ids):
        raise UsageError(f"{len(ids)} functions but {len(cookies)} cookies")
    values: dict[str, Value] = {
        "link_create.prog_fd": prog.fd,
        "link_create.attach_type": prog.spec.attach_type,
        "link_create.tracing_multi.ids": ids,
        "link_create.tracing_multi.cookies": cookies,
        "link_create.tracing_multi.cnt": len(ids),
    }
    try:
        fd = prog.kernel.bpf(packed.LINK_CREATE_TRACING_MULTI, values).ret
    except SyscallError as err:
        raise refusal(err, _HINTS, _NAMES.get(prog.spec.attach_type, "tracing-multi")) from None
    return TracingMultiLink(prog.kernel, fd)


def probe(kernel: Kernel) -> Answer:
    """Whether one link can attach an fentry program to many functions: by attaching one to a function that nobody calls."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.btf.kernel import function_id
    from rawkm.errors import AttachError, BTFError, errno_name
    from rawkm.host import caps
    from rawkm.link.tracing import HARMLESS
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    spec = ProgramSpec(
        "rawkm_probe", ProgType.TRACING, attach_type=AttachType.TRACE_FENTRY_MULTI, insns=[Mov.imm(R0, 0), exit_()]
    )
    try:
        with spec.load(kernel) as prog, attach(prog, [function_id(kernel, HARMLESS)]):
            return Answer("fentry_multi", YES, f"LINK_CREATE attached to {HARMLESS}")
    except AttachError as err:
        return Answer("fentry_multi", UNKNOWN, f"LINK_CREATE (fentry-multi) → {errno_name(err.errno)}: {err.hint}")
    except BTFError as err:
        return Answer("fentry_multi", UNKNOWN, f"there is nothing to try it on: {err}")
    except SyscallError as err:
        if err.errno == EINVAL:
            # An older kernel takes the number for some other tracing program, and misses the function's id.
            return Answer("fentry_multi", NO, "PROG_LOAD (fentry-multi) → EINVAL: this kernel has none", "Linux 7.2 has it")
        return refused(kernel, "fentry_multi", err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
