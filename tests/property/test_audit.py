"""Whatever a program passes to bpf(2), and wherever its pointers lead: the audit shows it, and raises nothing."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rawkm.audit import capture
from rawkm.audit import plan as plans
from rawkm.audit.decode import Call
from rawkm.audit.facts import parse
from rawkm.audit.objects import Objects
from rawkm.audit.raw import CUT, Fact, FactRow, Memory, MemoryRow, RawCall, from_row
from rawkm.audit.summary import Summary
from rawkm.uapi import layouts
from rawkm.uapi.constants import Cmd

POINTERS = sorted(
    {path for d in layouts.DEFINITIONS if d.cmd >= 0 for path, _ in d.pointers}
    | {f"info.info.{path}" for d in layouts.DEFINITIONS if d.cmd < 0 for path, _ in d.pointers}
    | {"common.log_buf", "no.such.field"}
)
FDS = sorted({m.path for d in layouts.DEFINITIONS if d.cmd >= 0 for m in d.members if m.role.kind == "fd"} | {""})
u32, u64 = st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1)
commands = st.integers(0, 40) | u32 | st.integers(0, 40).map(lambda cmd: cmd | Cmd.COMMON_ATTRS)
kinds = st.sampled_from(["map", "prog", "link", "btf", "other"])
facts = st.builds(Fact, kinds, u32, st.integers(0, 40), st.integers(0, 64), st.integers(0, 64), st.integers(0, 4))
errnos = st.sampled_from([0, 0, errno.EFAULT, errno.EPERM, CUT])
contents = st.binary(max_size=300) | st.lists(st.none() | st.binary(max_size=20), max_size=20)
memories = st.builds(Memory, u64, st.integers(-1, 1 << 32), contents, errnos)
some_memory = st.dictionaries(st.sampled_from(POINTERS), memories, max_size=6)
small_attrs = st.binary(max_size=200)

# Calls are large; a busy machine takes its time to make them up.
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)

raw_calls = st.builds(
    RawCall,
    pid=u32,
    tid=u32,
    comm=st.binary(max_size=16),
    time_ns=u64,
    ns=u64,
    abi=u32,
    cmd=commands,
    attr_at=u64,
    size=u32,
    ret=st.none() | st.integers(-4095, 100),
    attr=small_attrs | st.binary(max_size=4096),
    attr_errno=errnos,
    after=st.none() | small_attrs,
    entry=some_memory,
    exit=some_memory,
    facts=st.dictionaries(st.sampled_from(FDS), facts, max_size=4),
    common_at=u64,
    common_size=u32,
    common=st.binary(max_size=40),
    common_after=st.none() | st.binary(max_size=40),
)


@patient
@given(raw_calls)
@example(RawCall(1, 1, b"\x1b[31m\n", 0, 0, 0, Cmd.MAP_CREATE, 16, 72, None, b"\xff" * 72))
def test_decoding_never_raises_and_never_reaches_the_terminal(raw: RawCall) -> None:
    call = Call(raw, Objects())
    for full in (False, True):
        assert call.line(full=full).isprintable()
    assert all(line.isprintable() for line in call.details())
    assert call.made.isprintable()
    json.dumps(call.row())
    summary = Summary()
    summary.add(call)
    summary.table()
    list(summary.made())
    json.dumps(summary.row())


@patient
@given(raw_calls)
def test_rows_of_plain_tuples_are_the_same_calls(raw: RawCall) -> None:
    """What crosses from the process that traces."""
    row: list[Any] = list(raw)
    for at in (13, 14, 15):
        row[at] = {path: tuple(item) for path, item in row[at].items()}
    assert from_row(tuple(row)) == raw


class Space:
    """A memory with one readable range."""

    def __init__(self, start: int, data: bytes) -> None:
        self._start = start
        self._data = data

    def gather(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
        return [self._read(*each) for each in ranges]

    def _read(self, address: int, size: int) -> tuple[bytes, int]:
        offset = address - self._start
        found = self._data[offset : offset + size] if 0 <= offset < len(self._data) else b""
        return found, 0 if len(found) == size else errno.EFAULT

    def string(self, address: int, most: int) -> tuple[bytes, int]:
        found, _ = self._read(address, most)
        text, nul, _ = found.partition(b"\0")
        return text, 0 if nul or len(text) == most else errno.EFAULT


near = st.integers(0x1000, 0x1400)
words = st.lists(near | st.integers(0, 64) | u64, max_size=21).map(lambda w: struct.pack(f"={len(w)}Q", *w))


@patient
@given(commands, words | small_attrs, words | st.binary(max_size=1024), facts, st.integers(-200, 200), words)
def test_capture_never_raises_and_says_what_is_missing(
    cmd: int, attr: bytes, memory: bytes, fact: Fact, ret: int, after: bytes
) -> None:
    plan = plans.for_call(cmd, attr)
    if plan is None:
        return
    space = Space(0x1000, memory)
    values = plan.definition.unpack(attr)
    row: FactRow = fact.kind, fact.id, fact.type, fact.key, fact.value, fact.slots
    known = dict.fromkeys(plan.fds, row)
    now = plan.definition.unpack(after)
    found = capture.entry(space, plan, values, known)
    for memories in (found, capture.exit(space, plan, values, now, known, ret)):
        for path, (address, wanted, data, code) in memories.items():
            assert address == values[path]
            if isinstance(data, bytes) and wanted >= 0 and not path.endswith("log_buf"):
                assert (len(data) == wanted) == (code == 0), path
    Call(RawCall(1, 1, b"", 0, 0, 0, cmd, 0, len(attr), ret, attr, entry=_named(found), facts={"": fact}), Objects()).line()


def _named(found: dict[str, MemoryRow]) -> dict[str, Memory]:
    return {path: Memory._make(row) for path, row in found.items()}


def test_fdinfo_of_the_kernel() -> None:
    """As Linux 6.12 writes it."""
    text = b"pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1063\nmap_type:\t5\nkey_size:\t4\nvalue_size:\t12\nmax_entries:\t9\nmap_id:\t33\n"
    assert parse(text, 4) == ("map", 33, 5, 4, 12, 4)
    assert parse(b"prog_type:\t2\nprog_jited:\t1\nprog_id:\t7\nrun_time_ns:\t0\n", 4) == ("prog", 7, 2, 0, 0, 0)
    assert parse(b"link_type:\tkprobe_multi\nlink_id:\t3\nprog_tag:\t16ffae\nprog_id:\t7\n", 4) == ("link", 3, 0, 0, 0, 0)
    assert parse(b"pos:\t0\nflags:\t02\n", 4) is None


@given(st.binary(max_size=200))
def test_fdinfo_that_is_none(text: bytes) -> None:
    parse(text, os.cpu_count() or 1)
