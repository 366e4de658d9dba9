"""Globs: what matches is what fnmatch says, by each of the ways in which rawkm matches."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import assume, given
from hypothesis import strategies as st

from rawkm.errors import UsageError
from rawkm.host.deny import DenyList
from rawkm.host.globs import Glob
from rawkm.targets import Pattern

# Few letters, so that globs and names meet.
SYMBOLS = st.text("ab_.^-!\\", min_size=1, max_size=8)
BRACKETS = st.builds("[{}{}]".format, st.sampled_from(["", "!"]), st.text("ab]_-\\!&~|[", min_size=1, max_size=4))
PIECES = st.one_of(st.text("ab_.^-\\", max_size=3), st.sampled_from(["*", "*", "?", "**"]), BRACKETS)
GLOBS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
# Without brackets, where the ways without a regular expression are.
STARS = st.lists(st.one_of(st.text("ab_", max_size=2), st.just("*")), min_size=1, max_size=7).map("".join)


def closed(text: str) -> bool:
    """Whether each bracket that fnmatch would read as literal is none: there rawkm complains instead."""
    at = text.find("[")
    while at >= 0:
        rest = text[at + 1 :].removeprefix("!")
        if text.startswith("[^", at) or "]" not in rest[1:]:
            return False
        at = text.find("[", len(text) - len(rest) + rest.index("]", 1))
    return True


@given(GLOBS, st.lists(SYMBOLS, min_size=1, max_size=8))
def test_matches_are_those_of_fnmatch(text: str, names: list[str]) -> None:
    assume(closed(text))
    glob = Glob(text)
    for name in names:
        assert glob.match(name.encode()) == fnmatchcase(name, text), name


@given(STARS, st.lists(st.text("ab_", min_size=1, max_size=8), min_size=1, max_size=10))
def test_stars(text: str, names: list[str]) -> None:
    glob = Glob(text)
    for name in names:
        assert glob.match(name.encode()) == fnmatchcase(name, text), name


@given(GLOBS)
def test_brackets_are_refused_exactly_where_they_would_be_literal(text: str) -> None:
    try:
        Glob(text)
    except UsageError as err:
        assert not closed(text)
        assert repr(text) in str(err)
    else:
        assert closed(text)


@given(GLOBS, st.lists(SYMBOLS, min_size=1, max_size=8))
def test_the_prefix_is_sound(text: str, names: list[str]) -> None:
    """Names that do not begin with it are never looked at."""
    assume(closed(text))
    glob = Glob(text)
    for name in names:
        assert not glob.match(name.encode()) or name.encode().startswith(glob.prefix)
    assert text.encode().startswith(glob.prefix)
    assert glob.exact == (not any(char in text for char in "*?["))


@given(st.lists(st.one_of(STARS, GLOBS), max_size=5), st.lists(SYMBOLS, min_size=1, max_size=8, unique=True))
def test_a_deny_list_is_its_globs(globs: list[str], names: list[str]) -> None:
    assume(all(text and closed(text) for text in globs))
    denied = DenyList(globs, builtin=False).denied([name.encode() for name in names])
    expected = [name.encode() for name in names if any(fnmatchcase(name, text) for text in globs)]
    assert sorted(denied) == sorted(expected)


@given(st.text())
def test_any_text_is_a_pattern_or_one_sentence(text: str) -> None:
    try:
        pattern = Pattern(text)
    except UsageError as err:
        assert str(err)
    else:
        assert isinstance(pattern.matches(b"tcp_sendmsg"), bool)
        assert isinstance(pattern.within(b""), bool)
