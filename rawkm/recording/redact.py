"""What --redact leaves out: addresses, of this process and of the kernel, and the contents of files and of mapped memory."""

from __future__ import annotations

import re
import struct
import sys

from rawkm.recording.call import Call, Pointee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.uapi.fields import Definition

# Kernel addresses have the highest bit set on every 64-bit machine that is served; small negative numbers are none.
_LOWEST, _HIGHEST = 1 << 63, (1 << 64) - (1 << 16)
# As %lx or %px print them, and as JSON has them.
_TEXT = re.compile(rb"(?i)\b(0x)?[89a-f][0-9a-f]{15}\b")
_DECIMAL = re.compile(rb"\b(?:9[0-9]{18}|1[0-9]{19})\b")
_LD_IMM64 = 0x18
#: What stands in an attr for a pointer that was left out: not NULL, and nothing.
POINTER = 1


def redacted(call: Call) -> Call:
    """The call without them. Where a pointer was, NULL or not can still be told."""
    definition = call.definition
    out = Call(call.name, **{name: getattr(call, name) for name in Call.__slots__ if name not in ("name", "number")})
    out.number = call.number
    if definition is not None:
        out.attr, out.attr_after = _attr(definition, call.attr), _attr(definition, call.attr_after)
    out.common, out.common_after = _pointers(call.common, (0,)), _pointers(call.common_after, (0,))
    out.memory = {path: _pointee(path, pointee) for path, pointee in call.memory.items()}
    out.outputs = {path: _pointee(path, pointee) for path, pointee in call.outputs.items()}
    out.value = _value(call.value)
    out.args = {name: _value(value) for name, value in call.args.items()}
    return out


def without_addresses(text: bytes) -> bytes:
    """A text in which each kernel address is replaced by a zero of the same length: JSON stays JSON."""
    text = _DECIMAL.sub(lambda found: b"0".rjust(len(found[0])) if _LOWEST <= int(found[0]) < _HIGHEST else found[0], text)
    return _TEXT.sub(lambda found: (found[1] or b"") + b"0" * 16, text)


def _attr(definition: Definition, attr: bytes) -> bytes:
    data = bytearray(_pointers(attr, [m.offset for m in definition.members if m.role.kind == "pointer"]))
    for member in definition.members:
        if member.size == 8 and member.role.kind != "pointer":
            _clear(data, member.offset)
    return bytes(data)


def _pointers(attr: bytes, offsets: Any) -> bytes:
    data = bytearray(attr)
    for offset in offsets:
        raw = data[offset : offset + 8]
        if any(raw):
            data[offset : offset + 8] = POINTER.to_bytes(8, sys.byteorder)[: len(raw)]
    return bytes(data)


def _clear(data: bytearray, offset: int) -> None:
    if offset + 8 <= len(data) and _LOWEST <= struct.unpack_from("=Q", data, offset)[0] < _HIGHEST:
        data[offset : offset + 8] = bytes(8)


def _pointee(path: str, pointee: Pointee) -> Pointee:
    data = pointee.data
    if data is not None:
        data = _insns(data) if path == "insns" else _words(data)
    return Pointee(data, items=pointee.items, size=pointee.size, error=pointee.error)


def _words(data: bytes) -> bytes:
    """Binary data has addresses as aligned words, text in digits."""
    out = bytearray(without_addresses(data))
    for offset in range(0, len(out) - 7, 8):
        _clear(out, offset)
    return bytes(out)


def _insns(data: bytes) -> bytes:
    out = bytearray(data)
    at = 0
    while at + 16 <= len(out):
        if out[at] != _LD_IMM64:
            at += 8
            continue
        value = bytearray(out[at + 4 : at + 8] + out[at + 12 : at + 16])
        if not out[at + 1] >> 4:
            _clear(value, 0)
            out[at + 4 : at + 8], out[at + 12 : at + 16] = value[:4], value[4:]
        at += 16
    return bytes(out)


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"left_out": len(value)}
    if type(value) is int and _LOWEST <= value < _HIGHEST:
        return 0
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value
