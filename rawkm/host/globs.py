"""Shell globs over symbol names.

No regular expression is made for the usual forms: importing re costs as much as reading the function list.
"""

from __future__ import annotations

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

_SPECIAL = "*?["


class Glob:
    """``*``, ``?``, ``[a-z]`` and ``[!a-z]``; everything else stands for itself, as in fnmatch. Over bytes:
    ``?`` is one of them.

    ``prefix``: the literal part that every match begins with; ``exact``: there is nothing else. Raises
    UsageError for brackets that no shell would read as meant: one that is not closed, and ``[^a-z]``.
    """

    __slots__ = ("_end", "_middle", "_open_end", "_regex", "exact", "prefix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        raw = to_bytes(text)
        cut = min((raw.index(char) for char in (b"*", b"?", b"[") if char in raw), default=len(raw))
        self.prefix = raw[:cut]
        self.exact = cut == len(raw)
        self._open_end = raw[cut:] == b"*"
        self._regex: re.Pattern[bytes] | None = None
        # What stands between the stars, and behind the last.
        self._middle = [part for part in raw[cut:].split(b"*")[1:-1] if part]
        self._end = raw[raw.rfind(b"*") + 1 :]
        if "?" in text or "[" in text:
            _check_brackets(text)
            self._regex = _compile(text)

    def match(self, name: bytes) -> bool:
        """Whether it matches the whole of ``name``."""
        if self._open_end:
            return name.startswith(self.prefix)
        if self.exact:
            return name == self.prefix
        if self._regex is not None:
            return self._regex.match(name) is not None
        if not name.startswith(self.prefix):
            return False
        at = len(self.prefix)
        for part in self._middle:
            at = name.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return name.endswith(self._end, at)


def is_glob(text: str) -> bool:
    return any(char in text for char in _SPECIAL)


def to_bytes(text: str) -> bytes:
    """What was typed, as the bytes that were typed: arguments that are no UTF-8 come as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _check_brackets(glob: str) -> None:
    at = glob.find("[")
    while at >= 0:
        first = at + 1
        if glob[first : first + 1] == "^":
            raise UsageError(f"the pattern {glob!r} has a '[^': write '[!' for all but some characters")
        if glob[first : first + 1] == "!":
            first += 1
        # A "]" in the first place is one of the characters.
        end = glob.find("]", first + 1)
        if end < 0:
            raise UsageError(f"the pattern {glob!r} has a '[' without its ']'")
        at = glob.find("[", end)


def _compile(glob: str) -> re.Pattern[bytes]:
    import re
    from fnmatch import translate

    return re.compile(to_bytes(translate(glob)))
