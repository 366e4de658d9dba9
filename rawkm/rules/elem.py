"""Map elements: MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, MAP_LOOKUP_AND_DELETE_ELEM, MAP_FREEZE."""

from __future__ import annotations

from errno import E2BIG, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, EPERM, ERANGE

from rawkm.rules.common import ENOTSUPP, fd_rules, from_release, tail
from rawkm.rules.model import CAP_BPF, Branch, Form, Rule, Table, always, for_each, maybe
from rawkm.uapi.constants import Cmd, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict

    Cases = dict[object, Sequence[Item]]

# include/uapi/linux/bpf.h: flags of an element.
NOEXIST, EXIST, LOCK, CPU, ALL_CPUS = 1, 2, 4, 8, 16
_MMAPABLE = 1 << 10

HASHES = (MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)
LRU = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
PER_CPU = (MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY)
FD_ARRAYS = (MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY)
QUEUES = (MapType.QUEUE, MapType.STACK)

FORM = Form("map_fd", "key", "value", "flags")


def value_size(c: Call, fd: int, flags: int, k: Facts) -> int:
    """bpf_map_value_size(): bytes of a value as system calls see it."""
    m = c.fds[fd]
    if k.version >= (7, 0) and flags & (CPU | ALL_CPUS):
        return m.value_size
    if m.type in PER_CPU:
        return (m.value_size + 7 & ~7) * k.cpus
    return m.value_size


def _key(a: Any, c: Call) -> bytes | None:
    return c.memory.read(a.key, c.fds[a.map_fd].key_size)


def _index(a: Any, c: Call) -> int | None:
    key = c.memory.read(a.key, 4)
    return None if key is None else int.from_bytes(key, "little")


def _beyond(a: Any, c: Call, k: Facts) -> Verdict:
    index = _index(a, c)
    return None if index is None else index >= c.fds[a.map_fd].max_entries


def _bad_value(a: Any, c: Call, k: Facts, write: bool) -> Verdict:
    check = c.memory.writable if write else c.memory.readable
    found = check(a.value, value_size(c, a.map_fd, a.flags, k), k)
    return None if found is None else not found


def _key_rules(command: str, *, null: bool = False) -> list[Rule]:
    """__bpf_copy_key(). ``null``: a NULL key is allowed whatever the map's key size is."""

    def unwanted(a: Any, c: Call, k: Facts) -> Verdict:
        return c.fds[a.map_fd].key_size == 0 and a.key != 0

    def faults(a: Any, c: Call, k: Facts) -> Verdict:
        if null and a.key == 0:
            return False
        found = c.memory.readable(a.key, c.fds[a.map_fd].key_size, k)
        return None if found is None else not found

    return [
        Rule(
            f"{command}.no_key",
            "key",
            EINVAL,
            "a map whose key_size is 0 takes no key: key must be NULL",
            "__bpf_copy_key",
            unwanted,
        ),
        Rule(f"{command}.key", "key", EFAULT, "key must point to key_size bytes that can be read", "__bpf_copy_key", faults),
    ]


def _access(command: str, *, read: bool = False, write: bool = False) -> list[Rule]:
    """map_get_sys_perms()."""
    rules = []
    if read:
        rules.append(
            Rule(
                f"{command}.read",
                "map_fd",
                EPERM,
                "the map's fd must be one for reading (a map made or opened with BPF_F_WRONLY is not)",
                "map_get_sys_perms",
                lambda a, c, k: not c.fds[a.map_fd].readable,
            )
        )
    if write:
        rules += [
            Rule(
                f"{command}.write",
                "map_fd",
                EPERM,
                "the map's fd must be one for writing (a map made or opened with BPF_F_RDONLY is not)",
                "map_get_sys_perms",
                lambda a, c, k: not c.fds[a.map_fd].writable,
            ),
            Rule(
                f"{command}.frozen",
                "map_fd",
                EPERM,
                "system calls cannot change a map that is frozen",
                "map_get_sys_perms",
                lambda a, c, k: c.fds[a.map_fd].frozen,
            ),
        ]
    return rules


def _op_flags(command: str, allowed: int) -> list[Rule]:
    """bpf_map_check_op_flags(), 7.0."""

    def cpu_of(flags: int) -> int:
        return flags >> 32

    since = (7, 0)
    source = "bpf_map_check_op_flags"
    both = [
        Rule(
            f"{command}.cpu_both",
            "flags",
            EINVAL,
            "BPF_F_CPU and BPF_F_ALL_CPUS exclude each other",
            source,
            lambda a, c, k: bool(a.flags & CPU and a.flags & ALL_CPUS),
            since=since,
        ),
    ]
    return [
        Rule(
            f"{command}.op_flags",
            "flags",
            EINVAL,
            "flags has a bit that this command does not know",
            source,
            lambda a, c, k: bool(a.flags & 0xFFFF_FFFF & ~allowed),
            since=since,
        ),
        _lock(command),
        Rule(
            f"{command}.cpu_number",
            "flags",
            EINVAL,
            "the upper 32 bits of flags are a CPU number: they must be 0 without BPF_F_CPU",
            source,
            lambda a, c, k: not a.flags & CPU and cpu_of(a.flags) != 0,
            since=since,
        ),
        Rule(
            f"{command}.cpu_map",
            "flags",
            EINVAL,
            "BPF_F_CPU and BPF_F_ALL_CPUS are for per-CPU maps",
            source,
            lambda a, c, k: bool(a.flags & (CPU | ALL_CPUS)) and c.fds[a.map_fd].type not in PER_CPU,
            since=since,
        ),
        *(both if allowed & ALL_CPUS else ()),
        Rule(
            f"{command}.cpu_range",
            "flags",
            ERANGE,
            "the CPU number in the upper 32 bits of flags must be a possible CPU",
            source,
            lambda a, c, k: bool(a.flags & CPU) and cpu_of(a.flags) >= k.cpus,
            since=since,
        ),
    ]


def _lock(command: str) -> Rule:
    return Rule(
        f"{command}.lock",
        "flags",
        EINVAL,
        "BPF_F_LOCK takes a map whose value has a bpf_spin_lock",
        command,
        lambda a, c, k: bool(a.flags & LOCK) and not c.fds[a.map_fd].spin_lock,
    )


def _flags_rule(command: str, allowed: int, *, since: tuple[int, int] = (0, 0), until: tuple[int, int] = (99, 0)) -> Rule:
    """Before the fd is looked at."""
    return Rule(
        f"{command}.flags",
        "flags",
        EINVAL,
        "flags may only have BPF_F_LOCK",
        command,
        lambda a, c, k: bool(a.flags & ~allowed),
        since=since,
        until=until,
    )


def _map(command: str) -> list[Rule]:
    return fd_rules(command, "map_fd", "map", "__bpf_map_get")


def _type(a: Any, c: Call, k: Facts) -> object:
    return c.fds[a.map_fd].type


def _may(name: str, errnos: tuple[int, ...], text: str, source: str) -> Rule:
    """The contents of the map decide."""
    return Rule(name, "key", errnos, text, source, always)


def _beyond_model(name: str) -> Rule:
    return Rule(name, "map_fd", None, "what this type of map does is not modelled", "", always)


def _value_rule(command: str, *, write: bool) -> Rule:
    what = "that can be written to" if write else "that can be read"
    return Rule(
        f"{command}.value",
        "value",
        EFAULT,
        f"value must point to value_size bytes {what} (of a per-CPU map: one slot of 8-byte-aligned size per possible CPU)",
        command,
        lambda a, c, k: _bad_value(a, c, k, write),
    )


# -- MAP_LOOKUP_ELEM -------------------------------------------------------------------------------------------------------

_C = "map_lookup_elem"
_LOOKUP_VALUE = _value_rule(_C, write=True)
_INDEX = Rule(f"{_C}.index", "key", ENOENT, "the key must be less than the array's max_entries", "array_map_lookup_elem", _beyond)
_ABSENT = Rule(
    f"{_C}.absent", "key", ENOENT, "there must be an element with this key", "bpf_map_copy_value", lambda a, c, k: None
)
_EMPTY = Rule(
    f"{_C}.empty", "map_fd", ENOENT, "there must be an element in the queue or stack", "queue_map_peek_elem", lambda a, c, k: None
)
_BLOOM_VALUE = Rule(
    f"{_C}.bloom_value",
    "value",
    EFAULT,
    "value must point to value_size bytes that can be read: the value to look for",
    "map_lookup_elem",
    lambda a, c, k: _bad_value(a, c, k, False),
)

_LOOKUP_CASES: Cases = {
    MapType.ARRAY: [_INDEX, _LOOKUP_VALUE],
    MapType.PERCPU_ARRAY: [_INDEX, _LOOKUP_VALUE],
    **for_each((*HASHES, MapType.LPM_TRIE, MapType.STACK_TRACE, MapType.PROG_ARRAY), _ABSENT, _LOOKUP_VALUE),
    **for_each(QUEUES, _EMPTY, _LOOKUP_VALUE),
    **for_each(
        (MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.RINGBUF, MapType.USER_RINGBUF),
        Rule(
            f"{_C}.type",
            "map_fd",
            ENOTSUPP,
            "elements of this type of map cannot be read by system calls",
            "bpf_map_copy_value",
            always,
        ),
    ),
    MapType.BLOOM_FILTER: from_release(
        (5, 16),
        [
            _BLOOM_VALUE,
            _may(f"{_C}.bloom", (0, ENOENT), "the value may be in the filter", "bloom_map_peek_elem"),
        ],
    ),
}

LOOKUP = Table(
    FORM,
    [
        *tail(_C, {(0, 0): 32}, last="flags"),
        _flags_rule(_C, LOCK, until=(6, 99)),
        *_map(_C),
        *_access(_C, read=True),
        *_op_flags(_C, LOCK | CPU),
        *_key_rules(_C),
        Branch(_type, _LOOKUP_CASES, [_beyond_model(f"{_C}.other")]),
    ],
)

# -- MAP_UPDATE_ELEM -------------------------------------------------------------------------------------------------------

_C = "map_update_elem"


def _array_flags(a: Any, c: Call, k: Facts) -> Verdict:
    return a.flags & ~LOCK > EXIST


def _percpu_flags(a: Any, c: Call, k: Facts) -> Verdict:
    return bool(a.flags & LOCK) or a.flags & 0xFFFF_FFFF > ALL_CPUS if k.version >= (7, 0) else a.flags > EXIST


_UPDATE_INDEX = Rule(
    f"{_C}.index", "key", E2BIG, "the key must be less than the array's max_entries", "array_map_update_elem", _beyond
)
_UPDATE_FLAGS = Rule(
    f"{_C}.elem_flags", "flags", EINVAL, "flags must be BPF_ANY, BPF_NOEXIST or BPF_EXIST", "array_map_update_elem", _array_flags
)
_PERCPU_FLAGS = Rule(
    f"{_C}.percpu_flags",
    "flags",
    EINVAL,
    "flags must be BPF_ANY, BPF_NOEXIST or BPF_EXIST (since 7.0 also BPF_F_CPU or BPF_F_ALL_CPUS)",
    "bpf_percpu_array_update",
    _percpu_flags,
)
_ARRAY_NOEXIST = Rule(
    f"{_C}.array_noexist",
    "flags",
    EEXIST,
    "all elements of an array exist already: BPF_NOEXIST never succeeds",
    "array_map_update_elem",
    lambda a, c, k: (bool(a.flags & NOEXIST) and c.fds[a.map_fd].type == MapType.ARRAY) or a.flags == NOEXIST,
)


def _hash_flags(a: Any, c: Call, k: Facts) -> Verdict:
    if c.fds[a.map_fd].type == MapType.HASH:
        return a.flags & ~LOCK > EXIST
    if k.version >= (7, 0) and c.fds[a.map_fd].type in PER_CPU:
        return a.flags & 0xFFFF_FFFF > ALL_CPUS if a.flags & (CPU | ALL_CPUS) else a.flags > EXIST
    return a.flags > EXIST


_HASH_RULES: list[Item] = [
    Rule(
        f"{_C}.hash_flags",
        "flags",
        EINVAL,
        "flags must be BPF_ANY, BPF_NOEXIST or BPF_EXIST",
        "htab_map_update_elem",
        _hash_flags,
    ),
    Rule(
        f"{_C}.exist",
        "flags",
        (0, EEXIST, E2BIG, ENOMEM),
        "with BPF_NOEXIST there must be no element with this key, and room in the map for a new one",
        "check_flags",
        lambda a, c, k: bool(a.flags & NOEXIST),
    ),
    Rule(
        f"{_C}.noexist",
        "flags",
        (0, ENOENT),
        "with BPF_EXIST there must be an element with this key",
        "check_flags",
        lambda a, c, k: bool(a.flags & EXIST),
    ),
    Rule(
        f"{_C}.full",
        "key",
        (0, E2BIG, ENOMEM, EBUSY),
        "there must be room in the map for a new element",
        "alloc_htab_elem",
        lambda a, c, k: c.fds[a.map_fd].type not in LRU,
    ),
]
_FD_VALUE = Rule(
    f"{_C}.fd_flags", "flags", EINVAL, "flags must be BPF_ANY", "bpf_fd_array_map_update_elem", lambda a, c, k: a.flags != 0
)

_UPDATE_CASES: Cases = {
    MapType.ARRAY: [_UPDATE_FLAGS, _UPDATE_INDEX, _ARRAY_NOEXIST],
    MapType.PERCPU_ARRAY: [_PERCPU_FLAGS, _UPDATE_INDEX, _ARRAY_NOEXIST],
    **for_each(HASHES, *_HASH_RULES),
    **for_each(
        QUEUES,
        Rule(
            f"{_C}.push_flags",
            "flags",
            EINVAL,
            "flags must be BPF_ANY or BPF_EXIST (which replaces the oldest element when all are taken)",
            "queue_stack_map_push_elem",
            lambda a, c, k: bool(a.flags & NOEXIST) or a.flags > EXIST,
        ),
        Rule(
            f"{_C}.push_full",
            "map_fd",
            (0, E2BIG),
            "there must be room in the queue or stack",
            "queue_stack_map_push_elem",
            lambda a, c, k: a.flags == 0,
        ),
    ),
    **for_each(
        (MapType.RINGBUF, MapType.USER_RINGBUF),
        Rule(
            f"{_C}.ringbuf",
            "map_fd",
            ENOTSUPP,
            "a ring buffer has no elements: mmap it",
            "ringbuf_map_update_elem",
            always,
        ),
    ),
    MapType.STACK_TRACE: [
        Rule(
            f"{_C}.stack_trace",
            "map_fd",
            EINVAL,
            "only programs store stack traces",
            "stack_map_update_elem",
            always,
        )
    ],
    MapType.PROG_ARRAY: [
        _FD_VALUE,
        _UPDATE_INDEX,
        Rule(
            f"{_C}.prog",
            "value",
            None,
            "the program must fit those that the array has",
            "prog_fd_array_get_ptr",
            always,
        ),
    ],
    MapType.PERF_EVENT_ARRAY: [
        _FD_VALUE,
        _UPDATE_INDEX,
        Rule(
            f"{_C}.event",
            "value",
            None,
            "the event must be one that can be read",
            "perf_event_fd_array_get_ptr",
            always,
        ),
    ],
}

UPDATE = Table(
    FORM,
    [
        *tail(_C, {(0, 0): 32}, last="flags"),
        *_map(_C),
        *_access(_C, write=True),
        *_op_flags(_C, 0xFFFF_FFFF)[1:],
        *_key_rules(_C),
        _value_rule(_C, write=False),
        Branch(_type, _UPDATE_CASES, [_beyond_model(f"{_C}.other")]),
    ],
)

# -- MAP_DELETE_ELEM -------------------------------------------------------------------------------------------------------

_C = "map_delete_elem"
_DELETE_ABSENT = _may(f"{_C}.absent", (0, ENOENT), "there must be an element with this key", "htab_map_delete_elem")

_DELETE_CASES: Cases = {
    **for_each(HASHES, _DELETE_ABSENT),
    **for_each(
        (MapType.ARRAY, MapType.PERCPU_ARRAY, *QUEUES),
        Rule(
            f"{_C}.type",
            "map_fd",
            EINVAL,
            "elements of an array, a queue or a stack cannot be deleted",
            "array_map_delete_elem",
            always,
        ),
    ),
    **for_each(
        (MapType.RINGBUF, MapType.USER_RINGBUF),
        Rule(
            f"{_C}.ringbuf",
            "map_fd",
            ENOTSUPP,
            "a ring buffer has no elements: mmap it",
            "ringbuf_map_delete_elem",
            always,
        ),
    ),
    **for_each(
        FD_ARRAYS,
        Rule(
            f"{_C}.index",
            "key",
            E2BIG,
            "the key must be less than the array's max_entries",
            "fd_array_map_delete_elem",
            _beyond,
        ),
        _DELETE_ABSENT,
    ),
}

DELETE = Table(
    FORM,
    [
        *tail(_C, {(0, 0): 16}, last="value flags"),
        *_map(_C),
        *_access(_C, write=True),
        *_key_rules(_C),
        Branch(_type, _DELETE_CASES, [_beyond_model(f"{_C}.other")]),
    ],
)

# -- MAP_GET_NEXT_KEY ------------------------------------------------------------------------------------------------------

_C = "map_get_next_key"


def _last_index(a: Any, c: Call, k: Facts) -> Verdict:
    entries = c.fds[a.map_fd].max_entries
    if a.key == 0:
        return False
    index = _index(a, c)
    return None if index is None else index == entries - 1


def _bad_next(a: Any, c: Call, k: Facts) -> Verdict:
    found = c.memory.writable(a.value, c.fds[a.map_fd].key_size, k)
    return None if found is None else not found


_NEXT_FAULT = Rule(
    f"{_C}.next_key", "next_key", EFAULT, "next_key must point to key_size bytes that can be written to", _C, _bad_next
)
_ARRAY_NEXT: list[Item] = [
    Rule(f"{_C}.last", "key", ENOENT, "there is no key behind the last one", "bpf_array_get_next_key", _last_index),
    _NEXT_FAULT,
]
_HASH_NEXT: list[Item] = [
    Rule(f"{_C}.end", "key", ENOENT, "there is no key behind the last one", "htab_map_get_next_key", maybe),
    _NEXT_FAULT,
]

NEXT_KEY = Table(
    FORM,
    [
        *tail(_C, {(0, 0): 24}, last="flags"),
        *_map(_C),
        *_access(_C, read=True),
        *_key_rules(_C, null=True),
        Branch(
            _type,
            {
                **for_each((MapType.ARRAY, MapType.PERCPU_ARRAY, *FD_ARRAYS), *_ARRAY_NEXT),
                **for_each(HASHES, *_HASH_NEXT),
                **for_each(
                    QUEUES,
                    Rule(
                        f"{_C}.queue",
                        "map_fd",
                        EINVAL,
                        "a queue or stack has no keys",
                        "queue_stack_map_get_next_key",
                        always,
                    ),
                ),
                **for_each(
                    (MapType.RINGBUF, MapType.USER_RINGBUF),
                    Rule(
                        f"{_C}.ringbuf",
                        "map_fd",
                        ENOTSUPP,
                        "a ring buffer has no elements: mmap it",
                        "ringbuf_map_get_next_key",
                        always,
                    ),
                ),
            },
            [_beyond_model(f"{_C}.other")],
        ),
    ],
)

# -- MAP_LOOKUP_AND_DELETE_ELEM --------------------------------------------------------------------------------------------

_C = "map_lookup_and_delete_elem"
_AND_DELETE_TYPES = (*HASHES, *QUEUES)


# bpf_stackmap_lookup_and_delete_elem().
_STACK_TRACE_SINCE = (6, 18)


def _and_delete(a: Any, c: Call, k: Facts) -> tuple[bool, bool]:
    kind = c.fds[a.map_fd].type
    known = kind in _AND_DELETE_TYPES or (kind == MapType.STACK_TRACE and k.version >= _STACK_TRACE_SINCE)
    return known, kind in QUEUES


def _not_for_others(a: Any, c: Call, k: Facts) -> Verdict:
    kind = c.fds[a.map_fd].type
    return True if kind is not None and kind <= MapType.ARENA else None


def _queue_flags(a: Any, c: Call, k: Facts) -> Verdict:
    return a.flags != 0 and c.fds[a.map_fd].type in QUEUES


_AND_DELETE_SINCE = (5, 14)
_AND_DELETE_VALUE = _value_rule(_C, write=True)
LOOKUP_AND_DELETE = Table(
    FORM,
    [
        *tail(_C, {(4, 20): 24, _AND_DELETE_SINCE: 32}, last="flags"),
        _flags_rule(_C, LOCK, since=_AND_DELETE_SINCE),
        *_map(_C),
        *_access(_C, read=True, write=True),
        Rule(
            f"{_C}.queue_flags",
            "flags",
            EINVAL,
            "flags must be 0 for a queue or stack",
            _C,
            _queue_flags,
            since=_AND_DELETE_SINCE,
        ),
        _lock(_C).since_at_least(_AND_DELETE_SINCE),
        *_key_rules(_C),
        Branch(
            _and_delete,
            {
                (False, False): [
                    Rule(
                        f"{_C}.type",
                        "map_fd",
                        ENOTSUPP,
                        "only queues and stacks can, since 5.14 hashes, and since 6.18 stack traces",
                        _C,
                        _not_for_others,
                    )
                ],
                (True, True): [
                    Rule(
                        f"{_C}.empty",
                        "map_fd",
                        ENOENT,
                        "there must be an element in the queue or stack",
                        "queue_map_pop_elem",
                        maybe,
                    ),
                    _AND_DELETE_VALUE,
                ],
                (True, False): [
                    Rule(
                        f"{_C}.hash",
                        "map_fd",
                        ENOTSUPP,
                        "only queues and stacks can, since 5.14 hashes, and since 6.18 stack traces",
                        _C,
                        always,
                        until=(5, 13),
                    ),
                    Rule(
                        f"{_C}.absent",
                        "key",
                        ENOENT,
                        "there must be an element with this key",
                        "htab_map_lookup_and_delete_elem",
                        maybe,
                        since=_AND_DELETE_SINCE,
                    ),
                    _AND_DELETE_VALUE,
                ],
            },
        ),
    ],
)

# -- MAP_FREEZE ------------------------------------------------------------------------------------------------------------

_C = "map_freeze"
FREEZE = Table(
    FORM,
    [
        *tail(_C, {(0, 0): 4}, last="key value flags"),
        *_map(_C),
        Rule(
            f"{_C}.type",
            "map_fd",
            ENOTSUPP,
            "a struct_ops map cannot be frozen",
            _C,
            lambda a, c, k: c.fds[a.map_fd].type == MapType.STRUCT_OPS,
            unseen="making a struct_ops map takes a kernel module's or the kernel's own struct_ops type",
        ),
        Rule(
            f"{_C}.fields",
            "map_fd",
            ENOTSUPP,
            "a map whose value has a lock, a timer or a kernel pointer cannot be frozen",
            _C,
            lambda a, c, k: c.fds[a.map_fd].spin_lock,
            since=(6, 3),
        ),
        Rule(
            f"{_C}.write",
            "map_fd",
            EPERM,
            "the map's fd must be one for writing, and the map not yet frozen",
            "map_get_sys_perms",
            lambda a, c, k: not c.fds[a.map_fd].writable or c.fds[a.map_fd].frozen,
            since=(6, 3),
        ),
        Rule(
            f"{_C}.twice",
            "map_fd",
            EBUSY,
            "a map can be frozen once",
            _C,
            lambda a, c, k: c.fds[a.map_fd].frozen,
            until=(6, 2),
        ),
        Rule(
            f"{_C}.mmapped",
            "map_fd",
            EBUSY,
            "a map cannot be frozen while it is mmapped for writing",
            "bpf_map_write_active",
            lambda a, c, k: None if c.fds[a.map_fd].flags & _MMAPABLE else False,
        ),
        Rule(f"{_C}.capable", "", EPERM, "freezing takes CAP_BPF", _C, lambda a, c, k: not k.capable(CAP_BPF), until=(6, 2)),
    ],
)

TABLES = {
    Cmd.MAP_LOOKUP_ELEM: LOOKUP,
    Cmd.MAP_UPDATE_ELEM: UPDATE,
    Cmd.MAP_DELETE_ELEM: DELETE,
    Cmd.MAP_GET_NEXT_KEY: NEXT_KEY,
    Cmd.MAP_LOOKUP_AND_DELETE_ELEM: LOOKUP_AND_DELETE,
    Cmd.MAP_FREEZE: FREEZE,
}
