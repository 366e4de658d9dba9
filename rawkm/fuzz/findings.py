"""A failure once it has been shrunk, and the directory that keeps it with its reproducers."""

from __future__ import annotations

import os
import re

from rawkm.errors import SyscallError
from rawkm.fuzz import reproducers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.fuzz.case import Case


class Finding:
    """``case``: what reproduces it; ``what``: the point of the difference, such as "BPF_PROG_TEST_RUN retval"; ``expected`` and
    ``seen``: in words. ``signature``: equal for findings that are the same one."""

    __slots__ = ("case", "expected", "seen", "signature", "what")

    def __init__(self, case: Case, what: str, expected: str, seen: str, *, signature: str = "") -> None:
        self.case = case
        self.what = what
        self.expected = expected
        self.seen = seen
        self.signature = signature or what

    def row(self, recording: bytes) -> dict[str, object]:
        """Everything about it, reproducers included: what a guest leaves when it is gone."""
        return {
            "title": self.case.title,
            "what": self.what,
            "expected": self.expected,
            "seen": self.seen,
            "kernel": self.case.kernel,
            "text": self.case.text,
            "pytest": reproducers.as_pytest(self.case),
            "c": reproducers.as_c(self.case),
            "rkm": recording.decode("ascii"),
        }


class Store:
    """A directory of findings, made when there is one."""

    __slots__ = ("_count", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._count = 0

    def keep(self, finding: Finding, recording: bytes) -> list[str]:
        """Writes the recording and the other reproducers; their paths."""
        self._count += 1
        slug = re.sub(r"[^a-z0-9]+", "-", finding.what.lower()).strip("-")[:40]
        base = os.path.join(self.path, f"{slug}-{os.getpid()}-{self._count}")
        wanted = {
            base + ".rkm": recording,
            base + ".py": reproducers.as_pytest(finding.case).encode(),
            base + ".c": reproducers.as_c(finding.case).encode(),
        }
        try:
            os.makedirs(self.path, exist_ok=True)
            for path, data in wanted.items():
                with open(path, "wb") as file:
                    file.write(data)
        except OSError as err:
            raise SyscallError(f"open({err.filename})", err.errno or 0) from None
        return list(wanted)
