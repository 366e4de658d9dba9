"""A program as the Python code that makes it."""

from __future__ import annotations

import re

from rawkm import asm
from rawkm.asm.insn import Insn
from rawkm.asm.source import dsl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rawkm.asm.insn import Item

_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_WORD = re.compile(r"[A-Za-z_]\w*")


def elements(items: Iterable[Item], maps: Mapping[str, str] | None = None) -> tuple[list[str], list[str]]:
    """(lines, names): the items as the elements of a list, a line each, and what they need from ``rawkm.asm``.

    ``maps``: the variables that hold the maps, by the maps' names; another map is shown as its name.
    """
    from rawkm.asm.text import helper_names

    known, helpers = frozenset(asm.__all__), helper_names()
    used: set[str] = set()
    seen: dict[Item, str] = {}
    lines: list[str] = []
    for item in items:
        text = seen.get(item)
        if text is None:
            text = seen[item] = _expression(item, helpers, maps or {})
            used.update(known.intersection(_WORD.findall(_STRING.sub("", text))))
        comment = item.comment if isinstance(item, Insn) else None
        lines.append(f"    {text}," if comment is None else f"    {text},  # {' '.join(comment.split())}")
    return lines, sorted(used, key=_in_order)


def script(items: Iterable[Item]) -> str:
    """A Python file that, when it is run, makes the same list of items and calls it ``program``."""
    lines, used = elements(items)
    return "\n".join([*imports(used), "", "program = [", *lines, "]", ""])


def imports(names: Iterable[str]) -> list[str]:
    """The statement that imports ``names`` from ``rawkm.asm``."""
    names = list(names)
    line = f"from rawkm.asm import {', '.join(names)}"
    if not names:
        return []
    return [line] if len(line) <= 100 else ["from rawkm.asm import (", *(f"    {name}," for name in names), ")"]


def _in_order(name: str) -> tuple[str, int]:
    """R2 before R10."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def _expression(item: Item, helpers: Mapping[int, str], maps: Mapping[str, str]) -> str:
    if not isinstance(item, Insn):
        return repr(item)
    text = dsl(item, maps.get(item.symbol_name or "", ""))
    # call() alone has nothing but a number.
    return (
        f"call(Helper.{helpers[item.imm].removeprefix('bpf_')})" if text == f"call({item.imm})" and item.imm in helpers else text
    )
