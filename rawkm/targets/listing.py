"""Matching patterns against the kernel's lists of functions."""

from __future__ import annotations

from rawkm.host.lines import lines_holding_any, whole_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.targets.patterns import Pattern

NAMES = "available_filter_functions"
SITES = "available_filter_functions_addrs"


class Entry:
    """A line of a list: name, module (b"" = kernel image) and ftrace site (None where the list has none)."""

    __slots__ = ("module", "name", "site", "wanted")

    def __init__(self, name: bytes, module: bytes, site: int | None, wanted: bool) -> None:
        self.name = name
        self.module = module
        self.site = site
        self.wanted = wanted


def match(chunks: Iterable[bytes], patterns: Sequence[Pattern], *, sites: bool) -> tuple[list[Entry], list[bool]]:
    """The lines that ``patterns`` match by name, in the file's order, and which patterns gave any.

    A line is ``[address ]name[ [module]]``, with the address when ``sites``. An entry that only a pattern's
    name matches, not its module, comes back with ``wanted`` false: it shows that the name is not unique.
    """
    gave = [False] * len(patterns)
    found: list[Entry] = []
    # In a list with sites the name follows the first space. A module follows one, too, but in brackets.
    needles = [(b" " if sites else b"\n") + pattern.prefix for pattern in patterns]
    everything = not all(pattern.prefix for pattern in patterns)
    tests = [(i, p.matches, p.within if p.module else None) for i, p in enumerate(patterns)]
    site = None
    for text in whole_lines(chunks):
        for line in text.split(b"\n") if everything else lines_holding_any(text, needles):
            symbol = line
            if sites:
                address, _, symbol = line.partition(b" ")
                try:
                    site = int(address, 16)
                except ValueError:
                    # The piece's ends, or a name with a line end in it: no function of the kernel's own.
                    continue
            name, _, module = symbol.partition(b" ")
            known = wanted = False
            for index, matches, within in tests:
                if name and matches(name):
                    known = True
                    if within is None or within(module[1:-1]):
                        gave[index] = wanted = True
            if known:
                found.append(Entry(name, module[1:-1], site, wanted))
    return found, gave
