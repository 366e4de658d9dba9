"""Why something cannot be traced: read only when somebody asks, for it takes a pass over every symbol."""

from __future__ import annotations

from rawkm.host import kallsyms
from rawkm.targets.model import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.model import Targets
    from rawkm.targets.patterns import Pattern

NOT_TRACEABLE = "not traceable: it has no ftrace location (notrace, inlined elsewhere, or not compiled with one)"

# Symbols that are no functions: padding in front of one (__pfx_, __cfi_), and the cold part of one.
_NO_FUNCTIONS = ("__pfx_", "__cfi_")


def explain_missing(kernel: Kernel, targets: Targets, patterns: Sequence[Pattern]) -> None:
    """Fills in the reason of each of ``targets.missing``."""
    by_text = {pattern.text: pattern for pattern in patterns}
    open_ones = [(rejected, by_text[rejected.name]) for rejected in targets.missing if not rejected.reason]
    if not open_ones:
        return
    names: list[tuple[str, str]] = [(n.decode(), m.decode()) for _, n, m in kallsyms.functions(kernel)]
    modules = {module for _, module in names}
    for rejected, pattern in open_ones:
        rejected.reason = _reason(pattern, names, modules)


def _reason(pattern: Pattern, names: list[tuple[str, str]], modules: set[str]) -> str:
    from rawkm.host.globs import is_glob

    module = pattern.module
    if module and not is_glob(module) and module != "vmlinux" and module not in modules:
        return f"no module {module} is loaded"
    where = f" in {module}" if module else ""
    if not pattern.exact:
        return f"no traceable function{where} matches"
    if any(name == pattern.name and pattern.within(m.encode()) for name, m in names):
        return NOT_TRACEABLE
    near = _near(pattern.name, {name for name, _ in names})
    return f"no such function{where}" + (f"; near names: {', '.join(near)}" if near else "")


def _near(name: str, names: set[str]) -> list[str]:
    """Up to three names that look like ``name``: its compiler-made variants (name.isra.0) first."""
    variants = sorted(n for n in names if n.startswith(name + "."))[:3]
    if variants:
        return variants
    from difflib import get_close_matches

    # difflib over 150,000 names would take many seconds: compare those that begin or end alike.
    alike = [n for n in names if n[:3] == name[:3] or n[-5:] == name[-5:]]
    return get_close_matches(name, [n for n in alike if not n.startswith(_NO_FUNCTIONS)], 3, 0.75)


def untraceable(kernel: Kernel, targets: Targets, patterns: Sequence[Pattern]) -> list[Rejected]:
    """The functions that ``patterns`` match by name but the kernel's list does not have."""
    known = {(t.name, t.module) for t in targets.ok} | {(r.name, r.module) for r in targets.rejected}
    found: dict[tuple[str, str], Rejected] = {}
    for pattern in patterns:
        for _, raw_name, raw_module in kallsyms.functions(kernel, pattern.regex):
            name, module = raw_name.decode(), raw_module.decode()
            if (name, module) in known or name.startswith(_NO_FUNCTIONS):
                continue
            if not pattern.matches(raw_name) or not pattern.within(raw_module):
                continue
            part = ".cold" in name and "the cold part of a function, not a function"
            found.setdefault((name, module), Rejected(name, part or NOT_TRACEABLE, module=module))
    return list(found.values())
