"""Reads what a call's pointers point to, by a plan, from the memory of whoever makes it."""

from __future__ import annotations

from rawkm.audit import plan as plans
from rawkm.audit.plan import BY_INSNS, STRING
from rawkm.audit.raw import CUT, MOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from rawkm.audit.plan import Plan, Pointer, Values
    from rawkm.audit.raw import FactRow as Fact
    from rawkm.audit.raw import MemoryRow as Memory

    class Source(Protocol):
        """The memory of one thread."""

        def gather(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
            """(what could be read from the beginning on, errno or 0) of each (address, size)."""

        def string(self, address: int, most: int) -> tuple[bytes, int]:
            """Bytes up to the first NUL, and the errno when memory ends before one."""
else:
    Protocol = object

# Paths, names of functions, licenses.
_MOST_STRING = 4096
# Most strings are short: read together with everything else.
_FIRST_PIECE = 64
_PAGE = 4096
# Names that lie together in memory are read together when not much else lies between them.
_MOST_SPAN = 4 << 20


def entry(source: Source, plan: Plan, values: Values, facts: Mapping[str, Fact], prefix: str = "") -> dict[str, Memory]:
    """What the kernel is about to read."""
    found: dict[str, Memory] = {}
    wanted = []
    for pointer in plan.pointers:
        if pointer.reads:
            address = values[pointer.path]
            if address:
                size = pointer.measure(values, facts.get(pointer.map_fd))
                if size:
                    wanted.append((pointer, address, size))
    if wanted:
        _read(source, wanted, found, prefix)
    return found


def exit(
    source: Source,
    plan: Plan,
    before: Values,
    after: Values,
    facts: Mapping[str, Fact],
    ret: int,
    prefix: str = "",
) -> dict[str, Memory]:
    """What the kernel has written. Sizes are what there was room for, or less where the kernel says so."""
    found: dict[str, Memory] = {}
    if ret < 0 and not plan.on_error:
        return found
    wanted = []
    for pointer in plan.pointers:
        if not pointer.writes:
            continue
        if pointer.target == "log":
            if not before[pointer.path.replace("log_buf", "log_level")]:
                continue
        elif ret < 0 and plan.has_log:
            continue
        address = before[pointer.path]
        if address:
            fact = facts.get(pointer.map_fd)
            size = pointer.measure(before, fact)
            if size > 0 and after is not before:
                size = min(size, pointer.measure(after, fact))
            if pointer.path == _STREAM:
                size = ret
            if size:
                wanted.append((pointer, address, size))
    if wanted:
        _read(source, wanted, found, prefix)
    return found


_STREAM = "prog_stream_read.stream_buf"


def _read(source: Source, wanted: Sequence[tuple[Pointer, int, int]], found: dict[str, Memory], prefix: str) -> None:
    ranges = []
    for pointer, address, size in wanted:
        if size == STRING or pointer.target == "log":
            ranges.append((address, min(_FIRST_PIECE, _PAGE - address % _PAGE)))
        elif pointer.strings:
            ranges.append((address, min(size * 8, MOST)))
        else:
            ranges.append((address, min(size, MOST) if size > 0 else 0))
    for (pointer, address, size), (data, code) in zip(wanted, source.gather(ranges), strict=True):
        path = prefix + pointer.path
        if size == BY_INSNS:
            found[path] = _by_insns(source, address, found.get(prefix + "insns"))
        elif size == STRING or pointer.target == "log":
            found[path] = _string(source, address, size, data, code)
        elif pointer.strings:
            found[path] = _strings(source, address, size, data, code)
        else:
            found[path] = address, size, data, code or (CUT if len(data) < size else 0)


def _by_insns(source: Source, address: int, insns: Memory | None) -> Memory:
    """As much as the instructions, which have been read before, refer to."""
    size = 4 * plans.fds_by_insns(insns[2]) if insns is not None and isinstance(insns[2], bytes) else 0
    data, code = source.gather([(address, size)])[0] if size else (b"", 0)
    return address, size, data, code


def _string(source: Source, address: int, size: int, head: bytes, code: int) -> Memory:
    """A string that ends with a NUL, or with the buffer of a log. The head is read already."""
    if size >= 0:
        head = head[:size]
    text, nul, _ = head.partition(b"\0")
    most = _MOST_STRING if size == STRING else min(size, MOST)
    if not nul and not code and len(text) < most:
        more, code = source.string(address + len(text), most - len(text))
        text += more
    if not code and len(text) >= most and (size == STRING or size > most):
        code = CUT
    return address, size, text, code


def _strings(source: Source, address: int, count: int, data: bytes, code: int) -> Memory:
    """An array of pointers to strings. What could not be read is None."""
    pointers = memoryview(data[: len(data) & ~7]).cast("Q").tolist()
    strings: list[bytes | None] = []
    low, high = (min(pointers), max(pointers)) if pointers else (0, 0)
    span = high - low + 2 * _FIRST_PIECE
    lump = b""
    if len(pointers) > 1 and span <= min(_MOST_SPAN, len(pointers) * 256):
        # Nothing behind the last string need be there.
        lump = source.gather([(low, min(span, high - low + _PAGE - high % _PAGE))])[0][0]
    for pointer in pointers:
        end = lump.find(b"\0", pointer - low)
        if end >= 0:
            strings.append(lump[pointer - low : end])
            continue
        text, failed = source.string(pointer, _MOST_STRING)
        strings.append(None if failed else text)
    if len(strings) < count and not code:
        code = CUT
    return address, count, strings, code
