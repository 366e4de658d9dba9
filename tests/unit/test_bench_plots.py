"""Plots and the arithmetic behind them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from rawkm.bench import candidates, svg, text
from rawkm.bench.attach import Result
from rawkm.bench.candidates import Candidate, spread
from rawkm.bench.hit import Result as HitResult
from rawkm.bench.mechanisms import ALL, NAMES
from rawkm.bench.stats import median
from rawkm.cli import bench_cmd

SVG = "{http://www.w3.org/2000/svg}"


def result(name: str, n: int, up: float, down: float, *, measured_at: int | None = None) -> Result:
    found = Result(name, n)
    found.attach, found.detach, found.memory, found.rounds = up, down, n * 1024, 3
    if measured_at is not None:
        found.measured_at, found.estimated, found.memory = measured_at, True, None
    return found


RESULTS = [
    result("kprobe-multi", 10, 0.01, 0.02),
    result("kprobe-multi", 1000, 0.08, 0.08),
    result("kprobe", 10, 0.1, 0.4),
    result("kprobe", 1000, 10, 40, measured_at=10),
]


def test_lines() -> None:
    """Well-formed, a dot per point, hollow and dashed where nothing was measured; names are escaped."""
    drawn = bench_cmd.attach_svg(RESULTS, "here")
    root = ElementTree.fromstring(drawn)
    circles = root.findall(f"{SVG}circle")
    assert len(circles) == 2 * len(RESULTS) + 2, "two panels and the legend"
    assert sum(circle.get("fill") == "#fff" for circle in circles) == 2
    assert sum(line.get("stroke-dasharray") is not None for line in root.findall(f"{SVG}line")) == 2
    words = [element.text for element in root.findall(f"{SVG}text")]
    for wanted in ("attach", "detach", "10", "1,000", "10 ms", "100 s", "kprobe-multi", "kprobe"):
        assert wanted in words, words
    # Higher up is slower: y grows downwards.
    slow, fast = (next(float(c.get("cy", 0)) for c in circles if c.get("fill") == fill) for fill in ("#fff", "#0072b2"))
    assert slow < fast
    hostile = svg.lines("<script>", "&", [("a<b", [("x", [(1, 1)], [True])])], x_label="n")
    assert "<script>" not in hostile and ElementTree.fromstring(hostile) is not None


def test_bars() -> None:
    rows = [HitResult("kprobe-multi", "entry", 100, 150, 5), HitResult("kretprobe", "return", 400, 420, 5)]
    root = ElementTree.fromstring(bench_cmd.hit_svg(rows, "here"))
    widths = [float(box.get("width", 0)) for box in root.findall(f"{SVG}rect")[1:5]]
    assert widths[0] / widths[2] == pytest.approx(100 / 400, rel=0.01)
    assert widths[3] == max(widths)
    lines = bench_cmd._hit_text(rows)
    assert re.search(r"kretprobe +return +400 ns +420 ns +4\.00 +4\.20", "\n".join(lines))


def test_the_table_says_what_is_an_estimate() -> None:
    lines = bench_cmd._attach_text(RESULTS)
    table = "\n".join(lines)
    assert re.search(r"kprobe +1,000 +≈ 10 s +≈ 40 s +≈ 50 ms", table)
    assert re.search(r"kprobe-multi +1,000 +80 ms +80 ms +160 µs +1,000 KiB", table)
    assert "estimated" in table
    assert "estimated" not in "\n".join(bench_cmd._attach_text(RESULTS[:3]))


def test_csv_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    bench_cmd._csv([bench_cmd._attach_row(r) for r in RESULTS], "6.12")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mechanism,n,load_s,attach_s,detach_s,memory_bytes,measured_at,rounds,refused,kernel"
    assert lines[-1].startswith("kprobe,1000,0.0,10,40,,10,3,0,6.12")


def test_text_bars() -> None:
    assert text.bars([]) == []
    lines = text.bars([("a", 10, "10"), ("bb", 5, "5"), ("c", 0, "0")], width=4)
    assert lines == ["a   ████ 10", "bb  ██ 5", "c   0"]
    lines = text.bars([("a", 1, "1"), ("b", 10, "10"), ("c", 1000, "1000")], width=8, logarithmic=True)
    assert [line.count("█") for line in lines] == [2, 4, 8]


def test_arithmetic() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    assert [svg.seconds(x) for x in (1549, 12.34, 0.0123, 4.5e-6, 2e-8)] == ["1,550 s", "12.3 s", "12.3 ms", "4.5 µs", "20 ns"]
    pool = [Candidate(f"f{i}", i, 0) for i in range(100)]
    assert [c.address for c in spread(pool, 4)] == [0, 25, 50, 75]
    assert spread(pool, 1000) is pool
    assert candidates._busy([b"tcp_v4_init", b"mutex_lock", b"schedule_x", b"ext4_foo"]) == {b"mutex_lock", b"schedule_x"}


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(ALL)
