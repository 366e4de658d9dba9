"""Text that reaches a terminal or a pipe."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rawkm.syscall.kernel import Kernel


def plain(text: str) -> str:
    """``text`` with all that a terminal would act upon, or that cannot be printed, escaped.

    Names from the kernel and from other processes are not to be trusted.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def comm(raw: bytes) -> str:
    """A task's name (TASK_COMM_LEN bytes, NUL-padded) as safe text."""
    return plain(raw.partition(b"\0")[0].decode("utf-8", "backslashreplace"))


def note(text: str) -> None:
    """A remark, on standard error."""
    print(f"rawkm: {plain(text)}", file=sys.stderr)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those numbered in ``right`` are right-aligned."""
    body = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in body) for i in range(len(headings))]
    lines = []
    for row in body:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def json_line(values: Mapping[str, object]) -> str:
    """One line of JSON Lines. ASCII only: what is odd in a name arrives escaped."""
    from json import dumps

    return dumps(values, separators=(",", ":"))


def count_of(number: int, noun: str) -> str:
    """A number with its noun: "1 function", "2 functions", "1,234 recursion misses"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def clock(kernel: Kernel, second: int) -> str:
    """The local time of a second of CLOCK_REALTIME: "13:45:27"."""
    minutes, seconds = divmod((second + kernel.utc_offset(second)) % 86400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
