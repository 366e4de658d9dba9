"""The BPF ring buffer (Linux 5.8), mmapped and read by hand.

Layout (kernel/bpf/ringbuf.c): a consumer page, a producer page, and the data twice in a row, so that a record never wraps. Positions
count bytes for ever; a record is an 8-byte header (u32 length with two flag bits, u32 page offset) and its payload, rounded up to 8.
"""

from __future__ import annotations

from rawkm.buffers.schema import Batch
from rawkm.errors import RingCorrupt, UsageError
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi.constants import MapType, RingbufFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.buffers.schema import Schema
    from rawkm.maps import Map
    from rawkm.syscall.kernel import Poller

_BUSY = RingbufFlag.BUSY_BIT
_DISCARD = RingbufFlag.DISCARD_BIT
_HEADER = RingbufFlag.HDR_SZ
_FLAGS = _BUSY | _DISCARD

# How much is copied out at a time: the producers get their space back soon, and the batch stays in the cache.
_SPAN = 1 << 20


def ring_size(wanted: int) -> int:
    """The smallest size the kernel takes that holds ``wanted`` bytes: a power of two of whole pages."""
    size = PAGE_SIZE
    while size < wanted:
        size *= 2
    return size


class RingBuf:
    """A reader of ``ring``, whose records are all of ``schema``. One reader per ring.

    ``discarded``: records that their program gave up after reserving them.
    """

    __slots__ = ("_consumer", "_data", "_map", "_poller", "_position", "_size", "discarded", "schema")

    def __init__(self, ring: Map, schema: Schema) -> None:
        if ring.spec.type != MapType.RINGBUF:
            raise UsageError(f"the map {ring.name} is no ring buffer")
        self._map = ring
        self.schema = schema
        self.discarded = 0
        self._size = ring.spec.max_entries
        self._poller: Poller | None = None
        # The kernel lets user space write the consumer page only, and only if it is mapped alone.
        self._consumer = ring.kernel.mmap(ring.fd, PAGE_SIZE, writable=True)
        try:
            self._data = ring.kernel.mmap(ring.fd, PAGE_SIZE + 2 * self._size, offset=PAGE_SIZE)
        except BaseException:
            self._consumer.close()
            raise
        self._position = self._consumer.load_u64(0)

    @property
    def fds(self) -> list[int]:
        """For a poller: readable while the ring is not empty."""
        return [self._map.fd]

    def read(self) -> Batch:
        """What can be read now, at most about 1 MiB; empty when there is nothing. The space is given back before it returns."""
        stride = _HEADER + (self.schema.size + 7 & ~7)
        data = b""
        while not data:
            available = self._available()
            if available == 0:
                break
            start = PAGE_SIZE + self._position % self._size
            count = self._regular(start, min(available, _SPAN) // stride, stride)
            if count:
                self._data.fence()
                data = bytes(self._data.view[start : start + count * stride])
                self._advance(count * stride)
            elif not self._skip(start, available):
                break
        return Batch(self.schema, data, stride=stride, skip=_HEADER)

    def poll(self, timeout: float) -> Batch:
        """As ``read``, after waiting up to ``timeout`` seconds for something to come."""
        batch = self.read()
        if not len(batch):
            if self._poller is None:
                self._poller = self._map.kernel.poller()
                self._poller.add(self._map.fd)
            if self._poller.wait(timeout):
                batch = self.read()
        return batch

    def batches(self, timeout: float) -> Iterator[Batch]:
        """Batch after batch, until nothing has come for ``timeout`` seconds."""
        while len(batch := self.poll(timeout)):
            yield batch

    def close(self) -> None:
        if self._poller is not None:
            self._poller.close()
        self._data.close()
        self._consumer.close()

    def __enter__(self) -> RingBuf:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _available(self) -> int:
        """Bytes between the consumer and the producer."""
        available = self._data.load_u64(0) - self._position
        self._data.fence()
        if not 0 <= available <= self._size or available % 8:
            raise RingCorrupt(f"the ring's producer is {available} bytes ahead of its consumer; the ring has {self._size}")
        return available

    def _regular(self, start: int, most: int, stride: int) -> int:
        """How many records from ``start`` on are complete and of the schema's size."""
        if most <= 0:
            return 0
        words = self._data.view[start : start + most * stride].cast("I")[:: stride // 4].tolist()
        size = self.schema.size
        if words.count(size) == most:
            return most
        return next(i for i, word in enumerate(words) if word != size)

    def _skip(self, start: int, available: int) -> bool:
        """Passes one discarded record. False at one that is still being written: its end is what wakes us."""
        header = self._data.load_u32(start)
        length = header & ~_FLAGS
        advance = _HEADER + length + 7 & ~7
        if header & _BUSY:
            return False
        if advance > available:
            raise RingCorrupt(f"a record of {length} bytes, but only {available} bytes were written")
        if not header & _DISCARD:
            raise RingCorrupt(f"a record of {length} bytes in a ring of {self.schema.size}-byte {self.schema.name}")
        self.discarded += 1
        self._advance(advance)
        return True

    def _advance(self, by: int) -> None:
        self._position += by
        self._consumer.fence()
        self._consumer.store_u64(0, self._position)
