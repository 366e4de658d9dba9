"""Stand-ins for mapped memory and for the few calls that the buffers' readers make, with the kernel's side of both buffers.

For tests of what a real kernel cannot be made to do at will: a record that stays half written, positions near
their end, memory that lies. What a real kernel can do is tested on a real kernel.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import cast

from rawkm.buffers import Schema
from rawkm.maps import Map, MapSpec
from rawkm.syscall import PAGE_SIZE
from rawkm.syscall.kernel import Reply
from rawkm.uapi.constants import MapType, PerfRecord
from rawkm.uapi.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel, Memory, Poller, Value

U64 = (1 << 64) - 1
BUSY, DISCARD = 1 << 31, 1 << 30
ONLINE = "/sys/devices/system/cpu/online"


class FakeMemory:
    """``length`` bytes with more behind them (``beyond``), which nobody may ever see.

    Word accesses must be aligned and inside; ``budget`` limits their number. ``stores`` lists what was stored.
    """

    def __init__(self, length: int, *, beyond: bytes = b"", budget: int = 1_000_000) -> None:
        self.length = length
        self.raw = bytearray(length) + beyond
        self.budget = budget
        self.stores: list[tuple[int, int]] = []
        self.fences = 0
        self.closed = False

    @property
    def view(self) -> memoryview:
        assert not self.closed
        return memoryview(self.raw)

    def read(self, offset: int, length: int) -> memoryview:
        return self.view[offset : offset + length]

    def _check(self, offset: int, size: int) -> None:
        assert not self.closed
        assert offset % size == 0
        assert 0 <= offset <= self.length - size
        self.budget -= 1
        assert self.budget > 0, "an endless loop?"

    def load_u32(self, offset: int) -> int:
        self._check(offset, 4)
        return int.from_bytes(self.raw[offset : offset + 4], sys.byteorder)

    def load_u64(self, offset: int) -> int:
        self._check(offset, 8)
        return int.from_bytes(self.raw[offset : offset + 8], sys.byteorder)

    def store_u64(self, offset: int, value: int) -> None:
        self._check(offset, 8)
        self.stores.append((offset, value))
        self.raw[offset : offset + 8] = value.to_bytes(8, sys.byteorder)

    def fence(self) -> None:
        self.fences += 1

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FakePoller:
    """Always at once ready when ``ready`` says so; ``waits`` counts the calls."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self.fds: list[int] = []
        self.waits = 0
        self.closed = False

    def add(self, fd: int) -> None:
        self.fds.append(fd)

    def wait(self, timeout: float | None) -> list[int]:
        assert timeout is None or timeout > 0
        self.waits += 1
        return self.fds if self._ready() else []

    def close(self) -> None:
        self.closed = True


class FakeKernel:
    """Gives out the memory it was made with, by (fd, offset); perf events get the fds from 100 on, one per CPU."""

    def __init__(
        self, memory: Mapping[tuple[int, int], FakeMemory], *, ready: Callable[[], bool] = lambda: False, cpus: int = 1
    ) -> None:
        self.memory = dict(memory)
        self.pollers: list[FakePoller] = []
        self.calls: list[tuple[str, dict[str, Value]]] = []
        self.closed: list[int] = []
        self._ready = ready
        self._cpus = cpus

    def mmap(self, fd: int, length: int, *, offset: int = 0, writable: bool = False) -> Memory:
        memory = self.memory[fd, offset]
        assert length == memory.length
        assert writable == (offset == 0)
        return memory

    def poller(self) -> Poller:
        self.pollers.append(FakePoller(self._ready))
        return self.pollers[-1]

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        self.calls.append((layout.name, dict(values)))
        return Reply(0, layout, bytes(layout.size))

    def perf_event_open(self, values: Mapping[str, Value], *, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
        self.calls.append(("perf_event_open", {**values, "pid": pid, "group_fd": group_fd, "flags": flags}))
        return 100 + cpu

    def read_file(self, path: str) -> bytes:
        assert path == ONLINE
        return b"0-%d\n" % (self._cpus - 1)

    def close(self, fd: int) -> None:
        self.closed.append(fd)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def real(self) -> Kernel:
        """Itself, as what it stands for."""
        return cast("Kernel", self)


class FakeRing:
    """The producers' side of a BPF ring buffer, as kernel/bpf/ringbuf.c writes it."""

    FD = 7

    def __init__(self, size: int = PAGE_SIZE, *, start: int = 0, ready: Callable[[], bool] = lambda: False) -> None:
        self.size = size
        self.consumer = FakeMemory(PAGE_SIZE)
        self.data = FakeMemory(PAGE_SIZE + 2 * size, beyond=b"\xee" * PAGE_SIZE)
        self.kernel = FakeKernel({(self.FD, 0): self.consumer, (self.FD, PAGE_SIZE): self.data}, ready=ready)
        self.set_positions(start, start)

    def map(self) -> Map:
        return Map(self.kernel.real(), self.FD, MapSpec("ring", MapType.RINGBUF, max_entries=self.size))

    def set_positions(self, consumer: int, producer: int) -> None:
        struct.pack_into("=Q", self.consumer.raw, 0, consumer & U64)
        struct.pack_into("=Q", self.data.raw, 0, producer & U64)

    @property
    def consumed(self) -> int:
        return int(struct.unpack_from("=Q", self.consumer.raw)[0])

    @property
    def produced(self) -> int:
        return int(struct.unpack_from("=Q", self.data.raw)[0])

    def poke(self, position: int, data: bytes) -> None:
        """Writes at a position; both copies of the data show it."""
        for i, byte in enumerate(data):
            at = PAGE_SIZE + (position + i) % self.size
            self.data.raw[at] = self.data.raw[at + self.size] = byte

    def reserve(self, length: int) -> int | None:
        """The position of a record of ``length`` bytes that is being written from now on, None when there is no room."""
        position = self.produced
        after = position + (length + 8 + 7 & ~7)
        if after - self.consumed & U64 > self.size - 1:
            return None
        self.poke(position, struct.pack("=II", length | BUSY, 3) + b"\xaa" * length)
        struct.pack_into("=Q", self.data.raw, 0, after & U64)
        return position

    def commit(self, position: int, payload: bytes, *, discard: bool = False) -> None:
        self.poke(position + 8, payload)
        self.poke(position, struct.pack("=I", len(payload) | (DISCARD if discard else 0)))

    def put(self, payload: bytes, *, discard: bool = False) -> bool:
        """A whole record; False when there is no room."""
        position = self.reserve(len(payload))
        if position is not None:
            self.commit(position, payload, discard=discard)
        return position is not None


class FakePerf:
    """The kernel's side of one CPU's perf buffer with ``pages`` pages of data, on CPU 0."""

    HEAD, TAIL = 1024, 1032

    def __init__(self, pages: int = 1, *, start: int = 0) -> None:
        self.size = pages * PAGE_SIZE
        self.memory = FakeMemory(PAGE_SIZE + self.size, beyond=b"\xee" * PAGE_SIZE)
        self.kernel = FakeKernel({(100, 0): self.memory})
        self.set_positions(start, start)

    def map(self) -> Map:
        spec = MapSpec("events", MapType.PERF_EVENT_ARRAY, key=4, value=4, max_entries=1)
        return Map(self.kernel.real(), 7, spec)

    def set_positions(self, tail: int, head: int) -> None:
        struct.pack_into("=QQ", self.memory.raw, self.HEAD, head & U64, tail & U64)

    @property
    def positions(self) -> tuple[int, int]:
        """(tail, head)."""
        head, tail = struct.unpack_from("=QQ", self.memory.raw, self.HEAD)
        return tail, head

    def put(self, kind: int, body: bytes, misc: int = 0) -> bool:
        """A record; False when there is no room. The body's length is a multiple of 8."""
        tail, head = self.positions
        record = struct.pack("=IHH", kind, misc, 8 + len(body)) + body
        if (head - tail & U64) + len(record) > self.size - 1:
            return False
        for i, byte in enumerate(record):
            self.memory.raw[PAGE_SIZE + (head + i) % self.size] = byte
        self.set_positions(tail, head + len(record))
        return True

    def sample(self, payload: bytes, misc: int = 0) -> bool:
        size = len(payload) + 4 + 7 & ~7
        return self.put(PerfRecord.SAMPLE, (struct.pack("=I", size - 4) + payload).ljust(size, b"\0"), misc)

    def lost(self, count: int) -> bool:
        return self.put(PerfRecord.LOST, struct.pack("=QQ", 1, count))


#: 16 bytes: what most tests send.
PAIR = Schema("Pair", number="u64", check="u64")


def pair(number: int) -> bytes:
    """A record whose halves agree."""
    return struct.pack("=QQ", number, ~number & U64)


def numbers(rows: list[tuple[int | bytes, ...]]) -> list[int]:
    """The numbers of PAIR records, every one of them whole."""
    found = []
    for number, check in rows:
        assert isinstance(number, int)
        assert check == ~number & U64, f"a torn record: {number:#x}, {check!r}"
        found.append(number)
    return found
