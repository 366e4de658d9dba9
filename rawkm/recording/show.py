"""A call as text: in strace's form, with what its pointers point to and `before => after`, and every byte of it."""

from __future__ import annotations

import sys

from rawkm.errors import RawkmError, UsageError, errno_name
from rawkm.recording.names import FD_ARGS
from rawkm.uapi import annotate, layouts
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rawkm.recording.call import Call, Pointee
    from rawkm.uapi.fields import Definition, Role

# Arguments that are strings; other texts are constants.
_STRINGS = ("path", "to", "name", "filesystem", "data")
_INFOS = {"prog": "prog_info", "map": "map_info", "btf": "btf_info"}
_INFO = "info.info"
_MOST_ROWS = 64
_MAP_VALUE = 2


def line(call: Call, *, names: bool = False) -> str:
    """The call in one line. ``names``: fds by their names ("prog#1"), as in its canonical form."""
    return f"{call.name}({arguments(call, names=names)}){outcome(call, names=names)}"


def outcome(call: Call, *, names: bool = False) -> str:
    """What stands behind the arguments: result, note, time."""
    if call.errno:
        result = f"-1 {errno_name(call.errno)}"
    elif names and call.makes is not None:
        result = call.makes.name
    elif isinstance(call.value, str) and call.value.startswith("mem#"):
        result = call.value
    else:
        result = str(call.result)
    note = f" /* {call.note} */" if call.note else ""
    return f" = {result}{note} <{call.seconds:.6f}>"


def arguments(call: Call, *, names: bool = False) -> str:
    """What stands between the parentheses."""
    if call.name == "bpf":
        common = ""
        if call.common or call.common_size:
            common = f", {annotate.inline_struct('common_attr', call.common)}, {call.common_size}"
        return f"{command(call.command)}, {_attr(call, names)}, {call.size}{common}"
    rest = [_argument(call, name, value, names) for name, value in call.args.items()]
    return ", ".join([_attr(call, names), *rest] if call.name == "perf_event_open" else rest)


def command(number: int) -> str:
    """The name of a command of bpf(2)."""
    definition = layouts.BY_CMD.get(number & ~Cmd.COMMON_ATTRS)
    name = f"BPF_{definition.command}" if definition is not None else f"{number & ~Cmd.COMMON_ATTRS:#x}"
    return f"{name}|BPF_COMMON_ATTRS" if number & Cmd.COMMON_ATTRS else name


def detail(call: Call) -> Iterator[str]:
    """Every byte: of the attr, of what its pointers point to, and of what the call wrote to memory."""
    definition = call.definition
    if call.attr or definition is not None:
        yield from annotate.table(_rows(definition, call.attr))
    for path, pointee in call.memory.items():
        if not path.startswith(f"{_INFO}.") and (pointee.data or pointee.items):
            yield from _pointee_rows(call, definition, path, pointee, f"{path}:")
    for path, pointee in call.outputs.items():
        yield from _pointee_rows(call, definition, path, pointee, f"{path}, after the call:")


# -- one line ------------------------------------------------------------------------------------------------------------------


def _attr(call: Call, names: bool) -> str:
    definition = call.definition
    if definition is None:
        return annotate.quote_hex(call.attr)
    return annotate.inline_struct(
        definition,
        call.attr,
        {path: _before(call, path, pointee, names) for path, pointee in call.memory.items() if names or _is_read(pointee)},
        after=call.attr_after,
        outputs={path: _shown(call, path, pointee, call.outputs) for path, pointee in call.outputs.items()},
        fds={place: fd.name for place, fd in call.fds.items()} if names else None,
    )


def _is_read(pointee: Pointee) -> bool:
    """Whether there was anything in it before the call: memory that is only written to is told by its size alone."""
    return pointee.data is None or not pointee.size > len(pointee.data) == 0


def _before(call: Call, path: str, pointee: Pointee, names: bool) -> object:
    """As ``_shown``; with names also in what it points to, and no addresses."""
    if not _is_read(pointee):
        return annotate.Verbatim(f"[{pointee.size} bytes]")
    data = pointee.data
    if names and data is not None:
        if path == "insns":
            found = {at: call.fds[place].name for at in range(0, len(data), 8) if (place := f"insns@{at + 4}") in call.fds}
            return annotate.Verbatim(annotate.insns(data, found))
        if (fd := call.fds.get(f"{path}@0")) is not None and len(data) == 4:
            return annotate.Verbatim(fd.name)
    return _shown(call, path, pointee, call.memory, names)


def _shown(call: Call, path: str, pointee: Pointee, memory: Mapping[str, Pointee], names: bool = False) -> object:
    """What annotate takes for a pointee."""
    if pointee.error:
        where = "" if pointee.address is None else f"{pointee.address:#x} "
        return annotate.Verbatim(f"{where}/* {pointee.error} */")
    if pointee.items is not None:
        return pointee.items
    data = pointee.data or b""
    if path == _INFO and (info := info_definition(call, data)) is not None:
        inner = {
            name.removeprefix(f"{_INFO}."): _before(call, name, each, names)
            for name, each in memory.items()
            if name.startswith(f"{_INFO}.") and (names or _is_read(each))
        }
        return annotate.Nested(info.name, data, inner)
    return data


def info_definition(call: Call, data: bytes) -> Definition | None:
    """The struct behind info.info, by what its caller took it for, or what the fd is."""
    if call.info:
        try:
            return layouts.named(call.info)
        except UsageError:
            return None
    fd = call.fds.get("info.bpf_fd")
    kind = "" if fd is None else fd.kind
    if kind == "link":
        return layouts.for_link_info(data)
    return layouts.named(_INFOS[kind]) if kind in _INFOS else None


def _argument(call: Call, name: str, value: object, names: bool) -> str:
    if names and name in FD_ARGS and (fd := call.fds.get(f"args.{name}")) is not None:
        return fd.name
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return annotate.quote(value.encode("utf-8", "surrogateescape")) if name in _STRINGS else value
    if isinstance(value, list):
        quoted = (annotate.quote(v.encode("utf-8", "surrogateescape")) if isinstance(v, str) else str(v) for v in value)
        return f"[{', '.join(quoted)}]"
    return str(value)


# -- every byte ----------------------------------------------------------------------------------------------------------------


def _rows(definition: Definition | None, data: bytes) -> list[annotate.Row]:
    return annotate.annotate(-1, data) if definition is None else annotate.annotate_struct(definition, data)


def _pointee_rows(call: Call, definition: Definition | None, path: str, pointee: Pointee, title: str) -> Iterator[str]:
    if pointee.error:
        yield f"{title} {pointee.error}"
        return
    yield title
    if pointee.items is not None:
        lines = [f"{number:4}  {annotate.quote(item)}" for number, item in enumerate(pointee.items)]
    else:
        lines = list(_data_rows(call, definition, path, pointee.data or b""))
    yield from (f"  {text}" for text in lines[:_MOST_ROWS])
    if len(lines) > _MOST_ROWS:
        yield f"  ... {len(lines)} lines in all"


def _data_rows(call: Call, definition: Definition | None, path: str, data: bytes) -> Iterator[str]:
    if path == _INFO and (info := info_definition(call, data)) is not None:
        return annotate.table(_rows(info, data))
    inner = definition
    if path.startswith(f"{_INFO}."):
        inner, path = info_definition(call, (call.outputs.get(_INFO) or call.memory[_INFO]).data or b""), path[len(_INFO) + 1 :]
    role = _role(inner, path)
    if role is not None and role.target == "insns":
        return instructions(call, data)
    if role is not None and role.target in ("log", "cstr"):
        return iter(annotate.quote(text) for text in data.rstrip(b"\0").splitlines())
    return _dump(data, {"u64s": 8, "u32s": 4}.get(role.target if role is not None else "", 0))


def _role(definition: Definition | None, path: str) -> Role | None:
    if definition is None:
        return None
    return next((m.role for m in definition.members if path == m.path or path in m.also), None)


def instructions(call: Call, data: bytes) -> Iterator[str]:
    """Slot, bytes, text; where a fd is in it, its name."""
    from rawkm.asm import decode, format_insn

    try:
        insns = decode(data)
    except RawkmError as err:
        yield f"/* {err} */"
        yield from _dump(data, 0)
        return
    slot = 0
    for insn in insns:
        size = 8 * insn.slots
        raw = data[8 * slot : 8 * slot + size]
        text = format_insn(insn, helpers=True)
        if size == 16 and (fd := call.fds.get(f"insns@{8 * slot + 4}")) is not None:
            text = f"r{int(insn.dst)} = {fd.name}{f'[{insn.imm >> 32}]' if insn.src == _MAP_VALUE else ''} ll"
        yield f"{slot:4}  {raw[:8].hex(' '):23}  {text}"
        if size == 16:
            yield f"      {raw[8:].hex(' ')}"
        slot += insn.slots


def _dump(data: bytes, word: int) -> Iterator[str]:
    for at in range(0, len(data), word or 16):
        raw = data[at : at + (word or 16)]
        if word:
            yield f"{at:4}  {raw.hex(' '):23}  {int.from_bytes(raw, sys.byteorder):#x}"
        else:
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw)
            yield f"{at:4}  {raw.hex(' '):47}  {text}"
