"""OBJ_GET_INFO_BY_FD: of a program, a map, BTF, a link."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL, ENOSPC, EPERM

from rawkm.rules.common import tail
from rawkm.rules.model import Branch, Form, Rule, Table, always
from rawkm.uapi.constants import Cmd, LinkType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict, Version

_EBADFD = 77
_C = "obj_get_info_by_fd"

# The bytes of each info struct that a kernel knows, by the first release; what is beyond must be 0.
_PROG_SIZES: tuple[tuple[Version, int], ...] = (((5, 10), 208), ((5, 12), 216), ((5, 16), 224), ((6, 0), 228))
_MAP_SIZES: tuple[tuple[Version, int], ...] = (((5, 10), 80), ((5, 16), 88), ((6, 18), 100))
_LINK_SIZES: tuple[tuple[Version, int], ...] = (((5, 10), 32), ((5, 19), 48), ((6, 6), 64))
_BTF_SIZES: tuple[tuple[Version, int], ...] = (((5, 10), 16), ((5, 11), 32))


def size_known(kind: str, version: Version) -> int:
    """How many bytes of the info struct of a "prog", "map", "link" or "btf" a release knows."""
    sizes = {"prog": _PROG_SIZES, "map": _MAP_SIZES, "link": _LINK_SIZES, "btf": _BTF_SIZES}[kind]
    return next(size for first, size in reversed(sizes) if version >= first)


def _word(c: Call, a: Any, offset: int, size: int) -> int | None:
    """A member of the info struct as the kernel copies it in: 0 beyond info_len; None when it is not known."""
    there = max(0, min(size, a.info_len - offset))
    data = c.memory.read(a.info + offset, there)
    return None if data is None else int.from_bytes(data, "little")


def _tail(kind: str) -> list[Rule]:
    """bpf_check_uarg_tail_zero() on the info struct."""

    def beyond(a: Any, c: Call, k: Facts) -> Verdict:
        known = size_known(kind, k.version)
        if a.info_len <= known:
            return False
        data = c.memory.read(a.info + known, a.info_len - known)
        if data is None:
            return None if c.memory.readable(a.info + known, a.info_len - known, k) is not False else False
        return any(data)

    def faults(a: Any, c: Call, k: Facts) -> Verdict:
        known = size_known(kind, k.version)
        if a.info_len <= known:
            return False
        return _not(c.memory.readable(a.info + known, a.info_len - known, k))

    source = "bpf_check_uarg_tail_zero"
    return [
        Rule(
            f"{_C}.{kind}_size",
            "info.info_len",
            E2BIG,
            "info_len must be at most one page",
            source,
            lambda a, c, k: a.info_len > k.page_size,
        ),
        Rule(
            f"{_C}.{kind}_tail",
            "info.info",
            E2BIG,
            "bytes of the info struct beyond what this kernel knows must be 0",
            source,
            beyond,
        ),
        Rule(
            f"{_C}.{kind}_tail_memory", "info.info", EFAULT, "info must point to info_len bytes that can be read", source, faults
        ),
    ]


def _not(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict


def _copy_in(kind: str, *, since: Version = (0, 0)) -> Rule:
    def faults(a: Any, c: Call, k: Facts) -> Verdict:
        return _not(c.memory.readable(a.info, min(a.info_len, size_known(kind, k.version)), k))

    return Rule(
        f"{_C}.{kind}_in",
        "info.info",
        EFAULT,
        "info must point to info_len bytes that can be read",
        "copy_from_user",
        faults,
        since=since,
    )


def _copy_out(kind: str) -> Rule:
    def faults(a: Any, c: Call, k: Facts) -> Verdict:
        return _not(c.memory.writable(a.info, min(a.info_len, size_known(kind, k.version)), k))

    return Rule(
        f"{_C}.{kind}_out",
        "info.info",
        EFAULT,
        "info must point to info_len bytes that can be written to",
        "copy_to_user",
        faults,
    )


# bpf_prog_info: a buffer that the caller names by its size is filled, and may fault.
_PROG_BUFFERS = (
    (16, "jited_prog_len"),
    (20, "xlated_prog_len"),
    (52, "nr_map_ids"),
    (104, "nr_jited_ksyms"),
    (108, "nr_jited_func_lens"),
)
_PROG_MORE = ((144, "nr_func_info"), (148, "nr_line_info"), (168, "nr_jited_line_info"), (180, "nr_prog_tags"))
_REC_SIZES = ((132, 8), (172, 16), (176, 8))


def _buffers(a: Any, c: Call, k: Facts) -> Verdict:
    for offset, _ in (*_PROG_BUFFERS, *_PROG_MORE):
        if _word(c, a, offset, 4) != 0:
            return None
    return False


def _rec_sizes(a: Any, c: Call, k: Facts) -> Verdict:
    """set_info_rec_size(): sizes are asked for with 0, or must be the kernel's."""
    words = [(_word(c, a, offset, 4), want) for offset, want in _REC_SIZES]
    # One that is set while its count is 0 is an error, and so is one of another size.
    if any(word is None for word, _ in words):
        return None
    counts = [_word(c, a, offset, 4) for offset in (144, 148, 168)]
    return any((count or word) and word != want for (word, want), count in zip(words, counts, strict=True))


_PROG: list[Item] = [
    *_tail("prog"),
    _copy_in("prog"),
    Rule(
        f"{_C}.rec_size",
        "info.info",
        EINVAL,
        "func_info_rec_size, line_info_rec_size, jited_line_info_rec_size must be 8, 16, 8; 0 is for counts that are 0",
        "set_info_rec_size",
        _rec_sizes,
    ),
    Rule(
        f"{_C}.buffers",
        "info.info",
        EFAULT,
        "the buffers named in the info struct must be writable",
        "bpf_prog_get_info_by_fd",
        _buffers,
    ),
    _copy_out("prog"),
]


def _hash_len(a: Any, c: Call, k: Facts) -> Verdict:
    hash, size = _word(c, a, 88, 8), _word(c, a, 96, 4)
    if hash is None or size is None:
        return None
    return hash == 0 and size != 0


def _hash(a: Any, c: Call, k: Facts) -> Verdict:
    hash = _word(c, a, 88, 8)
    return None if hash is None or hash else False


_MAP: list[Item] = [
    *_tail("map"),
    _copy_in("map", since=(6, 18)),
    Rule(
        f"{_C}.hash_size",
        "info.info",
        EINVAL,
        "hash_size must be 0 where hash is NULL",
        "bpf_map_get_info_by_fd",
        _hash_len,
        since=(6, 18),
    ),
    Rule(
        f"{_C}.hash",
        "info.info",
        (0, EINVAL, EPERM, EFAULT),
        "a hash is there for a frozen array whose program was signed; hash_size must be 32",
        "bpf_map_get_info_by_fd",
        lambda a, c, k: None if _hash(a, c, k) is None else False,
        since=(6, 18),
    ),
    _copy_out("map"),
]


def _name(a: Any, c: Call, k: Facts) -> Verdict:
    name, length = _word(c, a, 16, 8), _word(c, a, 24, 4)
    if name is None or length is None:
        return None
    return (name == 0) != (length == 0)


def _named(offset: int) -> Callable[[Any, Call, Facts], Verdict]:
    """Whether the struct names a buffer at ``offset``."""

    def maybe(a: Any, c: Call, k: Facts) -> Verdict:
        return False if _word(c, a, offset, 8) == 0 else None

    return maybe


def _btf_buffer(a: Any, c: Call, k: Facts) -> Verdict:
    buffer, size = _word(c, a, 0, 8), _word(c, a, 8, 4)
    if buffer is None or size is None:
        return None
    # At most as much as there is is written: one byte is less than every BTF.
    return size != 0 and (c.memory.writable(buffer, 1, k) is False or None)


_BTF: list[Item] = [
    *[Rule(rule.name, rule.fields[0], rule.errno, rule.text, "bpf_btf_get_info_by_fd", rule.when) for rule in _tail("btf")],
    _copy_in("btf"),
    Rule(
        f"{_C}.btf_buffer",
        "info.info",
        EFAULT,
        "btf must point to btf_size bytes that can be written to",
        "btf_get_info_by_fd",
        _btf_buffer,
    ),
    Rule(
        f"{_C}.btf_name",
        "info.info",
        EINVAL,
        "name and name_len must both be 0, or neither",
        "btf_get_info_by_fd",
        _name,
        since=(5, 11),
    ),
    Rule(
        f"{_C}.btf_name_size",
        "info.info",
        ENOSPC,
        "name_len must have room for the name and its NUL",
        "btf_get_info_by_fd",
        _named(16),
        since=(5, 11),
    ),
    _copy_out("btf"),
]


def _addrs(a: Any, c: Call, k: Facts) -> Verdict:
    addrs, count = _word(c, a, 16, 8), _word(c, a, 24, 4)
    if addrs is None or count is None:
        return None
    return (addrs == 0) != (count == 0)


def _cookies(a: Any, c: Call, k: Facts) -> Verdict:
    cookies, count = _word(c, a, 40, 8), _word(c, a, 24, 4)
    if cookies is None or count is None:
        return None
    return cookies != 0 and count == 0


def _pair(offset: int, length: int) -> Callable[[Any, Call, Facts], Verdict]:
    def torn(a: Any, c: Call, k: Facts) -> Verdict:
        pointer, size = _word(c, a, offset, 8), _word(c, a, length, 4)
        if pointer is None or size is None:
            return None
        return (pointer == 0) != (size == 0)

    return torn


_LINK: list[Item] = [
    *_tail("link"),
    _copy_in("link"),
    Branch(
        lambda a, c, k: c.fds[a.bpf_fd].type,
        {
            LinkType.KPROBE_MULTI: [
                Rule(
                    f"{_C}.addrs",
                    "info.info",
                    EINVAL,
                    "kprobe_multi.addrs and kprobe_multi.count must both be 0, or neither",
                    "bpf_kprobe_multi_link_fill_link_info",
                    _addrs,
                    since=(6, 6),
                ),
                Rule(
                    f"{_C}.cookies",
                    "info.info",
                    EINVAL,
                    "kprobe_multi.cookies takes a count",
                    "bpf_kprobe_multi_link_fill_link_info",
                    _cookies,
                    since=(6, 9),
                ),
                Rule(
                    f"{_C}.count",
                    "info.info",
                    (EFAULT, ENOSPC),
                    "kprobe_multi.count must be at least the link's, and the arrays writable",
                    "bpf_kprobe_multi_link_fill_link_info",
                    _named(16),
                    since=(6, 6),
                ),
            ],
            LinkType.RAW_TRACEPOINT: [
                Rule(
                    f"{_C}.tp_name",
                    "info.info",
                    EINVAL,
                    "raw_tracepoint.tp_name and tp_name_len must both be 0, or neither",
                    "bpf_raw_tp_link_fill_link_info",
                    _pair(16, 24),
                ),
                Rule(
                    f"{_C}.tp_name_len",
                    "info.info",
                    (EFAULT, ENOSPC),
                    "tp_name_len must have room for the name and its NUL",
                    "bpf_raw_tp_link_fill_link_info",
                    _named(16),
                ),
            ],
            LinkType.TRACING: [],
            LinkType.XDP: [],
            LinkType.NETNS: [],
            LinkType.CGROUP: [],
        },
        [Rule(f"{_C}.link_other", "info.bpf_fd", None, "what this type of link tells is not modelled", "", always)],
    ),
    _copy_out("link"),
]

INFO = Table(
    Form("info.bpf_fd", "info.info_len", "info.info"),
    [
        *tail(_C, {(0, 0): 16}),
        Rule(f"{_C}.bpf_fd_open", "info.bpf_fd", _EBADFD, "bpf_fd must be an open fd", _C, lambda a, c, k: a.bpf_fd not in c.fds),
        Branch(
            lambda a, c, k: c.fds[a.bpf_fd].kind,
            {
                "prog": _PROG,
                "map": _MAP,
                "btf": _BTF,
                "link": _LINK,
                "token": [Rule(f"{_C}.token", "info.bpf_fd", None, "what a token tells is not modelled", "", always)],
            },
            [
                Rule(
                    f"{_C}.bpf_fd_kind",
                    "info.bpf_fd",
                    EINVAL,
                    "bpf_fd must be the fd of a program, a map, a link or BTF",
                    _C,
                    always,
                )
            ],
        ),
    ],
)

TABLES = {Cmd.OBJ_GET_INFO_BY_FD: INFO}
