"""raw_tracepoint: a program on a tracepoint's raw arguments (Linux 4.17). Needs neither tracefs nor perf events."""

from __future__ import annotations

from errno import EINVAL, ENOENT

from rawkm.errors import AttachError, SyscallError
from rawkm.handle import Handle
from rawkm.uapi import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Value

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
        hint = _HINTS.get(err.errno, "")
        raise AttachError(err.call, err.errno, attr=err.attr, hint=hint, backend="raw-tracepoint") from None
    return RawTracepointLink(prog.kernel, fd)
