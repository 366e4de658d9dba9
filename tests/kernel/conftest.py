"""Tests that need bpf(2) on the running kernel. None of them may leave a file descriptor behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rawkm.syscall import open_kernel
from rawkm.syscall.live import LiveKernel


def open_fds() -> dict[int, str]:
    """The open file descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the one that listed them
    return found


@pytest.fixture(autouse=True)
def no_fd_leak() -> Iterator[None]:
    before = open_fds()
    yield
    after = open_fds()
    if after != before:
        kept = {fd: what for fd, what in after.items() if before.get(fd) != what}
        gone = {fd: what for fd, what in before.items() if fd not in after}
        assert not kept and not gone, f"left open: {kept}; closed, though not theirs: {gone}"


@pytest.fixture
def kernel() -> LiveKernel:
    return open_kernel()
