"""What bpf(2) checks before it looks at the command, and the checks that many commands share."""

from __future__ import annotations

from errno import E2BIG, EBADF, EFAULT, EINVAL, EPERM

from rawkm.rules.model import CAP_BPF, Branch, Rule, always

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item, Verdict, Version

    #: The end of a command's last field by the first release that had it.
    Ends = dict[Version, int]

ENOTSUPP = 524

# 5.10: whoever may not use bpf(2) at all. Then the two commands that make things, from 6.3 on in their own functions.
GATE = Rule(
    "bpf_gate",
    "",
    EPERM,
    "with kernel.unprivileged_bpf_disabled, bpf(2) takes CAP_BPF",
    "__do_sys_bpf",
    lambda a, c, k: k.unprivileged_bpf_disabled > 0 and not k.capable(CAP_BPF),
    until=(5, 18),
)

SIZE = Rule(
    "attr_size",
    "",
    E2BIG,
    "an attr has at most one page",
    "bpf_check_uarg_tail_zero",
    lambda a, c, k: c.size > k.page_size,
)


def _tail_faults(a: Any, c: Call, k: Facts) -> Verdict:
    return c.size > k.attr_size and (c.attr is None or (len(c.attr) < c.size and not any(c.attr[k.attr_size :])))


TAIL_FAULT = Rule(
    "attr_tail_memory",
    "",
    EFAULT,
    "the attr must be memory that can be read, up to its size",
    "bpf_check_uarg_tail_zero",
    _tail_faults,
)

TAIL = Rule(
    "attr_tail",
    "",
    E2BIG,
    "bytes beyond this kernel's union bpf_attr must be 0: a field here is newer than this kernel",
    "bpf_check_uarg_tail_zero",
    lambda a, c, k: c.size > k.attr_size and c.attr is not None and any(c.attr[k.attr_size : c.size]),
)

ATTR_FAULT = Rule(
    "attr_memory",
    "",
    EFAULT,
    "the attr must be memory that can be read, up to its size",
    "__sys_bpf",
    lambda a, c, k: c.size > 0 and (c.attr is None or len(c.attr) < min(c.size, k.attr_size)),
)

UNKNOWN_COMMAND = Rule(
    "command",
    "",
    EINVAL,
    "this kernel does not have the command",
    "__sys_bpf",
    always,
)

HEAD = (GATE, SIZE, TAIL_FAULT, TAIL, ATTR_FAULT)


def tail(command: str, ends: Ends, *, last: str = "") -> list[Rule]:
    """CHECK_ATTR: bytes behind the command's last field must be 0. One rule for each time that the command grew."""
    releases = sorted(ends)
    rules = []
    for i, first in enumerate(releases):
        until = _before(releases[i + 1]) if i + 1 < len(releases) else (99, 0)
        rules.append(
            Rule(
                f"{command}.tail" + (f"_{ends[first]}" if len(releases) > 1 else ""),
                last,
                EINVAL,
                f"bytes from {ends[first]} on, behind the command's last field, must be 0",
                "CHECK_ATTR",
                _nonzero_from(ends[first]),
                since=(0, 0) if i == 0 else first,
                until=until,
            )
        )
    return rules


def _before(version: Version) -> Version:
    """The last release before this one, among those that are known to end a series."""
    major, minor = version
    return (major, minor - 1) if minor else (major - 1, 99)


def _nonzero_from(end: int) -> Callable[[Any, Call, Facts], Verdict]:
    return lambda a, c, k: c.raw.count(0, end) != len(c.raw) - end


def fd_rules(command: str, field: str, kind: str, source: str, *, bad: int = EBADF, other: int = EINVAL) -> list[Rule]:
    """The two checks of an fd: that it is open, and that it is of the kind."""
    name = field.rpartition(".")[2]
    noun = {"map": "a map", "prog": "a program", "link": "a link", "btf": "BTF"}.get(kind, kind)

    def closed(a: Any, c: Call, k: Facts) -> Verdict:
        return getattr(a, name) not in c.fds

    def another(a: Any, c: Call, k: Facts) -> Verdict:
        return c.fds[getattr(a, name)].kind != kind

    return [
        Rule(f"{command}.{name}_open", field, bad, f"{name} must be an open fd", source, closed),
        Rule(f"{command}.{name}_kind", field, other, f"{name} must be the fd of {noun}", source, another),
    ]


def when_set(rule: Rule, fields: str) -> Rule:
    """The rule, for calls in which one of these fields is not 0."""
    names = [path.rpartition(".")[2] for path in fields.split()]
    when = rule.when
    return Rule(
        rule.name,
        " ".join(rule.fields),
        rule.errno,
        rule.text,
        rule.source,
        lambda a, c, k: any(getattr(a, name) for name in names) and when(a, c, k),
        since=rule.since,
        until=rule.until,
        unseen=rule.unseen,
    )


def from_release(first: Version, rules: Sequence[Item]) -> list[Item]:
    """The rules of something that came with this release."""
    found: list[Item] = []
    for item in rules:
        if isinstance(item, Branch):
            cases = {key: from_release(first, inner) for key, inner in item.cases.items()}
            found.append(Branch(item.select, cases, from_release(first, item.default), form=item.form))
        else:
            found.append(item.since_at_least(first))
    return found


# The commands by the first release that has them.
COMMANDS_SINCE: dict[int, Version] = {
    **dict.fromkeys(range(36), (0, 0)),  # 5.10, the oldest that is modelled, has them all
    36: (6, 9),
    37: (6, 17),
    38: (7, 0),
}
