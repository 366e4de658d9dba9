"""Lists and symbols: the fast searches find what a plain look at each line finds, whatever the pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from rawkm.host import kallsyms
from rawkm.host.lines import lines_holding, whole_lines
from rawkm.targets import Pattern, resolve
from rawkm.targets.listing import match
from tests.unit.files import Function, machine

WORDS = st.text("ab_.", min_size=1, max_size=5)
MODULES = st.sampled_from(["", "", "a", "ab", "b_b"])
LINES = st.lists(st.tuples(st.integers(0, (1 << 64) - 1), WORDS, MODULES), max_size=12)
GLOBS = st.text("ab_*?", min_size=1, max_size=4)
REGEXES = st.sampled_from(["/a/", "/^ab?/", "/_$/", "/(a|_)b/"])
PATTERNS = st.lists(
    st.builds(
        "{}{}".format,
        st.sampled_from(["", "", "", "a:", "vmlinux:", "*b*:"]),
        st.one_of(GLOBS, GLOBS, REGEXES),
    ),
    min_size=1,
    max_size=4,
)
CUTS = st.lists(st.integers(0, 1 << 12), max_size=8)


def pieces(text: bytes, cuts: list[int]) -> Iterator[bytes]:
    """``text`` cut wherever."""
    at = 0
    for cut in sorted(cut % (len(text) + 1) for cut in cuts):
        yield text[at:cut]
        at = cut
    yield text[at:]


def means(text: str, name: str, module: str) -> tuple[bool, bool]:
    """Whether the pattern means the name, and the module."""
    holder, colon, rest = text.partition(":")
    if not colon:
        holder, rest = "*", text
    named = bool(re.search(rest[1:-1], name)) if rest.startswith("/") else fnmatchcase(name, rest)
    return named, fnmatchcase(module or "vmlinux", holder)


@given(LINES, PATTERNS, CUTS, st.booleans(), st.booleans())
def test_match_finds_what_a_look_at_each_line_finds(
    lines: list[tuple[int, str, str]], patterns: list[str], cuts: list[int], sites: bool, ended: bool
) -> None:
    text = b"".join(
        (b"%x " % site if sites else b"") + name.encode() + (f" [{module}]".encode() if module else b"") + b"\n"
        for site, name, module in lines
    )
    entries, gave = match(pieces(text if ended else text[:-1], cuts), [Pattern(p) for p in patterns], sites=sites)
    expected = []
    gives = [False] * len(patterns)
    for site, name, module in lines:
        meant = [means(pattern, name, module) for pattern in patterns]
        for index, both in enumerate(meant):
            gives[index] |= all(both)
        if any(named for named, _ in meant):
            wanted = any(all(both) for both in meant)
            expected.append((name.encode(), module.encode(), site if sites else None, wanted))
    assert [(e.name, e.module, e.site, e.wanted) for e in entries] == expected
    assert gave == gives


@given(LINES, CUTS, st.lists(st.text("ab_.", max_size=2), max_size=3), st.data())
def test_symbols_are_found_in_whatever_pieces(
    lines: list[tuple[int, str, str]], cuts: list[int], starts: list[str], data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from("tTwWdDrRbA"), min_size=len(lines), max_size=len(lines)))
    text = b"".join(
        b"%016x %s %s\n" % (address, kind.encode(), f"{name}\t[{module}]".encode() if module else name.encode())
        for kind, (address, name, module) in zip(kinds, lines, strict=True)
    )
    code = [
        (address, name.encode(), module.encode())
        for kind, (address, name, module) in zip(kinds, lines, strict=True)
        if kind in "tTwW"
    ]
    prefixes = tuple(start.encode() for start in starts)
    wanted = [f for f in code if not prefixes or f[1].startswith(prefixes)]
    assert list(kallsyms.parse(pieces(text, cuts), prefixes)) == wanted
    asked = data.draw(st.lists(st.tuples(WORDS, MODULES).map(lambda pair: (pair[0].encode(), pair[1].encode()))))
    asked += [(name, module) for _, name, module in wanted]
    found = kallsyms.find(pieces(text, cuts), asked)
    for name, module in asked:
        assert found.of(name, module) == [a for a, n, m in code if (n, m) == (name, module)]


@given(st.binary(max_size=60), CUTS)
def test_whole_lines_loses_nothing(text: bytes, cuts: list[int]) -> None:
    got = list(whole_lines(pieces(text, cuts)))
    assert all(piece.startswith(b"\n") and piece.endswith(b"\n") and len(piece) > 1 for piece in got)
    joined = b"".join(piece[1:] for piece in got)
    assert joined == (text if text.endswith(b"\n") or not text else text + b"\n")


@given(
    st.lists(st.text("ab ", max_size=5), min_size=1, max_size=8),
    st.text("ab ", min_size=1, max_size=2),
    st.booleans(),
)
def test_lines_holding(lines: list[str], needle: str, at_start: bool) -> None:
    text = b"\n" + b"".join(line.encode() + b"\n" for line in lines)
    found = list(lines_holding(text, (b"\n" if at_start else b"") + needle.encode()))
    assert [line.decode() for _, line in found] == [
        line for line in lines if (line.startswith(needle) if at_start else needle in line)
    ]
    for start, line in found:
        assert text[start : start + len(line) + 2] == b"\n" + line + b"\n"


@st.composite
def kernels(draw: st.DrawFn) -> list[Function]:
    """Functions one behind the other, few names for many of them, some without an ftrace site."""
    functions = []
    address = 0xFFFFFFFF81000000
    for name, module, site in draw(
        st.lists(
            st.tuples(st.sampled_from(["x_a", "x_b", "x_c", "y"]), MODULES, st.sampled_from([0, 4, 8, None])),
            max_size=12,
        )
    ):
        address += draw(st.sampled_from([16, 32, 48]))
        functions.append(Function(name, address, module=module, site=site))
    return functions


@given(
    kernels(),
    PATTERNS.map(lambda patterns: [p.replace("a", "x_a").replace("b", "x_b") for p in patterns]),
    st.booleans(),
)
def test_resolve_chooses_each_function_that_can_be_traced_once(
    functions: list[Function], patterns: list[str], addresses: bool
) -> None:
    targets = resolve(machine(functions).kernel, [Pattern(p) for p in patterns], addresses=addresses)
    expected = [
        f for f in functions if f.site is not None and any(all(means(p, f.name.decode(), f.module.decode())) for p in patterns)
    ]
    assert [(t.name.encode(), t.module.encode()) for t in targets.ok] == [(f.name, f.module) for f in expected]
    # By address when asked for, or when a name alone would not do; and then the right one.
    if targets.addressed:
        assert [t.address for t in targets.ok] == [f.address for f in expected]
    else:
        assert not (addresses and expected)
        assert all(t.address is None for t in targets.ok)
        names = [f.name for f in functions if f.site is not None]
        assert all(names.count(f.name) == 1 for f in expected)
    assert targets.rejected == []


@given(kernels(), st.booleans(), st.booleans())
def test_whatever_is_hidden_no_wrong_function_is_chosen(functions: list[Function], sites: bool, hidden: bool) -> None:
    targets = resolve(machine(functions, sites=sites, hidden=hidden).kernel, [Pattern("*")])
    traceable = {f.address: (f.name, f.module) for f in functions if f.site is not None}
    names = [f.name for f in functions if f.site is not None]
    for target in targets.ok:
        if target.address is not None:
            assert traceable[target.address] == (target.name.encode(), target.module.encode())
        else:
            # By name, the kernel finds the only one that it can trace.
            assert names.count(target.name.encode()) == 1
    # Nothing falls through: what is not chosen is said.
    told = {t.name for t in targets.ok} | {r.name for r in targets.rejected}
    assert told == {name.decode() for name in names}
