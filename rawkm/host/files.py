"""RLIMIT_NOFILE: where each function takes an fd of its own, the usual 1,024 are soon used up."""

from __future__ import annotations

from rawkm.errors import NotSupportedError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

_RLIMIT_NOFILE = 7  # include/uapi/asm-generic/resource.h
_INFINITY = -1
# For what is open already, and for what else a trace opens.
_SPARE = 128


def make_room(kernel: Kernel, wanted: int) -> None:
    """Raises the limit so that ``wanted`` more fds can be open at a time. Raises NotSupportedError where that is not allowed."""
    soft, hard = kernel.rlimit(_RLIMIT_NOFILE)
    need = wanted + _SPARE
    if soft == _INFINITY or soft >= need:
        return
    for limits in ((need, hard), (need, need)):
        if hard != _INFINITY and limits[1] < need:
            continue
        try:
            kernel.rlimit(_RLIMIT_NOFILE, limits)
        except SyscallError:
            continue
        return
    raise NotSupportedError(
        "attaching one by one",
        f"it takes {need:,} open files, and no more than {hard:,} are allowed",
        help="raise the limit (ulimit -Hn, or docker's --ulimit nofile), give CAP_SYS_RESOURCE, or choose fewer functions",
    )
