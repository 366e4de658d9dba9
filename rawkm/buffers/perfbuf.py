"""The perf buffer: one perf event ring per CPU, filled by bpf_perf_event_output (Linux 4.4), mmapped and read by hand.

Layout (include/uapi/linux/perf_event.h): a page of positions, then 2^n pages of data. Not mapped twice:
records wrap. A sample is an 8-byte header, a u32 size and the payload, padded so that the whole is a multiple
of 8.
"""

from __future__ import annotations

from errno import EACCES, ENODEV, EPERM

from rawkm.buffers.reader import POSITIONS, Reader, leading
from rawkm.buffers.schema import Batch
from rawkm.errors import RingCorrupt, SyscallError, UsageError
from rawkm.host import cpus
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi.constants import (
    MapType,
    PerfAttrFlag,
    PerfCountSw,
    PerfFlag,
    PerfRecord,
    PerfSample,
    PerfType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.buffers.schema import Schema
    from rawkm.maps import Map
    from rawkm.syscall.kernel import Kernel, Memory, Value

# Offsets in struct perf_event_mmap_page.
_DATA_HEAD = 1024
_DATA_TAIL = 1032

_SAMPLE_HEAD = 12
_HINTS = {
    EACCES: "per-CPU events need CAP_PERFMON, and CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3; "
    "--buffer ring needs neither",
    EPERM: "the buffers exceed kernel.perf_event_mlock_kb, which CAP_IPC_LOCK lifts, or a container forbids perf events",
}


def pages(wanted: int) -> int:
    """The smallest number of data pages the kernel takes (a power of two) that holds ``wanted`` bytes."""
    count = 1
    while count * PAGE_SIZE < wanted:
        count *= 2
    return count


def output_event(kernel: Kernel, cpu: int, size: int) -> int:
    """The fd of a perf event that takes what BPF programs send on ``cpu``, for a buffer of ``size`` bytes.

    It is readable when a quarter of the buffer is full: who cares about latency polls with a timeout. Raises
    SyscallError: EACCES without CAP_PERFMON, ENODEV for a CPU that is offline.
    """
    # It counts from the start, as it is not ``disabled``.
    attr: dict[str, Value] = {
        "type": PerfType.SOFTWARE,
        "config": PerfCountSw.BPF_OUTPUT,
        "sample_type": PerfSample.RAW,
        "sample_period": 1,
        "flags": PerfAttrFlag.watermark,
        "wakeup_watermark": max(size // 4, 1),
    }
    return kernel.perf_event_open(attr, pid=-1, cpu=cpu, flags=PerfFlag.FD_CLOEXEC)


class _CpuRing:
    """One CPU's ring."""

    __slots__ = ("_kernel", "_memory", "_position", "_size", "cpu", "fd")

    def __init__(self, kernel: Kernel, cpu: int, size: int) -> None:
        self._kernel = kernel
        self._size = size
        self.cpu = cpu
        self.fd = output_event(kernel, cpu, size)
        try:
            self._memory: Memory = kernel.mmap(self.fd, PAGE_SIZE + size, writable=True)
        except BaseException:
            kernel.close(self.fd)
            raise
        self._position = self._memory.load_u64(_DATA_TAIL)

    def take(self) -> bytes:
        """Everything written since the last call, in one piece, and its space given back."""
        head = self._memory.load_u64(_DATA_HEAD)
        self._memory.fence()
        length = head - self._position & POSITIONS
        if length > self._size or (head | length) % 8:
            raise RingCorrupt(f"a perf buffer's head is {length} bytes ahead of its tail; the buffer has {self._size}")
        if length == 0:
            return b""
        start = self._position % self._size
        first = min(length, self._size - start)
        data = bytes(self._memory.read(PAGE_SIZE + start, first))
        if first < length:
            data += self._memory.read(PAGE_SIZE, length - first)
        self._position = head
        self._memory.fence()
        self._memory.store_u64(_DATA_TAIL, head)
        return data

    def close(self) -> None:
        self._memory.close()
        self._kernel.close(self.fd)


class PerfBuf(Reader):
    """A reader of ``array`` (a PERF_EVENT_ARRAY indexed by CPU), whose samples are all of ``schema``.

    ``size``: bytes per CPU, rounded up to a power of two of pages. The kernel tells of lost records late, in
    front of the next one that fits, or never: a program that wants the truth counts. Raises SyscallError:
    EACCES without CAP_PERFMON (CAP_SYS_ADMIN at perf_event_paranoid 3), E2BIG for an array with fewer entries
    than CPUs.
    """

    __slots__ = ("_array", "_rings", "_stride")

    def __init__(self, array: Map, schema: Schema, *, size: int = 1 << 16) -> None:
        if array.spec.type != MapType.PERF_EVENT_ARRAY:
            raise UsageError(f"the map {array.name} is no perf event array")
        super().__init__(array.kernel, schema)
        self._array = array
        self._stride = _SAMPLE_HEAD + schema.size + 7 & ~7
        self._rings: list[_CpuRing] = []
        bytes_per_cpu = pages(size) * PAGE_SIZE
        try:
            for cpu in cpus.online(array.kernel):
                try:
                    ring = _CpuRing(array.kernel, cpu, bytes_per_cpu)
                except SyscallError as err:
                    if err.errno == ENODEV:  # went offline since
                        continue
                    err.hint = _HINTS.get(err.errno, "")
                    raise
                self._rings.append(ring)
                array.update(cpu, ring.fd)
        except BaseException:
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        """For a poller: one per CPU, readable when a quarter of its buffer is full."""
        return [ring.fd for ring in self._rings]

    def read(self) -> Batch:
        """What can be read now from all CPUs, each CPU's records in order; the space is given back by then.

        Raises RingCorrupt when a buffer contradicts itself or its samples are not of the schema.
        """
        pieces: list[bytes | memoryview] = []
        lost = 0
        for ring in self._rings:
            data = ring.take()
            if data:
                lost += self._sift(data, pieces)
        return Batch(self.schema, b"".join(pieces), stride=self._stride, skip=_SAMPLE_HEAD, lost=lost)

    def close(self) -> None:
        """Gives memory and events back and takes them out of the array: a program that goes on gets ENOENT."""
        super().close()
        while self._rings:
            ring = self._rings.pop()
            if self._array.fd >= 0:
                try:
                    self._array.delete(ring.cpu)
                except SyscallError:
                    pass  # an index that the array does not have, which is why we are closing
            ring.close()

    def _sift(self, data: bytes, pieces: list[bytes | memoryview]) -> int:
        """Appends the samples in ``data`` to ``pieces``; how many records the other ones say were lost."""
        whole = self._stride
        view = memoryview(data)
        kinds, sizes = view.cast("I"), view.cast("H")
        window = len(data) // whole
        lost = at = 0
        while at < len(data):
            # struct perf_event_header: u32 type, u16 misc, u16 size.
            kind, size = kinds[at // 4], sizes[at // 2 + 3]
            if size < 8 or size % 8 or at + size > len(data):
                raise RingCorrupt(f"a perf record of {size} bytes with {len(data) - at} bytes left")
            if kind == PerfRecord.SAMPLE:
                if size != whole:
                    raise RingCorrupt(f"a sample of {size} bytes where {self.schema.name} takes {whole}")
                most = min(window, (len(data) - at) // whole)
                end = at + most * whole
                run = min(
                    leading(kinds[at // 4 : end // 4 : whole // 4], PerfRecord.SAMPLE),
                    leading(sizes[at // 2 + 3 : end // 2 : whole // 2], whole),
                )
                # The common case is that there is nothing else: then ``data`` goes on as it is, without a copy.
                pieces.append(data if run * whole == len(data) else view[at : at + run * whole])
                at += run * whole
                # Where other records are mixed in, do not look at the same headers again and again.
                window = 4 * most if run == most else 2 * run + 16
                continue
            if kind == PerfRecord.LOST and size >= 24:
                # {header, u64 id, u64 lost}
                lost += view[at + 16 : at + 24].cast("Q")[0]
            at += size
        return lost
