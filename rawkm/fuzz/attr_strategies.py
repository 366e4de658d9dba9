"""The strategies for attrs of bpf(2): ``attrs`` makes calls as values, ``calls`` makes them with live objects."""

from __future__ import annotations

from hypothesis import strategies as st

from rawkm.fuzz.attr import Attr, all_layouts, layout_of
from rawkm.fuzz.changes import changed
from rawkm.fuzz.recipes import RECIPES
from rawkm.fuzz.source import DrawSource
from rawkm.uapi import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rawkm.fuzz.judge import Judge, Outcome
    from rawkm.uapi.fields import Definition


def attrs(command: str | None = None, *, variant: str | None = None, changes: bool = True) -> st.SearchStrategy[Attr]:
    """Calls of one command ("LINK_CREATE") and variant ("kprobe_multi"), of all variants, or of all commands.

    Each is a valid call with mostly one change: another value of one field, a bit in a hole or behind the last field, another
    size (0 to 4097 and beyond), a bad or shared pointer, the fd of an object of the wrong kind, a count at a limit, a string
    without an end, random bytes. A failure shrinks to the valid call with one field changed. Without ``changes`` all are valid,
    as of Linux 7.2.

    An Attr holds values: ``attr.values`` (field → value), ``attr.changes``; ``Attr.lower`` makes bytes of it. Raises UsageError
    for a command or variant that there is not.
    """
    if command is None:
        names = [layout.name for layout in all_layouts()]
    elif variant is None:
        first = layout_of(command)
        names = [layout.name for layout in all_layouts() if layout.cmd == first.cmd]
    else:
        names = [layout_of(command, variant).name]
    return of_layouts(names, changes=changes)


def of_layouts(names: Sequence[str], *, changes: bool = True) -> st.SearchStrategy[Attr]:
    """The same, by the names of layouts ("link_create.kprobe_multi")."""
    return _attrs(list(names), changes)


@st.composite
def _attrs(draw: Any, names: list[str], changes: bool) -> Attr:
    source = DrawSource(draw)
    name = source.pick(names)
    attr = Attr(layouts.named(name), RECIPES[name](source))
    return changed(source, attr) if changes else attr


def calls(judge: Judge, command: str | None = None, *, variant: str | None = None) -> st.SearchStrategy[Outcome]:
    """The same calls, made with the judge's live objects (fds by role): what the kernel said and what the model says."""
    return attrs(command, variant=variant).map(judge.run)


def near(attr: Attr, simpler: Callable[[Definition, str, Any], list[Any]]) -> st.SearchStrategy[Attr]:
    """The call again, with some of its changes only and with simpler values: how a finding that came from elsewhere shrinks.

    ``simpler``: (layout, place, value) → values to try instead, the simplest first.
    """
    return _near(attr, simpler)


@st.composite
def _near(draw: Any, attr: Attr, simpler: Callable[[Definition, str, Any], list[Any]]) -> Attr:
    source = DrawSource(draw)
    kept = []
    for change in attr.changes:
        if source.below(2):
            values = simpler(attr.layout, change.place, change.value)
            # The value as it was found half of the time, or the failure would seldom be met.
            as_found = source.below(2) if values else 1
            kept.append(change if as_found else type(change)(change.place, source.pick(values)))
    return attr.with_changes(*kept)
