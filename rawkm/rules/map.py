"""MAP_CREATE: what all types have in common, and each type's own checks of sizes and flags."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPERM

from rawkm.rules.common import ENOTSUPP, fd_rules, from_release, tail, when_set
from rawkm.rules.model import CAP_BPF, CAP_SYS_ADMIN, Branch, Form, Rule, Table, always, for_each
from rawkm.uapi.constants import Cmd, MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict, Version, When

_C = "map_create"

# Linux 6.5 gathered the capability checks of all types in map_create(), behind those of sizes and flags.
_CENTRAL = (6, 5)
_BEFORE_CENTRAL = (6, 4)

FORM = Form(
    "map_type",
    "key_size",
    "value_size",
    "max_entries",
    "map_flags",
    "inner_map_fd",
    "numa_node",
    "map_name",
    "map_ifindex",
    "btf_fd",
    "btf_key_type_id",
    "btf_value_type_id",
    "btf_vmlinux_value_type_id",
    "map_extra",
    "value_type_btf_obj_fd",
    "map_token_fd",
    "excl_prog_hash",
    "excl_prog_hash_size",
)

# The number of map types by the first release that has so many: the size of bpf_map_types[].
_TYPES: tuple[tuple[Version, int], ...] = (
    ((5, 10), 30),
    ((5, 16), 31),
    ((6, 1), 32),
    ((6, 2), 33),
    ((6, 9), 34),
    ((6, 19), 35),
    ((7, 2), 36),
)

_ACCESS = MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
_ARRAY_FLAGS = MapFlag.NUMA_NODE | MapFlag.MMAPABLE | _ACCESS | MapFlag.PRESERVE_ELEMS | MapFlag.INNER_MAP
_HASH_FLAGS = MapFlag.NO_PREALLOC | MapFlag.NO_COMMON_LRU | MapFlag.NUMA_NODE | _ACCESS | MapFlag.ZERO_SEED
_STACK_FLAGS = MapFlag.NUMA_NODE | MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.STACK_BUILD_ID

_NO_NODE = 0xFFFF_FFFF
_KMALLOC_MAX = 1 << 22
_PCPU_MAX = 32 << 10
_INT_MAX = (1 << 31) - 1
# sizeof(struct htab_elem) moves with the release.
_HTAB_ELEM = 64
_MAX_STACK = 127
# Beyond this a map may not find enough memory.
_MUCH = 16 << 20
_4_GIB = 4 << 30

ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
FD_ARRAYS = (MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY)
HASHES = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
LRU = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
PER_CPU = (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)
# isalnum() of the kernel takes the letters of Latin-1, too (lib/ctype.c).
_LATIN_1 = bytes(c for c in range(0xC0, 0x100) if c not in (0xD7, 0xF7))
_NAME_CHARS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_." + _LATIN_1)


def count_types(version: Version) -> int:
    """How many map types a release knows."""
    return next(count for first, count in reversed(_TYPES) if version >= first)


def _flags(a: Any, k: Facts) -> int:
    """map_flags without BPF_F_TOKEN_FD, which the kernel takes away first (6.9)."""
    flags: int = a.map_flags
    return flags & ~MapFlag.TOKEN_FD if k.version >= (6, 9) else flags


def _node(a: Any) -> int:
    node: int = a.numa_node if a.map_flags & MapFlag.NUMA_NODE else _NO_NODE
    return node


def good_name(name: bytes) -> bool:
    """bpf_obj_name_cpy()."""
    text, nul, _ = name.partition(b"\0")
    return bool(nul) and _NAME_CHARS.issuperset(text)


def cost(a: Any, k: Facts) -> int:
    """About how many bytes the map takes."""
    value = (a.value_size + 7 & ~7) * (k.cpus if a.map_type in PER_CPU else 1)
    if a.map_type in (MapType.RINGBUF, MapType.USER_RINGBUF):
        return int(a.max_entries)
    return int(a.max_entries * (value + (a.key_size + 7 & ~7) + 64))


def _beyond_4_gib(a: Any, c: Call, k: Facts) -> Verdict:
    """Certainly, perhaps, or not: types differ in what an element takes besides."""
    least = a.max_entries * (1 if a.map_type in (MapType.RINGBUF, MapType.USER_RINGBUF) else a.value_size)
    return True if least > _4_GIB else None if 2 * cost(a, k) > _4_GIB else False


def _rule(
    name: str,
    fields: str,
    errno: int | tuple[int, ...] | None,
    text: str,
    source: str,
    when: When,
    *,
    since: Version = (0, 0),
    until: Version = (99, 0),
    unseen: str = "",
) -> Rule:
    return Rule(f"{_C}.{name}", fields, errno, text, source, when, since=since, until=until, unseen=unseen)


def _capable(kind: str, cap: int, what: str, *, since: Version = (0, 0), until: Version = (99, 0)) -> Rule:
    """``kind``: tells the types apart."""
    return _rule(
        f"{kind}_capable",
        "map_type",
        EPERM,
        f"this type of map takes {what}",
        "map_create",
        lambda a, c, k: not k.capable(cap),
        since=since,
        until=until,
    )


def _both_access(a: Any, k: Facts) -> bool:
    both = MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
    return _flags(a, k) & both == both


# -- the checks of one type ------------------------------------------------------------------------------------------------


def _array(kind: str, source: str = "array_map_alloc_check") -> list[Item]:
    """array_map_alloc_check(). ``kind``: tells its users apart."""
    return [
        _rule(
            f"{kind}_max_entries", "max_entries", EINVAL, "max_entries must not be 0", source, lambda a, c, k: a.max_entries == 0
        ),
        _rule(f"{kind}_key_size", "key_size", EINVAL, "key_size of an array must be 4", source, lambda a, c, k: a.key_size != 4),
        _rule(
            f"{kind}_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that arrays do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~_ARRAY_FLAGS),
        ),
        _rule(
            f"{kind}_mmapable",
            "map_flags",
            EINVAL,
            "BPF_F_MMAPABLE and BPF_F_INNER_MAP are for plain arrays",
            source,
            lambda a, c, k: a.map_type != MapType.ARRAY and bool(a.map_flags & (MapFlag.MMAPABLE | MapFlag.INNER_MAP)),
        ),
        _rule(
            f"{kind}_preserve",
            "map_flags",
            EINVAL,
            "BPF_F_PRESERVE_ELEMS is for perf event arrays",
            source,
            lambda a, c, k: a.map_type != MapType.PERF_EVENT_ARRAY and bool(a.map_flags & MapFlag.PRESERVE_ELEMS),
        ),
    ]


def _plain_array() -> list[Item]:
    """What arrays of values are checked for beside that."""
    source = "array_map_alloc_check"
    return [
        _rule("array_value_size", "value_size", EINVAL, "value_size must not be 0", source, lambda a, c, k: a.value_size == 0),
        _rule(
            "array_prog_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
            "bpf_map_flags_access_ok",
            lambda a, c, k: _both_access(a, k),
        ),
        _rule(
            "array_numa",
            "map_flags numa_node",
            EINVAL,
            "a per-CPU map takes no NUMA node",
            source,
            lambda a, c, k: a.map_type == MapType.PERCPU_ARRAY and _node(a) != _NO_NODE,
        ),
        _rule(
            "array_value_large",
            "value_size",
            E2BIG,
            "value_size must be less than 2 GiB (before 5.11: at most 4 MiB); of a per-CPU map at most 32 KiB",
            source,
            lambda a, c, k: (
                a.value_size > (_KMALLOC_MAX if k.version < (5, 11) else _INT_MAX)
                or (a.map_type == MapType.PERCPU_ARRAY and (a.value_size + 7 & ~7) > _PCPU_MAX)
            ),
        ),
    ]


def _hash() -> list[Item]:
    source = "htab_map_alloc_check"
    return [
        _rule(
            "lru_capable",
            "map_type",
            EPERM,
            "this type of map takes CAP_BPF",
            source,
            lambda a, c, k: a.map_type in LRU and not k.capable(CAP_BPF),
            until=_BEFORE_CENTRAL,
        ),
        _rule(
            "zero_seed",
            "map_flags",
            EPERM,
            "BPF_F_ZERO_SEED takes CAP_SYS_ADMIN",
            source,
            lambda a, c, k: bool(a.map_flags & MapFlag.ZERO_SEED) and not k.caps >> CAP_SYS_ADMIN & 1,
        ),
        _rule(
            "hash_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that hashes do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~_HASH_FLAGS),
        ),
        _rule(
            "hash_prog_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
            "bpf_map_flags_access_ok",
            lambda a, c, k: _both_access(a, k),
        ),
        _rule(
            "common_lru",
            "map_flags",
            EINVAL,
            "BPF_F_NO_COMMON_LRU is for LRU hashes",
            source,
            lambda a, c, k: a.map_type not in LRU and bool(a.map_flags & MapFlag.NO_COMMON_LRU),
        ),
        _rule(
            "lru_prealloc",
            "map_flags",
            ENOTSUPP,
            "an LRU hash cannot have BPF_F_NO_PREALLOC",
            source,
            lambda a, c, k: a.map_type in LRU and bool(a.map_flags & MapFlag.NO_PREALLOC),
        ),
        _rule(
            "hash_numa",
            "map_flags numa_node",
            EINVAL,
            "a per-CPU map, and one with BPF_F_NO_COMMON_LRU, takes no NUMA node",
            source,
            lambda a, c, k: _node(a) != _NO_NODE and (a.map_type in PER_CPU or bool(a.map_flags & MapFlag.NO_COMMON_LRU)),
        ),
        _rule("hash_max_entries", "max_entries", EINVAL, "max_entries must not be 0", source, lambda a, c, k: a.max_entries == 0),
        _rule("hash_key_size", "key_size", EINVAL, "key_size must not be 0", source, lambda a, c, k: a.key_size == 0),
        _rule("hash_value_size", "value_size", EINVAL, "value_size must not be 0", source, lambda a, c, k: a.value_size == 0),
        _rule(
            "hash_key_large",
            "key_size",
            E2BIG,
            "key_size must be at most 512",
            source,
            lambda a, c, k: a.key_size > 512,
            until=(5, 10),
        ),
        _rule(
            "hash_large",
            "key_size value_size",
            E2BIG,
            "a key and a value together must be less than 4 MiB; the value of a per-CPU map at most 32 KiB",
            source,
            _hash_too_large,
        ),
    ]


def _hash_too_large(a: Any, c: Call, k: Facts) -> Verdict:
    room = _KMALLOC_MAX - (a.key_size + a.value_size if k.version >= (5, 11) else a.value_size + 512)
    if room <= 0:
        return True
    if a.map_type in PER_CPU and (a.value_size + 7 & ~7) > _PCPU_MAX:
        return True
    return None if room <= _HTAB_ELEM else False


def _queue() -> list[Item]:
    source = "queue_stack_map_alloc_check"
    return [
        _capable("queue", CAP_BPF, "CAP_BPF", until=_BEFORE_CENTRAL),
        _rule(
            "queue_max_entries", "max_entries", EINVAL, "max_entries must not be 0", source, lambda a, c, k: a.max_entries == 0
        ),
        _rule(
            "queue_key_size",
            "key_size",
            EINVAL,
            "a queue or stack has no keys: key_size must be 0",
            source,
            lambda a, c, k: a.key_size != 0,
        ),
        _rule("queue_value_size", "value_size", EINVAL, "value_size must not be 0", source, lambda a, c, k: a.value_size == 0),
        _rule(
            "queue_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that queues and stacks do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~(MapFlag.NUMA_NODE | _ACCESS)),
        ),
        _rule(
            "queue_prog_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
            "bpf_map_flags_access_ok",
            lambda a, c, k: _both_access(a, k),
        ),
        _rule(
            "queue_large",
            "value_size",
            E2BIG,
            "value_size must be at most 4 MiB",
            source,
            lambda a, c, k: a.value_size > _KMALLOC_MAX,
        ),
        _rule(
            "queue_total",
            "value_size max_entries",
            E2BIG,
            "max_entries times value_size must be less than 4 GiB",
            source,
            # In some stable releases of others, too, and gone again in 7.x.
            lambda a, c, k: None if a.max_entries >= 0xFFFF_FFFF // a.value_size else False,
            unseen="it takes 4 GiB to tell this from a map that finds no memory",
        ),
    ]


def _ringbuf_flags(k: Facts) -> int:
    return MapFlag.NUMA_NODE | (MapFlag.RB_OVERWRITE if k.version >= (6, 19) else 0)


def _ringbuf() -> list[Item]:
    source = "ringbuf_map_alloc"
    return [
        _rule(
            "ringbuf_flags",
            "map_flags",
            EINVAL,
            "map_flags of a ring buffer may only have BPF_F_NUMA_NODE, and since 6.19 BPF_F_RB_OVERWRITE",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~_ringbuf_flags(k)),
        ),
        _rule(
            "user_ringbuf_overwrite",
            "map_flags",
            EINVAL,
            "BPF_F_RB_OVERWRITE is not for user ring buffers",
            source,
            lambda a, c, k: bool(a.map_flags & MapFlag.RB_OVERWRITE) and a.map_type != MapType.RINGBUF,
            since=(6, 19),
        ),
        _rule(
            "ringbuf_sizes",
            "key_size value_size",
            EINVAL,
            "a ring buffer has no elements: key_size and value_size must be 0",
            source,
            lambda a, c, k: bool(a.key_size or a.value_size),
        ),
        _rule(
            "ringbuf_size",
            "max_entries",
            EINVAL,
            "max_entries of a ring buffer is its size in bytes: a power of two and whole pages",
            source,
            lambda a, c, k: bool(a.max_entries == 0 or a.max_entries & (a.max_entries - 1) or a.max_entries % k.page_size),
        ),
    ]


def _lpm() -> list[Item]:
    source = "trie_alloc"
    return [
        _capable("lpm", CAP_BPF, "CAP_BPF", until=_BEFORE_CENTRAL),
        _rule("lpm_max_entries", "max_entries", EINVAL, "max_entries must not be 0", source, lambda a, c, k: a.max_entries == 0),
        _rule(
            "lpm_prealloc",
            "map_flags",
            EINVAL,
            "an LPM trie needs BPF_F_NO_PREALLOC",
            source,
            lambda a, c, k: not a.map_flags & MapFlag.NO_PREALLOC,
        ),
        _rule(
            "lpm_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that LPM tries do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~(MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE | _ACCESS)),
        ),
        _rule(
            "lpm_prog_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
            "bpf_map_flags_access_ok",
            lambda a, c, k: _both_access(a, k),
        ),
        _rule(
            "lpm_key_size",
            "key_size",
            EINVAL,
            "key_size of an LPM trie must be 5 to 260: 4 for the length of the prefix, then up to 256 bytes",
            source,
            lambda a, c, k: not 5 <= a.key_size <= 260,
        ),
        _rule(
            "lpm_value_size",
            "value_size",
            EINVAL,
            "value_size must be 1 to about 4 MiB",
            source,
            lambda a, c, k: (
                a.value_size == 0 or a.value_size > _KMALLOC_MAX or (None if a.value_size > _KMALLOC_MAX - 512 else 0)
            ),
        ),
    ]


def _stack_trace() -> list[Item]:
    source = "stack_map_alloc"
    return [
        _capable("stack_trace", CAP_BPF, "CAP_BPF", until=_BEFORE_CENTRAL),
        _rule(
            "stack_trace_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that stack trace maps do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~_STACK_FLAGS),
        ),
        _rule(
            "stack_trace_max_entries",
            "max_entries",
            EINVAL,
            "max_entries must not be 0",
            source,
            lambda a, c, k: a.max_entries == 0,
        ),
        _rule(
            "stack_trace_key_size",
            "key_size",
            EINVAL,
            "key_size of a stack trace map must be 4",
            source,
            lambda a, c, k: a.key_size != 4,
        ),
        _rule(
            "stack_trace_value_size",
            "value_size",
            EINVAL,
            "value_size must be 8 (with BPF_F_STACK_BUILD_ID 32) times at most kernel.perf_event_max_stack frames",
            source,
            _bad_depth,
        ),
    ]


def _bad_depth(a: Any, c: Call, k: Facts) -> Verdict:
    each = 32 if a.map_flags & MapFlag.STACK_BUILD_ID else 8
    # kernel.perf_event_max_stack can be raised.
    return a.value_size < 8 or a.value_size % each != 0 or (None if a.value_size // each > _MAX_STACK else False)


def _bloom() -> list[Item]:
    source = "bloom_map_alloc"
    return [
        _rule(
            "bloom_key_size",
            "key_size",
            EINVAL,
            "a bloom filter has no keys: key_size must be 0",
            source,
            lambda a, c, k: a.key_size != 0,
        ),
        _rule("bloom_value_size", "value_size", EINVAL, "value_size must not be 0", source, lambda a, c, k: a.value_size == 0),
        _rule(
            "bloom_max_entries", "max_entries", EINVAL, "max_entries must not be 0", source, lambda a, c, k: a.max_entries == 0
        ),
        _rule(
            "bloom_flags",
            "map_flags",
            EINVAL,
            "map_flags has a bit that bloom filters do not take",
            source,
            lambda a, c, k: bool(_flags(a, k) & ~(MapFlag.NUMA_NODE | MapFlag.ZERO_SEED | _ACCESS)),
        ),
        _rule(
            "bloom_prog_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
            "bpf_map_flags_access_ok",
            lambda a, c, k: _both_access(a, k),
        ),
        _rule(
            "bloom_extra",
            "map_extra",
            EINVAL,
            "map_extra of a bloom filter is its number of hash functions: at most 15",
            source,
            lambda a, c, k: bool(a.map_extra & ~0xF),
        ),
    ]


# -- the command -----------------------------------------------------------------------------------------------------------


def _with_token(rule: Rule) -> Rule:
    """Of a rule about map_token_fd: only where the flag says that there is one."""
    when = rule.when
    return Rule(
        rule.name,
        "map_token_fd",
        rule.errno,
        rule.text,
        rule.source,
        lambda a, c, k: bool(a.map_flags & MapFlag.TOKEN_FD) and when(a, c, k),
        since=(6, 9),
    )


def _gate(a: Any, c: Call, k: Facts) -> Verdict:
    if k.unprivileged_bpf_disabled == 0 or k.capable(CAP_BPF):
        return False
    # A token may stand in for the capability.
    return None if k.version >= (6, 9) and a.map_flags & MapFlag.TOKEN_FD else True


def _offload(a: Any, c: Call, k: Facts) -> Verdict:
    return a.map_ifindex != 0


_GATE_EARLY = _rule(
    "gate_early",
    "",
    EPERM,
    "with kernel.unprivileged_bpf_disabled, making maps takes CAP_BPF",
    "__sys_bpf",
    lambda a, c, k: k.unprivileged_bpf_disabled > 0 and not k.capable(CAP_BPF),
    since=(5, 19),
    until=_BEFORE_CENTRAL,
)

_PRIVILEGED: dict[object, Sequence[Item]] = for_each(
    (MapType.BLOOM_FILTER, MapType.LPM_TRIE, MapType.STACK_TRACE, MapType.QUEUE, MapType.STACK, *LRU),
    _capable("central", CAP_BPF, "CAP_BPF", since=_CENTRAL),
)

_FD_ARRAY: list[Item] = [
    _rule(
        "fd_value_size",
        "value_size",
        EINVAL,
        "the values of such an array are fds: value_size must be 4",
        "fd_array_map_alloc_check",
        lambda a, c, k: a.value_size != 4,
    ),
    _rule(
        "fd_prog_access",
        "map_flags",
        EINVAL,
        "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG are not for arrays of fds",
        "fd_array_map_alloc_check",
        lambda a, c, k: bool(a.map_flags & (MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG)),
    ),
    *_array("fd"),
]

_BEYOND = _rule("other", "map_type", None, "the checks of this type of map are not modelled", "", always)
_BLOOM_LARGE = _rule(
    "bloom_large",
    "value_size",
    E2BIG,
    "value_size must be at most 4 MiB",
    "bloom_map_alloc_check",
    lambda a, c, k: a.value_size > _KMALLOC_MAX,
)

#: What is checked before privileges are (map_alloc_check of the type), and what after (map_alloc).
_BEFORE: dict[object, Sequence[Item]] = {
    **for_each(ARRAYS, *_array("array"), *_plain_array()),
    **for_each(FD_ARRAYS, *_FD_ARRAY),
    **for_each(HASHES, *_hash()),
    **for_each((MapType.QUEUE, MapType.STACK), *_queue()),
    MapType.BLOOM_FILTER: from_release((5, 16), [_BLOOM_LARGE]),
    **for_each((MapType.RINGBUF, MapType.USER_RINGBUF, MapType.LPM_TRIE, MapType.STACK_TRACE)),
}
_AFTER: dict[object, Sequence[Item]] = {
    **for_each((*ARRAYS, *FD_ARRAYS, *HASHES, MapType.QUEUE, MapType.STACK)),
    **for_each((MapType.RINGBUF, MapType.USER_RINGBUF), *_ringbuf()),
    MapType.LPM_TRIE: tuple(_lpm()),
    MapType.STACK_TRACE: tuple(_stack_trace()),
    MapType.BLOOM_FILTER: from_release((5, 16), [_capable("bloom", CAP_BPF, "CAP_BPF", until=_BEFORE_CENTRAL), *_bloom()]),
}


def _kind(a: Any, c: Call, k: Facts) -> object:
    return a.map_type


def _any_btf(a: Any) -> bool:
    return bool(a.btf_key_type_id or a.btf_value_type_id or a.btf_vmlinux_value_type_id)


CREATE = Table(
    FORM,
    [
        _GATE_EARLY,
        *tail(_C, {(0, 0): 64, (5, 16): 72, (6, 9): 80, (6, 18): 92}),
        _rule(
            "vmlinux_type",
            "btf_vmlinux_value_type_id map_type",
            EINVAL,
            "btf_vmlinux_value_type_id is for struct_ops maps",
            "map_create",
            lambda a, c, k: a.btf_vmlinux_value_type_id != 0 and a.map_type != MapType.STRUCT_OPS,
        ),
        _rule(
            "vmlinux_alone",
            "btf_vmlinux_value_type_id btf_key_type_id btf_value_type_id",
            EINVAL,
            "btf_vmlinux_value_type_id excludes btf_key_type_id and btf_value_type_id",
            "map_create",
            lambda a, c, k: a.btf_vmlinux_value_type_id != 0 and bool(a.btf_key_type_id or a.btf_value_type_id),
        ),
        _rule(
            "btf_value",
            "btf_key_type_id btf_value_type_id",
            EINVAL,
            "btf_key_type_id takes a btf_value_type_id",
            "map_create",
            lambda a, c, k: a.btf_key_type_id != 0 and a.btf_value_type_id == 0,
        ),
        _rule(
            "map_extra",
            "map_extra map_type",
            EINVAL,
            "map_extra is for bloom filters (and since 6.9 arenas)",
            "map_create",
            lambda a, c, k: a.map_extra != 0 and a.map_type not in (MapType.BLOOM_FILTER, MapType.ARENA, MapType.RHASH),
            since=(5, 16),
        ),
        _rule(
            "fd_access",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY and BPF_F_WRONLY exclude each other",
            "bpf_get_file_flag",
            lambda a, c, k: bool(a.map_flags & MapFlag.RDONLY and a.map_flags & MapFlag.WRONLY),
            until=(7, 1),
        ),
        _rule(
            "numa_node",
            "numa_node map_flags",
            EINVAL,
            "numa_node must be a NUMA node that is online",
            "map_create",
            lambda a, c, k: _node(a) != _NO_NODE and _node(a) >= k.nodes,
        ),
        _rule(
            "map_type",
            "map_type",
            EINVAL,
            "map_type must be a type that this kernel has",
            "map_create",
            lambda a, c, k: a.map_type == 0 or a.map_type >= count_types(k.version),
        ),
        Branch(_kind, _BEFORE, [_BEYOND]),
        _rule(
            "offload_capable",
            "map_ifindex",
            EPERM,
            "a map on a device takes CAP_SYS_ADMIN",
            "bpf_map_offload_map_alloc",
            lambda a, c, k: a.map_ifindex != 0 and not k.caps >> CAP_SYS_ADMIN & 1,
        ),
        _rule(
            "offload",
            "map_ifindex",
            (EINVAL, EOPNOTSUPP),
            "map_ifindex must be 0, or a network device that keeps maps of this type",
            "bpf_map_offload_map_alloc",
            _offload,
        ),
        *map(_with_token, fd_rules(_C, "map_token_fd", "token", "bpf_token_get_from_fd")),
        _rule(
            "gate",
            "",
            EPERM,
            "with kernel.unprivileged_bpf_disabled, making maps takes CAP_BPF",
            "map_create",
            _gate,
            since=_CENTRAL,
        ),
        Branch(_kind, _PRIVILEGED),
        Branch(_kind, _AFTER),
        _rule(
            "charge",
            "max_entries value_size",
            E2BIG,
            "the map must take less than 4 GiB",
            "bpf_map_charge_init",
            _beyond_4_gib,
            until=(5, 10),
        ),
        _rule(
            "memlock",
            "max_entries value_size",
            EPERM,
            "the map must fit into RLIMIT_MEMLOCK, even root's: raise it (ulimit -l)",
            "bpf_map_charge_init",
            lambda a, c, k: False if k.memlock is None else True if cost(a, k) // 2 > k.memlock else None,
            until=(5, 10),
        ),
        _rule(
            "memory",
            "max_entries value_size",
            (E2BIG, ENOMEM),
            "there must be memory for max_entries elements",
            "map_alloc",
            lambda a, c, k: None if cost(a, k) > _MUCH or a.max_entries > 1 << 27 else False,
            unseen="it depends on how much memory there is",
        ),
        _rule(
            "map_name",
            "map_name",
            EINVAL,
            "map_name takes at most 15 of letters (also those of Latin-1), digits, _ . and then a NUL",
            "bpf_obj_name_cpy",
            lambda a, c, k: not good_name(a.map_name),
        ),
        *(
            when_set(rule, "btf_key_type_id btf_value_type_id btf_vmlinux_value_type_id")
            for rule in fd_rules(_C, "btf_fd", "btf", "btf_get_by_fd")
        ),
        _rule(
            "btf",
            "btf_fd",
            None,
            "the types must fit the sizes, and their fields the type of map",
            "map_check_btf",
            lambda a, c, k: _any_btf(a),
        ),
        _rule(
            "excl_size",
            "excl_prog_hash_size",
            EINVAL,
            "excl_prog_hash_size must be 32 with excl_prog_hash, 0 without",
            "map_create",
            lambda a, c, k: a.excl_prog_hash_size != (32 if a.excl_prog_hash else 0),
            since=(6, 18),
        ),
        _rule(
            "excl_hash",
            "excl_prog_hash",
            EFAULT,
            "excl_prog_hash must point to 32 bytes that can be read",
            "map_create",
            lambda a, c, k: a.excl_prog_hash != 0 and _unreadable(c, a.excl_prog_hash, 32, k),
            since=(6, 18),
        ),
        _rule(
            "fd_access_late",
            "map_flags",
            EINVAL,
            "BPF_F_RDONLY and BPF_F_WRONLY exclude each other",
            "bpf_get_file_flag",
            lambda a, c, k: bool(a.map_flags & MapFlag.RDONLY and a.map_flags & MapFlag.WRONLY),
            since=(7, 2),
        ),
    ],
)


def _unreadable(c: Call, address: int, size: int, k: Facts) -> bool | None:
    found = c.memory.readable(address, size, k)
    return None if found is None else not found


TABLES = {Cmd.MAP_CREATE: CREATE}
