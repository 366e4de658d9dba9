"""A reader of ring buffers whose records may be of any length, for programs of which nothing is known."""

from __future__ import annotations

from rawkm.buffers.ringbuf import BUSY, DISCARD, FLAGS, HEADER, Ring
from rawkm.errors import RingCorrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.maps import Map

# What is read at a time.
_MOST_BYTES = 1 << 20


class AnyRing:
    """``discarded``: records that their program gave up. ``full``: how often so little room was found that a record as long as
    the longest so far would not have fitted; the kernel does not count those that found none."""

    __slots__ = ("_longest", "_ring", "discarded", "full")

    def __init__(self, ring: Map) -> None:
        self._ring = Ring(ring)
        self._longest = 0
        self.discarded = 0
        self.full = 0

    @property
    def fd(self) -> int:
        """For a poller: readable while the ring is not empty."""
        return self._ring.map.fd

    @property
    def name(self) -> str:
        """The map's."""
        return self._ring.map.name

    def read(self) -> list[bytes]:
        """The records that can be read now, about a megabyte of them. Raises RingCorrupt when the ring contradicts itself."""
        ring = self._ring
        available = ring.available()
        start = at = ring.start
        end = at + available
        places: list[tuple[int, int]] = []
        while at < end and at - start < _MOST_BYTES:
            header = ring.data.load_u32(at)
            if header & BUSY:
                break
            length = header & ~FLAGS
            advance = HEADER + length + 7 & ~7
            if advance > end - at:
                raise RingCorrupt(f"a record of {length} bytes, but only {end - at} bytes were written")
            if header & DISCARD:
                self.discarded += 1
            else:
                places.append((at + HEADER, length))
                self._longest = max(self._longest, advance)
            at += advance
        # The kernel lets the producer come as close as one byte less than the size.
        self.full += bool(places) and available + self._longest > ring.size - 1
        ring.data.fence()
        records = [bytes(ring.data.read(place, length)) for place, length in places]
        if at > start:
            ring.advance(at - start)
        return records

    def close(self) -> None:
        self._ring.close()
