"""From a raw call to its fields and its text. Pure: nothing is looked up in the program or in the kernel any more.

No bytes make it raise: whatever a program passes is shown as what it is.
"""

from __future__ import annotations

import os
from functools import cache, cached_property, lru_cache

from rawkm.audit.objects import MAKES, NAMED_BY, Objects, text
from rawkm.audit.plan import INFO, RETURNS_FD
from rawkm.audit.raw import CUT, MOST_ATTR, Fact, Memory, RawCall
from rawkm.errors import UsageError, errno_name
from rawkm.uapi import annotate, layouts, names
from rawkm.uapi.annotate import Nested, Verbatim
from rawkm.uapi.constants import Cmd
from rawkm.uapi.fields import Definition, Role

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from rawkm.uapi.layout import Value

# Results that the program itself never sees: the kernel makes the call again, or turns them into EINTR (include/linux/errno.h).
_RESTARTS = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}
_MAKING = frozenset((*MAKES, Cmd.OBJ_PIN, Cmd.PROG_ATTACH))
_INFO = "info.info."
_COMMON = "common."


class Call:
    """One call, decoded. ``name``: "MAP_CREATE", "" of a command that rawkm does not know; ``errno``: its name, or ""."""

    def __init__(self, raw: RawCall, objects: Objects) -> None:
        self.raw = raw
        self._objects = objects
        self.cmd = raw.cmd & ~Cmd.COMMON_ATTRS
        self.definition: Definition | None = None
        try:
            self.definition = layouts.for_attr(raw.cmd, raw.attr)
        except UsageError:
            pass
        self.name = self.definition.command if self.definition is not None else ""
        if self.definition is not None and ("" in raw.facts or "info.bpf_fd" in raw.facts):
            objects.learn(raw, self.definition, self.values, self._info_values())

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Path → value of every field at the entry."""
        return self.definition.unpack(self.raw.attr) if self.definition is not None else {}

    @property
    def failed(self) -> bool:
        return self.raw.ret is None or self.raw.ret < 0

    @cached_property
    def errno(self) -> str:
        ret = self.raw.ret
        if ret is None or ret >= 0:
            return ""
        return _RESTARTS.get(-ret) or errno_name(-ret)

    @cached_property
    def made(self) -> str:
        """What there is now that was not there before: 'map "counts"', 'prog', 'pin "/sys/fs/bpf/x" of map "counts"', or ""."""
        if self.cmd not in _MAKING or self.failed or self.definition is None:
            return ""
        if self.cmd in MAKES:
            given = self.values.get(NAMED_BY.get(self.cmd, ""))
            name = text(given) if isinstance(given, bytes) else ""
            return f'{MAKES[self.cmd]} "{name}"' if name else MAKES[self.cmd]
        if self.cmd == Cmd.OBJ_PIN:
            return f'pin "{self._string("pathname")}"{self._of("bpf_fd", " of ")}'
        if self.cmd == Cmd.PROG_ATTACH:
            kind = annotate.value_text(self.definition, "attach_type", self.values)
            return f"attachment ({kind}){self._of('attach_bpf_fd', ' of ')}"
        return ""

    def _string(self, path: str) -> str:
        memory = self.raw.entry.get(path)
        return text(memory.data) if memory is not None and isinstance(memory.data, bytes) else "?"

    def _of(self, path: str, before: str) -> str:
        fact = self.raw.facts.get(path)
        return before + self._objects.label(fact) if fact is not None else ""

    # -- text ------------------------------------------------------------------------------------------------------------------

    def line(self, *, full: bool = False) -> str:
        """As strace prints it, with who made it; one line unless ``full``, which abbreviates nothing."""
        raw = self.raw
        who = _who(raw.comm, raw.pid, raw.tid)
        return f"{who} bpf({self.arguments(full=full)}) = {self.result()} <{raw.ns / 1e9:.6f}>"

    def details(self) -> Iterator[str]:
        """What is behind pointers and takes lines of its own: the program, and what the verifier said."""
        insns = self.raw.entry.get("insns")
        if insns is not None and isinstance(insns.data, bytes):
            yield from (f"    {line}" for line in _disassembled(insns.data))
        for path, role in _pointers(self.definition) if self.definition is not None else ():
            log = self.raw.exit.get(path)
            if role.target == "log" and log is not None and isinstance(log.data, bytes):
                yield from (f"    | {text(line)}" for line in log.data.partition(b"\0")[0].splitlines())

    def arguments(self, *, full: bool = False) -> str:
        raw = self.raw
        words = [self.command(), self._attr(full), str(raw.size)]
        if raw.cmd & Cmd.COMMON_ATTRS:
            words += [self._common(full), str(raw.common_size)]
        return ", ".join(words)

    def command(self) -> str:
        if not self.name:
            return names.name(Cmd, self.raw.cmd)
        return f"BPF_{self.name}|BPF_COMMON_ATTRS" if self.raw.cmd & Cmd.COMMON_ATTRS else f"BPF_{self.name}"

    def result(self) -> str:
        ret = self.raw.ret
        if ret is None:
            return "? (it ended within the call)"
        if ret < 0:
            words = "to be made again" if -ret in _RESTARTS else os.strerror(-ret) if -ret < 512 else ""
            return f"-1 {self.errno} ({words})" if words else f"-1 {self.errno}"
        return f"{ret}{self._note('')}" if self.cmd in RETURNS_FD else str(ret)

    def _note(self, path: str) -> str:
        fact = self.raw.facts.get(path)
        return "" if fact is None else f"<{self._objects.label(fact)}>"

    def _attr(self, full: bool) -> str:
        raw = self.raw
        if not raw.attr:
            if raw.attr_errno:
                return f"{_unreadable(raw.attr_at, raw.attr_errno)}"
            return "{}" if raw.attr_at else "NULL"
        if self.definition is None:
            shown = annotate.quote_hex(raw.attr)
        else:
            notes = {path: self._note(path) for path in raw.facts if path}
            pointees = self._pointees(full)
            if raw.after is None and "info.info" not in pointees:
                shown = _filled(self.definition, raw.attr, tuple(notes.items()), pointees, full)
            else:
                shown = annotate.inline_struct(self.definition, raw.attr, pointees, after=raw.after, notes=notes, full=full)
        if len(raw.attr) < min(raw.size, MOST_ATTR):
            shown += f" /* only {len(raw.attr)} of {raw.size} bytes could be read: {errno_name(raw.attr_errno)} */"
        elif raw.size > MOST_ATTR:
            shown += f" /* the first {MOST_ATTR} of {raw.size} bytes: the kernel takes no more */"
        return shown

    def _common(self, full: bool) -> str:
        raw = self.raw
        if self.definition is None:
            return f"{raw.common_at:#x}" if raw.common_at else "NULL"
        if not raw.common:
            return "NULL" if not raw.common_at else _unreadable(raw.common_at, 0) if raw.common_size else "{}"
        layout = layouts.named("common_attr")
        pointees = self._texts(layout, _COMMON, full)
        return annotate.inline_struct(layout, raw.common, pointees, after=raw.common_after, full=full)

    def _pointees(self, full: bool) -> dict[str, object]:
        assert self.definition is not None
        found = self._texts(self.definition, "", full)
        if "info.info" in found:
            nested = self._info(full)
            if nested is not None:
                found["info.info"] = nested
        return found

    def _texts(self, definition: Definition, prefix: str, full: bool) -> dict[str, object]:
        """What each pointer of the struct points to, for annotate: after the call where it has been read then."""
        found: dict[str, object] = {}
        for path, role in _pointers(definition):
            memory = self.raw.exit.get(prefix + path) or self.raw.entry.get(prefix + path)
            if memory is not None:
                found[path] = _shown(role, memory, full)
        return found

    # -- the struct that OBJ_GET_INFO_BY_FD fills ------------------------------------------------------------------------------

    def _info_values(self) -> Mapping[str, Value]:
        layout, data = self._info_struct()
        return layout.unpack(data) if layout is not None else {}

    def _info_struct(self) -> tuple[Definition | None, bytes]:
        fact = self.raw.facts.get("info.bpf_fd")
        memory = self.raw.exit.get("info.info") or self.raw.entry.get("info.info")
        if fact is None or memory is None or not isinstance(memory.data, bytes) or not memory.data or fact.kind not in INFO:
            return None, b""
        return layouts.for_struct(INFO[fact.kind], memory.data), memory.data

    def _info(self, full: bool) -> Nested | None:
        layout, data = self._info_struct()
        if layout is None:
            return None
        before = self.raw.entry.get("info.info")
        pointees = self._texts(layout, _INFO, full)
        if before is None or not isinstance(before.data, bytes) or not any(before.data):
            # Where everything was 0 before, saying so of every field says nothing.
            return Nested(layout.name, data, pointees)
        return Nested(layout.name, before.data, pointees, after=data.ljust(len(before.data), b"\0"))

    # -- JSON ------------------------------------------------------------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """For JSON Lines: all values as numbers, all bytes as hexadecimal digits."""
        raw = self.raw
        row: dict[str, Any] = {
            "type": "call",
            "time": raw.time_ns / 1e9,
            "pid": raw.pid,
            "tid": raw.tid,
            "comm": text(raw.comm),
            "cmd": raw.cmd,
            "command": self.name or None,
            "variant": self.definition.variant if self.definition is not None else "",
            "size": raw.size,
            "attr": raw.attr.hex(),
            "values": _json_values(self.values),
            "after": {},
            "memory": {path: _json_memory(memory) for path, memory in raw.entry.items()},
            "written": {path: _json_memory(memory) for path, memory in raw.exit.items()},
            "fds": {path or "result": self._json_fact(fact) for path, fact in raw.facts.items()},
            "result": None if raw.ret is None else max(raw.ret, -1),
            "errno": self.errno or None,
            "seconds": raw.ns / 1e9,
        }
        if raw.attr_errno:
            row["unreadable"] = errno_name(raw.attr_errno)
        if raw.after is not None and raw.after != raw.attr and self.definition is not None:
            now = self.definition.unpack(raw.after)
            row["after"] = _json_values({path: value for path, value in now.items() if value != self.values[path]})
        if self._info_values():
            layout, data = self._info_struct()
            assert layout is not None
            row["info"] = {"struct": layout.name, "values": _json_values(layout.unpack(data))}
        if raw.cmd & Cmd.COMMON_ATTRS:
            row["common"] = {"size": raw.common_size, "values": _json_values(layouts.named("common_attr").unpack(raw.common))}
        return row

    def _json_fact(self, fact: Fact) -> dict[str, Any]:
        return {"kind": fact.kind, "id": fact.id, "name": self._objects.name(fact) or None}


def _json_values(values: Mapping[str, Value]) -> dict[str, Any]:
    return {path: value.hex() if isinstance(value, bytes) else value for path, value in values.items()}


def _json_memory(memory: Memory) -> dict[str, Any]:
    row: dict[str, Any] = {"address": memory.address}
    if isinstance(memory.data, bytes):
        row["hex"] = memory.data.hex()
    else:
        row["strings"] = [None if item is None else text(item) for item in memory.data]
    if memory.wanted >= 0:
        row["size"] = memory.wanted
    if memory.errno:
        row["error"] = _why(memory.errno)
    return row


@lru_cache(1024)
def _who(comm: bytes, pid: int, tid: int) -> str:
    return f"{text(comm)}[{pid}]" if pid == tid else f"{text(comm)}[{pid}/{tid}]"


def _filled(
    definition: Definition, attr: bytes, notes: tuple[tuple[str, str], ...], pointees: dict[str, object], full: bool
) -> str:
    """The attr's text. Programs make the same call again and again, with other things behind the same pointers."""
    parts = _parts(definition, attr, notes, tuple(pointees))
    roles = dict(_pointers(definition))
    texts = [annotate.pointee_text(roles[path], pointee, full=full) for path, pointee in pointees.items()]
    return "".join([part if isinstance(part, str) else texts[part] for part in parts])


@lru_cache(1024)
def _parts(definition: Definition, attr: bytes, notes: tuple[tuple[str, str], ...], paths: tuple[str, ...]) -> list[str | int]:
    """The attr's text, cut where the pointees go: at each place the number of the one that goes there."""
    marks = {path: Verbatim(f"\0{number}\0") for number, path in enumerate(paths)}
    pieces = annotate.inline_struct(definition, attr, marks, notes=dict(notes)).split("\0")
    return [int(piece) if at % 2 else piece for at, piece in enumerate(pieces)]


@cache
def _pointers(definition: Definition) -> list[tuple[str, Role]]:
    return [(member.path, member.role) for member in definition.members if member.role.kind == "pointer"]


def _shown(role: Role, memory: Memory, full: bool) -> object:
    """For annotate: the data, or a text that says what is missing of it."""
    if isinstance(memory.data, bytes):
        if not memory.errno:
            return memory.data
        if not memory.data:
            return Verbatim(_unreadable(memory.address, memory.errno))
        data: object = memory.data
    else:
        if not memory.errno and None not in memory.data:
            return memory.data
        if not memory.data:
            return Verbatim(_unreadable(memory.address, memory.errno))
        data = [Verbatim("/* cannot be read */") if item is None else item for item in memory.data]
    shown = annotate.pointee_text(role, data, full=full)
    if not memory.errno:
        return Verbatim(shown)
    of = f" of {memory.wanted} bytes" if memory.wanted >= 0 and isinstance(memory.data, bytes) else ""
    return Verbatim(f"{shown} /* the beginning{of}: {_why(memory.errno)} */")


def _disassembled(data: bytes) -> Iterator[str]:
    from rawkm.asm import decode, format_insn

    at = 0
    for insn in decode(data[: len(data) & ~7]):
        yield f"{at:5}: {format_insn(insn, helpers=True)}"
        at += insn.slots


def _unreadable(address: int, errno: int) -> str:
    why = f": {_why(errno)}" if errno else ""
    return f"{address:#x} /* cannot be read{why} */"


def _why(errno: int) -> str:
    return "more than rawkm keeps" if errno == CUT else errno_name(errno)
