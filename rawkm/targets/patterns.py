"""What a user writes to choose functions: names, globs, regular expressions, within a module or anywhere."""

from __future__ import annotations

from rawkm.errors import UsageError
from rawkm.host.globs import Glob, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

# The module name by which the kernel image itself is meant.
VMLINUX = "vmlinux"


class Pattern:
    """``[MODULE:]NAME``, ``[MODULE:]GLOB`` or ``[MODULE:]/REGEX/``.

    A name or glob must match the whole function name, a regular expression any part of it. MODULE is a glob,
    too; "vmlinux" is the kernel image. ``prefix``: what every name that matches begins with; ``exact``: it is
    a plain name. Raises UsageError.
    """

    __slots__ = ("_glob", "_module", "_search", "exact", "module", "name", "prefix", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        module, colon, name = text.partition(":")
        if text.startswith("/") or not colon:
            module, name, colon = "", text, ""
        if not name or (colon and not module) or any(char.isspace() for char in module):
            raise _no_pattern(text)
        self.module = module
        self.name = name
        self._module = Glob(module) if module else None
        self._search: re.Pattern[bytes] | None = None
        self._glob: Glob | None = None
        if name.startswith("/"):
            self._search = _regex(name)
            self.prefix = b""
            self.exact = False
        elif any(char.isspace() for char in name):
            raise _no_pattern(text)
        else:
            self._glob = Glob(name)
            self.prefix = self._glob.prefix
            self.exact = self._glob.exact

    def matches(self, name: bytes) -> bool:
        """Whether a function of this name is meant, in whatever module."""
        if self._glob is not None:
            return self._glob.match(name)
        assert self._search is not None
        return self._search.search(name) is not None

    def within(self, module: bytes) -> bool:
        """Whether functions of ``module`` (b"" = the kernel image) are meant."""
        return self._module is None or self._module.match(module or VMLINUX.encode())

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _no_pattern(text: str) -> UsageError:
    return UsageError(f"{text!r} is no pattern: write a name, a glob such as 'tcp_*', /regex/, or module:pattern")


def _regex(text: str) -> re.Pattern[bytes]:
    import re
    import warnings

    if len(text) < 3 or not text.endswith("/"):
        raise UsageError(f"the regular expression {text!r} must stand between two slashes")
    try:
        with warnings.catch_warnings():
            # What re may change in a later Python does not concern who types a pattern today.
            warnings.simplefilter("ignore")
            return re.compile(to_bytes(text[1:-1]))
    except (re.error, OverflowError, RecursionError) as err:
        raise UsageError(f"the regular expression {text} is not valid: {err}") from None
