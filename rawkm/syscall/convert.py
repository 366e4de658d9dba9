"""From a call as an observer sees it to one as recordings have it. Imports construct, by way of the definitions."""

from __future__ import annotations

from struct import pack

from rawkm import recording
from rawkm.recording import Pointee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.recording.names import Names
    from rawkm.syscall.call import Call
    from rawkm.uapi.layout import Layout

_WRITTEN = ("out", "inout")
_INFO = "info.info"


class Converter:
    """Turns each call into a ``recording.Call``, in two steps, as memory changes meanwhile. ``names``: of the fds."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.count = 0

    def before(self, call: Call) -> recording.Call:
        """What is known before the call is made."""
        if not call.seam:
            self.count += 1
        is_bpf = call.name == "bpf"
        made = recording.Call(
            call.name,
            kind="seam" if call.seam else "call",
            command=call.layout.cmd if is_bpf and call.layout is not None else -1,
            size=len(call.attr) if is_bpf else 0,
            attr=call.attr,
            args={} if is_bpf else call.args,
            memory=_memory(call),
            info="" if call.info is None else call.info.name,
        )
        made.number = self.count
        return made

    def after(self, call: Call, made: recording.Call) -> recording.Call:
        """Fills in what came back."""
        made.attr_after = call.attr_after
        made.result = call.result
        made.errno = call.errno
        made.value = list(call.value) if isinstance(call.value, tuple) else call.value
        made.seconds = call.seconds
        made.note = call.note
        for path, pointee in made.memory.items():
            written = call.memory.get(path)
            if isinstance(written, bytearray | memoryview):
                now = bytes(written)
                before = pointee.data or b""
                if now != before.ljust(len(now), b"\0"):
                    made.outputs[path] = Pointee(now, address=pointee.address)
        self.names.annotate(made)
        return made


def _memory(call: Call) -> dict[str, Pointee]:
    found: dict[str, Pointee] = {}
    if call.layout is None:
        return found
    _add(found, call, call.layout, call.attr, "")
    if call.info is not None:
        inside = found[_INFO].data or b""
        _add(found, call, call.info, inside, f"{_INFO}.")
    return found


def _add(found: dict[str, Pointee], call: Call, layout: Layout, data: bytes, prefix: str) -> None:
    addresses = layout.unpack(data)
    for path, kind in layout.pointers:
        value, address = call.memory.get(prefix + path), addresses[path]
        if value is not None and isinstance(address, int) and address:
            found[prefix + path] = _pointee(kind, value, address)


def _pointee(kind: str, value: object, address: int) -> Pointee:
    if isinstance(value, bytearray | memoryview):
        data = bytes(value)
        # What is only written to need not be kept where it is empty.
        if kind in _WRITTEN and not any(data):
            return Pointee(b"", size=len(data), address=address)
        return Pointee(data, address=address)
    if isinstance(value, bytes):
        return Pointee(value, address=address)
    if isinstance(value, str):
        return Pointee(value.encode(), address=address)
    assert isinstance(value, list | tuple | range) or hasattr(value, "__iter__")
    items = list(value)
    if kind == "cstrs":
        return Pointee(items=[item.encode() if isinstance(item, str) else item for item in items], address=address)
    return Pointee(pack(f"={len(items)}{'Q' if kind == 'u64s' else 'I'}", *items), address=address)
