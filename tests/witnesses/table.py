"""The table of what the errno model says and what was seen of it: command and errno by kernel, or why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rawkm.errors import errno_name
from rawkm.rules import Rule, rules

Version = tuple[int, int]
KERNELS: dict[str, Version] = {"5.10": (5, 10), "6.1": (6, 1), "6.12": (6, 12), "7.2": (7, 2)}
EVERY = "(every command)"
NEVER = "no"
_ABSENT = "-"
_ENDS = "Where the model ends"

#: What no kernel could be brought to say, and why.
_MEMORY = "the kernel must find no memory for one element or one buffer"
_LOCKED = "another context of the same CPU must hold the bucket's lock at that moment"
WHY: dict[tuple[str, str], str] = {
    ("MAP_DELETE_BATCH", "EBUSY"): _LOCKED,
    ("MAP_DELETE_BATCH", "ENOMEM"): _MEMORY,
    ("MAP_LOOKUP_AND_DELETE_BATCH", "ENOMEM"): _MEMORY,
    ("MAP_LOOKUP_BATCH", "EINTR"): "elements must go while they are read, three times one after the other",
    ("MAP_LOOKUP_BATCH", "ENOMEM"): _MEMORY,
    ("MAP_UPDATE_BATCH", "EBUSY"): _LOCKED,
    ("MAP_UPDATE_BATCH", "ENOMEM"): _MEMORY,
    ("MAP_UPDATE_ELEM", "EBUSY"): _LOCKED,
    ("MAP_UPDATE_ELEM", "ENOMEM"): _MEMORY,
}


class Seen:
    """``answers``: kernel → (rule, errno's name) that were seen there; ``why``: rule → why it was not."""

    def __init__(self) -> None:
        self.answers: dict[str, set[tuple[str, str]]] = {kernel: set() for kernel in KERNELS}
        self.why: dict[str, str] = {}

    def add(self, kernel: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Rows of `python3 -m tests.witnesses --json`, or of a campaign's coverage."""
        for row in rows:
            if row.get("errno") and "rule" in row:
                self.answers[kernel].add((str(row["rule"]), str(row["errno"])))
            elif "why" in row:
                self.why[str(row["rule"])] = str(row["why"])


def wanted() -> dict[tuple[str, str], dict[str, list[Rule]]]:
    """(command, errno's name) → kernel → the rules that answer so there. What they accept is none of it."""
    found: dict[tuple[str, str], dict[str, list[Rule]]] = {}
    for rule in rules():
        for number in sorted(rule.errnos - {0}):
            row = found.setdefault((rule.command or EVERY, errno_name(number)), {})
            for kernel, version in KERNELS.items():
                if rule.holds_for(version):
                    row.setdefault(kernel, []).append(rule)
    return {key: row for key, row in sorted(found.items()) if row}


def lines(seen: Seen) -> list[str]:
    """The whole table in Markdown."""
    title = ["command", "errno", *KERNELS, "why not"]
    text = [
        "# What the errno model says, and what was seen of it",
        "",
        "Made by `tools/rules-seen`: every rule by a call that breaks it (`python3 -m tests.witnesses`) and what campaigns met",
        "(`tools/fuzz-campaign`), in a guest of each kernel. A cell has how many of the kernel's rules with this answer were seen to",
        f"give it; `{NEVER}`: none; `{_ABSENT}`: this kernel has no such rule. Where no kernel gave an answer, the row says why not.",
        "",
        f"| {' | '.join(title)} |",
        f"|{'---|' * len(title)}",
    ]
    for (command, errno), row in wanted().items():
        cells = [_cell(seen, kernel, row.get(kernel), errno) for kernel in KERNELS]
        there = any(cell not in (NEVER, _ABSENT) for cell in cells)
        text.append(f"| {' | '.join([command, errno, *cells, '' if there else _why(seen, command, errno, row)])} |")
    text += ["", f"## {_ENDS}", "", "Of these the model only knows what is refused before; what comes then is not predicted.", ""]
    ends: dict[str, list[str]] = {}
    for rule in rules():
        if rule.errno is None:
            ends.setdefault(rule.command or EVERY, []).append(f"{rule.text} (`{rule.name}`)")
    text += [f"- {command}: {'; '.join(there)}" for command, there in sorted(ends.items())]
    return text


def _cell(seen: Seen, kernel: str, there: list[Rule] | None, errno: str) -> str:
    if not there:
        return _ABSENT
    found = sum((rule.name, errno) in seen.answers[kernel] for rule in there)
    return f"{found} of {len(there)}" if found else NEVER


def _why(seen: Seen, command: str, errno: str, row: Mapping[str, list[Rule]]) -> str:
    names = {rule.name: rule.unseen for there in row.values() for rule in there}
    if (command, errno) in WHY:
        return WHY[command, errno]
    reasons = [unseen or seen.why.get(name, "") for name, unseen in names.items()]
    return "; ".join(sorted(set(filter(None, reasons))))


def parse(text: Iterable[str]) -> tuple[dict[tuple[str, str], tuple[list[str], str]], list[str]]:
    """((command, errno) → (cells, why not), the lines of where the model ends)."""
    found: dict[tuple[str, str], tuple[list[str], str]] = {}
    ends: list[str] = []
    for line in text:
        if line.startswith("| ") and not line.startswith("| command "):
            command, errno, *cells, why = (part.strip() for part in line.strip().removesuffix("|").removeprefix("|").split("|"))
            found[command, errno] = cells, why
        elif line.startswith("- "):
            ends.append(line[2:].rstrip())
    return found, ends
