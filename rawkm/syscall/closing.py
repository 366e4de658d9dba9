"""Closing many fds at a time: what a kernel waits for at the end of each (its RCU grace periods), it waits for once."""

from __future__ import annotations

import os
import threading
from collections import deque

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# More gain nothing (tools/bench/detach.py): the kernel takes one lock for a part of each.
_THREADS = 16
# Seconds between two looks at how far it is.
_PERIOD = 0.1


def close_together(fds: Sequence[int], step: Callable[[int, int], None]) -> None:
    """Closes them all, in any order. ``step`` is called with (closed, all) from the calling thread.

    Raises SyscallError when the kernel had something to say at one of them (it is closed all the same).
    """
    left = deque(fds)
    refused: list[OSError] = []

    def close_next() -> bool:
        try:
            fd = left.popleft()
        except IndexError:
            return False
        try:
            os.close(fd)
        except OSError as err:
            refused.append(err)
        return True

    def close_rest() -> None:
        while close_next():
            pass

    workers: list[threading.Thread] = []
    try:
        for _ in range(min(_THREADS, len(fds))):
            worker = threading.Thread(target=close_rest, daemon=True)
            try:
                worker.start()
            except RuntimeError:
                # A container's limit of processes: as many as it allows.
                break
            workers.append(worker)
        step(0, len(fds))
        while not workers and close_next():
            step(len(fds) - len(left), len(fds))
        for worker in workers:
            worker.join(_PERIOD)
            while worker.is_alive():
                step(len(fds) - len(left), len(fds))
                worker.join(_PERIOD)
    finally:
        # step may have raised: they are closed all the same.
        close_rest()
        for worker in workers:
            worker.join()
    if refused:
        raise SyscallError("close", refused[0].errno or 0)
