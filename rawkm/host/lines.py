"""Searching big line-based files piece by piece."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces cut at line ends, each with a newline in front of its first line and behind its last.

    So a search can look for a line's beginning and end with their newlines: a plain byte search instead of a look at each line.
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
    """(position, line) of the lines of such a piece that hold ``needle``, which may begin with the newline in front of a line.

    The others are never looked at: this is as fast as memory.
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
