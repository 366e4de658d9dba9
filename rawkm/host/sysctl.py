"""The few settings that decide what a tracer may do."""

from __future__ import annotations

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


def number(kernel: Kernel, name: str) -> int | None:
    """The integer in /proc/sys/``name`` ("kernel/kptr_restrict"), None where there is none to read."""
    text = _text(kernel, f"/proc/sys/{name}")
    try:
        return int(text or "")
    except ValueError:
        return None


def lockdown(kernel: Kernel) -> str | None:
    """The kernel's lockdown level: "none", "integrity" or "confidentiality"; None when it has no lockdown or hides it.

    Where securityfs is not mounted, as in containers, it is read through a mount that nobody else sees (CAP_SYS_ADMIN).
    """
    text = _text(kernel, "/sys/kernel/security/lockdown") or _detached(kernel, "securityfs", "lockdown")
    if text is None or "[" not in text:
        return None
    return text[text.index("[") + 1 : text.index("]")]


def _text(kernel: Kernel, path: str) -> str | None:
    try:
        return kernel.read_file(path).decode("ascii", "replace").strip()
    except SyscallError:
        return None


def _detached(kernel: Kernel, filesystem: str, name: str) -> str | None:
    try:
        context = kernel.fsopen(filesystem)
        try:
            kernel.fsconfig_create(context)
            mount = kernel.fsmount(context)
        finally:
            kernel.close(context)
        try:
            return kernel.read_file(name, dir_fd=mount).decode("ascii", "replace").strip()
        finally:
            kernel.close(mount)
    except SyscallError:
        return None
