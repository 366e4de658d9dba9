"""The perf buffer of the running kernel, filled by bpf_perf_event_output under BPF_PROG_TEST_RUN and read by PerfBuf."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from rawkm.buffers import PerfBuf, Schema
from rawkm.buffers.perfbuf import output_event, pages
from rawkm.errors import RingCorrupt, SyscallError, UsageError
from rawkm.maps import MapSpec
from rawkm.prog import Program
from rawkm.syscall import PAGE_SIZE
from rawkm.syscall.live import LiveKernel
from rawkm.uapi import packed
from rawkm.uapi.constants import MapType, ProgType, TestRunFlag
from tests.kernel.fillers import NUMBERED, PAIR, Ledger, by_perf, numbers, on_cpu, perf_array, run

SMALL = Schema("Small", number="u64")
CPUS = sorted(os.sched_getaffinity(0))

ENOENT, E2BIG, ENOMEM, ENOSPC, EOPNOTSUPP = 2, 7, 12, 28, 95


@pytest.fixture(autouse=True)
def stay() -> Iterator[None]:
    """On the first CPU, where a test does not say otherwise."""
    with on_cpu(CPUS[0]):
        yield


def test_capacity_and_lost_records(kernel: LiveKernel) -> None:
    """Records of 24 bytes in two pages; the kernel tells of the lost ones in front of the next one that fits."""
    fit = 2 * PAGE_SIZE // 24
    with by_perf(perf_array(), SMALL).load(kernel) as prog, PerfBuf(prog.maps["events"], SMALL, size=2 * PAGE_SIZE) as pb:
        assert len(pb.read()) == 0
        run(prog, 600)
        ledger = Ledger(prog)
        assert (ledger.tried, ledger.dropped, ledger.error) == (600, 600 - fit, -ENOSPC)
        batch = pb.read()
        assert batch.column("number") == list(range(fit))
        assert batch.lost == 0
        # Drained and quiet: nothing is told.
        assert (len(pb.read()), pb.read().lost) == (0, 0)
        run(prog, 3)
        batch = pb.read()
        assert batch.column("number") == [600, 601, 602]
        assert batch.lost == 600 - fit
        run(prog, 1)
        assert pb.read().lost == 0


@pytest.mark.parametrize("schema", [SMALL, PAIR, NUMBERED, Schema("Long", number="u64", check="u64", rest="char[200]")])
def test_wrapping_around_many_times(kernel: LiveKernel, schema: Schema) -> None:
    rounds = random.Random(schema.size)
    whole = schema.size + 16
    most = (PAGE_SIZE - 1) // whole  # a buffer never becomes quite full
    expected = 0
    with by_perf(perf_array(), schema).load(kernel) as prog, PerfBuf(prog.maps["events"], schema, size=1) as pb:
        while expected * whole < 60 * PAGE_SIZE:
            times = rounds.randint(1, most)
            run(prog, times)
            batch = pb.read()
            assert batch.column("number") == list(range(expected, expected + times))
            if "check" in schema.fields:
                numbers(list(batch.rows()))
            expected += times
        assert Ledger(prog).dropped == 0


def test_lost_records_again_and_again(kernel: LiveKernel) -> None:
    """What was read and what was lost, by the program's and by the kernel's count, in records that shift each other."""
    rounds = random.Random(1)
    got: list[int] = []
    lost = 0
    with by_perf(perf_array(), NUMBERED).load(kernel) as prog, PerfBuf(prog.maps["events"], NUMBERED, size=1) as pb:
        for _ in range(200):
            run(prog, rounds.randint(1, 2 * PAGE_SIZE // 40))
            batch = pb.read()
            got += numbers(list(batch.rows()))
            lost += batch.lost
        run(prog, 1)
        batch = pb.read()
        got += numbers(list(batch.rows()))
        lost += batch.lost
        ledger = Ledger(prog)
    assert got == sorted(set(got))
    assert len(got) + ledger.dropped == ledger.tried
    assert lost == ledger.dropped > 1000


def test_every_cpu_has_its_own_buffer(kernel: LiveKernel) -> None:
    assert len(CPUS) > 1, "this test needs two CPUs"
    with by_perf(perf_array(), NUMBERED).load(kernel) as prog, PerfBuf(prog.maps["events"], NUMBERED) as pb:
        where: dict[int, list[int]] = {cpu: [] for cpu in CPUS}
        sent = 0
        for times in (5, 1, 100, 7):
            for cpu in CPUS:
                with on_cpu(cpu):
                    run(prog, times)
                where[cpu] += range(sent, sent + times)
                sent += times
        batch = pb.read()
        rows = list(batch.rows())
        assert sorted(numbers(rows)) == list(range(sent))
        for cpu in CPUS:
            assert [row[0] for row in rows if row[2] == cpu] == where[cpu]
        # One CPU after the other.
        assert [row[2] for row in rows] == sorted(batch.column("cpu"))
        assert len(pb.fds) == len(CPUS)


def test_what_every_cpu_lost(kernel: LiveKernel) -> None:
    with by_perf(perf_array(), NUMBERED).load(kernel) as prog, PerfBuf(prog.maps["events"], NUMBERED, size=1) as pb:
        for times in (500, 1):
            for cpu in CPUS:
                with on_cpu(cpu):
                    run(prog, times)
            batch = pb.read()
        assert batch.lost == Ledger(prog).dropped == len(CPUS) * (500 - (PAGE_SIZE - 1) // 40)
        assert len(batch) == len(CPUS)


def test_raw_tracepoint_programs_on_another_cpu(kernel: LiveKernel) -> None:
    with (
        by_perf(perf_array(), NUMBERED, type=ProgType.RAW_TRACEPOINT).load(kernel) as prog,
        PerfBuf(prog.maps["events"], NUMBERED) as pb,
    ):
        for cpu in [*CPUS, *CPUS]:
            reply = kernel.bpf(
                packed.PROG_TEST_RUN,
                {"test.prog_fd": prog.fd, "test.flags": TestRunFlag.RUN_ON_CPU, "test.cpu": cpu},
            )
            assert reply["test.retval"] == 1
        assert pb.read().column("cpu") == sorted([*CPUS, *CPUS])


def test_what_programs_are_told(kernel: LiveKernel) -> None:
    other = CPUS[-1]
    with by_perf(perf_array(), SMALL).load(kernel) as prog:
        run(prog)
        assert Ledger(prog).error == -ENOENT  # no buffer yet
        with PerfBuf(prog.maps["events"], SMALL) as pb:
            run(prog)
            assert (Ledger(prog).dropped, len(pb.read())) == (1, 1)
            with by_perf(perf_array(), SMALL, index=other).load(kernel, prog.maps) as stray:
                run(stray)
                assert Ledger(stray).error == -EOPNOTSUPP  # that CPU's buffer, from this CPU
        run(prog)
        assert Ledger(prog).error == -ENOENT  # closed
        with PerfBuf(prog.maps["events"], SMALL) as pb:
            run(prog)
            assert pb.read().column("number") == [4]


# -- waiting -------------------------------------------------------------------------------------------------


def later(seconds: float, prog: Program, times: int) -> threading.Thread:
    def fill() -> None:
        time.sleep(seconds)
        with on_cpu(CPUS[-1]):
            run(prog, times)

    thread = threading.Thread(target=fill)
    thread.start()
    return thread


def test_poll_is_woken_by_a_quarter(kernel: LiveKernel) -> None:
    with by_perf(perf_array(), SMALL).load(kernel) as prog, PerfBuf(prog.maps["events"], SMALL, size=PAGE_SIZE) as pb:
        for _ in range(5):
            quarter = PAGE_SIZE // 4 // 24 + 1
            thread = later(0.02, prog, quarter)
            start = time.monotonic()
            got = len(pb.poll(10))
            assert time.monotonic() - start < 2
            thread.join()
            assert got + len(pb.read()) == quarter


def test_poll_finds_what_did_not_wake_it(kernel: LiveKernel) -> None:
    with by_perf(perf_array(), SMALL).load(kernel) as prog, PerfBuf(prog.maps["events"], SMALL) as pb:
        thread = later(0.05, prog, 2)
        start = time.monotonic()
        assert len(pb.poll(2)) == 2
        assert time.monotonic() - start > 1.9
        thread.join()
        assert [len(batch) for batch in pb.batches(0.01)] == []
        run(prog, 5)
        assert [len(batch) for batch in pb.batches(0.01)] == [5]


def test_filled_while_it_is_read(kernel: LiveKernel) -> None:
    total = 300_000
    with by_perf(perf_array(), NUMBERED).load(kernel) as prog, PerfBuf(prog.maps["events"], NUMBERED, size=1 << 16) as pb:
        thread = later(0.01, prog, total)
        got: list[int] = []
        lost = 0
        while thread.is_alive():
            batch = pb.poll(0.02)
            got += numbers(list(batch.rows()))
            lost += batch.lost
        thread.join()
        got += numbers(list(pb.read().rows()))
        ledger = Ledger(prog)
    assert ledger.tried == total
    assert len(got) + ledger.dropped == total
    assert got == sorted(set(got))
    assert lost <= ledger.dropped


# -- misuse --------------------------------------------------------------------------------------------------


def test_an_array_with_too_few_entries(kernel: LiveKernel) -> None:
    with perf_array(1).create(kernel) as m:
        with pytest.raises(SyscallError) as caught:
            PerfBuf(m, SMALL)
        assert caught.value.errno == E2BIG
        # What was opened before has been given back, the slot too.
        assert not m.delete(0)


def test_a_buffer_that_the_kernel_cannot_make(kernel: LiveKernel) -> None:
    with perf_array().create(kernel) as m, pytest.raises(SyscallError) as caught:
        PerfBuf(m, SMALL, size=1 << 33)
    assert (caught.value.call, caught.value.errno) == ("mmap", ENOMEM)


def test_samples_of_another_size(kernel: LiveKernel) -> None:
    with by_perf(perf_array(), SMALL).load(kernel) as prog, PerfBuf(prog.maps["events"], NUMBERED) as pb:
        run(prog)
        with pytest.raises(RingCorrupt, match="a sample of 24 bytes where Numbered takes 40"):
            pb.read()


def test_not_a_perf_event_array(kernel: LiveKernel) -> None:
    spec = MapSpec("array", MapType.ARRAY, key=4, value=4, max_entries=2)
    with spec.create(kernel) as m, pytest.raises(UsageError, match="array is no perf event array"):
        PerfBuf(m, SMALL)


def test_the_map_may_be_closed_before_the_reader(kernel: LiveKernel) -> None:
    prog = by_perf(perf_array(), SMALL).load(kernel)
    pb = PerfBuf(prog.maps["events"], SMALL)
    run(prog, 3)
    prog.close()
    assert len(pb.read()) == 3
    pb.close()
    pb.close()


def test_sizes(kernel: LiveKernel) -> None:
    assert [pages(n) for n in (1, PAGE_SIZE, PAGE_SIZE + 1, 5 * PAGE_SIZE)] == [1, 1, 2, 8]
    with by_perf(perf_array(), SMALL).load(kernel) as prog:
        for size in (1, PAGE_SIZE, 3 * PAGE_SIZE):
            with PerfBuf(prog.maps["events"], SMALL, size=size) as pb:
                before = Ledger(prog).dropped
                run(prog, 4 * PAGE_SIZE)
                fit = 4 * PAGE_SIZE - (Ledger(prog).dropped - before)
                assert fit == pages(size) * PAGE_SIZE // 24
                assert len(pb.read()) == fit


def test_output_event_on_a_cpu_that_is_not_there(kernel: LiveKernel) -> None:
    with pytest.raises(SyscallError) as caught:
        output_event(kernel, 4095, PAGE_SIZE)
    assert caught.value.call == "perf_event_open"
    kernel.close(output_event(kernel, CPUS[0], PAGE_SIZE))
