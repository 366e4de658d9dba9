"""Plots as text, for a terminal."""

from __future__ import annotations

from math import log10

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bars(rows: Sequence[tuple[str, float, str]], *, width: int = 50, logarithmic: bool = False) -> list[str]:
    """A bar per row (label, value, how the value reads); a logarithmic one ends a decade below the smallest value."""
    if not rows:
        return []
    lengths = [_length(value, [value for _, value, _ in rows], width, logarithmic) for _, value, _ in rows]
    label = max(len(name) for name, _, _ in rows)
    return [
        f"{name:{label}}  {_bar(length)}{' ' if length else ''}{said}"
        for (name, _, said), length in zip(rows, lengths, strict=True)
    ]


def _length(value: float, values: Sequence[float], width: int, logarithmic: bool) -> float:
    """In characters."""
    most = max(values)
    if value <= 0 or most <= 0:
        return 0.0
    if not logarithmic:
        return value / most * width
    low = log10(min(v for v in values if v > 0)) - 1
    return (log10(value) - low) / (log10(most) - low) * width


def _bar(length: float) -> str:
    eighths = round(length * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
