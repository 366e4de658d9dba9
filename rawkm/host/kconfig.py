"""The configuration that the running kernel was built with, where it can be read."""

from __future__ import annotations

import re

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


class KernelConfig:
    """``source``: the file it came from, None when there is none."""

    __slots__ = ("_text", "source")

    def __init__(self, text: str = "", source: str | None = None) -> None:
        self._text = text
        self.source = source

    def get(self, option: str) -> str | None:
        """The value of CONFIG_``option`` ("y", "m", a string); "n" when it is not set; None when the config is unknown."""
        if self.source is None:
            return None
        match = re.search(rf"^CONFIG_{re.escape(option)}=(.*)$", self._text, re.MULTILINE)
        return "n" if match is None else match.group(1)


def load(kernel: Kernel) -> KernelConfig:
    """Reads /proc/config.gz, else the distribution's copy beside the kernel or its modules."""
    release, _ = kernel.uname()
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            data = kernel.read_file(path)
        except SyscallError:
            continue
        if path.endswith(".gz"):
            import zlib

            try:
                data = zlib.decompress(data, wbits=31)
            except zlib.error:
                continue
        return KernelConfig(data.decode("utf-8", "replace"), path)
    return KernelConfig()
