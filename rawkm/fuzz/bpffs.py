"""A bpffs of our own, mounted nowhere: what is pinned there goes with it, and nobody else sees it (Linux 5.2)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


def mount(kernel: Kernel) -> int:
    """The fd of its root. Raises SyscallError where it cannot be had."""
    context = kernel.fsopen("bpf")
    try:
        kernel.fsconfig_create(context)
        return kernel.fsmount(context)
    finally:
        kernel.close(context)


def path(fd: int, name: str) -> str:
    """Of a file in it."""
    return f"/proc/self/fd/{fd}/{name}"
