"""From a call and a kernel to the errnos that are possible."""

from __future__ import annotations

from rawkm.rules import attach, batch, btf, elem, ids, info, link, map, pin, prog, testrun
from rawkm.rules.common import COMMANDS_SINCE, HEAD, UNKNOWN_COMMAND
from rawkm.rules.model import ATTR_MAX, PASSED, Branch, Form, Prediction, Rule, Table, always
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from rawkm.rules.model import Call, Facts, Item

_MODULES = (map, elem, batch, prog, testrun, btf, link, attach, info, ids, pin)
TABLES: dict[int, Table] = {cmd: table for module in _MODULES for cmd, table in module.TABLES.items()}


def predict(call: Call, facts: Facts) -> Prediction:
    """What the kernel says to the call."""
    table = facts.tables.get(call.cmd)
    if table is None:
        table = facts.tables[call.cmd] = _table(call.cmd, facts)
    attr, size = call.attr, min(call.size, facts.attr_size)
    call.raw = raw = (b"" if attr is None else bytes(attr[:size])).ljust(ATTR_MAX, b"\0")
    maybe: list[Rule] = []
    decisive = _first(table.rules, table.form.unpack(raw), call, facts, maybe)
    if not maybe:
        return PASSED if decisive is None else decisive.prediction
    errnos = frozenset((0,)) if decisive is None else decisive.errnos
    last = () if decisive is None else (decisive,)
    known = decisive is None or decisive.prediction.known
    return Prediction(errnos.union(*(rule.errnos for rule in maybe)), (*maybe, *last), known=known)


def _first(rules: Sequence[Item], a: Any, call: Call, facts: Facts, maybe: list[Rule]) -> Rule | None:
    """The first rule that certainly refuses; ``maybe`` collects those before it that may."""
    for item in rules:
        if isinstance(item, Branch):
            key = item.select(a, call, facts)
            fields = a if item.form is None else item.form.unpack(call.raw)
            found = _first(item.cases.get(key, item.default), fields, call, facts, maybe)
            if found is not None:
                return found
            continue
        verdict = item.when(a, call, facts)
        if verdict:
            return item
        if verdict is None:
            maybe.append(item)
    return None


def _table(cmd: int, facts: Facts) -> Table:
    """The rules of a command that this kernel has, those for every command in front."""
    table = TABLES.get(cmd)
    if cmd & Cmd.COMMON_ATTRS and facts.version >= (7, 2):
        return Table(Form(), [*HEAD, BEYOND])
    since = COMMANDS_SINCE.get(cmd)
    if since is None or facts.version < since:
        return Table(Form(), [*HEAD, UNKNOWN_COMMAND]).at(facts.version)
    if table is None:
        return Table(Form(), [*HEAD, BEYOND])
    return Table(table.form, [*HEAD, *table.rules]).at(facts.version)


BEYOND = Rule("beyond", "", None, "this command is not modelled", "", always)


def rules(command: str | None = None) -> Iterator[Rule]:
    """Every rule, or those of one command ("MAP_CREATE"; "" has those that hold for all commands)."""
    for rule in (*HEAD, UNKNOWN_COMMAND):
        if not command:
            yield rule
    seen: set[str] = set()
    for table in TABLES.values():
        for rule in table:
            if rule.name not in seen and command in (None, rule.command):
                seen.add(rule.name)
                yield rule


def suspects(call: Call, facts: Facts, errno: int) -> list[Rule]:
    """The rules that can have refused the call with this errno.

    What predict() says when that agrees; else every rule of the command that this kernel has and that answers so.
    """
    prediction = predict(call, facts)
    named = [rule for rule in prediction.rules if errno in rule.errnos]
    if named:
        return named
    table = facts.tables[call.cmd]
    return [rule for rule in table if errno in rule.errnos and rule.command]
