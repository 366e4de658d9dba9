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
