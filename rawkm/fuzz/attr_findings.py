"""A call that nothing explains, as a case that reproduces it: the objects it needs, made first, then the call."""

from __future__ import annotations

import os
import struct

from rawkm.fuzz.attr import Attr, Change, Fd, Mem, Number, Within, members
from rawkm.fuzz.case import Case, Data, Part, Step
from rawkm.fuzz.coverage import said
from rawkm.fuzz.findings import Finding
from rawkm.fuzz.objects import CLOSED, OBJECTS
from rawkm.fuzz.pool import CLOSED_FD
from rawkm.syscall.raw import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rawkm.fuzz.case import FdSource, Target
    from rawkm.fuzz.judge import Judge, Outcome

# Files of the pool that any file of their kind can stand for. What is not here cannot be had from a path.
_PATHS = {"file/null": "/dev/null", "file/pipe": "/dev/null", "file/directory": "/"}


def finding_of(outcome: Outcome, judge: Judge) -> Finding:
    """What a call shows that the model does not allow. ``judge``: whose objects it was made with."""
    attr, prediction = outcome.attr, outcome.prediction
    assert prediction is not None and outcome.errno is not None
    places = ", ".join(change.place for change in attr.changes)
    number = judge.pool.fd
    what = f"{attr.name}: {places or 'a valid call'}"
    expected = " or ".join(said(errno) for errno in sorted(prediction.errnos))
    rules = "; ".join(f"{rule.name}: {rule.text}" for rule in prediction.rules)
    builder = _Builder(number)
    steps = builder.steps(attr, tuple(sorted(prediction.errnos)))
    lines = [attr.describe(), f"the model: {expected} ({rules or 'it passes every rule'})", f"the kernel: {said(outcome.errno)}"]
    lines += [f"not in the reproducers: {name}" for name in builder.missing]
    case = Case(steps, title=what, text="\n".join(lines), kernel=f"Linux {os.uname().release}")
    signature = f"{attr.name} {'+'.join(rule.name for rule in prediction.rules)} {outcome.errno}"
    return Finding(case, what, expected, said(outcome.errno), signature=signature)


def culprit(finding: Finding, outcome: Outcome, judge: Judge) -> Finding:
    """The finding with the field that is to blame, where the valid call itself shows a difference.

    Where the kernel accepts, the rule that refuses names the field. Where the kernel refuses, it is the field by whose change the
    kernel does what the model said of the call as it was.
    """
    attr, prediction = outcome.attr, outcome.prediction
    assert prediction is not None
    if attr.changes:
        return finding
    field, how = "", ""
    change = _better(attr, prediction.errnos, judge) if outcome.errno else None
    if change is not None:
        field, how = change.place, f"with {change} the kernel does what the model says"
    elif prediction.rule is not None and prediction.rule.fields:
        known = [path for path in prediction.rule.fields if path in attr.layout.fields]
        field, how = (known or prediction.rule.fields)[0], "the model's rule is about it"
    if not field:
        return finding
    what = f"{attr.name}: {field}"
    case = Case(finding.case.steps, title=what, text=f"{finding.case.text}\n{field}: {how}", kernel=finding.case.kernel)
    return Finding(case, what, finding.expected, finding.seen, signature=finding.signature)


def _better(attr: Attr, errnos: frozenset[int], judge: Judge) -> Change | None:
    """The one change with which the kernel says one of these errnos: enums first, then small numbers."""
    tries: list[Change] = []
    for path, member in members(attr.layout).items():
        values: list[int] = []
        if member.role.kind == "enum" and member.role.names is not None:
            values = sorted({v for n, v in vars(member.role.names).items() if type(v) is int and n[0] != "_"})
            tries = [Change(path, value) for value in values] + tries
        elif member.role.kind in ("plain", "hex", "flags", "size", "count", "version"):
            tries += [Change(path, value) for value in (0, 1, 2, 4, 8, 16)]
    return next((change for change in tries if judge.run(attr.with_changes(change)).errno in errnos), None)


class _Builder:
    """Steps for a call and for the objects that it needs, each made once."""

    def __init__(self, number: Callable[[str], int]) -> None:
        self._number = number
        self._steps: list[Step] = []
        self._made: dict[str, int] = {}
        self.missing: list[str] = []

    def steps(self, attr: Attr, expect: tuple[int, ...]) -> list[Step]:
        self._steps.append(self._step(attr, expect, "the call"))
        return self._steps

    def _object(self, name: str) -> int:
        """The index of the step whose result is the fd of an object."""
        if name not in self._made:
            made = OBJECTS[name]
            step = self._step(made.make, (), name)
            self._made[name] = len(self._steps)
            self._steps.append(step)
            for attr in made.after:
                self._steps.append(self._step(attr, (), f"into {name}"))
        return self._made[name]

    def _step(self, attr: Attr, expect: tuple[int, ...], note: str) -> Step:
        lowered = attr.lower(self._plain)
        places = {path: member.offset for path, member in members(attr.layout).items()}
        fds: dict[int, FdSource] = {}
        pointers: dict[int, Target] = {}
        for path, value in attr.given.items():
            at = places[path]
            if isinstance(value, Fd):
                source = self._source(value)
                if source is not None:
                    fds[at] = source
            elif isinstance(value, Mem):
                pointers[at] = self._data(value)
            elif isinstance(value, Within) and isinstance(attr.given.get(value.path), Mem):
                pointers[at] = Part(places[value.path], value.offset)
        if isinstance(lowered.attr, Address):
            return Step(lowered.cmd, b"", size=lowered.size, address=lowered.attr, expect=expect, note=note)
        # Bytes that replace the whole attr have nothing of its fields.
        whole = not lowered.blocks and len(lowered.attr) != lowered.size
        return Step(
            lowered.cmd,
            lowered.sent,
            size=lowered.size,
            room=lowered.room,
            pointers={} if whole else {at: p for at, p in pointers.items() if at < len(lowered.attr)},
            fds={} if whole else {at: fd for at, fd in fds.items() if at < len(lowered.attr)},
            expect=expect,
            note=note,
        )

    def _data(self, mem: Mem) -> Data:
        data = bytearray(mem.data)
        fds: dict[int, FdSource] = {}
        for at, fd in mem.fds.items():
            if isinstance(fd, Number):
                word = struct.pack("=Q" if fd.size == 8 else "=I", self._number(fd.name) & (1 << 8 * fd.size) - 1)
                data[at : at + fd.size] = word[: max(0, len(data) - at)]
            else:
                source = self._source(fd)
                if source is not None:
                    fds[at] = source
        pointers = {at: self._data(inner) if isinstance(inner, Mem) else inner for at, inner in mem.pointers.items()}
        return Data(bytes(data), pointers=pointers, fds=fds)

    def _source(self, fd: Fd) -> FdSource | None:
        """Where a step has this fd from; None for a number that stands in the attr itself."""
        if isinstance(fd, Number) or fd.name == CLOSED:
            return None
        if fd.name in OBJECTS:
            return self._object(fd.name)
        if fd.name not in _PATHS and fd.name not in self.missing:
            self.missing.append(fd.name)
        return _PATHS.get(fd.name, "/dev/null")

    def _plain(self, name: str) -> int:
        """Numbers as they stand; fds come later."""
        if ":" in name:
            return self._number(name)
        return CLOSED_FD if name == CLOSED else 0
