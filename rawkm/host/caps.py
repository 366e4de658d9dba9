"""Capabilities of this process, by name.

Numbers from include/uapi/linux/capability.h.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

CAP_DAC_READ_SEARCH = 2
CAP_NET_ADMIN = 12
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYSLOG = 34
CAP_PERFMON = 38
CAP_BPF = 39

NAMES = {
    CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE",
    CAP_SYSLOG: "CAP_SYSLOG",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_BPF: "CAP_BPF",
}


def effective(kernel: Kernel, pid: int | None = None) -> int:
    """The effective set of this process, or of another, as a bit mask (bit n = capability n)."""
    for line in kernel.read_file(f"/proc/{'self' if pid is None else pid}/status").splitlines():
        if line.startswith(b"CapEff:"):
            return int(line.split()[1], 16)
    return 0


def has(mask: int, cap: int) -> bool:
    """Whether ``mask`` grants ``cap``; CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON, as in the kernel."""
    if mask >> cap & 1:
        return True
    return cap in (CAP_BPF, CAP_PERFMON) and bool(mask >> CAP_SYS_ADMIN & 1)


def missing(mask: int, *caps: int) -> list[str]:
    """The names of those of ``caps`` that ``mask`` does not grant."""
    return [NAMES[cap] for cap in caps if not has(mask, cap)]
