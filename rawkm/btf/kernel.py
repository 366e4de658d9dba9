"""The running kernel's own BTF: one file, parsed once."""

from __future__ import annotations

from rawkm.btf.btf import Btf
from rawkm.btf.kinds import FUNC
from rawkm.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Reader(Protocol):
        """What a Kernel does that is needed here."""

        def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes: ...


VMLINUX = "/sys/kernel/btf/vmlinux"

_parsed: dict[int, tuple[object, Btf]] = {}


def vmlinux(kernel: Reader) -> Btf:
    """Parsed at the first call for ``kernel``. Raises SyscallError where there is none, BTFError for a damaged one."""
    known = _parsed.get(id(kernel))
    if known is None or known[0] is not kernel:
        known = _parsed[id(kernel)] = kernel, Btf(kernel.read_file(VMLINUX))
    return known[1]


def function_id(kernel: Reader, name: str) -> int:
    """The BTF id of the function ``name``. Raises BTFError when there is none or several."""
    found = vmlinux(kernel).find_all(name, FUNC)
    if len(found) != 1:
        raise BTFError(f"the kernel's BTF has {len(found) or 'no'} function{'s' if found else ''} {name}")
    return found[0]


def knows_name(kernel: Reader, name: str) -> bool:
    """Whether anything in the kernel's BTF may be called ``name``: a search through its bytes, for parsing it takes long."""
    return name.encode() + b"\0" in kernel.read_file(VMLINUX)
