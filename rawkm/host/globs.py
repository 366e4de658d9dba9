"""Shell globs over symbol names.

No regular expression is made for the usual forms: importing re costs as much as reading the function list.
"""

from __future__ import annotations

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

# What can stand in a symbol or module name. Never white space: lines are searched, not split.
_ANY = rb"[^\s\[\]]"
_SPECIAL = "*?["


class Glob:
    """``*``, ``?``, ``[a-z]`` and ``[!a-z]``; everything else stands for itself. ``prefix``: the literal part that it begins with.

    Raises UsageError for a bracket that is not closed or names nothing.
    """

    __slots__ = ("_regex", "exact", "open_end", "prefix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        cut = min((text.index(char) for char in _SPECIAL if char in text), default=len(text))
        self.prefix = text[:cut].encode()
        self.exact = cut == len(text)
        self.open_end = text[cut:] == "*"
        self._regex: re.Pattern[bytes] | None = None
        if not self.exact and not self.open_end:
            from re import compile

            self._regex = compile(translate(text))

    def match(self, name: bytes) -> bool:
        """Whether it matches the whole of ``name``."""
        if self.exact:
            return name == self.prefix
        if self._regex is None:
            return name.startswith(self.prefix)
        return self._regex.fullmatch(name) is not None

    @property
    def regex(self) -> bytes:
        """As a regular expression over bytes."""
        return translate(self.text)


def is_glob(text: str) -> bool:
    return any(char in text for char in _SPECIAL)


def translate(glob: str) -> bytes:
    """The regular expression for ``glob``."""
    import re

    out: list[bytes] = []
    i = 0
    while i < len(glob):
        char = glob[i]
        i += 1
        if char == "*":
            if not out or out[-1] != _ANY + b"*":
                out.append(_ANY + b"*")
        elif char == "?":
            out.append(_ANY)
        elif char == "[":
            end = glob.find("]", i + 2 if glob[i : i + 1] in ("!", "^") else i + 1)
            if end < 0:
                raise UsageError(f"the pattern {glob!r} has a '[' without its ']'")
            members = glob[i:end].replace("\\", r"\\").replace("[", r"\[")
            if members[0] in "!^":
                members = "^" + members[1:].replace("^", r"\^")
            try:
                re.compile(f"[{members}]")
            except re.error:
                raise UsageError(f"the pattern {glob!r} has a '[...]' that names no characters") from None
            out.append(b"[" + members.encode() + b"]")
            i = end + 1
        else:
            out.append(re.escape(char.encode()))
    return b"".join(out)
