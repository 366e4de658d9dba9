"""Why something cannot be traced: read only when somebody asks, for it takes a pass over every symbol."""

from __future__ import annotations

from rawkm.errors import SyscallError
from rawkm.host import kallsyms
from rawkm.host.globs import is_glob
from rawkm.targets.model import NOT_TRACEABLE, Rejected, as_text
from rawkm.targets.patterns import VMLINUX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.model import Targets
    from rawkm.targets.patterns import Pattern

    # Names and the modules that have them ("" = the kernel image).
    Symbols = dict[str, set[str]]

# Padding in front of a function, and the cold part of one: symbols, but no functions.
_PADDING = ("__pfx_", "__cfi_")
_COLD = ".cold"
# Names that begin or end with as many equal characters may be meant.
_ALIKE_START, _ALIKE_END = 3, 5


def explain_missing(kernel: Kernel, targets: Targets, patterns: Sequence[Pattern]) -> None:
    """Fills in the reason of each of ``targets.missing``."""
    by_text = {pattern.text: pattern for pattern in patterns}
    open_ones = [(rejected, by_text[rejected.name]) for rejected in targets.missing if not rejected.reason]
    if not open_ones:
        return
    symbols: Symbols = {}
    needles = list(dict.fromkeys(needle for _, pattern in open_ones for needle in _needles(pattern)))
    try:
        for _, name, module in kallsyms.holding(kernel, needles) if needles else ():
            symbols.setdefault(as_text(name), set()).add(as_text(module))
    except SyscallError as err:
        for rejected, _ in open_ones:
            rejected.reason = f"nothing matches, and why cannot be told ({err})"
        return
    modules = {module for holders in symbols.values() for module in holders}
    for rejected, pattern in open_ones:
        rejected.reason = _reason(pattern, symbols, modules)


def _needles(pattern: Pattern) -> Iterator[bytes]:
    """What the lines of kallsyms hold that the reason is found from: all others need no look."""
    if pattern.module and not is_glob(pattern.module):
        yield f"\t[{pattern.module}]".encode("utf-8", "surrogateescape")
    if pattern.exact:
        name = pattern.name.encode("utf-8", "surrogateescape")
        yield b" " + name[:_ALIKE_START]
        for end in b"\n", b"\t":
            yield name[-_ALIKE_END:] + end


def _reason(pattern: Pattern, symbols: Symbols, modules: set[str]) -> str:
    module = pattern.module
    if module and not is_glob(module) and module != VMLINUX and module not in modules:
        return f"no module {module} is loaded"
    where = f" in {module}" if module else ""
    if not pattern.exact:
        return f"no traceable function{where} matches"
    holders = sorted(symbols.get(pattern.name, ()))
    if any(pattern.within(holder.encode()) for holder in holders):
        return NOT_TRACEABLE
    if holders:
        return f"no such function{where}, but in {' and '.join(holder or VMLINUX for holder in holders)}"
    near = _near(pattern.name, symbols)
    return f"no such function{where}" + (f"; near names: {', '.join(near)}" if near else "")


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Up to three names that look like ``name``: its compiler-made variants (name.isra.0) first."""
    functions = [n for n in names if not n.startswith(_PADDING) and _COLD not in n]
    variants = sorted(n for n in functions if n.startswith(name + "."))[:3]
    if variants:
        return variants
    from difflib import get_close_matches

    # difflib over 150,000 names would take many seconds: compare those that begin or end alike.
    start, end = name[:_ALIKE_START], name[-_ALIKE_END:]
    alike = {n for n in functions if n.startswith(start) or n.endswith(end)}
    return get_close_matches(name, sorted(alike), 3, 0.75)


def untraceable(kernel: Kernel, targets: Targets, patterns: Sequence[Pattern]) -> list[Rejected]:
    """The functions that ``patterns`` match by name but the kernel's list does not have."""
    known = {(t.name, t.module) for t in targets.ok} | {(r.name, r.module) for r in targets.rejected}
    found: dict[tuple[str, str], Rejected] = {}
    prefixes = [pattern.prefix for pattern in patterns]
    for _, raw_name, raw_module in kallsyms.functions(kernel, prefixes):
        if not any(p.matches(raw_name) and p.within(raw_module) for p in patterns):
            continue
        key = name, module = as_text(raw_name), as_text(raw_module)
        if key not in known and not name.startswith(_PADDING):
            part = _COLD in name and "the cold part of a function, not a function"
            found.setdefault(key, Rejected(name, part or NOT_TRACEABLE, module=module))
    return list(found.values())
