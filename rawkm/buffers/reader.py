"""What the readers of both buffers have in common: waiting for records, and finding runs of like records."""

from __future__ import annotations

from itertools import takewhile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from rawkm.buffers.schema import Batch, Schema
    from rawkm.syscall.kernel import Kernel, Poller

# A ring whose first record is still being written is readable for epoll, yet there is nothing to read:
# seconds to leave its writer alone.
_PAUSE = 0.0002

# Positions are unsigned 64-bit counters that run for ever.
POSITIONS = (1 << 64) - 1


class Reader:
    """A reader whose subclass says what ``read()`` and ``fds`` are."""

    __slots__ = ("_kernel", "_poller", "schema")

    def __init__(self, kernel: Kernel, schema: Schema) -> None:
        self._kernel = kernel
        self._poller: Poller | None = None
        self.schema = schema

    @property
    def fds(self) -> list[int]:
        """For a poller: each becomes readable when there may be something to read."""
        raise NotImplementedError

    def read(self) -> Batch:
        """What can be read now."""
        raise NotImplementedError

    def poll(self, timeout: float) -> Batch:
        """As ``read``, after waiting up to ``timeout`` seconds for something to come."""
        end = self._kernel.monotonic() + timeout
        while True:
            batch = self.read()
            left = end - self._kernel.monotonic()
            if len(batch) or batch.lost or left <= 0:
                return batch
            if self._wait(left):
                batch = self.read()
                if len(batch) or batch.lost:
                    return batch
                self._kernel.sleep(min(_PAUSE, left))

    def batches(self, timeout: float) -> Iterator[Batch]:
        """Batch after batch, until nothing has come for ``timeout`` seconds."""
        while len(batch := self.poll(timeout)) or batch.lost:
            yield batch

    def close(self) -> None:
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _wait(self, seconds: float) -> bool:
        if self._poller is None:
            self._poller = self._kernel.poller()
            for fd in self.fds:
                self._poller.add(fd)
        return bool(self._poller.wait(seconds))


def leading(words: memoryview[int], wanted: int) -> int:
    """How many of ``words`` are ``wanted`` before the first that is not."""
    found = words.tolist()
    if found.count(wanted) == len(found):
        return len(found)
    return len(list(takewhile(wanted.__eq__, found)))
