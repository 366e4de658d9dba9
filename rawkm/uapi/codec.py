"""Any bytes of any command to fields and back: what `rawkm.uapi.decode()` and `encode()` do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rawkm.errors import UsageError
from rawkm.uapi import layouts, link
from rawkm.uapi.constants import Cmd
from rawkm.uapi.fields import Definition

Bytes = bytes | bytearray | memoryview
Value = int | bytes
_NOT_ZERO = re.compile(rb"[^\0]+")


@dataclass(frozen=True, slots=True)
class Decoded:
    """An attr, or another struct of the ABI, as fields.

    ``command``: the UAPI name without `BPF_`; of a struct that is no attr its C name without `bpf_`.
    ``variant``: of LINK_CREATE by attach_type ("kprobe_multi"), of link_info by type; "" elsewhere.
    ``values``: dotted path → int, or bytes for arrays, of every member and every other name of its place.
    ``uncovered``: offset → the bytes from there on that no field covers and that are not zero.
    ``size``: how many bytes there were.
    """

    command: str
    variant: str
    values: dict[str, Value]
    uncovered: dict[int, bytes] = field(default_factory=dict)
    size: int = 0

    def __bytes__(self) -> bytes:
        """The bytes that this was decoded from, every one of them."""
        data = bytearray(_encode(_definition(self.command, self.variant, self.values), self.values, self.size))
        for offset, raw in self.uncovered.items():
            data[offset : offset + len(raw)] = raw
        return bytes(data)


def decode(cmd: int, data: Bytes) -> Decoded:
    """The fields of an attr of bpf(2); the modifier Cmd.COMMON_ATTRS is ignored.

    Members, or ends of members, beyond the data are 0, as the kernel reads them. Raises UsageError for a number
    that is no command, and for nothing else: no bytes are too short, too long or too odd.
    """
    return _decode(layouts.for_attr(cmd, data), bytes(data))


def decode_struct(name: str, data: Bytes) -> Decoded:
    """The same for a struct that is no attr: "prog_info", "link_info", "common_attr", "perf_event_attr".

    The variant of a link_info is found by its type; any other may be named: "perf_event_attr.kprobe".
    """
    return _decode(layouts.for_struct(name, data), bytes(data))


def encode(command: str | int, values: Mapping[str, Value], *, variant: str | None = None, size: int | None = None) -> bytes:
    """The bytes of an attr with these fields; all others are 0.

    `command`: a name, with or without `BPF_`, or number; also the name of a struct that is no attr. `variant`:
    None goes by the attach_type, or link type, among the values. `size`: the struct's own by default; bytes
    behind the struct are 0.

    Raises UsageError for an unknown command, variant or field, a value of the wrong type or out of range, two
    names of one place with unequal values, and a size that would cut off what is not zero.
    """
    return _encode(_definition(command, variant, values), values, size)


def number(command: str | int) -> int:
    """The number of a command, by its name ("LINK_CREATE", "BPF_LINK_CREATE") or number. Raises UsageError."""
    if isinstance(command, int):
        layouts.for_attr(command, b"")
        return command & ~Cmd.COMMON_ATTRS
    found = vars(Cmd).get(command.upper().removeprefix("BPF_"))
    if type(found) is not int or found == Cmd.COMMON_ATTRS:
        raise UsageError(f"there is no command {command!r} of bpf(2){_near(command)}")
    return found


def _near(command: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(command.upper().removeprefix("BPF_"), [n for n in vars(Cmd) if n.isupper()])
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _decode(definition: Definition, data: bytes) -> Decoded:
    packed = definition.unpack(data)
    values = {path: packed[m.path] for m in definition.members if m.path in packed for path in (m.path, *m.also)}
    return Decoded(definition.command, definition.variant, values, _uncovered(definition, data), len(data))


def _uncovered(definition: Definition, data: bytes) -> dict[int, bytes]:
    """The runs of bytes that are not zero in holes and behind the last field."""
    end = definition.members[-1].offset if definition.members[-1].role.kind == "hole" else definition.size
    gaps = [(m.offset, m.offset + m.size) for m in definition.members if m.role.kind == "hole" and m.offset < end]
    return {found.start(): found[0] for low, high in (*gaps, (end, len(data))) for found in _NOT_ZERO.finditer(data, low, high)}


def _definition(command: str | int, variant: str | None, values: Mapping[str, Value]) -> Definition:
    if isinstance(command, str) and command in layouts.STRUCTS:
        return _variant(command, variant, values)
    cmd = number(command)
    definition = layouts.for_attr(cmd, b"")
    if cmd != Cmd.LINK_CREATE:
        if variant:
            raise UsageError(f"{definition.command} has no variant {variant!r}")
        return definition
    if variant is None:
        attach_type = values.get("link_create.attach_type", 0)
        return link.BY_ATTACH_TYPE.get(attach_type, link.LINK_CREATE) if isinstance(attach_type, int) else link.LINK_CREATE
    return _variant("link_create", variant, values)


def _variant(name: str, variant: str | None, values: Mapping[str, Value]) -> Definition:
    if variant is None:
        if name != "link_info":
            return layouts.named(name)
        head = {path: values[path] for path in ("type", "perf_event.type") if path in values}
        return layouts.for_link_info(bytes(layouts.named("link_info.perf_event").pack(head)))
    return layouts.named(f"{name}.{variant}" if variant else name)


def _encode(definition: Definition, values: Mapping[str, Value], size: int | None) -> bytes:
    data = bytes(definition.pack(values))
    if size is None or size == len(data):
        return data
    if size < 0:
        raise UsageError(f"{definition.name}: a size of {size} bytes")
    if any(data[size:]):
        lost = next(m for m in definition.members if any(data[max(m.offset, size) : m.offset + m.size]))
        raise UsageError(f"{definition.name}: {size} bytes cut off {lost.path}, which is not 0")
    return data[:size].ljust(size, b"\0")
