"""The tables against a kernel's BTF, and two kernels' BTF against each other.

What is generated is checked: tables, constants, packed. Definitions take their places from the tables.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rawkm.errors import BTFError
from rawkm.uapi import constants, names, packed, tables
from rawkm.uapi.constants import BtfKind
from rawkm.uapi.layout import Layout

WRONG, NOT_YET, NEWER, UNUSED = "wrong", "not yet here", "newer here", "not in BTF"

# C name without "struct" or "union" → its size and the places of its members.
_ATTR = "bpf_attr"
_STRUCTS = (_ATTR, *tables.STRUCTS)

# Ends of enums: they grow with every kernel.
_END = re.compile(r"__\w+|\w+_MAX|MAX_BPF_\w+|NR_\w+|\w*BRANCH_MAX\w*|BPF_TCP_MAX_STATES|BTF_MAX_\w+")

Place = tuple[int, int]


class Types(Protocol):
    """What is asked of a kernel's types, a rawkm.btf.Btf, which this package does not depend on."""

    def composite(self, name: str, /) -> Any: ...
    def leaves(self, type: str | int, /) -> Mapping[str, Any]: ...
    def sizeof(self, id: int, /) -> int: ...
    def of_kind(self, *kinds: int) -> Iterator[int]: ...
    def type(self, id: int, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in which tables and kernel differ.

    ``state``: WRONG; NOT_YET, the kernel is older than it; NEWER, it is newer than the tables; UNUSED, its whole
    enum is not in the BTF: the kernel is older, or its code does not name the enum. ``where``: the struct or enum
    ("union bpf_attr", "enum bpf_cmd"), ``name``: the member, "(bits)" behind a bit-field, or enumerator.
    ``ours`` and ``theirs``: (offset, size), of a bit-field (first bit, bits), or value, or None.
    """

    state: str
    where: str
    name: str
    ours: Place | int | None
    theirs: Place | int | None


@dataclass(frozen=True, slots=True)
class Report:
    """What check() found, and how many members and enumerators agree."""

    findings: tuple[Finding, ...]
    members: int
    enumerators: int

    def of(self, state: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == state]


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between two kernels: a member's (offset, size), an enumerator's value, or a size; None: not there."""

    where: str
    name: str
    before: Place | int | None
    after: Place | int | None


def check(btf: Types) -> Report:
    """The tables against this kernel. Raises BTFError for BTF that is not a kernel image's."""
    _require(btf)
    findings: list[Finding] = []
    members = enumerators = 0
    for name in _STRUCTS:
        found, agreeing = _check_struct(name, btf)
        findings += found
        members += agreeing
    findings += _check_packed(btf)
    findings += _check_masks(btf)
    found, enumerators = _check_enums(btf)
    findings += found
    return Report(tuple(findings), members, enumerators)


def diff(before: Types, after: Types) -> list[Change]:
    """What changed in the structs and enums of the tables. Raises BTFError for BTF that is not a kernel image's."""
    _require(before)
    _require(after)
    changes: list[Change] = []
    for name in _STRUCTS:
        old, new = (_struct(btf, name) for btf in (before, after))
        changes += _changes(_c_name(name), {"(size)": old[0], **old[1]}, {"(size)": new[0], **new[1]})
    old_enums, new_enums = _Enums(before), _Enums(after)
    for tag, listed in tables.ENUMS:
        known = [name for name, _ in listed]
        changes += _changes(_enum_name(tag, known), old_enums.of(tag, known), new_enums.of(tag, known))
    return changes


def _changes(where: str, old: Mapping[str, Place | int | None], new: Mapping[str, Place | int | None]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield Change(where, name, old.get(name), new.get(name))


def _require(btf: Types) -> None:
    try:
        btf.composite(_ATTR)
    except BTFError:
        raise BTFError("this BTF has no union bpf_attr: it is not that of a kernel image with bpf(2)") from None


# -- structs -------------------------------------------------------------------------------------------------


def _c_name(name: str) -> str:
    return f"union {name}" if name == _ATTR else f"struct {name}"


def _table(name: str) -> tuple[int, dict[str, Place]]:
    """Size and members as the tables have them; a bit-field's place is (first bit, bits)."""
    if name == _ATTR:
        return tables.ATTR_SIZE, {path: (at, size) for group in tables.ATTR for path, at, size, _ in group}
    total, members = tables.STRUCTS[name]
    places = {path: (at, size) for path, at, size, _ in members}
    return total, places | {f"{path} (bits)": (bit, bits) for path, bit, bits in tables.BITS.get(name, ())}


def _struct(btf: Types, name: str) -> tuple[int | None, dict[str, Place]]:
    """The same as the kernel has them; of a struct that it does not have None and nothing."""
    try:
        total, leaves = btf.composite(name).size, btf.leaves(name)
    except BTFError:
        return None, {}
    places: dict[str, Place] = {}
    for path, at in leaves.items():
        if at.bits:
            places[f"{path} (bits)"] = (at.bit_offset, at.bits)
        else:
            places[path] = (at.bit_offset // 8, btf.sizeof(at.type))
    return total, places


def _check_struct(name: str, btf: Types) -> tuple[list[Finding], int]:
    our_size, ours = _table(name)
    their_size, theirs = _struct(btf, name)
    where, findings, agreeing = _c_name(name), [], 0
    # Bits without a purpose have names, too, and become something else.
    unknown = {path: place for path, place in theirs.items() if path not in ours and "__" not in path}
    for path, place in ours.items():
        there = theirs.get(path)
        if there == place:
            agreeing += 1
        elif there is not None:
            findings.append(Finding(WRONG, where, path, place, there))
        elif path.startswith("__reserved"):
            continue
        else:
            # Under another name in its place it is not missing: one of the names is wrong.
            renamed = any(at == place and _are_siblings(path, other, name, btf) for other, at in unknown.items())
            findings.append(Finding(WRONG if renamed else NOT_YET, where, path, place, None))
    findings += [Finding(NEWER, where, path, None, place) for path, place in unknown.items()]
    if their_size is not None and their_size != our_size and not findings:
        findings.append(Finding(WRONG, where, "(size)", our_size, their_size))
    return findings, agreeing


def _are_siblings(ours: str, theirs: str, name: str, btf: Types) -> bool:
    """Whether the kernel's member is in the struct that ours is in, or should be."""
    if ours.rpartition(".")[0] != theirs.rpartition(".")[0]:
        return False
    if name != _ATTR:
        return True
    # The structs in the union have no names, many of them: what is in them tells which is which.
    known = next({path for path, *_ in group} for group in tables.ATTR if any(path == ours for path, *_ in group))
    for member in btf.composite(name).members:
        if not member.name and theirs in (inside := btf.leaves(member.type)):
            return not known.isdisjoint(inside)
    return True


def _check_packed(btf: Types) -> Iterator[Finding]:
    kernel = {name: _struct(btf, name)[1] for name in _STRUCTS}
    for layout in vars(packed).values():
        if not isinstance(layout, Layout):
            continue
        name = _ATTR if layout.cmd >= 0 else next(n for n in (f"bpf_{layout.command}", layout.command) if n in tables.STRUCTS)
        theirs = kernel[name]
        for path in (*layout.fields, *(alias for alias, _ in layout.aliases)):
            ours, there = layout.offset(path), theirs.get(path)
            if there is not None and there != ours:
                yield Finding(WRONG, f"{_c_name(name)}, packed {layout.name}", path, ours, there)


def _check_masks(btf: Types) -> Iterator[Finding]:
    """The constants that are masks of bit-fields, in words of 64 bits."""
    for namespace, struct in ((constants.PerfAttrFlag, "perf_event_attr"), (constants.PerfMmapCap, "perf_event_mmap_page")):
        places = _struct(btf, struct)[1]
        for name, mask in names.members(namespace).items():
            if (at := places.get(f"{name} (bits)")) is not None:
                low = at[0] % 64 if sys.byteorder == "little" else 64 - at[0] % 64 - at[1]
                there = ((1 << at[1]) - 1) << low
                if mask != there:
                    yield Finding(WRONG, f"constants.{namespace.__name__}", name, mask, there)


# -- enums ---------------------------------------------------------------------------------------------------


class _Enums:
    """The enumerators of a kernel, by tag and by name."""

    def __init__(self, btf: Types) -> None:
        self._tagged: dict[str, dict[str, int | None]] = {}
        self._holding: dict[str, dict[str, int | None]] = {}
        self.values: dict[str, int | None] = {}
        known = {name for _, listed in tables.ENUMS for name, _ in listed} | set(_constants())
        for kind in (BtfKind.ENUM, BtfKind.ENUM64):
            for id in btf.of_kind(kind):
                found = btf.type(id)
                values = dict(found.values)
                if known.isdisjoint(values):
                    continue
                # Before ENUM64 (Linux 6.0) a value of more than 32 bits came out as anything.
                shown = {n: None if kind == BtfKind.ENUM and _is_wide(n) else v for n, v in values.items()}
                self._tagged.setdefault(found.name, shown)
                self._holding.update(dict.fromkeys(shown, shown))
                self.values.update(shown)

    def of(self, tag: str, known: list[str]) -> dict[str, int | None]:
        """The enum of this tag, or the anonymous one with some of these enumerators; without its end marks."""
        if tag:
            found = self._tagged.get(tag, {})
        else:
            found = next((self._holding[name] for name in known if name in self._holding), {})
        return {name: value for name, value in found.items() if not _END.fullmatch(name) or name in known}


def _check_enums(btf: Types) -> tuple[list[Finding], int]:
    kernel = _Enums(btf)
    findings: list[Finding] = []
    agreeing = 0
    known = {name for _, listed in tables.ENUMS for name, _ in listed}
    for tag, listed in tables.ENUMS:
        ours = dict(listed)
        theirs = kernel.of(tag, list(ours))
        where = _enum_name(tag, list(ours))
        for name, value in ours.items():
            if name not in kernel.values:
                findings.append(Finding(NOT_YET if theirs else UNUSED, where, name, value, None))
            elif _same(value, kernel.values[name]):
                agreeing += 1
            else:
                findings.append(Finding(WRONG, where, name, value, kernel.values[name]))
        findings += [Finding(NEWER, where, name, None, value) for name, value in theirs.items() if name not in known]
    for name, (where, value) in _constants().items():
        if name in kernel.values and not _same(value, kernel.values[name]):
            findings.append(Finding(WRONG, f"constants.{where}", name, value, kernel.values[name]))
    return findings, agreeing


def _same(ours: int, theirs: int | None) -> bool:
    # C gives enumerators no sign of their own: -1 may come back as 0xffffffff.
    mask = (1 << 64) - 1 if ours >> 32 not in (0, -1) else (1 << 32) - 1
    return theirs is None or ours & mask == theirs & mask


def _is_wide(name: str) -> bool:
    return name in _WIDE


_WIDE = {name for _, listed in tables.ENUMS for name, value in listed if value >> 32 not in (0, -1)}


def _constants() -> dict[str, tuple[str, int]]:
    """UAPI name → namespace and value of rawkm.uapi.constants, macros included."""
    return {
        name: (namespace.__name__, value)
        for namespace in vars(constants).values()
        if isinstance(namespace, type)
        for name, value in names.members(namespace).items()
        if namespace._PREFIX  # type: ignore[attr-defined]  # without one they are bit-fields, not enumerators
    }


def _enum_name(tag: str, known: list[str]) -> str:
    return f"enum {tag}" if tag else f"enum with {known[0]}"
