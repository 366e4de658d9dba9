"""What the fds of another process are: /proc/PID/fdinfo, which the kernel fills in for maps, programs, links and BTF."""

from __future__ import annotations

import os
from time import monotonic_ns

from rawkm.audit.plan import PER_CPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.audit.raw import FactRow

# A program may close an fd, and get its number again for something else, without a word to us. Asking anew at every call would
# cost more than all the rest; this long an answer is believed.
#: Nanoseconds.
BELIEVED = 10_000_000

_KINDS = ((b"map_id", "map", b"map_type"), (b"link_id", "link", b""), (b"prog_id", "prog", b"prog_type"), (b"btf_id", "btf", b""))


def parse(text: bytes, cpus: int) -> FactRow | None:
    """The row of the Fact in a fdinfo file; None for an fd of another kind. ``cpus``: the number of possible CPUs."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        value = value.strip()
        if value.isdigit():
            values[name] = int(value)
    for key, kind, type_key in _KINDS:
        if key in values:
            if kind == "map":
                type = values.get(b"map_type", 0)
                slots = cpus if type in PER_CPU else 0
                return kind, values[key], type, values.get(b"key_size", 0), values.get(b"value_size", 0), slots
            return kind, values[key], values.get(type_key, 0), 0, 0, 0
    return None


class Facts:
    """The Facts of the fds of all processes that are watched."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._known: dict[tuple[int, int], tuple[float, FactRow | None]] = {}

    def of(self, tid: int, pid: int, fd: int) -> FactRow | None:
        """Of ``fd`` of a stopped thread."""
        now = monotonic_ns()
        key = pid, fd
        known = self._known.get(key)
        if known is not None and now - known[0] < BELIEVED:
            return known[1]
        fact = self._read(tid, fd)
        if len(self._known) > 4096:
            self._known.clear()
        self._known[key] = now, fact
        return fact

    def returned(self, tid: int, pid: int, fd: int) -> FactRow | None:
        """Of an fd that a call has just returned: whatever had its number before is gone."""
        self._known.pop((pid, fd), None)
        return self.of(tid, pid, fd)

    def _read(self, tid: int, fd: int) -> FactRow | None:
        try:
            file = os.open(f"/proc/{tid}/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return parse(os.read(file, 4096), self._cpus)
        except OSError:
            return None
        finally:
            os.close(file)
