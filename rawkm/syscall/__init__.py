"""The seam to the operating system. Sole owner of ctypes, mmap and select."""

from __future__ import annotations

from rawkm.syscall.memory import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rawkm.syscall.live import LiveKernel

__all__ = ["PAGE_SIZE", "open_kernel"]


def open_kernel(*, explain: TextIO | None = None) -> LiveKernel:
    """The Kernel that the given options ask for.

    ``explain``: a text stream on which each system call is printed as it is made, with every byte of its attr.
    Raises NotSupportedError on an architecture whose system call numbers are not known.
    """
    from rawkm.syscall.live import LiveKernel

    if explain is None:
        return LiveKernel()
    from rawkm.syscall.explain import Explainer

    return LiveKernel(Explainer(explain))
