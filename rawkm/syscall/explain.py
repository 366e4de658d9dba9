"""Every system call as it is made, in strace's style, with every byte of its attr.

An observer of the live kernel: it sees what is really sent, addresses included. Imports construct: loaded only when asked for.
"""

from __future__ import annotations

from rawkm.errors import errno_name
from rawkm.uapi import annotate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TextIO

    from rawkm.syscall.kernel import Value
    from rawkm.syscall.live import Call
    from rawkm.uapi.annotate import Row
    from rawkm.uapi.layout import Layout

# Pointers that the kernel only writes to hold nothing before the call.
_OUT = "out"


class Explainer:
    """Prints on ``out`` the call when it is made, its result, then the attr's bytes and what was written back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def enter(self, call: Call) -> None:
        self._out.write(f"{call.name}({self._arguments(call)})")
        self._out.flush()

    def leave(self, call: Call) -> None:
        if call.errno:
            result = f"-1 {errno_name(call.errno)}"
        else:
            result = str(call.result)
        note = f" /* {call.note} */" if call.note else ""
        self._out.write(f" = {result}{note} <{call.seconds:.6f}>\n")
        if call.layout is not None:
            self._bytes(call.layout, call.attr)
            self._written_back(call.layout, call)
        self._out.flush()

    def filled(self, layout: Layout, data: bytes) -> None:
        self._out.write(f"    filled in: struct bpf_{layout.command}\n")
        self._rows(annotate.annotate_struct(layout.name, data))
        self._out.flush()

    def _arguments(self, call: Call) -> str:
        if call.layout is None:
            return ", ".join(_argument(arg) for arg in call.args)
        if call.name == "bpf":
            command, size = call.args
            return f"BPF_{call.layout.command}, {annotate.inline(_int(command), call.attr, _pointees(call))}, {size}"
        rest = "".join(f", {_argument(arg)}" for arg in call.args)
        return annotate.inline_struct(call.layout.name, call.attr, _pointees(call)) + rest

    def _bytes(self, layout: Layout, attr: bytes) -> None:
        self._rows(annotate.annotate(layout.cmd, attr) if layout.cmd >= 0 else annotate.annotate_struct(layout.name, attr))

    def _rows(self, rows: Iterable[Row]) -> None:
        for line in annotate.table(rows):
            self._out.write(f"    {line}\n")

    def _written_back(self, layout: Layout, call: Call) -> None:
        """What the kernel changed: fields of the attr."""
        if call.attr_after != call.attr:
            before, after = layout.unpack(call.attr), layout.unpack(call.attr_after)
            for path, value in after.items():
                if value != before[path]:
                    self._out.write(f"    written back: {path} = {value!r}\n")


def _pointees(call: Call) -> dict[str, object]:
    kinds = dict(call.layout.pointers) if call.layout is not None else {}
    return {path: value for path, value in _values(call.memory).items() if kinds.get(path) != _OUT}


def _values(memory: Mapping[str, Value]) -> Mapping[str, object]:
    return memory


def _argument(arg: object) -> str:
    if arg is None:
        return "NULL"
    if type(arg) is str:
        return annotate.quote(arg.encode())
    if isinstance(arg, tuple):
        return f"{{{', '.join(_argument(a) for a in arg)}}}"
    return str(arg)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
