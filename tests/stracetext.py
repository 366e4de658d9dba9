"""What `strace -e trace=bpf -v -X raw` prints, parsed; and the comparison of it with rows of `rawkm audit --json`."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

_CALL = re.compile(r"(?:\d+ +)?bpf\((.*)\) += (-?\d+)(?: (\w+) \(.*\))?(?: <.*>)?")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<comment>/\*.*?\*/) | (?P<string>"(?:[^"\\]|\\.)*"(?:\.\.\.)?) | (?P<name>[A-Za-z_]\w*)(?==[^>])
      | (?P<null>NULL) | (?P<more>\.\.\.) | (?P<number>-?0x[0-9a-f]+|-?\d+) | (?P<sign>=>|[{}\[\],|=])
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": 10, "t": 9, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


class Changed:
    """What the kernel has changed."""

    def __init__(self, before: Any, after: Any) -> None:
        self.before = before
        self.after = after


class Straced:
    """One call: ``cmd``, ``attr`` (nested dicts), ``size``, ``result``, ``errno``. NULL is None, a string is bytes."""

    def __init__(self, line: str) -> None:
        match = _CALL.fullmatch(line)
        assert match, line
        self.line = line
        values = _Parser(match[1]).all()
        self.cmd, self.attr, self.size = values[:3]
        self.result, self.errno = int(match[2]), match[3]


def calls(text: str) -> list[Straced]:
    return [Straced(line) for line in text.splitlines() if "bpf(" in line]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [(m.lastgroup, m[m.lastgroup or 0]) for m in _tokens(text) if m.lastgroup != "comment"]
        self._at = 0

    def all(self) -> list[Any]:
        values = [self._value()]
        while self._sign(","):
            values.append(self._value())
        assert self._at == len(self._tokens), self._tokens[self._at :]
        return values

    def _sign(self, sign: str) -> bool:
        found = self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign)
        self._at += found
        return found

    def _value(self) -> Any:
        value = self._plain()
        return Changed(value, self._plain()) if self._sign("=>") else value

    def _plain(self) -> Any:
        if self._sign("{"):
            fields: dict[str, Any] = {}
            while not self._sign("}"):
                kind, name = self._tokens[self._at]
                assert kind == "name", name
                self._at += 1
                assert self._sign("=")
                fields[name] = self._value()
                self._sign(",")
            return fields
        if self._sign("["):
            items = []
            while not self._sign("]"):
                items.append(self._value())
                self._sign(",")
            return items
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "null":
            return None
        if kind == "more":
            return ...
        if kind == "string":
            return _unquoted(text)
        assert kind == "number", (kind, text)
        number = int(text, 0)
        # The parts of an instruction's code.
        while self._sign("|"):
            number |= int(self._tokens[self._at][1], 0)
            self._at += 1
        return number


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match, text[at : at + 80]
        yield match
        at = match.end()


def _unquoted(text: str) -> bytes:
    assert not text.endswith("..."), "give strace a larger -s"
    out = bytearray()
    body = text[1:-1]
    at = 0
    while at < len(body):
        if body[at] != "\\":
            out.append(ord(body[at]))
            at += 1
        elif body[at + 1] == "x":
            out.append(int(body[at + 2 : at + 4], 16))
            at += 4
        elif octal := re.match(r"[0-7]{1,3}", body[at + 1 :]):
            out.append(int(octal[0], 8))
            at += 1 + octal.end()
        else:
            out.append(_ESCAPES[body[at + 1]])
            at += 2
    return bytes(out)


def differences(theirs: Straced, ours: dict[str, Any]) -> Iterator[str]:
    """Where the two contradict each other, of everything that strace prints."""
    for what, a, b in (
        ("command", theirs.cmd, ours["cmd"]),
        ("size", theirs.size, ours["size"]),
        ("result", theirs.result if theirs.errno or theirs.result >= 0 else -1, ours["result"]),
        ("errno", theirs.errno, ours["errno"]),
    ):
        if a != b:
            yield f"{what}: strace {a}, rawkm {b}"
    if isinstance(theirs.attr, dict):
        yield from _fields(theirs.attr, "", ours)
    elif theirs.attr is not None and not ours.get("unreadable"):
        yield f"strace could not read the attr, rawkm could: {theirs.attr}"


def _fields(fields: dict[str, Any], prefix: str, ours: dict[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        path = prefix + name
        if path == "info.info" and isinstance(value, dict):
            yield from _info(value, ours["info"]["values"])
        elif isinstance(value, dict):
            yield from _fields(value, path + ".", ours)
        elif isinstance(value, Changed):
            yield from _field(path, value.before, ours)
            after = ours["after"].get(path, ours["values"].get(path))
            if after != value.after:
                yield f"{path} afterwards: strace {value.after!r}, rawkm {after!r}"
        elif name == "extra_data":
            # Behind what this strace knows: fields of ours.
            if value not in bytes.fromhex(ours["attr"]):
                yield f"extra_data: {value!r} is not in {ours['attr']}"
        else:
            yield from _field(path, value, ours)


def _field(path: str, value: Any, ours: dict[str, Any]) -> Iterator[str]:
    if path not in ours["values"]:
        yield f"{path}: rawkm has no such field"
        return
    mine = _mine(path, value, ours)
    shown = value
    if isinstance(value, list) and value[-1:] == [...]:
        shown = value[:-1]
        mine = mine[: len(shown)] if isinstance(mine, list) else mine
    if mine != shown:
        yield f"{path}: strace {shown!r}, rawkm {mine!r}"


def _info(fields: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    """The struct that the kernel has filled: numbers and names as they are then, pointers as they were given."""
    for name, value in fields.items():
        shown = value.after if isinstance(value, Changed) else value
        mine = ours.get(name)
        if isinstance(shown, bytes) and isinstance(mine, str):
            mine = bytes.fromhex(mine)
            shown = shown.ljust(len(mine), b"\0")
        elif shown is None:
            shown = 0
        elif isinstance(shown, list):
            # What a pointer leads to, where the struct has the pointer.
            continue
        if mine != shown:
            yield f"info.info.{name}: strace {shown!r}, rawkm {mine!r}"


def _mine(path: str, value: Any, ours: dict[str, Any]) -> Any:
    """Our value in the form that strace's has."""
    plain = ours["values"][path]
    if value is None:
        return None if plain == 0 else plain
    if isinstance(value, int):
        return plain if plain == value else plain - (1 << 32) if plain - (1 << 32) == value else plain
    if isinstance(plain, str):
        return bytes.fromhex(plain).partition(b"\0")[0]
    if path.endswith("log_buf"):
        # strace shows what is there before the kernel writes.
        return b"" if plain else None
    memory = ours["memory"].get(path)
    if memory is None or "error" in memory:
        return memory
    data = bytes.fromhex(memory["hex"])
    if isinstance(value, bytes):
        return data
    if path == "insns":
        return [
            {"code": code, "dst_reg": registers & 15, "src_reg": registers >> 4, "off": off, "imm": imm}
            for code, registers, off, imm in struct.iter_unpack("<BBhI", data)
        ]
    width = 4 if len(data) == 4 * len(value) else 8
    return list(memoryview(data).cast("I" if width == 4 else "Q"))
