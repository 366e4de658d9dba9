"""Searching big line-based files piece by piece."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces cut at line ends, each with a newline in front of its first line and behind its last.

    So a search can look for a line's beginning and end with their newlines: a plain byte search instead of a
    look at each line.
    """
    carry = b"\n"
    for chunk in chunks:
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            carry += chunk
            continue
        yield carry + head + newline
        carry = b"\n" + tail
    if len(carry) > 1:
        yield carry + b"\n"


def lines_holding(text: bytes, needle: bytes) -> Iterator[tuple[int, bytes]]:
    """(position, line) of the lines of such a piece that hold ``needle``.

    The needle may begin with the newline in front of a line. Other lines are never looked at: this is as fast
    as memory.
    """
    find = text.find
    at = find(needle)
    while at >= 0:
        start = text.rfind(b"\n", 0, at + 1)
        end = find(b"\n", at + 1)
        if end < 0:
            # The needle was the newline behind the last line.
            return
        yield start, text[start + 1 : end]
        at = find(needle, end)


def lines_holding_any(text: bytes, needles: Sequence[bytes]) -> list[bytes]:
    """The lines that hold one of ``needles``, each once, in their order."""
    if len(needles) == 1:
        return [line for _, line in lines_holding(text, needles[0])]
    found: dict[int, bytes] = {}
    for needle in needles:
        found.update(lines_holding(text, needle))
    return [found[start] for start in sorted(found)]
