"""Records from the kernel: their declaration, and the readers of ring buffers and perf buffers."""

from __future__ import annotations

from rawkm.buffers.perfbuf import PerfBuf
from rawkm.buffers.ringbuf import RingBuf
from rawkm.buffers.schema import Batch, Schema

__all__ = ["Batch", "PerfBuf", "RingBuf", "Schema"]
