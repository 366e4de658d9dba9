"""Writes a recording, line by line."""

from __future__ import annotations

from json import JSONEncoder

from rawkm.recording.content import INLINE, pack_blob, pack_bytes, pack_pointee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rawkm.recording.call import Call
    from rawkm.recording.header import Header

    Json = dict[str, Any]


# json.dumps would make an encoder for each line.
_encode = JSONEncoder(separators=(",", ":")).encode


class Writer:
    """Writes lines to ``write`` (of a binary file), each when it is known; nothing is kept back.

    The caller's file may buffer. With ``header.redacted`` addresses and the contents of files are left out.
    """

    def __init__(self, write: Callable[[bytes], object], header: Header) -> None:
        self._write = write
        self._stored: set[str] = set()
        self.header = header
        self._line(header.as_json())

    def call(self, call: Call) -> None:
        """A call, with its memory."""
        if self.header.redacted:
            from rawkm.recording.redact import redacted

            call = redacted(call)
        line: Json = {"t": call.kind, "name": call.name}
        if call.pid:
            line["pid"] = call.pid
        if call.tid:
            line["tid"] = call.tid
        if call.command >= 0:
            line["cmd"] = call.command
            line["size"] = call.size
        if call.attr:
            line["attr"] = call.attr.hex()
        if call.common or call.common_size:
            line["common"] = call.common.hex()
            line["common_size"] = call.common_size
        if call.args:
            line["args"] = call.args
        if call.memory:
            line["mem"] = {path: pack_pointee(pointee, self.content) for path, pointee in call.memory.items()}
        if call.fds:
            line["fds"] = {place: fd.name for place, fd in call.fds.items()}
        if call.attr_after != call.attr:
            line["after"] = call.attr_after.hex()
        if call.common_after != call.common:
            line["common_after"] = call.common_after.hex()
        if call.outputs:
            line["out"] = {path: pack_pointee(pointee, self.content) for path, pointee in call.outputs.items()}
        if call.result:
            line["ret"] = call.result
        if call.errno:
            line["errno"] = call.errno
        if call.makes is not None:
            line["makes"] = call.makes.name
        if call.value is not None:
            line["value"] = self.content(call.value) if isinstance(call.value, bytes) else call.value
        if call.seconds:
            line["s"] = round(call.seconds, 9)
        if call.info:
            line["info"] = call.info
        if call.note:
            line["note"] = call.note
        self._line(line)

    def task(self, pid: int, *, parent: int = 0, comm: str = "") -> None:
        """Of an audit: a process or thread that was seen for the first time, or has a new name."""
        line: Json = {"t": "task", "pid": pid}
        if parent:
            line["parent"] = parent
        if comm:
            line["comm"] = comm
        self._line(line)

    def end(self, status: int, out: bytes, err: bytes) -> None:
        """Of a run: its exit status and what it printed."""
        if self.header.redacted:
            from rawkm.recording.redact import without_addresses

            out, err = without_addresses(out), without_addresses(err)
        self._line({"t": "end", "status": status, "out": self.content(out), "err": self.content(err)})

    def content(self, data: bytes) -> Json:
        """How the format refers to these bytes; large ones are stored first, once."""
        if len(data) <= INLINE:
            return pack_bytes(data)
        name, line = pack_blob(data)
        if name not in self._stored:
            self._line(line)
            self._stored.add(name)
        return {"ref": name}

    def _line(self, line: Json) -> None:
        self._write(_encode(line).encode() + b"\n")
