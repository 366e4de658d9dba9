"""System call numbers, per architecture.

Source: arch/*/entry/syscalls/syscall*.tbl and include/uapi/asm-generic/unistd.h of Linux. Calls added since 5.1 have one number
everywhere. Only 64-bit processes are served: kprobe_multi refuses compat callers' pointers, and so do we.
"""

from __future__ import annotations

import os
import sys

from rawkm.errors import NotSupportedError

# machine: (bpf, perf_event_open)
_PER_MACHINE = {
    "x86_64": (321, 298),
    "aarch64": (280, 241),
    "riscv64": (280, 241),
    "loongarch64": (280, 241),
    "s390x": (351, 331),
    "ppc64le": (361, 319),
}

FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432


def numbers(machine: str | None = None) -> tuple[int, int]:
    """(bpf, perf_event_open) for ``machine`` (default: the running one). Raises NotSupportedError for any other."""
    machine = os.uname().machine if machine is None else machine
    if machine not in _PER_MACHINE:
        raise NotSupportedError(
            f"rawkm on {machine}",
            f"its system call numbers are not known to rawkm (known: {', '.join(sorted(_PER_MACHINE))})",
        )
    if sys.maxsize < 1 << 32:
        raise NotSupportedError(f"a 32-bit Python on {machine}", "bpf(2) takes 64-bit pointers", help="use a 64-bit Python")
    return _PER_MACHINE[machine]
