"""Objects by id, what a link gives, statistics: *_GET_NEXT_ID, *_GET_FD_BY_ID, ENABLE_STATS, ITER_CREATE."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOENT, EPERM

from rawkm.rules.common import fd_rules, tail
from rawkm.rules.model import CAP_SYS_ADMIN, Form, Rule, Table, maybe
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.rules.common import Ends
    from rawkm.rules.model import When

_INT_MAX = (1 << 31) - 1
_NEXT_END = 8
_RDONLY, _WRONLY, _TOKEN_FD = 1 << 3, 1 << 4, 1 << 16
_BTF_BY_TOKEN = (6, 15)


def _admin(command: str) -> Rule:
    return Rule(
        f"{command}.capable",
        "",
        EPERM,
        "it takes CAP_SYS_ADMIN in the initial user namespace",
        "capable",
        lambda a, c, k: not k.caps >> CAP_SYS_ADMIN & 1,
    )


def _next(command: str) -> Table:
    return Table(
        Form("start_id", "next_id", "open_flags"),
        [
            *tail(command, {(0, 0): 8}, last="open_flags"),
            Rule(
                f"{command}.start_id",
                "start_id",
                EINVAL,
                f"start_id must be less than {_INT_MAX}",
                "bpf_obj_get_next_id",
                lambda a, c, k: a.start_id >= _INT_MAX,
            ),
            _admin(command),
            Rule(
                f"{command}.end",
                "start_id",
                ENOENT,
                "there must be an object with a greater id",
                "bpf_obj_get_next_id",
                maybe,
            ),
            Rule(
                f"{command}.room",
                "next_id",
                EFAULT,
                "the attr must be memory that can be written to, up to next_id, whatever its size says",
                "bpf_obj_get_next_id",
                # Where no more of it is known than its size, there may be more.
                lambda a, c, k: None if c.attr is None or len(c.attr) < _NEXT_END else False,
            ),
        ],
    )


def _with_token(when: When) -> When:
    return lambda a, c, k: bool(a.open_flags & _TOKEN_FD) and when(a, c, k)


def _absent(command: str, field: str) -> Rule:
    return Rule(f"{command}.absent", field, ENOENT, "there must be an object with this id", command, maybe)


def _by_id(command: str, field: str, ends: Ends) -> Table:
    return Table(Form(field, "open_flags"), [*tail(command, ends), _admin(command), _absent(command, field)])


_C = "map_get_fd_by_id"
MAP_BY_ID = Table(
    Form("map_id", "open_flags"),
    [
        *tail(_C, {(0, 0): 12}),
        Rule(
            f"{_C}.open_flags",
            "open_flags",
            EINVAL,
            "open_flags may only have BPF_F_RDONLY or BPF_F_WRONLY",
            "bpf_map_get_fd_by_id",
            lambda a, c, k: bool(a.open_flags & ~(_RDONLY | _WRONLY)),
        ),
        _admin(_C),
        Rule(
            f"{_C}.both",
            "open_flags",
            EINVAL,
            "BPF_F_RDONLY and BPF_F_WRONLY exclude each other",
            "bpf_get_file_flag",
            lambda a, c, k: a.open_flags == _RDONLY | _WRONLY,
        ),
        _absent(_C, "map_id"),
    ],
)

_C = "btf_get_fd_by_id"
BTF_BY_ID = Table(
    Form("btf_id", "open_flags", "fd_by_id_token_fd"),
    [
        *tail(_C, {(0, 0): 4, _BTF_BY_TOKEN: 16}),
        Rule(
            f"{_C}.open_flags",
            "open_flags",
            EINVAL,
            "open_flags may only have BPF_F_TOKEN_FD",
            "bpf_btf_get_fd_by_id",
            lambda a, c, k: bool(a.open_flags & ~_TOKEN_FD),
            since=_BTF_BY_TOKEN,
        ),
        *(
            Rule(rule.name, rule.fields[0], rule.errno, rule.text, rule.source, _with_token(rule.when), since=_BTF_BY_TOKEN)
            for rule in fd_rules(_C, "fd_by_id_token_fd", "token", "bpf_token_get_from_fd")
        ),
        _admin(_C),
        _absent(_C, "btf_id"),
    ],
)

_C = "enable_stats"
ENABLE_STATS = Table(
    Form("enable_stats.type"),
    [
        *tail(_C, {(0, 0): 4}),
        _admin(_C),
        Rule(
            f"{_C}.type",
            "enable_stats.type",
            EINVAL,
            "type must be BPF_STATS_RUN_TIME (0)",
            "bpf_enable_stats",
            lambda a, c, k: a.type != 0,
        ),
    ],
)

TABLES = {
    Cmd.PROG_GET_NEXT_ID: _next("prog_get_next_id"),
    Cmd.MAP_GET_NEXT_ID: _next("map_get_next_id"),
    Cmd.BTF_GET_NEXT_ID: _next("btf_get_next_id"),
    Cmd.LINK_GET_NEXT_ID: _next("link_get_next_id"),
    Cmd.PROG_GET_FD_BY_ID: _by_id("prog_get_fd_by_id", "prog_id", {(0, 0): 4}),
    Cmd.LINK_GET_FD_BY_ID: _by_id("link_get_fd_by_id", "link_id", {(0, 0): 4}),
    Cmd.MAP_GET_FD_BY_ID: MAP_BY_ID,
    Cmd.BTF_GET_FD_BY_ID: BTF_BY_ID,
    Cmd.ENABLE_STATS: ENABLE_STATS,
}
