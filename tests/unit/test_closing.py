"""Closing many fds: all of them, whatever happens meanwhile, by threads or, where the calls are watched, one after the other."""

from __future__ import annotations

import os
import threading
from errno import EBADF

import pytest

from rawkm.errors import SyscallError
from rawkm.syscall.call import Call, Observers
from rawkm.syscall.live import LiveKernel


class Closes(Observers):
    def __init__(self) -> None:
        super().__init__()
        self.fds: list[object] = []

    def enter(self, call: Call) -> None:
        self.fds.append(call.args["fd"])


def some(count: int = 100) -> list[int]:
    fd = os.open("/dev/null", os.O_RDONLY)
    return [fd, *(os.dup(fd) for _ in range(count - 1))]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("watched", [False, True])
def test_all_are_closed(watched: bool) -> None:
    closes = Closes()
    fds = some()
    steps: list[tuple[int, int]] = []
    LiveKernel(closes if watched else None).close_all(fds, lambda done, total: steps.append((done, total)))
    assert not [fd for fd in fds if is_open(fd)]
    assert steps
    assert all(done <= total == len(fds) for done, total in steps)
    assert closes.fds == (fds if watched else [])


@pytest.mark.parametrize("watched", [False, True])
def test_all_are_closed_when_it_shall_end(watched: bool) -> None:
    def step(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    fds = some()
    with pytest.raises(KeyboardInterrupt):
        LiveKernel(Closes() if watched else None).close_all(fds, step)
    assert not [fd for fd in fds if is_open(fd)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few(count: int) -> None:
    fds = some(count)[:count] if count else []
    LiveKernel().close_all(fds, lambda _done, _total: None)
    assert not [fd for fd in fds if is_open(fd)]


def test_what_was_no_fd_is_told() -> None:
    fds = some(5)
    os.close(fds[2])
    with pytest.raises(SyscallError) as caught:
        LiveKernel().close_all(fds, lambda _done, _total: None)
    assert caught.value.errno == EBADF
    assert not [fd for fd in fds if is_open(fd)]


def test_where_no_thread_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may be allowed few processes, or no more than there are."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    fds = some()
    steps: list[int] = []
    LiveKernel().close_all(fds, lambda done, _total: steps.append(done))
    assert not [fd for fd in fds if is_open(fd)]
    assert steps == list(range(len(fds) + 1)), "it is told how far it is"
