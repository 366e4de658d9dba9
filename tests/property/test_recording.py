"""Recordings: what is written is what is read, and a hostile one raises nothing but RecordingError."""

from __future__ import annotations

import ast
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawkm.errors import RecordingError
from rawkm.recording import Call, Fd, Header, Pointee, Reader, Writer, show
from rawkm.recording.header import RUN
from rawkm.recording.repro import script

# How long an example takes says nothing on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What the script of a recording without a call calls, and what it has for calls.
EMPTY = ast.parse(script(Header(RUN), []))
CALLED_BY_SCRIPTS = {node.func.id for node in ast.walk(EMPTY) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
CALLED_BY_SCRIPTS |= {node.name for node in ast.walk(EMPTY) if isinstance(node, ast.FunctionDef | ast.ClassDef)}

paths = st.sampled_from(["insns", "license", "link_create.kprobe_multi.syms", "info.info", "value", "fd_array", "odd path"])
sizes = st.integers(0, 2**40)
addresses = st.none() | st.integers(0, 2**64 - 1)
data = st.binary(max_size=24) | st.builds(lambda raw, times: raw * times, st.binary(max_size=9), st.integers(40, 99))
names = st.binary(max_size=9).filter(lambda name: b"\0" not in name)
pointees = st.one_of(
    st.builds(Pointee, data, address=addresses),
    st.builds(lambda raw, more, at: Pointee(raw, size=len(raw) + more, address=at), data, st.integers(1, 99), addresses),
    st.builds(
        lambda items, at: Pointee(items=items, address=at),
        st.lists(names, max_size=3) | st.lists(names, max_size=3).map(lambda few: few * 30),
        addresses,
    ),
    st.builds(
        lambda error, size, at: Pointee(error=error, size=size, address=at),
        st.sampled_from(["EFAULT", "redacted"]),
        sizes,
        addresses,
    ),
)
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
plain_values = st.none() | data | st.integers(0, 2**64) | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=5)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    name = draw(st.sampled_from(["bpf", "perf_event_open", "ioctl", "openat", "close", "load", "clock"]))
    attr = draw(data)
    common = draw(st.just(b"") | st.binary(min_size=1, max_size=24))
    return Call(
        name,
        kind=draw(st.sampled_from(["call", "seam"])),
        pid=draw(st.integers(0, 2**22)),
        tid=draw(st.integers(0, 2**22)),
        command=draw(st.integers(0, 50) | st.just(65536 + 5)) if name == "bpf" else -1,
        size=draw(sizes) if name == "bpf" else 0,
        attr=attr,
        common=common,
        common_size=len(common),
        args=draw(
            st.dictionaries(st.sampled_from(["fd", "path", "request", "odd"]), st.integers(-1, 2**64 - 1) | st.text(max_size=9))
        ),
        memory=draw(st.dictionaries(paths, pointees, max_size=3)),
        fds={"args.fd": Fd("fd 7", 7)},
        attr_after=draw(st.none() | data),
        common_after=draw(st.none() | st.just(b"after")),
        outputs=draw(st.dictionaries(paths, pointees, max_size=3)),
        result=draw(st.integers(-1, 2**31)),
        errno=draw(st.integers(0, 600)),
        makes=draw(st.none() | st.just(Fd("map#1", 0))),
        value=draw(plain_values),
        seconds=draw(st.just(0.0) | st.integers(1, 10**12).map(lambda ns: ns / 1e9)),
        note=draw(st.text(max_size=10)),
        info=draw(st.sampled_from(["", "prog_info", "nothing"])),
    )


def written(header: Header, all_calls: list[Call]) -> list[bytes]:
    lines: list[bytes] = []
    writer = Writer(lines.append, header)
    for call in all_calls:
        writer.call(call)
    writer.end(3, b"out" * 100, b"\xff\0")
    return lines


@given(st.lists(calls(), max_size=3), st.lists(st.text(max_size=8), max_size=3))
@unhurried
def test_what_is_written_is_read(made: list[Call], argv: list[str]) -> None:
    header = Header(RUN, argv)
    for call in made:
        if call.makes is not None:
            call.makes.number = call.result
    reader = Reader(written(header, made))
    assert reader.header == header
    found = list(reader.calls(seams=True))
    for call in (*made, *found):
        # Which call made a fd is known when it is read.
        for fd in (*call.fds.values(), *([call.makes] if call.makes else [])):
            fd.made_by = None
    assert found == made
    assert reader.end is not None
    assert (reader.end.status, reader.end.out, reader.end.err) == (3, b"out" * 100, b"\xff\0")


def everything(reader: Reader) -> None:
    """Reads, shows, and makes a script, which is Python whatever the recording holds."""
    found = list(reader.calls(seams=True))
    for call in found:
        if call.kind == "call":
            assert "\n" not in show.line(call, names=True)
            show.line(call)
            list(show.detail(call))
    text = script(reader.header, found)
    tree = ast.parse(text)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called <= CALLED_BY_SCRIPTS


def reads_or_says_why(lines: list[bytes]) -> None:
    try:
        everything(Reader(lines))
    except RecordingError as err:
        assert any(word in str(err) for word in ("line", "call", "recording"))


KEYS = [
    "name",
    "attr",
    "cmd",
    "mem",
    "fds",
    "out",
    "makes",
    "value",
    "args",
    "ret",
    "errno",
    "s",
    "id",
    "size",
    "z",
    "text",
    "hex",
]
KEYS += ["pid", "parent", "status", "err", "after", "common", "t"]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"t": st.sampled_from(["call", "seam", "blob", "task", "end", "new"])},
            optional={key: json_values | st.sampled_from(["", "00", "zz", "eJwDAAAAAAE="]) for key in KEYS if key != "t"},
        ),
        max_size=5,
    )
)
@unhurried
def test_hostile_lines(lines: list[dict[str, Any]]) -> None:
    head = json.dumps(Header(RUN).as_json()).encode()
    reads_or_says_why([head, *(json.dumps(line).encode() for line in lines)])


@given(st.lists(calls(), min_size=1, max_size=2), st.data())
@unhurried
def test_damaged_recordings(made: list[Call], draw: st.DataObject) -> None:
    lines = written(Header(RUN, ["count"]), made)
    number = draw.draw(st.integers(0, len(lines) - 1))
    at = draw.draw(st.integers(0, len(lines[number]) - 1))
    byte = draw.draw(st.integers(0, 255))
    lines[number] = lines[number][:at] + bytes([byte]) + lines[number][at + 1 :]
    reads_or_says_why(lines)


@given(st.binary(max_size=200))
@unhurried
def test_no_recording_at_all(raw: bytes) -> None:
    reads_or_says_why(raw.splitlines(keepends=True))
