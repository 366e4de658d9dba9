"""From patterns to functions where the kernel's list cannot be read.

Names that are given are taken when they are symbols, and as they are when no symbols can be read either.
Globs choose from the functions of the kernel's BTF that are symbols: nearly all that can be traced, and some
that cannot. The attach tells.
"""

from __future__ import annotations

from rawkm.errors import SymbolError, SyscallError
from rawkm.host import kallsyms
from rawkm.host.globs import is_glob, to_bytes
from rawkm.targets.model import AMBIGUOUS, HIDDEN, NO_TEXT, Rejected, Target, as_text, is_text
from rawkm.targets.patterns import VMLINUX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.host.deny import DenyList
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.model import Targets
    from rawkm.targets.patterns import Pattern

    Found = dict[tuple[bytes, bytes], list[int]]

_BTF = "/sys/kernel/btf/vmlinux"
_AS_GIVEN = "the names given"

# Code that ftrace does not reach lies together (include/asm-generic/vmlinux.lds.h), and kallsyms is sorted by
# address: what is freed after boot, what must not be instrumented, the entries from user space.
_CLOSED = {
    b"_sinittext": b"_einittext",
    b"__noinstr_text_start": b"__noinstr_text_end",
    b"__entry_text_start": b"__entry_text_end",
}

# What include/trace/ makes of each tracepoint, every one of them notrace.
_OF_TRACEPOINTS = (b"trace_event_raw_event_", b"trace_raw_output_", b"perf_trace_", b"__bpf_trace_")


def resolve_unlisted(
    kernel: Kernel, patterns: Sequence[Pattern], deny: DenyList, targets: Targets, reasons: Sequence[str]
) -> None:
    """Fills in ``targets``. ``reasons``: why there is none. Raises SymbolError if every pattern needs it."""
    targets.certain = False
    targets.notes.append(f"the list of traceable functions cannot be read: {'; '.join(reasons)}")
    gave = [False] * len(patterns)
    exact = [pattern.exact for pattern in patterns]
    functions: frozenset[bytes] = frozenset()
    try:
        if not all(exact):
            functions = _btf_functions(kernel)
            targets.notes.append("functions of modules are not in the kernel's BTF: only exact names find them")
        found = _symbols(kernel, patterns, functions, gave)
        targets.source = "kallsyms" if all(exact) else "BTF and kallsyms"
    except SyscallError as err:
        if not any(exact):
            raise SymbolError(f"{targets.notes[0]}; {err}: give exact names") from None
        targets.notes.append(f"{err}: only exact names can be attached, and nothing says whether they exist")
        targets.source = _AS_GIVEN
        found = _as_given(patterns, gave)
    targets.note_missing(patterns, gave)
    _sort_out(found, deny, targets)


def _btf_functions(kernel: Kernel) -> frozenset[bytes]:
    from rawkm.btf import Btf

    return frozenset(Btf(kernel.read_file(_BTF)).functions())


def _symbols(kernel: Kernel, patterns: Sequence[Pattern], functions: frozenset[bytes], gave: list[bool]) -> Found:
    """(name, module) → addresses of the symbols that ``patterns`` choose; ``gave``: which of them did."""
    found: Found = {}
    closed_until = None
    prefixes = [pattern.prefix for pattern in patterns] + [label for pair in _CLOSED.items() for label in pair]
    for address, name, module in kallsyms.functions(kernel, prefixes):
        if not module:
            if closed_until is None:
                closed_until = _CLOSED.get(name)
            elif name == closed_until:
                closed_until = None
                continue
            if closed_until is not None:
                continue
        listed = not module and name in functions and not name.startswith(_OF_TRACEPOINTS)
        chosen = False
        for index, pattern in enumerate(patterns):
            if (listed or pattern.exact) and pattern.matches(name) and pattern.within(module):
                gave[index] = chosen = True
        if chosen:
            addresses = found.setdefault((name, module), [])
            if not address or address not in addresses:
                addresses.append(address)
    return found


def _as_given(patterns: Sequence[Pattern], gave: list[bool]) -> Found:
    found: Found = {}
    for index, pattern in enumerate(patterns):
        if pattern.exact:
            gave[index] = True
            module = "" if pattern.module == VMLINUX or is_glob(pattern.module) else pattern.module
            found[pattern.prefix, to_bytes(module)] = [0]
    return found


def _sort_out(found: Found, deny: DenyList, targets: Targets) -> None:
    hidden = not any(address for addresses in found.values() for address in addresses)
    if hidden and found and targets.source != _AS_GIVEN:
        targets.notes.append(HIDDEN)
    instances: dict[bytes, int] = {}
    for (name, _), addresses in found.items():
        instances[name] = instances.get(name, 0) + len(addresses)
    denied = deny.denied([name for name, _ in found])
    for (name, module), addresses in found.items():
        label = as_text(name), as_text(module)
        reason = denied.get(name)
        if reason is None and not is_text(name):
            reason = NO_TEXT
        if reason is None and hidden and instances[name] > 1:
            reason = AMBIGUOUS
        if reason is not None:
            targets.rejected.append(Rejected(label[0], reason, module=label[1], denied=name in denied))
        elif hidden:
            targets.ok.append(Target(*label))
        else:
            targets.ok.extend(Target(*label, address) for address in addresses)
