"""CPU numbers."""

from __future__ import annotations

from rawkm.errors import RawkmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel


def parse_cpu_list(text: str) -> list[int]:
    """The numbers of a kernel CPU list ("0-3,8" → [0, 1, 2, 3, 8])."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if not part:
            continue
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def possible(kernel: Kernel) -> list[int]:
    """The CPUs that may ever come up: what per-CPU values are sized by. Numbers need not be contiguous."""
    return _read(kernel, "possible")


def online(kernel: Kernel) -> list[int]:
    """The CPUs that run now: where a per-CPU perf event can be opened."""
    return _read(kernel, "online")


def _read(kernel: Kernel, which: str) -> list[int]:
    path = f"/sys/devices/system/cpu/{which}"
    text = kernel.read_file(path).decode("ascii", "replace")
    try:
        cpus = parse_cpu_list(text)
    except ValueError:
        cpus = []
    if not cpus:
        raise RawkmError(f"{path} holds no list of CPUs: {text!r}")
    return cpus
