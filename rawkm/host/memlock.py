"""RLIMIT_MEMLOCK: before Linux 5.11, maps and programs are charged to it, and EPERM says that it is used up, even to root."""

from __future__ import annotations

from errno import EPERM

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from rawkm.syscall.kernel import Kernel

    T = TypeVar("T")

_RLIMIT_MEMLOCK = 8  # include/uapi/asm-generic/resource.h
_INFINITY = -1


def with_room(kernel: Kernel, make: Callable[[], T]) -> T:
    """``make()``; when it ends in EPERM and the limit can be raised, once more with the limit raised.

    Newer kernels do not look at the limit, so it is touched only when the kernel has refused.
    """
    try:
        return make()
    except SyscallError as err:
        if err.errno != EPERM or not _raise_limit(kernel):
            raise
        return make()


def limited(kernel: Kernel) -> int | None:
    """The soft limit in bytes, None when there is none."""
    soft, _ = kernel.rlimit(_RLIMIT_MEMLOCK)
    return None if soft == _INFINITY else soft


def _raise_limit(kernel: Kernel) -> bool:
    soft, hard = kernel.rlimit(_RLIMIT_MEMLOCK)
    if soft == _INFINITY:
        return False
    for wanted in ((_INFINITY, _INFINITY), (hard, hard)):
        if wanted == (soft, hard):
            continue
        try:
            kernel.rlimit(_RLIMIT_MEMLOCK, wanted)
        except SyscallError:
            continue
        return True
    return False
