"""What differs between two reports of `rawkm doctor`, as lines to read."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.doctor.report import Report

_WHERE_ONE = ("kernel", "machine", "can_trace")
_GROUPS = ("confinement", "settings")


def is_report(data: object) -> bool:
    """Whether ``data`` has the shape of a report, so that ``differences`` can read it."""
    if not isinstance(data, dict) or data.get("type") != "doctor" or not isinstance(data.get("kernel"), str):
        return False
    checks, words = data.get("checks"), data.get("capabilities")
    if not isinstance(checks, list) or not isinstance(words, list):
        return False
    if not all(isinstance(check, dict) and {"feature", "state", "evidence"} <= set(check) for check in checks):
        return False
    return all(isinstance(data.get(group, {}), dict) for group in _GROUPS)


def differences(a: Report, b: Report) -> list[str]:
    """A line or more per difference, none for reports that say the same. Keys that only one report has count, too."""
    lines = [f"{key}: {_say(a.get(key))} → {_say(b.get(key))}" for key in _WHERE_ONE if a.get(key) != b.get(key)]
    lines += _sets("capabilities", a.get("capabilities"), b.get("capabilities"))
    for group in _GROUPS:
        lines += _values(a.get(group), b.get(group))
    return lines + _checks(a, b)


def _sets(name: str, a: Any, b: Any) -> list[str]:
    left, right = list(a or ()), list(b or ())
    lines = []
    for which, some, others in (("A", left, right), ("B", right, left)):
        only = [str(word) for word in some if word not in others]
        if only:
            lines.append(f"{name} of {which} only: {', '.join(only)}")
    return lines


def _values(a: Any, b: Any) -> list[str]:
    left, right = dict(a or {}), dict(b or {})
    names = list(dict.fromkeys([*left, *right]))
    return [f"{name}: {_say(left.get(name))} → {_say(right.get(name))}" for name in names if left.get(name) != right.get(name)]


def _checks(a: Report, b: Report) -> list[str]:
    left, right = ({str(check["feature"]): check for check in report["checks"]} for report in (a, b))
    lines: list[str] = []
    for name in dict.fromkeys([*left, *right]):
        one, other = left.get(name), right.get(name)
        if one is None or other is None:
            known = one or other or {}
            lines.append(
                f"{name}: {'not tried' if one is None else one['state']} → {'not tried' if other is None else other['state']}"
            )
            lines.append(f"  {'-' if other is None else '+'} {known['evidence']}")
        elif (one["state"], one["evidence"]) != (other["state"], other["evidence"]):
            change = f"{one['state']} → {other['state']}" if one["state"] != other["state"] else f"{one['state']} in both"
            lines += [f"{name}: {change}", f"  - {one['evidence']}", f"  + {other['evidence']}"]
    return lines


def _say(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} ({_say(inner)})" for key, inner in value.items()) or "none"
    return str(value)
