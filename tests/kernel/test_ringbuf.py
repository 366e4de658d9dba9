"""The BPF ring buffer of the running kernel, filled by programs under BPF_PROG_TEST_RUN and read by RingBuf."""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawkm.asm import R0, R1, R2, R3, R4, R6, R9, Item, JEq, Mov, call, exit_, label, ld_imm64, map_ptr
from rawkm.asm import Add as AddTo
from rawkm.buffers import RingBuf, Schema
from rawkm.buffers.ringbuf import ring_size
from rawkm.errors import RingCorrupt, SyscallError, UsageError
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.syscall import PAGE_SIZE
from rawkm.syscall.live import LiveKernel
from rawkm.uapi.constants import Helper, MapType, ProgType, RingbufFlag
from tests.kernel.fillers import NUMBERED, PAIR, Ledger, by_output, by_reserve, numbers, ring, run

RECORD = 24  # PAIR with its header
HOW = pytest.mark.parametrize("how", [by_reserve, by_output])
Filler = Callable[..., ProgramSpec]


def drained(rb: RingBuf) -> list[int]:
    """The numbers of all that is there."""
    got: list[int] = []
    while len(batch := rb.read()):
        got += numbers(list(batch.rows()))
    return got


@HOW
def test_capacity(kernel: LiveKernel, how: Filler) -> None:
    """A ring never becomes quite full; what does not fit, the program counts."""
    fit = (PAGE_SIZE - 1) // RECORD
    with how(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        assert len(rb.read()) == 0
        run(prog, 300)
        ledger = Ledger(prog)
        assert (ledger.tried, ledger.dropped) == (300, 300 - fit)
        assert ledger.error == (-11 if how is by_output else 0)  # EAGAIN; no record
        batch = rb.read()
        assert numbers(list(batch.rows())) == list(range(fit))
        assert batch.lost == 0
        assert len(rb.read()) == 0
        # The space is back.
        run(prog, fit)
        assert numbers(list(rb.read().rows())) == list(range(300, 300 + fit))
        assert Ledger(prog).dropped == 300 - fit


@HOW
@pytest.mark.parametrize("size", [PAGE_SIZE, 4 * PAGE_SIZE, 1 << 18])
def test_wrapping_around_many_times(kernel: LiveKernel, how: Filler, size: int) -> None:
    rounds = random.Random(size)
    expected = 0
    with how(ring(size), NUMBERED).load(kernel) as prog, RingBuf(prog.maps["ring"], NUMBERED) as rb:
        most = (size - 1) // (8 + NUMBERED.size)
        while expected < 40 * most:
            times = rounds.randint(1, most)
            run(prog, times)
            assert drained(rb) == list(range(expected, expected + times))
            expected += times
        assert Ledger(prog).dropped == 0


@pytest.mark.parametrize("odd", [0, 8, 13, 200])
def test_discarded_records_between(kernel: LiveKernel, odd: int) -> None:
    spec = by_reserve(ring(4 * PAGE_SIZE), discard_every=5, odd=odd)
    with spec.load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        got = []
        for times in [1, 1, 4, 5, 6, 150, 200, 77] * 20:
            run(prog, times)
            got += numbers(list(rb.read().rows()))
        ledger = Ledger(prog)
        assert ledger.dropped == 0
        assert got == [n for n in range(ledger.tried) if n % 5]
        assert rb.discarded == ledger.tried // 5
        assert len(rb.read()) == 0


def test_nothing_but_discarded_records(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE), discard_every=1).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        for _ in range(10):
            run(prog, 100)
            assert len(rb.read()) == 0
        assert rb.discarded == 1000
        assert Ledger(prog).dropped == 0


@pytest.mark.parametrize("size", [8, 16, 24, 40, 248, 400])
def test_record_sizes(kernel: LiveKernel, size: int) -> None:
    rest = {"rest": f"char[{size - 8}]"} if size > 8 else {}
    schema = Schema("Sized", number="u64", **rest)
    with by_output(ring(PAGE_SIZE), schema).load(kernel) as prog, RingBuf(prog.maps["ring"], schema) as rb:
        got: list[int | bytes] = []
        for times in (1, 3, 9, 2) * 30:
            run(prog, times)
            got += rb.read().column("number")
        assert got == list(range(30 * 15))


@pytest.mark.parametrize("size", [PAGE_SIZE, 8 * PAGE_SIZE, 4 << 20])
def test_a_full_ring_comes_in_batches(kernel: LiveKernel, size: int) -> None:
    with by_reserve(ring(size)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        run(prog, size // RECORD + 100)
        fit = (size - 1) // RECORD
        got: list[int] = []
        batches = 0
        while len(batch := rb.read()):
            assert len(batch.data) <= 1 << 16
            got += numbers(list(batch.rows()))
            batches += 1
        assert got == list(range(fit))
        assert batches == -(-fit // ((1 << 16) // RECORD))


def test_ring_sizes(kernel: LiveKernel) -> None:
    assert [ring_size(n) for n in (1, PAGE_SIZE, PAGE_SIZE + 1, 100_000)] == [PAGE_SIZE, PAGE_SIZE, 2 * PAGE_SIZE, 1 << 17]
    for size in (ring_size(1), ring_size(100_000)):
        with ring(size).create(kernel) as m, RingBuf(m, PAIR) as rb:
            assert len(rb.read()) == 0
    for size in (0, 1, PAGE_SIZE - 1, PAGE_SIZE + 8, 3 * PAGE_SIZE):
        with pytest.raises(UsageError, match=f"the ring buffer ring cannot have {size} bytes"):
            ring(size).create(kernel)


# -- what a record holds -------------------------------------------------------------------------------------

KINDS = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"]
FIELDS = st.lists(st.sampled_from(KINDS) | st.integers(1, 24).map(lambda n: f"char[{n}]"), min_size=1, max_size=9)


@given(FIELDS, st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_store_writes_the_decoder_reads(kernel: LiveKernel, kinds: list[str], data: st.DataObject) -> None:
    """Every field of any schema: scalars by Schema.store, arrays by a helper, from the packet."""
    schema = Schema("Any", **{f"f{i}": kind for i, kind in enumerate(kinds)})
    packet = data.draw(st.binary(min_size=64, max_size=64))
    expected: list[int | bytes] = []
    insns: list[Item] = [
        Mov.reg(R6, R1),
        map_ptr(R1, ring(PAGE_SIZE)),
        Mov.imm(R2, schema.size),
        Mov.imm(R3, 0),
        call(Helper.ringbuf_reserve),
        JEq.imm(R0, 0, "out"),
        Mov.reg(R9, R0),
    ]
    for i, kind in enumerate(kinds):
        if kind.startswith("char"):
            length = int(kind[5:-1])
            insns += [
                Mov.reg(R1, R6),
                Mov.imm(R2, i),
                Mov.reg(R3, R9),
                AddTo.imm(R3, schema.offset(f"f{i}")),
                Mov.imm(R4, length),
                call(Helper.skb_load_bytes),
            ]
            # A socket filter sees what follows the Ethernet header.
            expected.append(packet[14 + i : 14 + i + length])
        else:
            value = data.draw(st.integers(0, 2**64 - 1))
            insns += [ld_imm64(R1, value), schema.store(R9, f"f{i}", R1)]
            size = int(kind[1:]) // 8
            expected.append(int.from_bytes(value.to_bytes(8, "little")[:size], "little", signed=kind[0] == "i"))
    insns += [Mov.reg(R1, R9), Mov.imm(R2, 0), call(Helper.ringbuf_submit), label("out"), Mov.imm(R0, 0), exit_()]
    spec = ProgramSpec("fields", ProgType.SOCKET_FILTER, insns=insns)
    with spec.load(kernel) as prog, RingBuf(prog.maps["ring"], schema) as rb:
        prog.test_run(data=packet, repeat=3)
        batch = rb.read()
    assert list(batch.rows()) == [tuple(expected)] * 3
    for i in range(len(kinds)):
        assert batch.column(f"f{i}") == [expected[i]] * 3


# -- waiting -------------------------------------------------------------------------------------------------


class Later(threading.Thread):
    """Runs ``action`` on another thread after ``seconds``; for ``with``. ``done_at``: when it was done."""

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        super().__init__()
        self._seconds, self._action = seconds, action
        self.done_at = 0.0

    def run(self) -> None:
        time.sleep(self._seconds)
        self._action()
        self.done_at = time.monotonic()

    def __enter__(self) -> Later:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.join()


@pytest.mark.parametrize("behind", [0, 3])
def test_poll_is_woken(kernel: LiveKernel, behind: int) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        run(prog, behind)
        for first in range(0, 20, 4):
            assert len(rb.poll(0.001)) == (behind if first == 0 else 0)
            with Later(0.02, lambda: run(prog, 4)) as later:
                batch = rb.poll(10)
                woken = time.monotonic()
                got = numbers(list(batch.rows()))
                while len(got) < 4:
                    got += numbers(list(rb.poll(10).rows()))
            assert got == list(range(behind + first, behind + first + 4))
            assert woken - later.done_at < 2


def test_a_record_without_wake_up_is_found_at_the_end_of_the_wait(kernel: LiveKernel) -> None:
    spec = by_reserve(ring(PAGE_SIZE), flags=RingbufFlag.NO_WAKEUP)
    with spec.load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        assert len(rb.poll(0.01)) == 0
        with Later(0.05, lambda: run(prog, 2)):
            start = time.monotonic()
            assert len(rb.poll(2)) == 2
            assert time.monotonic() - start > 1.9


def test_a_discarded_record_does_not_end_the_wait(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE), discard_every=4).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:

        def produce() -> None:
            run(prog)  # number 0, discarded
            time.sleep(0.05)
            run(prog)

        with Later(0.02, produce):
            assert numbers(list(rb.poll(10).rows())) == [1]
        assert rb.discarded == 1


def test_batches_end_when_nothing_comes_any_more(kernel: LiveKernel) -> None:
    def produce() -> None:
        for _ in range(10):
            run(prog, 7)
            time.sleep(0.01)

    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        with Later(0.01, produce):
            got = [n for batch in rb.batches(0.5) for n in numbers(list(batch.rows()))]
        assert got == list(range(70))


@pytest.mark.parametrize("size", [PAGE_SIZE, 1 << 16, 1 << 20])
@HOW
def test_producers_on_all_cpus_while_it_is_read(kernel: LiveKernel, how: Filler, size: int) -> None:
    """Records of several CPUs at once: each is read once and whole; what is missing was counted."""
    producers, each = 3, 200_000
    with how(ring(size), NUMBERED).load(kernel) as prog, RingBuf(prog.maps["ring"], NUMBERED) as rb:
        threads = [Later(0.01, lambda: run(prog, each)) for _ in range(producers)]
        for thread in threads:
            thread.start()
        got: list[tuple[int | bytes, ...]] = []
        while any(thread.is_alive() for thread in threads):
            got += rb.poll(0.05).rows()
        for thread in threads:
            thread.join()
        while len(batch := rb.read()):
            got += batch.rows()
        ledger = Ledger(prog)
    seen = numbers(got)
    assert len(set(seen)) == len(seen)
    assert ledger.tried == producers * each
    assert len(seen) + ledger.dropped == ledger.tried
    assert len(seen) > (size - 1) // 32 or ledger.dropped == 0
    assert {row[2] for row in got} <= os.sched_getaffinity(0)


def test_another_process_fills_it(kernel: LiveKernel) -> None:
    with by_reserve(ring(1 << 20)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        child = os.fork()
        if child == 0:
            try:
                for _ in range(20):
                    run(prog, 50)
                    time.sleep(0.002)
            finally:
                os._exit(0)
        got: list[int] = []
        while len(got) < 1000:
            batch = rb.poll(10)
            assert len(batch)
            got += numbers(list(batch.rows()))
        os.waitpid(child, 0)
    assert got == list(range(1000))


# -- misuse --------------------------------------------------------------------------------------------------


def test_a_second_reader_is_noticed(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as first:
        with RingBuf(prog.maps["ring"], PAIR) as second:
            run(prog, 5)
            assert len(second.read()) == 5
        with pytest.raises(RingCorrupt, match="somebody else"):
            first.read()
        # A later one begins where the last one stopped.
        run(prog, 5)
        with RingBuf(prog.maps["ring"], PAIR) as third:
            assert numbers(list(third.read().rows())) == [5, 6, 7, 8, 9]


def test_records_of_another_size(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog:
        run(prog, 2)
        with RingBuf(prog.maps["ring"], NUMBERED) as rb, pytest.raises(RingCorrupt, match="16 bytes in a ring of 24-byte"):
            rb.read()


def test_batches_outlive_the_reader(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        run(prog, 10)
        batch = rb.read()
        rows = batch.rows()
        first = next(rows)
        rb.close()
        run(prog, 10)
    assert numbers([first, *rows]) == list(range(10))
    assert batch.column("number") == list(range(10))


def test_the_map_may_be_closed_before_the_reader(kernel: LiveKernel) -> None:
    prog = by_reserve(ring(PAGE_SIZE)).load(kernel)
    rb = RingBuf(prog.maps["ring"], PAIR)
    run(prog, 10)
    prog.close()
    assert len(rb.read()) == 10
    rb.close()


def test_a_reader_that_cannot_map_leaves_nothing(kernel: LiveKernel) -> None:
    # The spec says more than the kernel gave.
    with ring(PAGE_SIZE).create(kernel) as m:
        m.spec = ring(4 * PAGE_SIZE)
        with pytest.raises(SyscallError) as caught:
            RingBuf(m, PAIR)
    assert caught.value.call == "mmap"


def test_not_a_ring(kernel: LiveKernel) -> None:
    spec = MapSpec("array", MapType.ARRAY, key=4, value=8, max_entries=1)
    with spec.create(kernel) as m, pytest.raises(UsageError, match="array is no ring buffer"):
        RingBuf(m, PAIR)


def test_only_the_consumer_page_can_be_written(kernel: LiveKernel) -> None:
    """What RingBuf relies on: nobody can spoil the records or the producer's position from user space."""
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, kernel.mmap(prog.maps["ring"].fd, PAGE_SIZE) as memory:
        run(prog, 1)
        assert memory.load_u64(0) == 0
        with RingBuf(prog.maps["ring"], PAIR) as rb:
            rb.read()
        assert memory.load_u64(0) == RECORD
        with pytest.raises(SyscallError, match="EPERM"):
            kernel.mmap(prog.maps["ring"].fd, 2 * PAGE_SIZE, offset=PAGE_SIZE, writable=True)


def test_the_data_is_mapped_twice(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog:
        run(prog, 100)
        with kernel.mmap(prog.maps["ring"].fd, 3 * PAGE_SIZE, offset=PAGE_SIZE) as memory:
            assert memory.load_u64(0) == 100 * RECORD
            assert memory.view[PAGE_SIZE : 2 * PAGE_SIZE] == memory.view[2 * PAGE_SIZE :]
            assert struct.unpack_from("=I4xQ", memory.view, PAGE_SIZE + 2 * RECORD) == (PAIR.size, 2)
            assert memory.load_u32(PAGE_SIZE + 2 * RECORD) == PAIR.size


def test_two_programs_share_a_ring(kernel: LiveKernel) -> None:
    with (
        by_reserve(ring(PAGE_SIZE)).load(kernel) as one,
        by_output(ring(PAGE_SIZE)).load(kernel, one.maps) as two,
        RingBuf(one.maps["ring"], PAIR) as rb,
    ):
        run(one, 2)
        run(two, 2)
        run(one, 1)
        assert numbers(list(rb.read().rows())) == [0, 1, 2, 3, 4]
