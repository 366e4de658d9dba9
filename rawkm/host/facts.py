"""This kernel and this process, as the errno model wants them described."""

from __future__ import annotations

import os

from rawkm.errors import SyscallError
from rawkm.host import caps, cpus, kconfig, memlock, sysctl
from rawkm.rules.model import Facts, size_of_attr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

_BTF = "/sys/kernel/btf/vmlinux"
# The user half of the address space, less a guard page: arch/x86/include/asm/page_64_types.h, arch/arm64/include/asm/processor.h.
_USER_END = {"x86_64": (1 << 47) - 4096}


def describe(kernel: Kernel, *, btf: bool = False) -> Facts:
    """The running kernel and this process. ``btf``: the size of union bpf_attr by the kernel's BTF (0.3 s), not by release."""
    version = release()
    config = kconfig.load(kernel)
    known = {name: value for name in ("FPROBE", "NUMA", "CGROUP_BPF", "NET") if (value := config.get(name)) is not None}
    return Facts(
        version,
        caps=caps.effective(kernel),
        attr_size=_attr_size(kernel) if btf else size_of_attr(version),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        config=known,
        cpus=len(cpus.possible(kernel)),
        nodes=_nodes(kernel),
        unprivileged_bpf_disabled=sysctl.number(kernel, "kernel/unprivileged_bpf_disabled") or 0,
        memlock=memlock.limited(kernel) if version < (5, 11) else None,
        user_end=_USER_END.get(os.uname().machine, 1 << 48),
    )


def release() -> tuple[int, int]:
    """The running kernel's (major, minor)."""
    major, minor = os.uname().release.split("-")[0].split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _attr_size(kernel: Kernel) -> int:
    from rawkm.btf import Btf

    btf = Btf(kernel.read_file(_BTF))
    return max(offset + size for offset, size in btf.flatten("bpf_attr").values()) + 7 & ~7


def _nodes(kernel: Kernel) -> int:
    try:
        online = kernel.read_file("/sys/devices/system/node/online").decode()
    except SyscallError:
        return 1
    return int(online.strip().replace(",", "-").split("-")[-1]) + 1
