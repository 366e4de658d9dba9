"""Kernel memory in use, from /proc/meminfo."""

from __future__ import annotations

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

# What attaching allocates: objects, tables and code (proc_meminfo(5)). Reclaimable slabs (dentries, inodes) are caches.
_FIELDS = (b"SUnreclaim", b"VmallocUsed", b"Percpu", b"KernelStack", b"PageTables")


def used(kernel: Kernel) -> int:
    """Bytes. Pages that the allocator keeps for each CPU count as they are folded in: to some hundred KiB a CPU."""
    try:
        # Folds in what each CPU has counted for itself (Documentation/admin-guide/sysctl/vm.rst, stat_refresh).
        kernel.read_file("/proc/sys/vm/stat_refresh")
    except SyscallError:
        pass
    total = 0
    for line in kernel.read_file("/proc/meminfo").splitlines():
        name, _, rest = line.partition(b":")
        if name in _FIELDS:
            total += int(rest.split()[0]) << 10
    return total
