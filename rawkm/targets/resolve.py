"""From patterns to functions.

The lists, best first: available_filter_functions (what ftrace can reach; with _addrs also where), else the functions of the kernel's BTF
that are also symbols, else the names as they were given. Symbol addresses come from kallsyms and are looked up only when
somebody wants them or a name stands for several functions: reading it takes longer than everything else.
"""

from __future__ import annotations

from rawkm.errors import SymbolError, SyscallError
from rawkm.host.deny import DenyList
from rawkm.host.tracefs import TraceFs
from rawkm.targets.listing import NAMES, SITES, Entry, match
from rawkm.targets.model import Rejected, Target, Targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.patterns import Pattern

# The farthest that an ftrace site lies behind its symbol: BTI + patched NOPs on arm64, ENDBR on x86.
_SITE_REACH = 16

_HIDDEN = "symbol addresses are hidden (CAP_SYSLOG, kernel.kptr_restrict): functions are attached by name"
_AMBIGUOUS_HIDDEN = "several functions have this name, and their addresses are hidden (CAP_SYSLOG, kernel.kptr_restrict)"


def resolve(kernel: Kernel, patterns: Sequence[Pattern], *, deny: DenyList | None = None, addresses: bool = False) -> Targets:
    """The functions that ``patterns`` choose.

    ``deny``: the rules to leave functions out by (default: the built-in ones). ``addresses``: look every symbol address up, even
    where names would do. Raises SymbolError when no list can be read and a pattern needs one.
    """
    targets = Targets()
    deny = DenyList() if deny is None else deny
    with TraceFs(kernel) as tracefs:
        entries = _listed(tracefs, patterns, targets, addresses)
        if entries is None:
            _from_symbols(kernel, patterns, deny, targets, tracefs.reasons)
            return targets
        seen: dict[bytes, int] = {}
        for entry in entries:
            seen[entry.name] = seen.get(entry.name, 0) + 1
        wanted = _apply_deny([entry for entry in entries if entry.wanted], deny, targets)
        if wanted and (addresses or any(seen[entry.name] > 1 for entry in wanted)):
            _with_addresses(kernel, tracefs, wanted, seen, targets)
        else:
            targets.ok = [Target(e.name.decode(), e.module.decode(), None, e.site) for e in wanted]
    return targets


# -- the lists -----------------------------------------------------------------------------------------------------------------


def _listed(tracefs: TraceFs, patterns: Sequence[Pattern], targets: Targets, addresses: bool) -> list[Entry] | None:
    for name in (SITES, NAMES) if addresses else (NAMES,):
        chunks = tracefs.chunks(name)
        if chunks is not None:
            targets.source = name
            entries, gave = match(chunks, patterns, sites=name == SITES)
            _note_missing(patterns, gave, targets)
            return _one_per_site(entries)
    return None


def _from_symbols(
    kernel: Kernel, patterns: Sequence[Pattern], deny: DenyList, targets: Targets, reasons: Sequence[str]
) -> None:
    """Without a list of traceable functions: exact names that are symbols, and for globs the symbols that BTF calls functions.

    That is nearly all that can be traced, and some that cannot; the attach tells.
    """
    from rawkm.host import kallsyms

    targets.certain = False
    targets.source = "kallsyms"
    targets.notes.append(f"no list of traceable functions ({'; '.join(reasons)})")
    btf: set[bytes] = set()
    if not all(pattern.exact for pattern in patterns):
        btf = _btf_functions(kernel, targets)
        targets.source = "BTF and kallsyms"
        targets.notes.append("functions of modules are not in the kernel's BTF: only exact names find them")
    gave = [False] * len(patterns)
    found: dict[tuple[bytes, bytes], list[int]] = {}
    regex = b"|".join(b"(?:%s)" % pattern.regex for pattern in patterns)
    for address, name, module in kallsyms.functions(kernel, regex):
        for index, pattern in enumerate(patterns):
            if (pattern.exact or name in btf) and pattern.matches(name) and pattern.within(module):
                gave[index] = True
                found.setdefault((name, module), [])
        if (name, module) in found:
            found[name, module].append(address)
    _note_missing(patterns, gave, targets)
    hidden = not any(address for addresses in found.values() for address in addresses)
    if hidden and found:
        targets.notes.append(_HIDDEN)
    names = [name for name, _ in found]
    for (name, module), addresses in found.items():
        reason = deny.reason(name)
        label = name.decode(), module.decode()
        if reason is not None:
            targets.rejected.append(Rejected(label[0], reason, module=label[1], denied=True))
        elif not hidden:
            targets.ok.extend(Target(*label, address) for address in addresses)
        elif len(addresses) > 1 or names.count(name) > 1:
            targets.rejected.append(Rejected(label[0], _AMBIGUOUS_HIDDEN, module=label[1]))
        else:
            targets.ok.append(Target(*label))


def _btf_functions(kernel: Kernel, targets: Targets) -> set[bytes]:
    from rawkm.btf import Btf

    try:
        data = kernel.read_file("/sys/kernel/btf/vmlinux")
    except SyscallError as err:
        raise SymbolError(
            f"this kernel's functions cannot be listed: {'; '.join(targets.notes)}; no BTF either ({err}): give exact names"
        ) from None
    return set(Btf(data).functions())


def _note_missing(patterns: Sequence[Pattern], gave: Sequence[bool], targets: Targets) -> None:
    """The reason of each stays open: finding it out means reading more files (``reasons.explain_missing``)."""
    targets.missing = [Rejected(p.text, "") for p, hit in zip(patterns, gave, strict=True) if not hit]


def _one_per_site(entries: list[Entry]) -> list[Entry]:
    """The same ftrace site twice is one function. Lists without sites have one line per function already."""
    unique: dict[int | None, Entry] = {}
    for entry in entries:
        if entry.site is None:
            return entries
        unique.setdefault(entry.site, entry).wanted |= entry.wanted
    return list(unique.values())


def _apply_deny(wanted: list[Entry], deny: DenyList, targets: Targets) -> list[Entry]:
    kept = []
    for entry in wanted:
        reason = deny.reason(entry.name)
        if reason is None:
            kept.append(entry)
        else:
            rejected = Rejected(entry.name.decode(), reason, module=entry.module.decode(), denied=True)
            targets.rejected.append(rejected)
    return kept


# -- addresses -----------------------------------------------------------------------------------------------------------------


def _with_addresses(
    kernel: Kernel, tracefs: TraceFs, wanted: list[Entry], seen: dict[bytes, int], targets: Targets
) -> None:
    from rawkm.host import kallsyms

    names = {entry.name for entry in wanted}
    symbols = kallsyms.named(kernel, names)
    if not any(address for found in symbols.values() for address, _ in found):
        targets.notes.append(_HIDDEN)
        for entry in wanted:
            name, module = entry.name.decode(), entry.module.decode()
            if seen[entry.name] > 1:
                targets.rejected.append(Rejected(name, _AMBIGUOUS_HIDDEN, module=module))
            else:
                targets.ok.append(Target(name, module, None, entry.site))
        return
    if wanted[0].site is None:
        wanted = _with_sites(tracefs, wanted, names)
    taken: set[int] = set()
    for entry in wanted:
        instances = [address for address, module in symbols.get(entry.name, ()) if module == entry.module]
        _pair(entry, instances, seen[entry.name], taken, targets)


def _with_sites(tracefs: TraceFs, wanted: list[Entry], names: set[bytes]) -> list[Entry]:
    """``wanted`` again, from the list that also tells the sites; as it was where the kernel (before 6.5) has none."""
    chunks = tracefs.chunks(SITES)
    if chunks is None:
        return wanted
    from rawkm.targets.patterns import Pattern

    functions = {(entry.name, entry.module) for entry in wanted}
    patterns = [Pattern(name.decode()) for name in names] if len(names) < 4 else [Pattern("*")]
    entries, _ = match(chunks, patterns, sites=True)
    return _one_per_site([entry for entry in entries if (entry.name, entry.module) in functions])


def _pair(entry: Entry, instances: list[int], count: int, taken: set[int], targets: Targets) -> None:
    """Finds which of a name's addresses the entry means, or says why none."""
    name, module = entry.name.decode(), entry.module.decode()
    if entry.site is not None:
        reachable = [a for a in instances if 0 <= entry.site - a <= _SITE_REACH]
        if reachable:
            targets.ok.append(Target(name, module, max(reachable), entry.site))
        else:
            targets.rejected.append(Rejected(name, "kallsyms has no symbol at its ftrace site", module=module))
        return
    if not instances:
        targets.rejected.append(Rejected(name, "kallsyms has no such symbol", module=module))
    elif len(instances) == 1 or len(instances) == count:
        for address in instances:
            if address not in taken:
                taken.add(address)
                targets.ok.append(Target(name, module, address))
    else:
        reason = f"{len(instances)} functions have this name, {count} of them can be traced, and the kernel does not say which"
        if not any(r.name == name and r.module == module for r in targets.rejected):
            targets.rejected.append(Rejected(name, reason, module=module))


def labels(targets: Iterable[Target]) -> list[str]:
    """A text per target that tells it from the others: the name, with the address when the name does not suffice."""
    targets = list(targets)
    count: dict[str, int] = {}
    for target in targets:
        count[target.label] = count.get(target.label, 0) + 1
    return [
        target.label if count[target.label] == 1 or target.address is None else f"{target.label} @{target.address:x}"
        for target in targets
    ]
