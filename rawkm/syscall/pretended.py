"""Memory that stands in for a mapping where there is no kernel."""

from __future__ import annotations

import sys


class PretendedMemory:
    """As in ``kernel.Memory``: ``length`` bytes, at first 0, that nobody else sees."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._data: bytearray | None = None

    @property
    def view(self) -> memoryview:
        if self._data is None:
            self._data = bytearray(self._length)
        return memoryview(self._data)

    def read(self, offset: int, length: int) -> memoryview:
        return self.view[offset : offset + length]

    def load_u32(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 4), sys.byteorder)

    def load_u64(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 8), sys.byteorder)

    def store_u64(self, offset: int, value: int) -> None:
        self.view[offset : offset + 8] = value.to_bytes(8, sys.byteorder)

    def fence(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> PretendedMemory:
        return self

    def __exit__(self, *exc: object) -> None: ...
