"""The calls summed up: per command how many, which errors, how long; and what was made."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rawkm.audit.decode import Call

_NAMED = 24


class Summary:
    """``calls``: all of them; ``unknown``: of commands that rawkm does not know, shown as bytes; ``unreadable``: whose attr could
    not be read."""

    def __init__(self) -> None:
        self.calls = 0
        self.unknown = 0
        self.unreadable = 0
        self._commands: dict[str, _Command] = {}
        self._made: dict[str, int] = {}

    def add(self, call: Call) -> None:
        self.calls += 1
        self.unknown += not call.name
        self.unreadable += bool(call.raw.attr_errno)
        name = call.name or f"command {call.raw.cmd}"
        command = self._commands.get(name)
        if command is None:
            command = self._commands[name] = _Command()
        command.calls += 1
        command.ns += call.raw.ns
        errno = call.errno
        if errno:
            command.errors[errno] = command.errors.get(errno, 0) + 1
        if made := call.made:
            self._made[made] = self._made.get(made, 0) + 1

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows, the command with most calls first."""
        rows = []
        for name, command in self._ordered():
            errors = ", ".join(f"{errno} {count:,}" for errno, count in sorted(command.errors.items(), key=lambda e: -e[1]))
            rows.append([name, f"{command.calls:,}", f"{command.ns / 1e6:.1f}", errors])
        return ["COMMAND", "CALLS", "MS", "ERRORS"], rows

    def made(self) -> Iterator[str]:
        """Each kind of thing that was made, in one line with its names."""
        kinds: dict[str, list[tuple[str, int]]] = {}
        for label, count in self._made.items():
            kind, _, name = label.partition(" ")
            kinds.setdefault(kind, []).append((name, count))
        for kind, names in kinds.items():
            total = sum(count for _, count in names)
            named = [f"{name} ×{count:,}" if count > 1 else name for name, count in names if name.startswith(('"', "("))]
            plural = f"{total:,} {_plural(kind) if total > 1 else kind}"
            shown = ", ".join(named[:_NAMED]) + (f", … {len(named) - _NAMED:,} more names" if len(named) > _NAMED else "")
            yield f"{plural}: {shown}" if shown else plural

    def row(self) -> dict[str, Any]:
        """For JSON Lines."""
        commands = [{"command": name, "calls": c.calls, "errors": c.errors, "seconds": c.ns / 1e9} for name, c in self._ordered()]
        return {
            "type": "summary",
            "calls": self.calls,
            "unknown": self.unknown,
            "unreadable": self.unreadable,
            "commands": commands,
            "made": self._made,
        }

    def _ordered(self) -> list[tuple[str, _Command]]:
        return sorted(self._commands.items(), key=lambda item: (-item[1].calls, item[0]))


class _Command:
    __slots__ = ("calls", "errors", "ns")

    def __init__(self) -> None:
        self.calls = 0
        self.ns = 0
        self.errors: dict[str, int] = {}


def _plural(kind: str) -> str:
    return kind if kind == "btf" else f"{kind}s"
