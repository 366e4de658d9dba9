"""The readers of ring buffers and perf buffers against memory that this test writes: every order of events, and lies.

Real buffers are read in tests/kernel; here is what cannot be arranged there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rawkm.buffers import PerfBuf, RingBuf, Schema, reader, ringbuf
from rawkm.errors import RingCorrupt, UsageError
from rawkm.maps import Map, MapSpec
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi.constants import MapType, PerfRecord
from tests.fakes import BUSY, DISCARD, PAIR, U64, FakeKernel, FakeMemory, FakePerf, FakeRing, numbers, pair

#: Where positions begin: anywhere, and so that they pass 2^64.
STARTS = st.sampled_from([0, 8, 24, PAGE_SIZE - 8, (1 << 64) - 8, (1 << 64) - 4000])


@pytest.fixture(autouse=True)
def no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PAUSE", 1e-6)


class RingMachine(RuleBasedStateMachine):
    """Producers reserve, commit and discard in any order; what the reader gives is what was committed, once and in order."""

    @initialize(start=STARTS, pages=st.sampled_from([1, 2]))
    def make(self, start: int, pages: int) -> None:
        self.ring = FakeRing(pages * PAGE_SIZE, start=start)
        self.reader = RingBuf(self.ring.map(), PAIR)
        self.next = 0
        # In the order of the ring: [position, length, number when committed, "busy" | "good" | "gone"].
        self.records: list[list[int | str]] = []
        self.gone = 0

    @rule(count=st.integers(1, 60), length=st.sampled_from([16, 16, 16, 0, 8, 13, 40, 100]))
    def reserve(self, count: int, length: int) -> None:
        for _ in range(count):
            position = self.ring.reserve(length)
            if position is None:
                assert self.ring.produced - self.ring.consumed & U64 > self.ring.size - length - 16
                break
            self.records.append([position, length, 0, "busy"])

    def busy(self) -> list[list[int | str]]:
        return [record for record in self.records if record[3] == "busy"]

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), share=st.floats(0, 1), discard=st.booleans())
    def finish(self, data: st.DataObject, share: float, discard: bool) -> None:
        """Commits or discards some of the records that are being written; only those of the schema's size can be committed."""
        busy = self.busy()
        first = data.draw(st.integers(0, len(busy) - 1))
        for record in busy[first : first + 1 + int(share * len(busy))]:
            position, length = record[0], record[1]
            assert isinstance(position, int)
            assert isinstance(length, int)
            if discard or length != 16:
                self.ring.commit(position, b"\xdd" * length, discard=True)
                record[3] = "gone"
            else:
                self.ring.commit(position, pair(self.next))
                record[2:] = [self.next, "good"]
                self.next += 1

    @rule()
    def read(self) -> None:
        stores = len(self.ring.consumer.stores)
        before = self.ring.consumed
        got = numbers(list(self.reader.read().rows()))
        expected = []
        while self.records and self.records[0][3] != "busy":
            record = self.records.pop(0)
            if record[3] == "good":
                expected.append(record[2])
            else:
                self.gone += 1
        assert got == expected
        assert self.reader.discarded == self.gone
        # One store per batch, none when nothing was there.
        assert len(self.ring.consumer.stores) - stores == (self.ring.consumed != before)
        assert self.ring.consumed == (self.records[0][0] if self.records else self.ring.produced)

    @invariant()
    def memory_is_not_exhausted(self) -> None:
        self.ring.data.budget = self.ring.consumer.budget = 100_000


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_a_batch_is_limited_and_nothing_is_lost_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringbuf, "_SPAN", 240)
    ring = FakeRing(start=PAGE_SIZE - 100 & ~7)
    sent = [n for n in range(160) if ring.put(pair(n), discard=n % 7 == 3) and n % 7 != 3]
    with RingBuf(ring.map(), PAIR) as rb:
        batches = []
        while len(batch := rb.read()):
            batches.append(numbers(list(batch.rows())))
    assert [n for batch in batches for n in batch] == sent
    assert [len(batch) for batch in batches[:-1]] == [10] * (len(batches) - 1)
    assert len(ring.consumer.stores) == len(batches)


def test_many_discarded_records_do_not_make_reading_slow() -> None:
    # Of another size than the good ones, so that each shifts what follows.
    ring = FakeRing(1 << 19)
    with RingBuf(ring.map(), PAIR) as rb:
        rb._ring.data = seen = CountingView(ring.data)
        sent = [n for n in range(7000) if ring.put(pair(n)) and ring.put(b"x" * 40, discard=True)]
        got: list[int] = []
        while len(batch := rb.read()):
            got += numbers(list(batch.rows()))
    assert got == sent
    # Each header is looked at a few times, not once per record before it.
    assert seen.bytes < 100 * len(sent) * 24


class CountingView(FakeMemory):
    """Counts the bytes of the slices taken of its view."""

    def __init__(self, other: FakeMemory) -> None:
        super().__init__(0)
        self.__dict__.update(other.__dict__)
        self.bytes = 0

    @property
    def view(self) -> memoryview:
        return _Slices(self, memoryview(self.raw))  # type: ignore[return-value]  # stands for one


class _Slices:
    def __init__(self, owner: CountingView, view: memoryview) -> None:
        self._owner, self._view = owner, view

    def __getitem__(self, where: slice) -> memoryview:
        part = self._view[where]
        self._owner.bytes += part.nbytes
        return part


def test_good_records_are_delivered_before_the_ring_is_called_corrupt() -> None:
    ring = FakeRing()
    for n in range(5):
        ring.put(pair(n))
    ring.put(b"another kind of record!!")
    ring.put(pair(5))
    with RingBuf(ring.map(), PAIR) as rb:
        assert numbers(list(rb.read().rows())) == [0, 1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(RingCorrupt, match="a record of 24 bytes in a ring of 16-byte Pair"):
                rb.read()


@pytest.mark.parametrize(
    ("consumer", "producer", "words"),
    [
        (0, PAGE_SIZE + 8, "4104 bytes ahead of its consumer; the ring has 4096"),
        (16, 8, "ahead of its consumer"),
        (0, 12, "12 bytes ahead"),
        (4, 28, "consumer of the ring ring was moved"),
        (0, 8, "a record of 16 bytes, but only 8 bytes were written"),
        (24, 48, "a record of 40 bytes, but only 24 bytes were written"),
    ],
)
def test_ring_corruption(consumer: int, producer: int, words: str) -> None:
    ring = FakeRing()
    ring.put(pair(0))
    ring.put(b"x" * 40, discard=True)
    ring.set_positions(consumer, producer)
    with RingBuf(ring.map(), PAIR) as rb, pytest.raises(RingCorrupt, match=words):
        rb.read()
    assert ring.consumer.stores == []


def test_a_second_reader_is_noticed() -> None:
    ring = FakeRing()
    first, second = RingBuf(ring.map(), PAIR), RingBuf(ring.map(), PAIR)
    ring.put(pair(1))
    assert numbers(list(second.read().rows())) == [1]
    with pytest.raises(RingCorrupt, match="somebody else"):
        first.read()
    # One that comes later goes on where the last one stopped.
    ring.put(pair(2))
    assert numbers(list(RingBuf(ring.map(), PAIR).read().rows())) == [2]


def test_close_gives_everything_back() -> None:
    ring = FakeRing(ready=lambda: True)
    with RingBuf(ring.map(), PAIR) as rb:
        assert len(rb.poll(0.1)) == 0
    assert ring.consumer.closed
    assert ring.data.closed
    assert [poller.closed for poller in ring.kernel.pollers] == [True]
    rb.close()


def test_the_other_maps_are_refused() -> None:
    kernel = FakeKernel({}).real()
    array = Map(kernel, 7, MapSpec("array", MapType.ARRAY, key=4, value=8, max_entries=1))
    with pytest.raises(UsageError, match="array is no ring buffer"):
        RingBuf(array, PAIR)
    with pytest.raises(UsageError, match="array is no perf event array"):
        PerfBuf(array, PAIR)


# -- waiting -------------------------------------------------------------------------------------------------


def test_poll_waits_for_a_record_that_is_being_written() -> None:
    # epoll calls such a ring readable: an early end with an empty batch would be the end of batches(), too.
    steps: list[int] = []
    position: int | None = None

    def ready() -> bool:
        steps.append(1)
        if len(steps) == 5:
            assert position is not None
            ring.commit(position, pair(7))
        return True

    ring = FakeRing(ready=ready)
    position = ring.reserve(16)
    ring.put(pair(8))
    with RingBuf(ring.map(), PAIR) as rb:
        assert numbers(list(rb.poll(30).rows())) == [7, 8]


def test_poll_gives_up_in_time_when_a_record_is_never_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PAUSE", 0.002)
    ring = FakeRing(ready=lambda: True)
    ring.reserve(16)
    with RingBuf(ring.map(), PAIR) as rb:
        assert len(rb.poll(0.05)) == 0
        # It does not burn the CPU meanwhile.
        assert ring.kernel.pollers[0].waits <= 26


def test_poll_goes_on_over_discarded_records() -> None:
    ring = FakeRing(ready=lambda: ring.put(pair(3)))
    ring.put(pair(0), discard=True)
    with RingBuf(ring.map(), PAIR) as rb:
        assert numbers(list(rb.poll(1).rows())) == [3]
        assert rb.discarded == 1


def test_poll_without_time_does_not_wait() -> None:
    ring = FakeRing(ready=lambda: True)
    with RingBuf(ring.map(), PAIR) as rb:
        assert len(rb.poll(0)) == 0
        assert len(rb.poll(-1)) == 0
    assert ring.kernel.pollers == []


# -- memory that lies ----------------------------------------------------------------------------------------

FLAGGED = [16 | DISCARD, 16 | BUSY, 16 | BUSY | DISCARD, DISCARD, 40 | DISCARD, 4096 | DISCARD, 0x3FFFFFF8 | DISCARD]
LENGTHS = [16, 16, 16, 16, 0, 8, 17, 4000, 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
HEADERS = st.sampled_from(FLAGGED + LENGTHS)
EDGES = [0, 8, 16, 24, 4, 1, 4080, 4088, 4096, 4104, 8192, 1 << 32, 1 << 63, U64, U64 - 7]
POSITIONS = st.sampled_from(EDGES) | st.integers(0, U64)
POISON = struct.pack("=IIQQ", 16, 3, 0xEEEE, 0xEEEE) * 300


def hostile_ring(headers: list[int], noise: bytes, consumer: int, producer: int) -> FakeRing:
    ring = FakeRing()
    ring.data.raw[ring.data.length :] = POISON
    image = bytearray(noise * (ring.size // len(noise) + 1))[: ring.size]
    for i, header in enumerate(headers * (ring.size // (24 * len(headers)))):
        struct.pack_into("=IIQQ", image, 24 * i, header, 3, i, ~i & U64)
    ring.data.raw[PAGE_SIZE : PAGE_SIZE + 2 * ring.size] = image * 2
    ring.set_positions(consumer, producer)
    ring.data.budget = ring.consumer.budget = 20_000
    return ring


def drain(buffer: RingBuf | PerfBuf) -> Iterator[bytes]:
    for _ in range(600):
        try:
            batch = buffer.read()
        except RingCorrupt:
            return
        assert len(batch.data) % batch.stride == 0
        assert list(batch.rows()) is not None
        yield batch.data


@given(st.lists(HEADERS, min_size=1, max_size=40), st.binary(min_size=8, max_size=64), POSITIONS, POSITIONS)
@settings(max_examples=400, deadline=None)
def test_a_hostile_ring_ends_in_ring_corrupt(headers: list[int], noise: bytes, consumer: int, producer: int) -> None:
    ring = hostile_ring(headers, noise, consumer, producer)
    total = 0
    with RingBuf(ring.map(), PAIR) as rb:
        for data in drain(rb):
            assert b"\xee\xee\0\0" not in data
            total += len(data)
    assert total <= ring.size
    assert total <= producer - consumer & U64


@given(st.lists(HEADERS, min_size=1, max_size=40), st.integers(0, 511), st.integers(0, 512), st.lists(HEADERS, min_size=1))
@settings(max_examples=200, deadline=None)
def test_memory_that_changes_between_two_looks(headers: list[int], at: int, words: int, lies: list[int]) -> None:
    ring = hostile_ring(headers, bytes(8), 8 * at, 8 * at + 8 * words)
    answers = iter(lies * 10_000)
    ring.data.load_u32 = lambda offset: next(answers)  # type: ignore[method-assign]  # noqa: ARG005
    with RingBuf(ring.map(), PAIR) as rb:
        assert sum(map(len, drain(rb))) <= 8 * words


SAMPLES = [(9, 32), (9, 32), (9, 32), (9, 24), (9, 40), (9, 33), (9, 0), (9, 65528)]
OTHERS = [(2, 24), (2, 16), (2, 8), (2, 65528), (5, 24), (5, 12), (5, 0), (0, 0), (1 << 31, 8)]
PERF_RECORDS = st.sampled_from(SAMPLES + OTHERS)


@given(st.lists(PERF_RECORDS, min_size=1, max_size=60), st.binary(min_size=8, max_size=64), POSITIONS, POSITIONS)
@settings(max_examples=400, deadline=None)
def test_a_hostile_perf_buffer_ends_in_ring_corrupt(records: list[tuple[int, int]], noise: bytes, tail: int, head: int) -> None:
    perf = FakePerf()
    image = bytearray(noise * (perf.size // len(noise) + 1))[: perf.size]
    at = 0
    for kind, size in records:
        if at + 8 <= len(image):
            struct.pack_into("=IHH", image, at, kind, 1, size)
        at += max(8, size + 7 & ~7)
    perf.memory.raw[PAGE_SIZE : PAGE_SIZE + perf.size] = image
    perf.set_positions(tail, head)
    perf.memory.budget = 20_000
    with PerfBuf(perf.map(), PAIR, size=perf.size) as pb:
        total = sum(map(len, drain(pb)))
    assert total <= min(perf.size, head - tail & U64)


# -- the perf buffer -----------------------------------------------------------------------------------------

ANY_SAMPLES = st.lists(st.sampled_from(["sample", "sample", "sample", "lost", "throttle", "many", "read"]), max_size=60)


@given(ANY_SAMPLES, STARTS)
@settings(max_examples=200, deadline=None)
def test_perf_samples_come_once_in_order_with_other_records_between(events: list[str], start: int) -> None:
    perf = FakePerf(start=start)
    sent: list[int] = []
    got: list[int] = []
    sent_lost = got_lost = 0
    with PerfBuf(perf.map(), PAIR, size=perf.size) as pb:
        for i, event in enumerate([*events, "read"]):
            if event == "read":
                stores = len(perf.memory.stores)
                tail, head = perf.positions
                batch = pb.read()
                got += numbers(list(batch.rows()))
                got_lost += batch.lost
                assert perf.positions == (head, head)
                assert len(perf.memory.stores) - stores == (tail != head)
            elif event == "lost":
                sent_lost += i * perf.lost(i)
            elif event == "throttle":
                perf.put(PerfRecord.THROTTLE, bytes(24))
            else:
                for _ in range(40 if event == "many" else 1):
                    # The bits of misc say in whose context the program ran.
                    if perf.sample(pair(len(sent)), misc=i % 3):
                        sent.append(len(sent))
    assert got == sent
    assert got_lost == sent_lost


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda perf: perf.sample(b"another."), "a sample of 24 bytes where Pair takes 32"),
        (lambda perf: perf.sample(b"another size of record.."), "a sample of 40 bytes"),
        (lambda perf: [perf.sample(part) for part in (pair(0), pair(1), b"another.", pair(2))], "a sample of 24 bytes"),
        (lambda perf: perf.set_positions(0, perf.size + 8), "4104 bytes ahead"),
        (lambda perf: perf.set_positions(16, 8), "ahead of its tail"),
    ],
)
def test_perf_corruption(fill: Callable[[FakePerf], object], words: str) -> None:
    perf = FakePerf()
    fill(perf)
    with PerfBuf(perf.map(), PAIR, size=perf.size) as pb, pytest.raises(RingCorrupt, match=words):
        pb.read()


def test_perf_close_takes_the_events_out_of_the_array() -> None:
    perf = FakePerf()
    with PerfBuf(perf.map(), PAIR, size=1) as pb:
        assert pb.fds == [100]
    assert [name for name, _ in perf.kernel.calls] == ["perf_event_open", "map_update_elem", "map_delete_elem"]
    assert perf.kernel.closed == [100]
    assert perf.memory.closed
    pb.close()


def test_records_of_any_size() -> None:
    for size in (8, 16, 40, 4000):
        schema = Schema("Sized", text=f"char[{size}]")
        ring, perf = FakeRing(), FakePerf(2)
        with RingBuf(ring.map(), schema) as rb, PerfBuf(perf.map(), schema, size=perf.size) as pb:
            for n in range(300):
                payload = bytes([n % 256]) * size
                assert ring.put(payload)
                assert perf.sample(payload)
                assert list(rb.read().rows()) == list(pb.read().rows()) == [(payload,)]
