"""The reader of records of any length, against a ring that this test writes."""

from __future__ import annotations

import struct

import pytest

from rawkm.buffers.anyring import AnyRing
from rawkm.errors import RingCorrupt
from rawkm.syscall import PAGE_SIZE
from tests.fakes import FakeRing


def test_records_of_all_lengths_in_order() -> None:
    ring = FakeRing(start=(1 << 64) - 40)
    reader = AnyRing(ring.map())
    for round in range(200):
        sent = [bytes([round]) * length for length in (0, 1, 7, 8, 9, 100)]
        for number, payload in enumerate(sent):
            assert ring.put(payload, discard=number == 3)
        assert reader.read() == sent[:3] + sent[4:]
        assert reader.read() == []
    assert (reader.discarded, reader.full) == (200, 0)
    assert ring.consumed == ring.produced
    reader.close()


def test_it_stops_at_what_is_being_written() -> None:
    ring = FakeRing()
    reader = AnyRing(ring.map())
    ring.put(b"one")
    place = ring.reserve(5)
    assert place is not None
    ring.put(b"three")
    assert reader.read() == [b"one"]
    assert reader.read() == []
    ring.commit(place, b"two..")
    assert reader.read() == [b"two..", b"three"]


def test_a_ring_that_was_full_is_told() -> None:
    ring = FakeRing()
    reader = AnyRing(ring.map())
    while ring.put(b"x" * 100):
        pass
    assert len(reader.read()) == PAGE_SIZE // 112
    assert reader.full == 1


@pytest.mark.parametrize(("ahead", "header"), [(16, 100), (8, 1), (PAGE_SIZE + 8, 0), (4, 0)])
def test_what_makes_no_sense(ahead: int, header: int) -> None:
    ring = FakeRing()
    reader = AnyRing(ring.map())
    ring.poke(0, struct.pack("=II", header, 0))
    ring.set_positions(0, ahead)
    with pytest.raises(RingCorrupt):
        reader.read()
