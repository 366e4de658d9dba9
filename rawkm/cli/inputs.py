"""Files that the user names: read whole, each obstacle told in one sentence. "-" is standard input."""

from __future__ import annotations

import os

from rawkm.errors import AssembleError, BTFError, RawkmError, SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Source
    from rawkm.syscall.kernel import Kernel

VMLINUX = "/sys/kernel/btf/vmlinux"


def shown(path: str) -> str:
    """How a file is called in messages."""
    return "<stdin>" if path == "-" else path


def read(kernel: Kernel, path: str) -> bytes:
    """The whole file. Raises RawkmError when it cannot be read."""
    if path == "-":
        return kernel.read_stdin()
    try:
        return kernel.read_file(path)
    except SyscallError as err:
        raise RawkmError(f"{path} cannot be read: {os.strerror(err.errno)}") from None


def write(kernel: Kernel, path: str, data: bytes) -> None:
    """Writes the whole file. Raises RawkmError when it cannot."""
    try:
        kernel.overwrite(path, data)
    except SyscallError as err:
        raise RawkmError(f"{path} cannot be written: {os.strerror(err.errno)}") from None


def source(kernel: Kernel, path: str) -> Source:
    """A ``.s`` file, parsed; kernel functions are looked up in this kernel's BTF. Raises AssembleError with the line."""
    from rawkm.asm import parse_file

    raw = read(kernel, path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise AssembleError("this is no text in UTF-8", src_loc=(shown(path), line)) from None
    return parse_file(text, file=shown(path), kfuncs=KernelFunctions(kernel))


class KernelFunctions:
    """The BTF id of a kernel function by its name; the BTF is read when the first one is asked for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._known: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        from rawkm.btf import FUNC, Btf

        try:
            if not self._known:
                btf = Btf(self._kernel.read_file(VMLINUX))
                self._find = btf.find
            return self._find(name, FUNC)
        except (SyscallError, BTFError) as err:
            raise AssembleError(f"{name!r} is neither a label nor a helper, nor a kernel function ({err})") from None


def from_hex(text: str) -> bytes | None:
    """The bytes of hexadecimal digits (spaces, commas, quotes, 0x and \\x are skipped), None of another text."""
    for separator in ("0x", "\\x", ",", '"'):
        text = text.replace(separator, " ")
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
