"""The four batch commands on maps."""

from __future__ import annotations

from errno import E2BIG, EBADF, EBUSY, EFAULT, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM, ERANGE

from rawkm.rules.common import ENOTSUPP, fd_rules, tail
from rawkm.rules.elem import ALL_CPUS, CPU, HASHES, LOCK, PER_CPU
from rawkm.rules.model import Form, Rule, Table, always
from rawkm.uapi.constants import Cmd, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict

_FIELDS = ("in_batch", "out_batch", "keys", "values", "count", "map_fd", "elem_flags", "flags")
FORM = Form(*(f"batch.{name}" for name in _FIELDS))
_FLAGS_SINCE = (7, 0)

# Which maps have which of the commands: LPM tries by the way of a stable 5.x, per-CPU arrays since 5.13.
_HAS = {
    "lookup": (*HASHES, MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE, MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS),
    "lookup_and_delete": (*HASHES, MapType.HASH_OF_MAPS),
    "update": (*HASHES, MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LPM_TRIE, MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS),
    "delete": (*HASHES, MapType.LPM_TRIE, MapType.HASH_OF_MAPS),
}
# Those that do it by the hashes' own functions.
_HTABS = (*HASHES, MapType.HASH_OF_MAPS)
_LATE = {
    MapType.PERCPU_ARRAY: (5, 13),
    MapType.LPM_TRIE: (5, 13),
    MapType.HASH_OF_MAPS: (5, 19),
    MapType.ARRAY_OF_MAPS: (5, 19),
}


def _map(a: Any, c: Call) -> Any:
    return c.fds[a.map_fd]


def _value_size(a: Any, c: Call, k: Facts) -> int:
    m = _map(a, c)
    if k.version >= _FLAGS_SINCE and a.elem_flags & (CPU | ALL_CPUS):
        return int(m.value_size)
    return int((m.value_size + 7 & ~7) * k.cpus if m.type in PER_CPU else m.value_size)


def _lacks(verb: str) -> Any:
    def lacks(a: Any, c: Call, k: Facts) -> Verdict:
        kind = _map(a, c).type
        if kind is None or kind >= MapType.INSN_ARRAY:
            return None
        return kind not in _HAS[verb] or k.version < _LATE.get(kind, (0, 0))

    return lacks


def _access(command: str, *, read: bool, write: bool) -> list[Rule]:
    rules = []
    if read:
        rules.append(
            Rule(
                f"{command}.read",
                "batch.map_fd",
                EPERM,
                "the map's fd must be one for reading",
                "map_get_sys_perms",
                lambda a, c, k: not _map(a, c).readable,
            )
        )
    if write:
        rules.append(
            Rule(
                f"{command}.write",
                "batch.map_fd",
                EPERM,
                "the map's fd must be one for writing, and the map not frozen",
                "map_get_sys_perms",
                lambda a, c, k: not _map(a, c).writable or _map(a, c).frozen,
            )
        )
    return rules


def _elem_flags(command: str, allowed: int, *, old_only: bool = False) -> list[Item]:
    """elem_flags: only BPF_F_LOCK, since 7.0 also a CPU (not for DELETE_BATCH)."""
    last = (99, 0) if old_only else (6, 99)
    rules: list[Item] = [
        Rule(
            f"{command}.elem_flags",
            "batch.elem_flags",
            EINVAL,
            "elem_flags may only have BPF_F_LOCK",
            command,
            lambda a, c, k: bool(a.elem_flags & ~LOCK),
            until=last,
        ),
        Rule(
            f"{command}.lock",
            "batch.elem_flags",
            EINVAL,
            "BPF_F_LOCK takes a map whose value has a bpf_spin_lock",
            command,
            lambda a, c, k: bool(a.elem_flags & LOCK) and not _map(a, c).spin_lock,
        ),
    ]
    if old_only:
        return rules
    return [
        *rules,
        Rule(
            f"{command}.op_flags",
            "batch.elem_flags",
            EINVAL,
            "elem_flags must be 0 or BPF_F_LOCK, or BPF_F_CPU with a CPU's number in the upper half, for a per-CPU map",
            "bpf_map_check_op_flags",
            lambda a, c, k: _bad_op(a.elem_flags, allowed, _map(a, c).type),
            since=_FLAGS_SINCE,
        ),
        *(
            [
                Rule(
                    f"{command}.cpu_range",
                    "batch.elem_flags",
                    ERANGE,
                    "the CPU number in the upper 32 bits of elem_flags must be a possible CPU",
                    "bpf_map_check_op_flags",
                    lambda a, c, k: bool(a.elem_flags & CPU) and a.elem_flags >> 32 >= k.cpus,
                    since=_FLAGS_SINCE,
                ),
            ]
            if allowed & CPU
            else ()
        ),
    ]


def _bad_op(flags: int, allowed: int, kind: int) -> bool:
    if flags & 0xFFFF_FFFF & ~allowed or (not flags & CPU and flags >> 32):
        return True
    if flags & (CPU | ALL_CPUS):
        return kind not in PER_CPU or flags & (CPU | ALL_CPUS) == CPU | ALL_CPUS
    return False


def _map_flags(command: str) -> Rule:
    """Only the hashes' own functions look at it."""
    return Rule(
        f"{command}.flags",
        "batch.flags",
        EINVAL,
        "flags must be 0",
        "__htab_map_lookup_and_delete_batch",
        lambda a, c, k: _map(a, c).type in _HTABS and a.flags != 0,
    )


def _nothing(command: str) -> Rule:
    """Accepted: nothing is asked for."""
    return Rule(f"{command}.nothing", "batch.count", 0, "a batch of nothing", command, lambda a, c, k: a.count == 0)


def _not(verdict: bool | None) -> Verdict:
    return None if verdict is None else not verdict


def _bad_in(a: Any, c: Call, k: Facts) -> Verdict:
    if a.in_batch == 0:
        return False
    size = 4 if _map(a, c).type in _HTABS else _map(a, c).key_size
    return _not(c.memory.readable(a.in_batch, size, k))


def _first(a: Any, c: Call, k: Facts) -> Verdict:
    """Whether even the first element's key and value cannot be read."""
    for address, size in ((a.keys, _map(a, c).key_size), (a.values, _value_size(a, c, k))):
        found = c.memory.readable(address, size, k)
        if found is not True:
            return None if found is None else True
    return False


def _first_key(a: Any, c: Call, k: Facts) -> Verdict:
    return _not(c.memory.readable(a.keys, _map(a, c).key_size, k))


def _common(command: str, verb: str, *, read: bool, write: bool) -> list[Item]:
    return [
        *tail(command, {(0, 0): 56}),
        *fd_rules(command, "batch.map_fd", "map", "__bpf_map_get"),
        *_access(command, read=read, write=write),
        Rule(
            f"{command}.type", "batch.map_fd", ENOTSUPP, "this type of map has no such batches", "bpf_map_do_batch", _lacks(verb)
        ),
    ]


# Values that user space writes as fds.
_OF_FDS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)

_C = "map_lookup_batch"
LOOKUP = Table(
    FORM,
    [
        *_common(_C, "lookup", read=True, write=False),
        *_elem_flags(_C, LOCK | CPU),
        _map_flags(_C),
        _nothing(_C),
        Rule(f"{_C}.in_batch", "batch.in_batch", EFAULT, "in_batch must point to a position that can be read", _C, _bad_in),
        Rule(
            f"{_C}.rest",
            "batch.keys batch.values batch.out_batch batch.count",
            (0, EFAULT, ENOENT, ENOSPC, ENOMEM, 4),
            "there must be more elements (ENOENT at the end, with those found), room for them, and writable buffers",
            "generic_map_lookup_batch",
            always,
        ),
    ],
)

_C = "map_lookup_and_delete_batch"
LOOKUP_AND_DELETE = Table(
    FORM,
    [
        *_common(_C, "lookup_and_delete", read=True, write=True),
        *_elem_flags(_C, LOCK),
        _map_flags(_C),
        _nothing(_C),
        Rule(f"{_C}.in_batch", "batch.in_batch", EFAULT, "in_batch must point to a position that can be read", _C, _bad_in),
        Rule(
            f"{_C}.rest",
            "batch.keys batch.values batch.out_batch batch.count",
            (0, EFAULT, ENOENT, ENOSPC, ENOMEM),
            "there must be more elements (ENOENT at the end, with those found), room for them, and writable buffers",
            "__htab_map_lookup_and_delete_batch",
            always,
        ),
    ],
)

_C = "map_update_batch"
UPDATE = Table(
    FORM,
    [
        *_common(_C, "update", read=False, write=True),
        *_elem_flags(_C, LOCK | CPU | ALL_CPUS),
        _nothing(_C),
        Rule(
            f"{_C}.memory",
            "batch.keys batch.values",
            EFAULT,
            "keys and values must point to count elements that can be read",
            _C,
            _first,
        ),
        Rule(
            f"{_C}.fds",
            "batch.values",
            (0, EBADF),
            "of a map of maps, every value must be the fd of a map",
            "bpf_fd_htab_map_update_elem",
            lambda a, c, k: None if c.fds[a.map_fd].type in _OF_FDS else False,
            unseen="together with what else may be wrong with an element",
        ),
        Rule(
            f"{_C}.rest",
            "batch.keys batch.values batch.count",
            (0, EFAULT, E2BIG, EINVAL, ENOMEM, EBUSY),
            "every element must be readable, and have room in the map",
            "generic_map_update_batch",
            always,
        ),
    ],
)

_C = "map_delete_batch"
DELETE = Table(
    FORM,
    [
        *_common(_C, "delete", read=False, write=True),
        *_elem_flags(_C, LOCK, old_only=True),
        _nothing(_C),
        Rule(f"{_C}.memory", "batch.keys", EFAULT, "keys must point to count keys that can be read", _C, _first_key),
        Rule(
            f"{_C}.rest",
            "batch.keys batch.count",
            (0, EFAULT, ENOENT, EINVAL, EBUSY, ENOMEM),
            "every key must be readable, and in the map",
            "generic_map_delete_batch",
            always,
        ),
    ],
)

TABLES = {
    Cmd.MAP_LOOKUP_BATCH: LOOKUP,
    Cmd.MAP_LOOKUP_AND_DELETE_BATCH: LOOKUP_AND_DELETE,
    Cmd.MAP_UPDATE_BATCH: UPDATE,
    Cmd.MAP_DELETE_BATCH: DELETE,
}
