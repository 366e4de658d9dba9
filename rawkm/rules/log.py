"""The log that PROG_LOAD and BTF_LOAD may be asked for."""

from __future__ import annotations

from errno import EINVAL

from rawkm.rules.model import Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.rules.model import Call, Facts, Verdict, Version

_SOURCE = "bpf_verifier_log_attr_valid"
_MAX = 0xFFFF_FFFF >> 2


def log_rules(command: str, prefix: str, *, name: str, since: Version = (0, 0), until: Version = (99, 0)) -> list[Rule]:
    """bpf_verifier_log_attr_valid(). ``prefix``: of the fields ("btf_"); ``name``: of the rules."""
    buf, size, level = f"{prefix}log_buf", f"{prefix}log_size", f"{prefix}log_level"

    def torn(a: Any, c: Call, k: Facts) -> Verdict:
        return (getattr(a, buf) == 0) != (getattr(a, size) == 0)

    def without_level(a: Any, c: Call, k: Facts) -> Verdict:
        return getattr(a, buf) != 0 and getattr(a, level) == 0

    def bad_level(a: Any, c: Call, k: Facts) -> Verdict:
        return bool(getattr(a, level) & ~(15 if k.version >= (6, 4) else 7))

    def large(a: Any, c: Call, k: Facts) -> Verdict:
        return getattr(a, size) > _MAX

    def old(a: Any, c: Call, k: Facts) -> Verdict:
        if not (getattr(a, buf) or getattr(a, size) or getattr(a, level)):
            return False
        return getattr(a, buf) == 0 or getattr(a, level) == 0

    def small(a: Any, c: Call, k: Facts) -> Verdict:
        return getattr(a, buf) != 0 and getattr(a, size) < 128

    first = max(since, (6, 4))
    rules = []
    if since < (6, 4):
        rules += [
            Rule(
                f"{command}.{name}_all",
                f"{buf} {level}",
                EINVAL,
                "before 6.4 a log takes all three: a buffer, its size and a level",
                _SOURCE,
                old,
                since=since,
                until=(6, 3),
            ),
            Rule(
                f"{command}.{name}_small",
                size,
                EINVAL,
                "before 6.4 a log takes a buffer of at least 128 bytes",
                _SOURCE,
                small,
                since=since,
                until=(6, 3),
            ),
        ]
    return [
        *rules,
        Rule(
            f"{command}.{name}_pair",
            f"{buf} {size}",
            EINVAL,
            f"{buf} and {size} must both be 0, or neither",
            _SOURCE,
            torn,
            since=first,
            until=until,
        ),
        Rule(
            f"{command}.{name}_level",
            f"{buf} {level}",
            EINVAL,
            f"{buf} takes a {level}: 1, 2 or 4",
            _SOURCE,
            without_level,
            since=first,
            until=until,
        ),
        Rule(
            f"{command}.{name}_bits",
            level,
            EINVAL,
            f"{level} may only have the bits 1, 2, 4, and since 6.4 8",
            _SOURCE,
            bad_level,
            since=since,
            until=until,
        ),
        Rule(
            f"{command}.{name}_large",
            size,
            EINVAL,
            f"{size} must be less than 1 GiB",
            _SOURCE,
            large,
            since=since,
            until=until,
        ),
    ]
