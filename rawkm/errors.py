"""Every exception that rawkm raises on purpose, in one tree.

A message is one clear sentence that says what is wrong and, where somebody can do something about it, what to do.
"""

from __future__ import annotations

import errno as _errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    SrcLoc = tuple[str, int]

__all__ = [
    "CANNOT_TRACE",
    "AssembleError",
    "AttachError",
    "BTFError",
    "Culprit",
    "DisassembleError",
    "NotSupportedError",
    "RawkmError",
    "RecordingError",
    "ReplayMismatch",
    "RingCorrupt",
    "SchemaError",
    "SymbolError",
    "SyscallError",
    "UsageError",
    "VerifierError",
    "errno_name",
]

# Python's name is libc's second one for the first; the kernel's internal ENOTSUPP, which leaks out of bpf(2) (batch operations,
# TEST_RUN, trampolines), has no name in libc.
_NAMES = {_errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"}


def errno_name(number: int) -> str:
    """The symbolic name of an errno ("ESRCH"), 524 ("ENOTSUPP") included; an unknown one as "errno 1234"."""
    return _NAMES.get(number) or _errno.errorcode.get(number) or f"errno {number}"


class RawkmError(Exception):
    """The root of the tree."""


class UsageError(RawkmError, ValueError):
    """A bad value or combination of arguments, found before any system call was made."""


class SyscallError(RawkmError, OSError):
    """A system call that the kernel refused.

    ``errno``: the number; ``call``: the call's name with its command ("bpf(BPF_LINK_CREATE)"); ``attr``: the bytes that were
    sent, empty for calls without an attr; ``attr_after``: the same bytes as the kernel left them (a batch that reaches the
    end of a map fails with its count written back); ``hint``: what usually causes this, or "".
    """

    def __init__(self, call: str, errno: int, *, attr: bytes = b"", attr_after: bytes = b"", hint: str = "") -> None:
        super().__init__(errno, f"{call}: {errno_name(errno)}")
        self.errno: int = errno
        self.call = call
        self.attr = attr
        self.attr_after = attr_after or attr
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.call} was refused with {errno_name(self.errno)}"
        return f"{text}: {self.hint}" if self.hint else text


class VerifierError(SyscallError):
    """PROG_LOAD refused the program. ``str()`` is a summary; ``log`` is the verifier's whole log.

    ``insn_index``: the 8-byte slot that the log's end is about, or None; ``insn``: that instruction as text, or "";
    ``src_loc``: the (file, line) that made it, or None.
    """

    def __init__(
        self,
        errno: int,
        *,
        log: str,
        attr: bytes = b"",
        hint: str = "",
        insn_index: int | None = None,
        insn: str = "",
        src_loc: SrcLoc | None = None,
    ) -> None:
        super().__init__("bpf(BPF_PROG_LOAD)", errno, attr=attr, hint=hint)
        self.log = log
        self.insn_index = insn_index
        self.insn = insn
        self.src_loc = src_loc

    def __str__(self) -> str:
        where = "" if self.src_loc is None else f"{self.src_loc[0]}:{self.src_loc[1]}: "
        at = "" if self.insn_index is None else f" at instruction {self.insn_index}"
        shown = f", {self.insn}" if self.insn else ""
        words = _last_words(self.log)
        return f"{where}{super().__str__()}{at}{shown}{': ' if words else ''}{words}"


# What the verifier prints after its complaint: statistics, and the states that show an infinite loop.
_NOT_THE_COMPLAINT = ("processed ", "verification time", "stack depth", "max_states", "cur state:", "old state:")
# How the lines before a complaint begin: instructions ("12: (85) call"), states and what else the walk tells.
_BEFORE_THE_COMPLAINT = (*"0123456789", "from ", "func#", "Func#", "Live regs", "to caller")
_COMPLAINT_LINES = 3


def _last_words(log: str) -> str:
    """The verifier's complaint: its last line, and those before it that belong to it."""
    found: list[str] = []
    for line in reversed(log.splitlines()):
        words = line.strip()
        if found and (not words or words.startswith(_BEFORE_THE_COMPLAINT)):
            break
        if words and not words.startswith(_NOT_THE_COMPLAINT):
            found.append(words)
        if len(found) == _COMPLAINT_LINES:
            break
    return "; ".join(reversed(found))


class Culprit:
    """One target that could not be attached: its name, the errno that it causes and the reason in words."""

    __slots__ = ("errno", "reason", "target")

    def __init__(self, target: str, errno: int, reason: str) -> None:
        self.target = target
        self.errno = errno
        self.reason = reason

    def __repr__(self) -> str:
        return f"Culprit({self.target!r}, {errno_name(self.errno)}, {self.reason!r})"

    def __str__(self) -> str:
        return f"{self.target}: {errno_name(self.errno)}, {self.reason}"


class AttachError(SyscallError):
    """An attach was refused. ``culprits``: the targets that caused it, when they are known."""

    def __init__(
        self,
        call: str,
        errno: int,
        *,
        attr: bytes = b"",
        hint: str = "",
        backend: str = "",
        culprits: Sequence[Culprit] = (),
        tried: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(call, errno, attr=attr, hint=hint)
        self.backend = backend
        self.culprits = tuple(culprits)
        self.tried = tuple(tried)


# The ``feature`` of a NotSupportedError that forbids tracing altogether: a missing capability, a filter, lockdown.
CANNOT_TRACE = "rawkm cannot trace here"


class NotSupportedError(RawkmError):
    """This kernel or container cannot do it. ``feature``: what; ``evidence``: what was tried and what came back."""

    def __init__(self, feature: str, evidence: str, *, help: str = "") -> None:
        super().__init__(feature, evidence, help)
        self.feature = feature
        self.evidence = evidence
        self.help = help

    def __str__(self) -> str:
        text = f"{self.feature}: {self.evidence}"
        return f"{text}; {self.help}" if self.help else text


class _Located(RawkmError):
    def __init__(self, message: str, *, src_loc: SrcLoc | None = None) -> None:
        super().__init__(message)
        self.src_loc = src_loc

    def __str__(self) -> str:
        message = str(self.args[0])
        return message if self.src_loc is None else f"{self.src_loc[0]}:{self.src_loc[1]}: {message}"


class AssembleError(_Located):
    """A program that cannot be encoded; ``src_loc`` is the (file, line) that made the offending instruction."""


class DisassembleError(_Located):
    """Bytes that are no instruction."""


class InterpreterError(RawkmError):
    """A program that does what the kernel must not let it do."""


class NotModelled(InterpreterError):
    """A program that does what the interpreter has no model of."""


class BTFError(RawkmError):
    """BTF data that is damaged, or a type or member that is not in it."""


class SymbolError(RawkmError):
    """A function that cannot be traced: missing, ambiguous or not traceable."""


class SchemaError(UsageError):
    """A record declaration that makes no sense, or a record that does not fit it."""


class RingCorrupt(RawkmError):
    """A ring or perf buffer whose positions or headers contradict its size."""


class RecordingError(RawkmError):
    """A recording that cannot be read: no recording, damaged, or of a newer version."""


class ReplayMismatch(RawkmError):
    """A run that differs from its recording.

    ``number``: of the recorded call, from 1 (0 where none is left); ``call``: its name with its command ("bpf(BPF_LINK_CREATE)");
    ``field``: where it differs ("link_create.kprobe_multi.cnt", "args.fd", "name"); ``recorded`` and ``found``: as texts.
    """

    def __init__(self, number: int, call: str, field: str, recorded: str, found: str) -> None:
        super().__init__(number, call, field, recorded, found)
        self.number = number
        self.call = call
        self.field = field
        self.recorded = recorded
        self.found = found

    def __str__(self) -> str:
        at = f"call {self.number}, {self.call}" if self.number else self.call
        return f"{at}: {self.field} is {self.found}, the recording has {self.recorded}"
