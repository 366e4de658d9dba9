"""Reads a recording, whoever wrote it: a hostile one raises RecordingError, and nothing else."""

from __future__ import annotations

from json import JSONDecodeError, loads

from rawkm.errors import RecordingError
from rawkm.recording.call import Call, Fd
from rawkm.recording.content import from_hex, unpack_blob, unpack_pointee, unpack_stored
from rawkm.recording.header import Header
from rawkm.recording.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from rawkm.recording.call import Pointee

    Json = dict[str, Any]

_LONGEST = 1 << 29


class End:
    """How a run ended: its exit ``status``, and what it printed on stdout (``out``) and stderr (``err``)."""

    __slots__ = ("err", "out", "status")

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out
        self.err = err


class Reader:
    """A recording from its lines (an open binary file, or a list of bytes). ``header`` is there at once.

    ``calls()`` reads on; ``end`` is there when it has come to the end of a run that was not killed; ``comms`` has the names of an
    audit's processes seen so far. Raises RecordingError, here and while reading, for what is damaged: the message has the line.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = enumerate(lines, 1)
        self._blobs: dict[str, Json] = {}
        self._unpacked: dict[str, bytes] = {}
        self._numbers: dict[tuple[int, str], Fd] = {}
        self._count = 0
        self.comms: dict[int, str] = {}
        self.end: End | None = None
        self.header = Header.from_json(next(self._objects(), {}))
        self._names = Names(self.header.order)

    def calls(self, *, seams: bool = False) -> Iterator[Call]:
        """The system calls in order, once. With ``seams`` also what was recorded between them; each has the number of the call
        before it."""
        for line in self._objects():
            kind = line.get("t")
            try:
                if kind == "blob":
                    self._store(line)
                elif kind == "call" or (kind == "seam" and seams):
                    yield self._call(kind, line)
                elif kind == "task":
                    self._task(line)
                elif kind == "end":
                    status = _integer(line, "status")
                    self.end = End(
                        status, unpack_stored(line.get("out"), self._fetch), unpack_stored(line.get("err"), self._fetch)
                    )
            except RecordingError as err:
                raise RecordingError(f"line {self._at}: {err}") from None

    def _objects(self) -> Iterator[Json]:
        for number, raw in self._lines:
            self._at = number
            if len(raw) > _LONGEST:
                raise RecordingError(f"line {number} has {len(raw)} bytes")
            try:
                line = loads(raw)
            except (JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError) as err:
                if number == 1:
                    raise RecordingError("this is no recording: its first line is no JSON") from None
                raise RecordingError(f"line {number} is no JSON: {err}") from None
            if type(line) is not dict:
                raise RecordingError(f"line {number} is no JSON object")
            yield line

    # -- lines -----------------------------------------------------------------------------------------------------------------

    def _store(self, line: Json) -> None:
        name = line.get("id")
        if type(name) is not str:
            raise RecordingError("a blob has no id")
        self._blobs[name] = line
        self._unpacked.pop(name, None)

    def _fetch(self, name: object) -> bytes:
        if type(name) is not str or name not in self._blobs:
            raise RecordingError(f"there is no blob {name!r} before this line")
        if name not in self._unpacked:
            if sum(map(len, self._unpacked.values())) > 1 << 26:
                self._unpacked.clear()
            self._unpacked[name] = unpack_blob(self._blobs[name])
        return self._unpacked[name]

    def _task(self, line: Json) -> None:
        pid = _integer(line, "pid")
        if line.get("parent") is not None:
            self._names.forked(pid, _integer(line, "parent"))
        if type(line.get("comm")) is str:
            self.comms[pid] = line["comm"]

    def _call(self, kind: str, line: Json) -> Call:
        name = line.get("name")
        if type(name) is not str or not name:
            raise RecordingError("a call has no name")
        attr = from_hex(line.get("attr", ""))
        common = from_hex(line.get("common", ""))
        call = Call(
            name,
            kind=kind,
            pid=_integer(line, "pid", 0),
            tid=_integer(line, "tid", 0),
            command=_integer(line, "cmd", -1),
            size=_integer(line, "size", 0),
            attr=attr,
            common=common,
            common_size=_integer(line, "common_size", 0),
            args=_mapping(line, "args"),
            memory=self._memory(line, "mem"),
            attr_after=from_hex(line["after"]) if "after" in line else None,
            common_after=from_hex(line["common_after"]) if "common_after" in line else None,
            outputs=self._memory(line, "out"),
            result=_integer(line, "ret", 0),
            errno=_integer(line, "errno", 0),
            value=self._value(line.get("value")),
            seconds=_seconds(line),
            note=_text(line, "note"),
            info=_text(line, "info"),
        )
        if kind == "call":
            self._count += 1
        call.number = self._count
        if "fds" not in line and "makes" not in line:
            # Written by somebody who had no time to look.
            self._names.annotate(call)
        else:
            call.fds = {place: self._fd(call.pid, text) for place, text in _mapping(line, "fds").items()}
            if "makes" in line:
                made = Fd(_text(line, "makes"), call.result, call.number)
                call.makes = self._numbers[call.pid, made.name] = self._names.called(call.pid, made)
            self._names.passed(call)
        return call

    def _fd(self, pid: int, text: object) -> Fd:
        if type(text) is not str:
            raise RecordingError("the name of a fd is no text")
        found = self._numbers.get((pid, text)) or self._numbers.get((0, text))
        if found is not None:
            return found
        digits = text.removeprefix("fd ")
        return Fd(text, int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else -1)

    def _memory(self, line: Json, key: str) -> dict[str, Pointee]:
        return {path: unpack_pointee(value, self._fetch) for path, value in _mapping(line, key).items()}

    def _value(self, value: object) -> object:
        if type(value) is dict and len(value) == 1 and next(iter(value)) in ("hex", "text", "ref"):
            return unpack_stored(value, self._fetch)
        return value


def _integer(line: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = line.get(key, default)
    if type(value) is not int or not -(1 << 63) <= value < 1 << 64:
        raise RecordingError(f"{key!r} is no integer")
    return value


def _seconds(line: Mapping[str, Any]) -> float:
    value = line.get("s", 0.0)
    if type(value) not in (int, float):
        raise RecordingError("'s' is no number of seconds")
    return float(value)


def _text(line: Mapping[str, Any], key: str) -> str:
    value = line.get(key, "")
    if type(value) is not str:
        raise RecordingError(f"{key!r} is no text")
    return value


def _mapping(line: Mapping[str, Any], key: str) -> Json:
    value = line.get(key, {})
    if type(value) is not dict:
        raise RecordingError(f"{key!r} is no object")
    return value
