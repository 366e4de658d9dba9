"""A kernel that tells which system calls it made."""

from __future__ import annotations

from rawkm.syscall.call import Call
from rawkm.syscall.live import LiveKernel


class Watcher:
    """An observer that keeps every call it is told of."""

    def __init__(self) -> None:
        self.entered: list[Call] = []
        self.left: list[Call] = []
        self.seams: list[Call] = []

    def enter(self, call: Call) -> None:
        assert len(self.entered) == len(self.left), "calls do not nest"
        self.entered.append(call)

    def leave(self, call: Call) -> None:
        assert call is self.entered[-1]
        self.left.append(call)

    def passed(self, call: Call) -> None:
        assert call.seam
        self.seams.append(call)

    def bpf_calls(self) -> list[str]:
        """The commands of the bpf(2) calls so far."""
        return [call.layout.command for call in self.left if call.name == "bpf" and call.layout is not None]

    def attrs(self, command: str) -> list[dict[str, int | bytes]]:
        """What was sent by each bpf(2) call of that command."""
        return [call.layout.unpack(call.attr) for call in self.left if call.layout is not None and call.layout.command == command]


def watched() -> tuple[LiveKernel, Watcher]:
    watcher = Watcher()
    return LiveKernel(watcher), watcher
