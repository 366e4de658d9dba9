"""What every live kernel object is: the owner of an fd."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from rawkm.syscall.kernel import Kernel


class Handle:
    """Owns ``fd``: closed by ``close()``, at the end of ``with``, and at the latest when the process ends."""

    __slots__ = ("fd", "kernel")

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self.kernel = kernel
        self.fd = fd

    def close(self) -> None:
        """Gives the fd back; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.kernel.close(fd)

    def give_up(self) -> int:
        """The fd, which is the caller's to close from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd {self.fd}>" if self.fd >= 0 else f"<{type(self).__name__} closed>"
