"""From a refused system call to the error of an attach."""

from __future__ import annotations

from rawkm.errors import AttachError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.errors import SyscallError


def refusal(err: SyscallError, hints: Mapping[int, str], backend: str) -> AttachError:
    """``err`` as an AttachError of ``backend``, with the hint of its errno."""
    return AttachError(err.call, err.errno, attr=err.attr, hint=hints.get(err.errno, ""), backend=backend)
