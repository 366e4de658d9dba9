"""Matching patterns against the kernel's lists of functions."""

from __future__ import annotations

from rawkm.host.lines import whole_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    """The lines whose name one of ``patterns`` matches, in the file's order, and for each pattern whether it gave anything.

    An entry that only a pattern's name matches, not its module, comes back with ``wanted`` false: it shows that the name is not
    unique. A pass per pattern over each piece: lines that do not begin like the pattern are never looked at.
    """
    gave = [False] * len(patterns)
    found: dict[tuple[int, int], Entry] = {}
    for piece, text in enumerate(whole_lines(chunks)):
        for index, pattern in enumerate(patterns):
            matches, within = pattern.matches, pattern.within
            for start, line in _lines(text, pattern.prefix, sites):
                site, name, module = _fields(line, sites)
                if not matches(name):
                    continue
                wanted = within(module)
                gave[index] |= wanted
                entry = found.get((piece, start))
                if entry is None:
                    found[piece, start] = Entry(name, module, site, wanted)
                else:
                    entry.wanted |= wanted
    if len(patterns) == 1:
        return list(found.values()), gave
    return [found[key] for key in sorted(found)], gave


def _lines(text: bytes, prefix: bytes, sites: bool) -> Iterator[tuple[int, bytes]]:
    """(position, line) of the lines in ``text`` whose name begins with ``prefix``."""
    # In a list with sites, the name follows the first space; a module follows one, too, but in brackets.
    needle = (b" " if sites else b"\n") + prefix
    find = text.find
    at = find(needle)
    while at >= 0:
        start = text.rfind(b"\n", 0, at) if sites else at
        end = find(b"\n", at + 1)
        if end < 0:
            return
        yield start, text[start + 1 : end]
        at = find(needle, end)


def _fields(line: bytes, sites: bool) -> tuple[int | None, bytes, bytes]:
    """(site, name, module) of a line: ``[address ]name[ [module]]``."""
    site = None
    if sites:
        address, _, line = line.partition(b" ")
        site = int(address, 16)
    name, _, module = line.partition(b" ")
    return site, name, module.strip(b"[]")
