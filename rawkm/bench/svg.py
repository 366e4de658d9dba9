"""Plots as SVG: points on lines over logarithmic axes, and bars. Nothing but text is needed for that."""

from __future__ import annotations

from math import ceil, floor, log10

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # (name, [(x, y), …], whether the point was measured, for each)
    Series = tuple[str, Sequence[tuple[float, float]], Sequence[bool]]

# Told apart by readers who see few colours, too (Okabe and Ito), and by their marks.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d00", "#7f3fbf", "#999999")
_FONT = 'font-family="sans-serif" font-size="12"'


class Canvas:
    """A drawing of ``width`` × ``height`` pixels, y downwards."""

    def __init__(self, width: int, height: int) -> None:
        self._items: list[str] = []
        self._size = width, height

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str = "#000", *, width: float = 1, dashed: bool = False
    ) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        at = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self._items.append(f'<line {at} stroke="{colour}" stroke-width="{width}"{dash}/>')

    def dot(self, x: float, y: float, colour: str, *, hollow: bool = False) -> None:
        fill = "#fff" if hollow else colour
        self._items.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>')

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._items.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#000", bold: bool = False) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._items.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {_FONT}{weight}>{_escape(text)}</text>'
        )

    def __str__(self) -> str:
        width, height = self._size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *self._items, "</svg>", ""])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def lines(title: str, subtitle: str, panels: Sequence[tuple[str, Sequence[Series]]], *, x_label: str) -> str:
    """Panels side by side, both axes logarithmic, y in seconds and the same for all. Hollow dots were not measured."""
    width, height, left, top = 430, 330, 70, 70
    points = [point for _, series in panels for _, row, _ in series for point in row]
    names = list(dict.fromkeys(name for _, series in panels for name, _, _ in series))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    rows = (len(names) + 4) // 5
    canvas = Canvas(left + len(panels) * width, top + height + 60 + 20 * rows)
    canvas.text(left, 25, title, bold=True)
    canvas.text(left, 45, subtitle, colour="#444")
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])
    inner = width - 40
    for number, (name, series) in enumerate(panels):
        x0 = left + number * width

        def place(x: float, y: float, x0: int = x0) -> tuple[float, float]:
            right = (log10(x) - x_low) / (x_high - x_low) * inner
            return x0 + right, top + height - (log10(y) - y_low) / (y_high - y_low) * height

        for power in range(y_low, y_high + 1):
            _, y = place(1, 10.0**power)
            canvas.line(x0, y, x0 + inner, y, "#ddd")
            if number == 0:
                canvas.text(x0 - 8, y + 4, seconds(10.0**power), anchor="end")
        for power in range(x_low, x_high + 1):
            x, _ = place(10.0**power, 1)
            canvas.line(x, top, x, top + height, "#ddd")
            canvas.text(x, top + height + 18, f"{10**power:,}", anchor="middle")
        canvas.text(x0 + inner / 2, top - 8, name, anchor="middle", bold=True)
        canvas.text(x0 + inner / 2, top + height + 38, x_label, anchor="middle")
        for label, row, measured in series:
            places = [place(x, y) for x, y in row]
            for i in range(1, len(places)):
                canvas.line(*places[i - 1], *places[i], colours[label], width=1.8, dashed=not measured[i])
            for (x, y), solid in zip(places, measured, strict=True):
                canvas.dot(x, y, colours[label], hollow=not solid)
    for i, name in enumerate(names):
        x, y = left + i % 5 * 160, top + height + 60 + 20 * (i // 5)
        canvas.dot(x, y - 4, colours[name])
        canvas.text(x + 10, y, name)
    return str(canvas)


def bars(title: str, subtitle: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, unit: str) -> str:
    """A group of horizontal bars per row: (label, [(name of the bar, value), …])."""
    names = list(dict.fromkeys(name for _, row in rows for name, _ in row))
    left, top, step, room = 180, 70, 16, 520
    height = sum(step * len(row) + 10 for _, row in rows)
    canvas = Canvas(left + room + 110, top + height + 30)
    canvas.text(20, 25, title, bold=True)
    canvas.text(20, 45, subtitle, colour="#444")
    most = max((value for _, row in rows for _, value in row), default=0) or 1
    y = float(top)
    for label, row in rows:
        canvas.text(left - 10, y + step * len(row) / 2 + 4, label, anchor="end")
        for name, value in row:
            length = max(value, 0) / most * room
            canvas.box(left, y + 2, length, step - 4, _COLOURS[names.index(name) % len(_COLOURS)])
            canvas.text(left + length + 6, y + step / 2 + 4, f"{value:,.0f} {unit}")
            y += step
        y += 10
    for i, name in enumerate(names):
        canvas.box(left + i * 150, y + 4, 12, 12, _COLOURS[i % len(_COLOURS)])
        canvas.text(left + i * 150 + 18, y + 14, name)
    return str(canvas)


def seconds(value: float) -> str:
    """A time in the unit that suits it, to three digits: "12 ms", "3.4 s", "1,550 s"."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f} s"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around all ``values``, at least one decade."""
    logs = [log10(value) for value in values if value > 0] or [0.0]
    low, high = floor(min(logs)), ceil(max(logs))
    return low, max(high, low + 1)
