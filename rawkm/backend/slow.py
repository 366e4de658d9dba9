"""Kernels on which many functions in one link make every hit slow."""

from __future__ import annotations

from rawkm.btf.kernel import vmlinux
from rawkm.errors import BTFError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


def short_table(kernel: Kernel) -> bool:
    """Whether this kernel looks a hit's functions up in lists (Linux 6.14 to 6.17) instead of a table that grows (6.18).

    There are 256 of them (kernel/trace/fprobe.c, FPROBE_IP_TABLE_SIZE), enough for some thousand functions. How the kernel's
    struct fprobe_hlist_node is chained tells. False where that cannot be read.
    """
    try:
        btf = vmlinux(kernel)
        return btf.resolve(btf.member("fprobe_hlist_node", "hlist").type).name == "hlist_node"
    except (BTFError, SyscallError):
        return False
