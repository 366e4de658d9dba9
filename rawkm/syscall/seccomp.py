"""A seccomp filter that stops a traced process at bpf(2) and at nothing else.

The filter answers SECCOMP_RET_TRACE (seccomp(2), Linux 3.5) for bpf(2) in every ABI that the machine has, and
SECCOMP_RET_ALLOW otherwise, which since Linux 5.11 costs one look into a bitmap. It stays for the life of the process
and of all its children. Where no tracer is attached, SECCOMP_RET_TRACE means ENOSYS: whoever installs the filter has to see to
it that there is one to the end.
"""

from __future__ import annotations

import ctypes
import os
import struct
from errno import EFAULT

from rawkm.errors import SyscallError

# include/uapi/linux/audit.h and the system call tables: for each machine the (AUDIT_ARCH, numbers of bpf(2)) that its
# processes may use. x32 has the number of x86-64 with a bit set.
_X32 = 0x40000000
ABIS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "x86_64": ((0xC000003E, (321, 321 | _X32)), (0x40000003, (357,))),
    "aarch64": ((0xC00000B7, (280,)), (0x40000028, (386,))),
    "riscv64": ((0xC00000F3, (280,)),),
    "loongarch64": ((0xC0000102, (280,)),),
    "s390x": ((0x80000016, (351,)),),
    "ppc64le": ((0xC0000015, (361,)),),
}

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_RET_TRACE = 0x7FF00000
_RET_ALLOW = 0x7FFF0000

# struct seccomp_data: the number, then the architecture.
_NR, _ARCH = 0, 4
# struct sock_filter, include/uapi/linux/filter.h.
_INSN = struct.Struct("=HBBI")
_LOAD, _JEQ, _RET = 0x20, 0x15, 0x06


def bpf_numbers(machine: str | None = None) -> dict[int, tuple[int, ...]]:
    """AUDIT_ARCH → the numbers of bpf(2), for every ABI of ``machine`` (default: the running one)."""
    return dict(ABIS[machine or os.uname().machine])


def trace_bpf_filter(machine: str | None = None) -> bytes:
    """The filter: an array of struct sock_filter."""
    wanted = [(arch, number) for arch, numbers in bpf_numbers(machine).items() for number in numbers]
    insns = [(_LOAD, 0, 0, _NR)]
    # One block per number; what is none of them falls through to the end.
    for arch, number in wanted:
        insns += [(_JEQ, 0, 4, number), (_LOAD, 0, 0, _ARCH), (_JEQ, 0, 1, arch), (_RET, 0, 0, _RET_TRACE), (_LOAD, 0, 0, _NR)]
    insns.append((_RET, 0, 0, _RET_ALLOW))
    return b"".join(_INSN.pack(*insn) for insn in insns)


def install(program: bytes, *, no_new_privs: bool = False) -> None:
    """Puts the calling thread, and what it becomes and forks, behind the filter.

    ``no_new_privs``: what the kernel demands of a caller without CAP_SYS_ADMIN; set-user-ID programs and file capabilities
    then have no effect in the process. Raises SyscallError: EACCES without either, EINVAL where the kernel has no filters.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if no_new_privs and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise SyscallError("prctl(PR_SET_NO_NEW_PRIVS)", ctypes.get_errno())
    held = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog {u16 len; struct sock_filter *filter;}
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // _INSN.size, ctypes.addressof(held)))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog, 0, 0):
        raise SyscallError("prctl(PR_SET_SECCOMP)", ctypes.get_errno())


def supported() -> bool:
    """Whether this kernel, and whatever confines this process, takes filters."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Without a filter the answer is EFAULT where one would be taken.
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == EFAULT
