"""The seam to the operating system. Sole owner of ctypes, mmap and select."""

from __future__ import annotations

from rawkm.syscall.memory import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rawkm.syscall.call import Observer
    from rawkm.syscall.live import LiveKernel

__all__ = ["PAGE_SIZE", "open_kernel"]


def open_kernel(*, explain: TextIO | None = None, recorder: Observer | None = None) -> LiveKernel:
    """The running kernel, as the given options ask for.

    ``explain``: a text stream on which each system call is printed as it is made, with every byte of its attr. ``recorder``: an
    observer that is told of every call (``record.Recorder``). Raises NotSupportedError on an architecture whose system call
    numbers are not known.
    """
    from rawkm.syscall.live import LiveKernel

    if explain is None:
        return LiveKernel(recorder)
    from rawkm.syscall.explain import Explainer

    explainer = Explainer(explain)
    if recorder is None:
        return LiveKernel(explainer)
    from rawkm.syscall.call import Observers

    return LiveKernel(Observers(recorder, explainer))
