"""Why the kernel said EPERM or EACCES: the missing capability by name, or what else forbids it."""

from __future__ import annotations

from rawkm.errors import CANNOT_TRACE, NotSupportedError, SyscallError
from rawkm.host import caps, confinement, memlock, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


def explain(kernel: Kernel, purpose: str, *needed: int) -> tuple[str, str]:
    """(cause, what would help) of an EPERM from a call that takes the capabilities ``needed`` to do ``purpose``."""
    missing = caps.missing(caps.effective(kernel), *needed)
    if missing:
        names = " and ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        return f"{names} {verb} missing, needed to {purpose}", f"run as root, or give {names}"
    if confinement.user_namespace(kernel):
        return (
            "this is a user namespace, whose capabilities the kernel does not accept for tracing",
            "run in the initial user namespace",
        )
    if confinement.seccomp(kernel) == "filter":
        return "a seccomp filter forbids bpf(2)", "run the container with a seccomp profile that allows bpf and perf_event_open"
    level = sysctl.lockdown(kernel)
    if level not in (None, "none"):
        return f"the kernel is locked down ({level})", "lockdown can only be lifted at boot"
    limit = memlock.limited(kernel)
    if limit is not None:
        return (
            f"RLIMIT_MEMLOCK is {limit} bytes, and kernels before 5.11 charge maps and programs to it",
            "raise it (ulimit -l unlimited) or give CAP_SYS_RESOURCE",
        )
    return "the kernel does not say why, and no capability is missing (a security module may forbid it)", ""


def error(kernel: Kernel, err: SyscallError, purpose: str, *needed: int) -> NotSupportedError:
    """What to raise for ``err``, an EPERM."""
    why, help = explain(kernel, purpose, *needed)
    return NotSupportedError(CANNOT_TRACE, f"{err}: {why}", help=help)
