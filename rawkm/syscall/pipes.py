"""What a pipe still holds."""

from __future__ import annotations

_FIONREAD = 0x541B  # include/uapi/asm-generic/ioctls.h


def unread(fd: int) -> int:
    """How many bytes lie in the pipe that nobody has read yet. Raises OSError for what is no pipe."""
    import sys
    from fcntl import ioctl

    return int.from_bytes(ioctl(fd, _FIONREAD, bytes(4)), sys.byteorder)
