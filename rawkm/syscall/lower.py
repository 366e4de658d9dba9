"""From values to addresses: the one place where Python objects become pointers."""

from __future__ import annotations

import ctypes
from struct import error, pack

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Value


def lower(path: str, kind: str, value: Value) -> tuple[int, object]:
    """(address, what must stay alive while the kernel uses it) of ``value`` for the pointer field ``path``.

    ``kind`` is the field's: "cstr" (NUL-terminated string), "cstrs" (array of pointers to such), "u64s", "u32s" (arrays), and
    "in", "out", "inout" (plain memory).
    """
    if value is None:
        return 0, None
    if isinstance(value, bytearray | memoryview):
        return _buffer(path, value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        # bytes objects end in a NUL of their own, so one address serves both C strings and plain memory.
        pointer = ctypes.c_char_p(value)
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0, (pointer, value)
    if isinstance(value, int):
        raise UsageError(f"{path} is a pointer: pass what it points to, not the address {value:#x}")
    if kind == "cstrs":
        names: list[bytes] = []
        for name in value:
            if not isinstance(name, str | bytes):
                raise UsageError(f"{path} takes a sequence of names, not of {type(name).__name__}")
            names.append(name.encode() if isinstance(name, str) else name)
        strings = (ctypes.c_char_p * len(names))(*names)
        return ctypes.addressof(strings), (strings, names)
    if kind in ("u64s", "u32s"):
        try:
            return _buffer(path, bytearray(pack(f"={len(value)}{'Q' if kind == 'u64s' else 'I'}", *value)))
        except error as err:
            raise UsageError(f"{path} takes a sequence of {kind[:-1]}: {err}") from None
    raise UsageError(f"{path} takes bytes or a buffer, not {type(value).__name__}")


def _buffer(path: str, value: bytearray | memoryview) -> tuple[int, object]:
    view = memoryview(value)
    if view.readonly:
        return lower(path, "in", bytes(view))
    if view.nbytes == 0:
        return 0, None
    held = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(held), held
