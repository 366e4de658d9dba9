"""The definitions as rows, and the rows as a text, C, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rawkm.errors import UsageError
from rawkm.uapi import codec, layouts
from rawkm.uapi.fields import Definition, Member, c_name
from rawkm.uapi.layout import parse_format

_C_TYPES = {"B": "__u8", "H": "__u16", "I": "__u32", "Q": "__u64", "i": "__s32", "q": "__s64"}
_TARGETS = {
    "bytes": "bytes",
    "cstr": "string",
    "cstrs": "pointers to strings",
    "u64s": "u64 each",
    "u32s": "u32 each",
    "insns": "instructions",
    "log": "text",
}
_DIRECTIONS = {"in": "read", "out": "written", "inout": "read and written"}


@dataclass(frozen=True, slots=True)
class Row:
    """One name of one field. ``kind``: of the role, as "fd", "pointer", "flags"; ``since``: the first release."""

    command: str
    variant: str
    path: str
    offset: int
    size: int
    kind: str
    since: str


def rows(definitions: Sequence[Definition]) -> Iterator[Row]:
    """Every field under each of its names."""
    for d in definitions:
        for m in d.members:
            if m.role.kind != "hole":
                for path, since in ((m.path, m.since), *m.also.items()):
                    yield Row(d.command, d.variant, path, m.offset, m.size, m.role.kind, since)


def since(path: str, struct: str) -> str:
    """The first release that has this member of union bpf_attr (struct "bpf_attr") or another struct, or ""."""
    found = {
        release
        for d in layouts.DEFINITIONS
        if (d.cmd >= 0 and struct == "bpf_attr") or (d.cmd < 0 and c_name(d.command) == struct)
        for m in d.members
        for name, release in ((m.path, m.since), *m.also.items())
        if name == path
    }
    return min(found, key=_release, default="")


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def select(name: str | None) -> list[Definition]:
    """The definitions that a user means, in the order of the commands. Raises UsageError for an unknown name.

    None: all commands. A command's name or number, or the name of a struct that is no attr: with all its
    variants. The name of one definition: "link_create.kprobe_multi".
    """
    ordered = sorted(layouts.DEFINITIONS, key=lambda d: d.cmd)
    if name is None:
        return [d for d in ordered if d.cmd >= 0]
    exact = [d for d in ordered if d.name == name.lower() and (d.variant or (d.cmd < 0 and not _variants(d)))]
    if exact:
        return exact
    if name.lower() in layouts.STRUCTS:
        return [d for d in ordered if d.cmd < 0 and d.command == name.lower()]
    try:
        cmd = codec.number(int(name) if name.isdecimal() and name.isascii() else name)
    except UsageError as err:
        raise UsageError(f"{err} (structs that are no attrs: {', '.join(layouts.STRUCTS)})") from None
    return [d for d in ordered if d.cmd == cmd]


def _variants(definition: Definition) -> bool:
    return any(d.command == definition.command and d.variant for d in layouts.DEFINITIONS)


def title(d: Definition) -> str:
    """ "LINK_CREATE kprobe_multi (command 28): 48 bytes" """
    command = f" (command {d.cmd})" if d.cmd >= 0 else ""
    name = d.command if d.cmd >= 0 else f"struct {c_name(d.command)}"
    return f"{name}{' ' if d.variant else ''}{d.variant}{command}: {d.size} bytes"


def as_json(definitions: Sequence[Definition]) -> str:
    """One array, a row to a line."""
    lines = [json.dumps({name: getattr(row, name) for name in Row.__slots__}, separators=(",", ":")) for row in rows(definitions)]
    return "[\n" + ",\n".join(lines) + "\n]"


def as_text(definitions: Sequence[Definition]) -> str:
    return "\n\n".join(f"{title(d)}\n{_columns(d)}" for d in definitions)


def as_markdown(definitions: Sequence[Definition]) -> str:
    out = []
    for d in definitions:
        out += [f"### {title(d)}", "", "| " + " | ".join(_HEADINGS) + " |", "|---|---:|---:|---|---|---|"]
        out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in _lines(d)]
        out.append("")
    return "\n".join(out).rstrip("\n")


_HEADINGS = ("field", "offset", "size", "type", "since", "meaning")


def _columns(d: Definition) -> str:
    body = [_HEADINGS, *_lines(d)]
    widths = [max(len(line[i]) for line in body) for i in range(len(_HEADINGS))]
    out = []
    for line in body:
        cells = [cell.rjust(w) if i in (1, 2) else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        out.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(out)


def _lines(d: Definition) -> Iterator[tuple[str, ...]]:
    types = _types(d)
    for m in d.members:
        if m.role.kind == "hole":
            yield "(hole)", str(m.offset), str(m.size), "", "", ""
            continue
        meaning = _meaning(m)
        if m.offset >= d.reads:
            meaning = f"{meaning}{'; ' if meaning else ''}not of this command: must be 0"
        yield m.path, str(m.offset), str(m.size), types[m.path].replace("__", ""), m.since, meaning
        for other, release in m.also.items():
            yield other, str(m.offset), str(m.size), types[m.path].replace("__", ""), release, f"the same place as {m.path}"


def _types(d: Definition) -> dict[str, str]:
    """Path → C type; of an array "char[16]"."""
    codes = [(count, code) for count, code in parse_format(d.format) if code != "x"]
    kinds = {m.path: m.role.kind for m in d.members}
    return {
        path: (f"{'char' if kinds[path] == 'name' else '__u8'}[{count}]" if code == "s" else _C_TYPES[code])
        for path, (count, code) in zip(d.fields, codes, strict=True)
    }


def _meaning(m: Member) -> str:
    role = m.role
    match role.kind:
        case "flags" | "enum":
            assert role.names
            return f"{role.kind}: {role.names._PREFIX or ''}..."  # type: ignore[attr-defined]
        case "pointer":
            of = f", as many as {role.of}" if role.of and role.target not in ("bytes", "log", "cstr") else ""
            of = f", {role.of} bytes" if role.of and not of else of
            return f"pointer, {_DIRECTIONS[role.direction]}: {_TARGETS[role.target]}{of}"
        case "size" | "count":
            return f"{role.kind} of {role.of}"
        case "fd":
            return "fd"
        case "version":
            return "kernel version"
        case "name":
            return "name"
        case _:
            return ""


def as_c(definitions: Sequence[Definition]) -> str:
    """Structs with the same members at the same places; needs <linux/types.h>.

    Everything is packed, and holes are members, so that nothing depends on a compiler's padding.
    """
    return "\n\n".join("\n".join(_c_struct(d)) for d in definitions)


def _c_struct(d: Definition) -> Iterator[str]:
    yield f"/* {title(d)} */"
    yield f"struct {'bpf_attr' if d.cmd >= 0 else 'rawkm'}_{d.name.replace('.', '_')} {{"
    types = _types(d)
    opened: list[str] = []
    for i, m in enumerate(d.members):
        parents = m.path.split(".")[:-1] if m.role.kind != "hole" else _hole_parents(d, i)
        common = 0
        while common < min(len(parents), len(opened)) and parents[common] == opened[common]:
            common += 1
        while len(opened) > common:
            name = opened.pop()
            yield "\t" * (len(opened) + 1) + f"}} __attribute__((packed)) {name};"
        for name in parents[common:]:
            yield "\t" * (len(opened) + 1) + "struct {"
            opened.append(name)
        yield from _c_member(m, types, "\t" * (len(opened) + 1))
    while opened:
        name = opened.pop()
        yield "\t" * (len(opened) + 1) + f"}} __attribute__((packed)) {name};"
    yield "} __attribute__((packed));"


def _hole_parents(d: Definition, i: int) -> list[str]:
    """A hole belongs to the innermost struct around it."""
    if i + 1 == len(d.members):
        return []
    before, after = (d.members[at].path.split(".")[:-1] for at in (i - 1, i + 1))
    common = 0
    while common < min(len(before), len(after)) and before[common] == after[common]:
        common += 1
    return before[:common]


def _c_member(m: Member, types: dict[str, str], indent: str) -> Iterator[str]:
    if m.role.kind == "hole":
        yield f"{indent}__u8 __hole_{m.offset}[{m.size}];"
        return
    type, _, count = types[m.path].partition("[")
    array = f"[{count}" if count else ""
    parent, _, last = m.path.rpartition(".")
    meaning = "; ".join(text for text in (_meaning(m).replace("*/", "* /"), f"since {m.since}") if text)
    note = f"{m.offset}: {meaning}"
    here = {name.rpartition(".")[2]: release for name, release in m.also.items() if name.rpartition(".")[0] == parent}
    if not here:
        yield f"{indent}{type} {last}{array}; /* {note} */"
        return
    yield f"{indent}union {{"
    yield f"{indent}\t{type} {last}{array}; /* {note} */"
    for other, release in here.items():
        yield f"{indent}\t{type} {other}{array}; /* since {release} */"
    yield f"{indent}}};"
