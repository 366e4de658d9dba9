"""Which memory a bpf(2) call speaks of: for each pointer field where it points and how much is there.

Made from the definitions in rawkm.uapi: a size or count field, the sizes of a map's keys and values, or the NUL that ends a
string.
"""

from __future__ import annotations

import sys
from functools import cache
from struct import Struct

from rawkm.errors import UsageError
from rawkm.uapi import layouts
from rawkm.uapi.constants import Cmd, MapType, MapUpdate, Pseudo
from rawkm.uapi.fields import Definition, Role

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rawkm.audit.raw import FactRow as Fact

    #: The fields of a struct; those that a plan asks for are numbers.
    Values = Mapping[str, Any]
    #: The bytes behind a pointer, or the number of strings; STRING for one that ends with a NUL.
    Measure = Callable[[Values, "Fact | None"], int]

#: Not a size: up to a NUL; as far as the instructions refer to it.
STRING = -1
BY_INSNS = -2

_INSN = Struct("=BBhi")
_LD_IMM64, _CALL = 0x18, 0x85
_MOST_FDS = 1 << 16

# How many bytes one element takes, where a count tells how many there are.
_WIDTHS = {"insns": 8, "u64s": 8, "u32s": 4}
# Arrays whose element size is in another field, or fixed.
_RECORDS: dict[str, tuple[tuple[str, ...], int]] = {
    "func_info": (("func_info_cnt", "func_info_rec_size"), 1),
    "line_info": (("line_info_cnt", "line_info_rec_size"), 1),
    "core_relos": (("core_relo_cnt", "core_relo_rec_size"), 1),
}
_INFO_RECORDS: dict[str, tuple[tuple[str, ...], int]] = {
    "func_info": (("nr_func_info", "func_info_rec_size"), 1),
    "line_info": (("nr_line_info", "line_info_rec_size"), 1),
    "prog_tags": (("nr_prog_tags",), 8),
}
# Of what each command's fd must be a map for its elements to have a size.
_MAP_FIELD = {"key": "map_fd", "value": "map_fd", "next_key": "map_fd"}

#: The commands that write into their attr.
WRITES_BACK = frozenset(
    (
        Cmd.PROG_LOAD,
        Cmd.PROG_TEST_RUN,
        Cmd.PROG_GET_NEXT_ID,
        Cmd.MAP_GET_NEXT_ID,
        Cmd.BTF_GET_NEXT_ID,
        Cmd.LINK_GET_NEXT_ID,
        Cmd.OBJ_GET_INFO_BY_FD,
        Cmd.PROG_QUERY,
        Cmd.BTF_LOAD,
        Cmd.TASK_FD_QUERY,
        Cmd.MAP_LOOKUP_BATCH,
        Cmd.MAP_LOOKUP_AND_DELETE_BATCH,
        Cmd.MAP_UPDATE_BATCH,
        Cmd.MAP_DELETE_BATCH,
    )
)
_BATCHES = (Cmd.MAP_LOOKUP_BATCH, Cmd.MAP_LOOKUP_AND_DELETE_BATCH)

#: The maps that have a value for each CPU.
PER_CPU = frozenset(
    (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH, MapType.PERCPU_CGROUP_STORAGE),
)

#: The commands that return an fd.
RETURNS_FD = frozenset(
    (
        Cmd.MAP_CREATE,
        Cmd.PROG_LOAD,
        Cmd.OBJ_GET,
        Cmd.PROG_GET_FD_BY_ID,
        Cmd.MAP_GET_FD_BY_ID,
        Cmd.RAW_TRACEPOINT_OPEN,
        Cmd.BTF_LOAD,
        Cmd.BTF_GET_FD_BY_ID,
        Cmd.LINK_CREATE,
        Cmd.LINK_GET_FD_BY_ID,
        Cmd.ENABLE_STATS,
        Cmd.ITER_CREATE,
        Cmd.TOKEN_CREATE,
    )
)


class Pointer:
    """One pointer field. ``measure`` tells the size, at the exit from the values before and after.

    ``strings``: an array of pointers to strings. ``nested``: the struct behind info.info. ``map_fd``: the path of the fd that the
    measure needs the Fact of, or "". ``factors``, ``width``: the fields whose product, times the width, is the size, where that
    is what it is.
    """

    __slots__ = ("factors", "map_fd", "measure", "nested", "path", "reads", "strings", "target", "width", "writes")

    def __init__(
        self, path: str, role: Role, measure: Measure, map_fd: str = "", factors: tuple[str, ...] = (), width: int = 1
    ) -> None:
        self.path = path
        self.reads = role.direction != "out"
        self.writes = role.direction != "in"
        self.target = role.target
        self.strings = role.target == "cstrs"
        self.nested = path == "info.info"
        self.measure = measure
        self.map_fd = map_fd
        self.factors = factors
        self.width = width


class Plan:
    """Of one definition: its pointers, its fd fields, and what the kernel may do at the exit.

    ``writes_back``: into the attr. ``writes``: behind pointers; ``on_error``: even if it fails; where it ``has_log``, only there.
    ``returns_fd``: it returns an fd. ``plain``: how much it reads does not depend on what it reads.
    """

    __slots__ = (
        "definition",
        "fds",
        "has_log",
        "on_error",
        "plain",
        "pointers",
        "returns_fd",
        "write_only",
        "writes",
        "writes_back",
    )

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.pointers = [
            Pointer(m.path, m.role, *_measure(definition, m.path, m.role))
            for m in definition.members
            if m.role.kind == "pointer" and m.offset < definition.reads
        ]
        self.fds = [m.path for m in definition.members if m.role.kind == "fd" and m.offset < definition.reads]
        self.writes_back = definition.cmd in WRITES_BACK
        # A batch ends with ENOENT, a query that found no room with ENOSPC, and a log tells why it failed.
        self.writes = any(pointer.writes for pointer in self.pointers)
        self.write_only = [pointer for pointer in self.pointers if not pointer.reads]
        self.plain = not any(p.target in ("cstr", "cstrs") or p.path == "fd_array" or p.nested for p in self.pointers if p.reads)
        self.has_log = any(pointer.target == "log" for pointer in self.pointers)
        self.on_error = self.has_log or definition.cmd in (*_BATCHES, Cmd.PROG_QUERY)
        self.returns_fd = definition.cmd in RETURNS_FD


def for_call(cmd: int, attr: bytes) -> Plan | None:
    """The plan of a call, None for a command that rawkm does not know."""
    try:
        return of(layouts.for_attr(cmd, attr))
    except UsageError:
        return None


@cache
def of(definition: Definition) -> Plan:
    """The plan of a definition."""
    return Plan(definition)


#: The struct that OBJ_GET_INFO_BY_FD fills, by the kind of the fd.
INFO = {"map": "map_info", "prog": "prog_info", "link": "link_info", "btf": "btf_info"}


def for_info(kind: str, data: bytes) -> Plan | None:
    """The plan of the struct behind info.info of an fd of this kind."""
    name = INFO.get(kind)
    return None if name is None else of(layouts.for_struct(name, data))


def for_common() -> Plan:
    """The plan of struct bpf_common_attr."""
    return of(layouts.named("common_attr"))


def _measure(definition: Definition, path: str, role: Role) -> tuple[Measure, str, tuple[str, ...], int]:
    """How much is behind a pointer, and the fd field whose Fact the answer takes; or what it is the product of."""
    if path in _MAP_FIELD and definition.cmd >= 0:
        return (_key if path != "value" else _value), _MAP_FIELD[path], (), 1
    if path.startswith("batch."):
        return _BATCH[path], "batch.map_fd", (), 1
    records = (_RECORDS if definition.cmd >= 0 else _INFO_RECORDS).get(path)
    if records is not None:
        factors, width = records
    elif role.of:
        factors, width = (role.of,), _WIDTHS.get(role.target, 1)
    else:
        return (lambda _values, _fact: STRING), "", (), 1
    return _fd_array if path == "fd_array" else _product(factors, width), "", factors, width


def _product(factors: tuple[str, ...], width: int) -> Measure:
    if len(factors) == 1:
        (path,) = factors
        return lambda values, _fact: values[path] * width
    first, second = factors
    return lambda values, _fact: values[first] * values[second] * width


def _fd_array(values: Values, _fact: Fact | None) -> int:
    # Without a count (before Linux 6.14, and since then optional) only the program says which elements there are.
    return values["fd_array_cnt"] * 4 or BY_INSNS


def fds_by_insns(insns: bytes) -> int:
    """How many elements of fd_array the instructions refer to."""
    found = 0
    for code, registers, off, imm in _INSN.iter_unpack(insns[: len(insns) & ~7]):
        source = registers >> 4 if sys.byteorder == "little" else registers & 15
        if code == _LD_IMM64 and source in (Pseudo.MAP_IDX, Pseudo.MAP_IDX_VALUE):
            found = max(found, imm + 1)
        elif code == _CALL and source == Pseudo.KFUNC_CALL and off:
            found = max(found, off + 1)
    return max(min(found, _MOST_FDS), 0)


def _key(_values: Values, fact: Fact | None) -> int:
    return fact[3] if fact is not None else 0


def _value(values: Values, fact: Fact | None) -> int:
    if fact is None:
        return 0
    # One value for one CPU, or one for all of them, needs no slots (Linux 7.0).
    return fact[4] if values["flags"] & (MapUpdate.CPU | MapUpdate.ALL_CPUS) else _slots(fact)


def _slots(fact: Fact) -> int:
    return (fact[4] + 7 & ~7) * fact[5] if fact[5] else fact[4]


def _position(_values: Values, fact: Fact | None) -> int:
    # A key, or of a hash map the number of a bucket.
    return max(fact[3], 4) if fact is not None else 0


def _keys(values: Values, fact: Fact | None) -> int:
    return 0 if fact is None else values["batch.count"] * fact[3]


def _values(values: Values, fact: Fact | None) -> int:
    return 0 if fact is None else values["batch.count"] * _slots(fact)


_BATCH = {
    "batch.in_batch": _position,
    "batch.out_batch": _position,
    "batch.keys": _keys,
    "batch.values": _values,
}
