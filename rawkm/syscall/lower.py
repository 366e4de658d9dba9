"""From values to addresses: the one place where Python objects become pointers."""

from __future__ import annotations

import ctypes
from struct import error, pack

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rawkm.syscall.kernel import Value


def lower(path: str, kind: str, value: Value) -> tuple[int, object]:
    """(address, what must stay alive while the kernel uses it) of ``value`` for the pointer field ``path``.

    ``kind`` is the field's: "cstr" (NUL-terminated string), "cstrs" (array of pointers to such), "u64s", "u32s"
    (arrays), "in" (memory that the kernel reads), "out" and "inout" (memory that it writes). Raises UsageError
    for a value that is none of its kind: bytes never change, so the kernel is not given them to write to.
    """
    if value is None:
        return 0, None
    if isinstance(value, int):
        raise UsageError(f"{path} is a pointer: pass what it points to, not the address {value:#x}")
    if kind == "cstrs":
        return _strings(path, value)
    if kind == "cstr":
        return _read_only(_text(path, value))
    if isinstance(value, bytearray | memoryview):
        return _buffer(path, kind, value)
    if isinstance(value, bytes) and kind not in ("out", "inout"):
        return _read_only(value)
    if kind in ("u64s", "u32s") and not isinstance(value, str):
        try:
            return _buffer(path, kind, bytearray(pack(f"={len(value)}{'Q' if kind == 'u64s' else 'I'}", *value)))
        except (error, TypeError) as err:
            raise UsageError(f"{path} takes a sequence of {kind[:-1]}: {err}") from None
    wanted = "a buffer to write to" if kind in ("out", "inout") else "bytes or a buffer"
    raise UsageError(f"{path} takes {wanted}, not {type(value).__name__}")


def _read_only(value: bytes) -> tuple[int, object]:
    # bytes objects end in a NUL of their own, so one address serves both C strings and plain memory.
    pointer = ctypes.c_char_p(value)
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0, (pointer, value)


def _text(path: str, value: object) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    if not isinstance(raw, bytes):
        raise UsageError(f"{path} takes a name, not {type(value).__name__}")
    if b"\0" in raw.rstrip(b"\0"):
        raise UsageError(f"{path} takes a name, which cannot hold a NUL: {value!r}")
    return raw


def _strings(path: str, value: Any) -> tuple[int, object]:
    if isinstance(value, bytes | bytearray | memoryview | str) or not hasattr(value, "__iter__"):
        raise UsageError(f"{path} takes a sequence of names, not {type(value).__name__}")
    names = [_text(path, name) for name in value]
    strings = (ctypes.c_char_p * len(names))(*names)
    return ctypes.addressof(strings), (strings, names)


def _buffer(path: str, kind: str, value: bytearray | memoryview) -> tuple[int, object]:
    view = memoryview(value)
    if not view.c_contiguous:
        raise UsageError(f"{path} takes one piece of memory, not a view with gaps")
    if view.readonly:
        if kind in ("out", "inout"):
            raise UsageError(f"{path} takes a buffer to write to, not a read-only one")
        return _read_only(bytes(view))
    if view.nbytes == 0:
        return 0, None
    held = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(held), held
