"""BTF_LOAD: the attr and the header; types are beyond the model."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL, EPERM

from rawkm.rules.common import ENOTSUPP, fd_rules, tail
from rawkm.rules.log import log_rules
from rawkm.rules.model import CAP_BPF, Form, Rule, Table, always
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Verdict, When

_C = "btf_load"
_MAX = 16 << 20
_MAGIC = 0xEB9F
_TOKEN_FD = 1 << 16
_HEADER = "btf_parse_hdr"


def _header(a: Any, c: Call) -> bytes | None:
    """As many bytes of the data as matter, None where they are not known."""
    return c.memory.read(a.btf, min(a.btf_size, 4096))


def _hdr_len(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little")


def _known(k: Facts) -> int:
    """sizeof(struct btf_header)."""
    return 32 if k.version >= (7, 1) else 24


def _of_header(check: Any) -> When:
    """A check of the header's bytes: not known where they are not."""

    def when(a: Any, c: Call, k: Facts) -> Verdict:
        data = _header(a, c)
        return None if data is None else check(data, a, k)

    return when


def _with_token(when: When) -> When:
    return lambda a, c, k: bool(a.btf_flags & _TOKEN_FD) and when(a, c, k)


def _unreadable(a: Any, c: Call, k: Facts) -> Verdict:
    found = c.memory.readable(a.btf, a.btf_size, k)
    return None if found is None else not found


def _may_not(a: Any, c: Call, k: Facts) -> Verdict:
    if k.capable(CAP_BPF):
        return False
    return None if k.version >= (6, 9) and a.btf_flags & _TOKEN_FD else True


LOAD = Table(
    Form("btf", "btf_log_buf", "btf_size", "btf_log_size", "btf_log_level", "btf_log_true_size", "btf_flags", "btf_token_fd"),
    [
        *log_rules(_C, "btf_", since=(7, 2), name="log_early"),
        *tail(_C, {(0, 0): 28, (6, 4): 32, (6, 9): 40}),
        Rule(
            f"{_C}.flags",
            "btf_flags",
            EINVAL,
            "btf_flags may only have BPF_F_TOKEN_FD",
            "bpf_btf_load",
            lambda a, c, k: bool(a.btf_flags & ~_TOKEN_FD),
            since=(6, 9),
        ),
        *(
            Rule(rule.name, rule.fields[0], rule.errno, rule.text, rule.source, _with_token(rule.when), since=(6, 9))
            for rule in fd_rules(_C, "btf_token_fd", "token", "bpf_token_get_from_fd")
        ),
        Rule(f"{_C}.capable", "", EPERM, "loading BTF takes CAP_BPF", "bpf_btf_load", _may_not),
        Rule(f"{_C}.size", "btf_size", E2BIG, "btf_size must be at most 16 MiB", "btf_parse", lambda a, c, k: a.btf_size > _MAX),
        *log_rules(_C, "btf_", until=(7, 1), name="log"),
        Rule(
            f"{_C}.memory", "btf btf_size", EFAULT, "btf must point to btf_size bytes that can be read", "btf_parse", _unreadable
        ),
        Rule(
            f"{_C}.short",
            "btf_size",
            EINVAL,
            "the data must have a header: at least 8 bytes",
            _HEADER,
            lambda a, c, k: a.btf_size < 8,
        ),
        Rule(
            f"{_C}.hdr_len",
            "btf",
            EINVAL,
            "the header's hdr_len must be within btf_size",
            _HEADER,
            _of_header(lambda data, a, k: _hdr_len(data) > a.btf_size),
        ),
        Rule(
            f"{_C}.hdr_tail",
            "btf",
            E2BIG,
            "bytes of the header that this kernel does not know must be 0",
            _HEADER,
            _of_header(lambda data, a, k: any(data[_known(k) : _hdr_len(data)])),
        ),
        Rule(
            f"{_C}.magic",
            "btf",
            EINVAL,
            "the header must begin with BTF's magic number, 0xeb9f",
            _HEADER,
            _of_header(lambda data, a, k: _hdr_len(data) < 2 or int.from_bytes(data[:2], "little") != _MAGIC),
        ),
        Rule(
            f"{_C}.version",
            "btf",
            ENOTSUPP,
            "the header's version must be 1",
            _HEADER,
            _of_header(lambda data, a, k: _hdr_len(data) < 3 or data[2] != 1),
        ),
        Rule(
            f"{_C}.hdr_flags",
            "btf",
            ENOTSUPP,
            "the header's flags must be 0",
            _HEADER,
            _of_header(lambda data, a, k: _hdr_len(data) >= 4 and data[3] != 0),
        ),
        Rule(
            f"{_C}.empty",
            "btf_size",
            EINVAL,
            "there must be something behind the header",
            _HEADER,
            _of_header(lambda data, a, k: _hdr_len(data) == a.btf_size),
        ),
        Rule(f"{_C}.types", "btf", None, "sections and types must be right", "btf_check_sec_info", always),
    ],
)

TABLES = {Cmd.BTF_LOAD: LOAD}
