"""What was seen of one bpf(2) call of another program, before anybody makes sense of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: The most that is read behind one pointer; what is cut is said.
MOST = 16 << 20
#: bpf(2) takes a page at most, and refuses more.
MOST_ATTR = 4096

#: Shown as errno of memory that was longer than MOST.
CUT = -1


class Memory(NamedTuple):
    """What a pointer field pointed to.

    ``wanted``: bytes that the call speaks of (of an array of strings: how many strings), -1: up to a NUL. ``data``: what was
    read, from the beginning; of an array of strings one byte string each, None for one that cannot be read. ``errno``: what ended
    the reading early: 0 nothing, CUT rawkm's own limit.
    """

    address: int
    wanted: int
    data: bytes | list[bytes | None]
    errno: int = 0


class Fact(NamedTuple):
    """What the kernel says of an fd in /proc/PID/fdinfo.

    ``kind``: "map", "prog", "link" or "btf"; ``id``: its id; ``type``: of map and prog; ``key``, ``value``: a map's sizes;
    ``slots``: of a per-CPU map how many values system calls move for one key, else 0.
    """

    kind: str
    id: int
    type: int = 0
    key: int = 0
    value: int = 0
    slots: int = 0


class RawCall(NamedTuple):
    """One call; bytes and numbers are as they were in the program's memory and registers.

    ``time_ns``: CLOCK_REALTIME at the entry; ``ns``: from entry to exit, as the auditor saw it. ``cmd``: the first argument's 32
    bits. ``ret``: what the kernel returned, negative for an errno; None when the thread was gone first. ``attr`` and
    ``attr_errno``: the bytes at the entry (fewer than ``size`` where they could not be read); ``after``: at the exit, None where
    the kernel does not write there. ``entry``, ``exit``: path of a pointer field → its Memory then; "info.info.NAME" belongs to
    the struct behind info.info, "common.NAME" to bpf_common_attr. ``facts``: path of an fd field, "" for the fd returned → Fact.
    ``common``, ``common_after``: the struct behind the fourth argument, of a call with Cmd.COMMON_ATTRS. ``abi``: its AUDIT_ARCH.
    """

    pid: int
    tid: int
    comm: bytes
    time_ns: int
    ns: int
    abi: int
    cmd: int
    attr_at: int
    size: int
    ret: int | None
    attr: bytes
    attr_errno: int = 0
    after: bytes | None = None
    entry: Mapping[str, Memory] = {}
    exit: Mapping[str, Memory] = {}
    facts: Mapping[str, Fact] = {}
    common_at: int = 0
    common_size: int = 0
    common: bytes = b""
    common_after: bytes | None = None


#: The same as plain tuples, which marshal takes, and which are faster to make.
MemoryRow = tuple[int, int, bytes | list[bytes | None], int]
FactRow = tuple[str, int, int, int, int, int]
Row = tuple[Any, ...]


def from_row(row: Row) -> RawCall:
    """The call of a row whose items are in the order of RawCall's fields, and made of rows themselves."""
    entry, exit, facts = row[13:16]
    inner = (
        {path: Memory(*item) for path, item in entry.items()} if entry else entry,
        {path: Memory(*item) for path, item in exit.items()} if exit else exit,
        {path: Fact(*item) for path, item in facts.items()} if facts else facts,
    )
    return RawCall._make(row[:13] + inner + row[16:])
