"""What resolving patterns gives: functions to trace, and rejected ones with their reasons."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.targets.patterns import Pattern

HIDDEN = "symbol addresses are hidden (CAP_SYSLOG, kernel.kptr_restrict): functions are attached by name"
AMBIGUOUS = "several functions have this name, and their addresses are hidden (CAP_SYSLOG, kernel.kptr_restrict)"
NO_TEXT = "its name is no UTF-8 text"
NOT_TRACEABLE = "not traceable: it has no ftrace location (notrace, inlined elsewhere, or not compiled with one)"


class Target:
    """One function to trace.

    ``module``: "" for the kernel image. ``address``: the symbol's address, which bpf_get_func_ip and cookies
    speak; None when it is hidden or was not looked up. ``site``: the ftrace location, which
    available_filter_functions_addrs prints; it lies behind the address by 0 or 4 bytes on x86 (ENDBR), by 4
    or 8 on arm64; None when not known.
    """

    __slots__ = ("address", "module", "name", "site")

    def __init__(self, name: str, module: str = "", address: int | None = None, site: int | None = None) -> None:
        self.name = name
        self.module = module
        self.address = address
        self.site = site

    @property
    def label(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name

    def __repr__(self) -> str:
        address = "None" if self.address is None else hex(self.address)
        return f"Target({self.label!r}, address={address})"


class Rejected:
    """A function or pattern that will not be attached, and why.

    ``denied``: a rule forbids it, though the kernel might not.
    """

    __slots__ = ("denied", "module", "name", "reason")

    def __init__(self, name: str, reason: str, *, module: str = "", denied: bool = False) -> None:
        self.name = name
        self.module = module
        self.reason = reason
        self.denied = denied

    def __repr__(self) -> str:
        return f"Rejected({self.name!r}, {self.reason!r})"


class Targets:
    """``ok``: in the order of the kernel's list. ``missing``: patterns and names that gave nothing.
    ``source``: where the list came from. ``certain``: whether that source lists exactly what the kernel can
    trace. ``notes``: what could not be had, and why.
    """

    __slots__ = ("certain", "missing", "notes", "ok", "rejected", "source")

    def __init__(self) -> None:
        self.ok: list[Target] = []
        self.rejected: list[Rejected] = []
        self.missing: list[Rejected] = []
        self.source = ""
        self.certain = True
        self.notes: list[str] = []

    def note_missing(self, patterns: Sequence[Pattern], gave: Sequence[bool]) -> None:
        """Sets ``missing``. The reasons are left to ``reasons.explain_missing``, which reads more."""
        self.missing = [Rejected(p.text, "") for p, hit in zip(patterns, gave, strict=True) if not hit]

    def keep_unique_names(self) -> None:
        """Rejects what cannot be attached by name: names that stand for several functions."""
        count: dict[str, int] = {}
        for target in self.ok:
            count[target.name] = count.get(target.name, 0) + 1
        self.rejected += [
            Rejected(name, f"{number} functions have this name: only addresses tell them apart")
            for name, number in count.items()
            if number > 1
        ]
        self.ok = [target for target in self.ok if count[target.name] == 1]

    @property
    def addressed(self) -> bool:
        """Whether every target's symbol address is known."""
        return bool(self.ok) and all(target.address is not None for target in self.ok)


def as_text(raw: bytes) -> str:
    """A name from the kernel; what is no UTF-8 comes out escaped. A module can have any names."""
    return raw.decode("utf-8", "backslashreplace")


def is_text(raw: bytes) -> bool:
    """Whether ``as_text`` can be undone: only such names can be given back to the kernel."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
