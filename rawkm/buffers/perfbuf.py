"""The perf buffer: one perf event ring per CPU, filled by bpf_perf_event_output (Linux 4.4), mmapped and read by hand.

Layout (include/uapi/linux/perf_event.h): a page of positions, then 2^n pages of data. Not mapped twice: records wrap. A sample is an
8-byte header, a u32 size and the payload, padded so that the whole is a multiple of 8.
"""

from __future__ import annotations

from errno import EACCES, ENODEV, EPERM

from rawkm.buffers.schema import Batch
from rawkm.errors import RingCorrupt, SyscallError, UsageError
from rawkm.host import cpus
from rawkm.syscall import PAGE_SIZE
from rawkm.uapi.constants import (
    MapType,
    PerfAttrFlag,
    PerfCountSw,
    PerfFlag,
    PerfIoc,
    PerfRecord,
    PerfSample,
    PerfType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.buffers.schema import Schema
    from rawkm.maps import Map
    from rawkm.syscall.kernel import Kernel, Memory, Poller, Value

# Offsets in struct perf_event_mmap_page.
_DATA_HEAD = 1024
_DATA_TAIL = 1032

_SAMPLE_HEAD = 12
_HINTS = {
    EACCES: "per-CPU events need CAP_PERFMON, and CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3; --buffer ring needs neither",
    EPERM: "the buffers exceed kernel.perf_event_mlock_kb, which CAP_IPC_LOCK lifts, or a container forbids perf events",
}


def pages(wanted: int) -> int:
    """The smallest number of data pages the kernel takes (a power of two) that holds ``wanted`` bytes."""
    count = 1
    while count * PAGE_SIZE < wanted:
        count *= 2
    return count


class _CpuRing:
    """One CPU's ring."""

    __slots__ = ("_kernel", "_memory", "_position", "_size", "fd")

    def __init__(self, kernel: Kernel, cpu: int, size: int) -> None:
        # A wake-up per quarter buffer: readers that care about latency poll with a timeout.
        attr: dict[str, Value] = {
            "type": PerfType.SOFTWARE,
            "config": PerfCountSw.BPF_OUTPUT,
            "sample_type": PerfSample.RAW,
            "sample_period": 1,
            "flags": PerfAttrFlag.watermark,
            "wakeup_watermark": max(size // 4, 1),
        }
        self._kernel = kernel
        self.fd = kernel.perf_event_open(attr, pid=-1, cpu=cpu, flags=PerfFlag.FD_CLOEXEC)
        try:
            self._memory: Memory = kernel.mmap(self.fd, PAGE_SIZE + size, writable=True)
        except BaseException:
            kernel.close(self.fd)
            raise
        self._size = size
        self._position = self._memory.load_u64(_DATA_TAIL)

    def take(self) -> bytes:
        """Everything written since the last call, in one piece, and its space given back."""
        head = self._memory.load_u64(_DATA_HEAD)
        self._memory.fence()
        length = head - self._position
        if not 0 <= length <= self._size:
            raise RingCorrupt(f"a perf buffer's head is {length} bytes ahead of its tail; the buffer has {self._size}")
        if length == 0:
            return b""
        start = self._position % self._size
        first = min(length, self._size - start)
        view = self._memory.view[PAGE_SIZE:]
        data = bytes(view[start : start + first]) + bytes(view[: length - first])
        view.release()
        self._position = head
        self._memory.fence()
        self._memory.store_u64(_DATA_TAIL, head)
        return data

    def close(self) -> None:
        self._memory.close()
        self._kernel.close(self.fd)


class PerfBuf:
    """A reader of ``array`` (a PERF_EVENT_ARRAY indexed by CPU), whose samples are all of ``schema``.

    ``size``: bytes per CPU, rounded up to a power of two of pages. The kernel tells of lost records late, in front of the next one that
    fits, or never: a program that wants the truth counts. Raises SyscallError EACCES without CAP_PERFMON (CAP_SYS_ADMIN at
    perf_event_paranoid 3).
    """

    __slots__ = ("_array", "_poller", "_rings", "schema")

    def __init__(self, array: Map, schema: Schema, *, size: int = 1 << 16) -> None:
        if array.spec.type != MapType.PERF_EVENT_ARRAY:
            raise UsageError(f"the map {array.name} is no perf event array")
        self._array = array
        self.schema = schema
        self._rings: list[_CpuRing] = []
        self._poller: Poller | None = None
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
                array.kernel.ioctl(ring.fd, PerfIoc.ENABLE)
        except BaseException:
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        """For a poller: one per CPU, readable when a quarter of its buffer is full."""
        return [ring.fd for ring in self._rings]

    def read(self) -> Batch:
        """What can be read now from all CPUs, each CPU's records in order."""
        whole = _SAMPLE_HEAD + self.schema.size + 7 & ~7
        pieces = []
        lost = 0
        for ring in self._rings:
            data = ring.take()
            if not data:
                continue
            if not _all_samples(data, whole):
                data, gone = self._sift(data, whole)
                lost += gone
            pieces.append(data)
        return Batch(self.schema, b"".join(pieces), stride=whole, skip=_SAMPLE_HEAD, lost=lost)

    def poll(self, timeout: float) -> Batch:
        """As ``read``, after waiting up to ``timeout`` seconds for a buffer to become a quarter full."""
        batch = self.read()
        if not len(batch):
            if self._poller is None:
                self._poller = self._array.kernel.poller()
                for fd in self.fds:
                    self._poller.add(fd)
            self._poller.wait(timeout)
            batch = self.read()
        return batch

    def batches(self, timeout: float) -> Iterator[Batch]:
        """Batch after batch, until nothing has come for ``timeout`` seconds."""
        while len(batch := self.poll(timeout)):
            yield batch

    def close(self) -> None:
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        while self._rings:
            self._rings.pop().close()

    def __enter__(self) -> PerfBuf:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sift(self, data: bytes, whole: int) -> tuple[bytes, int]:
        """The samples among other records, and the sum of the LOST ones."""
        view = memoryview(data)
        kinds, sizes = view.cast("I"), view.cast("H")
        kept: list[memoryview] = []
        lost = at = 0
        while at < len(data):
            kind, size = kinds[at >> 2], sizes[(at >> 1) + 3]
            if size < 8 or size % 8 or at + size > len(data):
                raise RingCorrupt(f"a perf record of {size} bytes with {len(data) - at} bytes left")
            if kind == PerfRecord.SAMPLE:
                if size != whole:
                    raise RingCorrupt(f"a sample of {size} bytes where {self.schema.name} takes {whole}")
                kept.append(view[at : at + size])
            elif kind == PerfRecord.LOST and size >= 24:
                # {header, u64 id, u64 lost}
                lost += view[at + 16 : at + 24].cast("Q")[0]
            at += size
        return b"".join(kept), lost


def _all_samples(data: bytes, whole: int) -> bool:
    """Whether ``data`` is nothing but samples of ``whole`` bytes."""
    if len(data) % whole:
        return False
    count = len(data) // whole
    view = memoryview(data)
    kinds = view.cast("I")[:: whole // 4].tolist()
    sizes = view.cast("H")[3 :: whole // 2].tolist()
    return kinds.count(PerfRecord.SAMPLE) == count and sizes.count(whole) == count
