"""The BPF ring buffer (Linux 5.8), mmapped and read by hand.

Layout (kernel/bpf/ringbuf.c): a consumer page, a producer page, and the data twice in a row, so that a record
never wraps. Positions count bytes for ever; a record is an 8-byte header (u32 length with two flag bits, u32
page offset) and its payload, rounded up to 8.
"""

from __future__ import annotations

from rawkm.buffers.reader import POSITIONS, Reader, leading
from rawkm.buffers.schema import Batch
from rawkm.errors import RingCorrupt, UsageError
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi.constants import MapType, RingbufFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.buffers.schema import Schema
    from rawkm.maps import Map

BUSY = RingbufFlag.BUSY_BIT
DISCARD = RingbufFlag.DISCARD_BIT
HEADER = RingbufFlag.HDR_SZ
FLAGS = BUSY | DISCARD

# How much is copied out at a time: the producers get their space back soon, and the batch and what is made of it
# stay in the cache (a megabyte is decoded at half the speed).
_SPAN = 1 << 16


def ring_size(wanted: int) -> int:
    """The smallest size the kernel takes that holds ``wanted`` bytes: a power of two of whole pages."""
    size = PAGE_SIZE
    while size < wanted:
        size *= 2
    return size


class Ring:
    """The memory that a ring buffer shares with its reader, and how far that one has read. One reader at a time.

    ``data``: from the producer page on, the records from PAGE_SIZE on and once more behind that; ``size``: of the records.
    """

    __slots__ = ("_consumer", "_position", "data", "map", "size")

    def __init__(self, ring: Map) -> None:
        if ring.spec.type != MapType.RINGBUF:
            raise UsageError(f"the map {ring.name} is no ring buffer")
        self.map = ring
        self.size = ring.spec.max_entries
        # The kernel lets user space write the consumer page only, and only if it is mapped alone.
        self._consumer = ring.kernel.mmap(ring.fd, PAGE_SIZE, writable=True)
        try:
            self.data = ring.kernel.mmap(ring.fd, PAGE_SIZE + 2 * self.size, offset=PAGE_SIZE)
        except BaseException:
            self._consumer.close()
            raise
        self._position = self._consumer.load_u64(0)

    @property
    def start(self) -> int:
        """Where the next record is in ``data``."""
        return PAGE_SIZE + self._position % self.size

    def available(self) -> int:
        """Bytes between the consumer and the producer. Raises RingCorrupt when the positions make no sense."""
        if self._consumer.load_u64(0) != self._position or self._position % 8:
            raise RingCorrupt(f"the consumer of the ring {self.map.name} was moved: does somebody else read it?")
        available = self.data.load_u64(0) - self._position & POSITIONS
        self.data.fence()
        if available > self.size or available % 8:
            raise RingCorrupt(f"the ring's producer is {available} bytes ahead of its consumer; the ring has {self.size}")
        return available

    def advance(self, count: int) -> None:
        """Gives ``count`` bytes back, whose records have been copied."""
        self._position = self._position + count & POSITIONS
        self._consumer.fence()
        self._consumer.store_u64(0, self._position)

    def close(self) -> None:
        """Gives the memory back; the map stays its owner's."""
        self.data.close()
        self._consumer.close()


class RingBuf(Reader):
    """A reader of ``ring``, whose records are all of ``schema``. One at a time: it begins where the last one stopped.

    ``discarded``: records that their program gave up after reserving them. The kernel does not count what
    found no room: a program that wants to know counts.
    """

    __slots__ = ("_ring", "_stride", "discarded")

    def __init__(self, ring: Map, schema: Schema) -> None:
        super().__init__(ring.kernel, schema)
        self.discarded = 0
        self._stride = HEADER + (schema.size + 7 & ~7)
        self._ring = Ring(ring)

    @property
    def fds(self) -> list[int]:
        """For a poller: readable while the ring is not empty."""
        return [self._ring.map.fd]

    def read(self) -> Batch:
        """What can be read now, at most about 64 KiB; empty when there is nothing. The space is given back by then.

        Raises RingCorrupt when the ring contradicts itself, its records are not of the schema, or somebody else
        reads it, too.
        """
        ring = self._ring
        available = ring.available()
        runs: list[tuple[int, int]] = []
        if available:
            start = ring.start
            end = self._scan(start, start + available, runs)
            if end > start:
                # Every header has been looked at before the first record is copied: one fence serves them all.
                ring.data.fence()
                read = ring.data.read
                data = b"".join([read(a, b - a) for a, b in runs])
                ring.advance(end - start)
                return Batch(self.schema, data, stride=self._stride, skip=HEADER)
        return Batch(self.schema, b"", stride=self._stride, skip=HEADER)

    def close(self) -> None:
        """Gives the memory back; the map stays its owner's. Batches that were read stay valid."""
        super().close()
        self._ring.close()

    def _scan(self, start: int, end: int, runs: list[tuple[int, int]]) -> int:
        """Finds the ``runs`` of good records from ``start`` on, and returns how far it came.

        It stops at ``end``, when there is enough for a batch, and at a record that is still being written (whose
        end wakes us, as it begins where the consumer then stands).
        """
        data, size, stride = self._ring.data, self.schema.size, self._stride
        room = window = max(_SPAN // stride, 1)
        at = start
        while at < end and room:
            header = data.load_u32(at)
            if header == size and at + stride <= end:
                most = min(room, window, (end - at) // stride)
                headers = data.read(at, most * stride).cast("I")[stride // 4 :: stride // 4]
                run = 1 + leading(headers, size)
                runs.append((at, at + run * stride))
                at += run * stride
                room -= run
                # Where discarded records are mixed in, do not look at the same headers again and again.
                window = 4 * most if run == most else 2 * run + 16
                continue
            if header & BUSY:
                break
            length = header & ~FLAGS
            advance = HEADER + length + 7 & ~7
            if advance > end - at or not header & DISCARD:
                if at > start:
                    break  # deliver what is good; the next read begins here
                if advance > end - at:
                    raise RingCorrupt(f"a record of {length} bytes, but only {end - at} bytes were written")
                raise RingCorrupt(f"a record of {length} bytes in a ring of {size}-byte {self.schema.name}")
            self.discarded += 1
            at += advance
        return at
