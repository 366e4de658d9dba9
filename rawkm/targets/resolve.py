"""From patterns to functions.

The lists, best first: available_filter_functions (what ftrace can reach; with _addrs also where), else what
``unlisted`` makes of symbols and BTF. Symbol addresses come from kallsyms and are looked up only when
somebody wants them or a name stands for several functions: reading it takes longer than everything else.
"""

from __future__ import annotations

from rawkm.errors import SyscallError
from rawkm.host.deny import DenyList
from rawkm.host.tracefs import TraceFs
from rawkm.targets.listing import NAMES, SITES, match
from rawkm.targets.model import AMBIGUOUS, HIDDEN, NO_TEXT, Rejected, Target, Targets, as_text, is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.host.kallsyms import Addresses
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.listing import Entry
    from rawkm.targets.patterns import Pattern

# The farthest that an ftrace site lies behind its symbol: BTI + patched NOPs on arm64, ENDBR on x86.
_SITE_REACH = 16


def resolve(kernel: Kernel, patterns: Sequence[Pattern], *, deny: DenyList | None = None, addresses: bool = False) -> Targets:
    """The functions that ``patterns`` choose.

    ``deny``: the rules to leave functions out by (default: the built-in ones). ``addresses``: look every
    symbol address up, even where names would do. Raises SymbolError when no list can be read and every
    pattern needs one.
    """
    targets = Targets()
    deny = DenyList() if deny is None else deny
    # What begins anyhow is chosen by the thousand, and then two of a name are among them: only the sites tell
    # them apart.
    sites = addresses or not all(pattern.prefix for pattern in patterns)
    with TraceFs(kernel) as tracefs:
        entries = _listed(tracefs, patterns, (SITES, NAMES) if sites else (NAMES,), targets)
        if entries is None:
            from rawkm.targets.unlisted import resolve_unlisted

            resolve_unlisted(kernel, patterns, deny, targets, tracefs.reasons)
            return targets
        wanted, targets.rejected = _allowed(entries, deny)
        twins = _twins(entries, wanted)
        if twins and targets.source == NAMES:
            # Linux 6.5; older kernels leave it at the names.
            entries = _listed(tracefs, patterns, (SITES,), targets) or entries
            wanted, targets.rejected = _allowed(entries, deny)
        if twins or (addresses and wanted):
            _with_addresses(kernel, wanted, twins, targets)
        else:
            targets.ok = [_target(entry) for entry in wanted]
        if targets.missing and any(pattern.exact for pattern in patterns):
            from rawkm.targets.aliases import find_aliases

            find_aliases(kernel, tracefs, patterns, deny, _SITE_REACH, targets)
    return targets


# -- the lists -----------------------------------------------------------------------------------------------


def _listed(tracefs: TraceFs, patterns: Sequence[Pattern], lists: Sequence[str], targets: Targets) -> list[Entry] | None:
    """The entries of the first of ``lists`` that can be read."""
    for name in lists:
        chunks = tracefs.chunks(name)
        if chunks is not None:
            entries, gave = match(chunks, patterns, sites=name == SITES)
            targets.source = name
            targets.note_missing(patterns, gave)
            return _one_per_site(entries) if name == SITES else entries
    return None


def _one_per_site(entries: list[Entry]) -> list[Entry]:
    """The same ftrace site twice is one function."""
    unique: dict[int | None, Entry] = {}
    for entry in entries:
        unique.setdefault(entry.site, entry)
    return list(unique.values())


def _allowed(entries: list[Entry], deny: DenyList) -> tuple[list[Entry], list[Rejected]]:
    """The wanted entries that nothing forbids, and the others."""
    allowed: list[Entry] = []
    rejected: list[Rejected] = []
    wanted = [entry for entry in entries if entry.wanted]
    denied = deny.denied([entry.name for entry in wanted])
    for entry in wanted:
        if entry.name in denied:
            rejected.append(_rejected(entry, denied[entry.name], denied=True))
        elif not entry.name.isascii() and not is_text(entry.name):
            rejected.append(_rejected(entry, NO_TEXT))
        else:
            allowed.append(entry)
    return allowed, rejected


def _twins(entries: list[Entry], wanted: list[Entry]) -> set[bytes]:
    """The names of ``wanted`` that several functions have, in whatever modules."""
    seen: set[bytes] = set()
    twice: set[bytes] = set()
    for entry in entries:
        if entry.name in seen:
            twice.add(entry.name)
        seen.add(entry.name)
    return {entry.name for entry in wanted if entry.name in twice} if twice else twice


def _target(entry: Entry, address: int | None = None) -> Target:
    return Target(entry.name.decode(), as_text(entry.module) if entry.module else "", address, entry.site)


def _rejected(entry: Entry, reason: str, *, denied: bool = False) -> Rejected:
    return Rejected(as_text(entry.name), reason, module=as_text(entry.module), denied=denied)


# -- addresses -----------------------------------------------------------------------------------------------


def _with_addresses(kernel: Kernel, wanted: list[Entry], twins: set[bytes], targets: Targets) -> None:
    from rawkm.host import kallsyms

    try:
        symbols = kallsyms.addresses(kernel, [(entry.name, entry.module) for entry in wanted])
        hidden = HIDDEN if symbols.hidden else None
    except SyscallError as err:
        hidden = f"symbol addresses cannot be read ({err}): functions are attached by name"
    if hidden is not None:
        targets.notes.append(hidden)
        for entry in wanted:
            if entry.name in twins:
                targets.rejected.append(_rejected(entry, AMBIGUOUS))
            else:
                targets.ok.append(_target(entry))
    elif targets.source == SITES:
        _by_site(wanted, symbols, targets)
    else:
        _by_count(wanted, symbols, targets)


def _by_site(wanted: list[Entry], symbols: Addresses, targets: Targets) -> None:
    """Of the symbols of a name, the one that the site lies in: never a twin that cannot be traced."""
    for entry in wanted:
        site = entry.site or 0
        nearest = -1
        for address in symbols.of(entry.name, entry.module):
            if nearest < address <= site <= address + _SITE_REACH:
                nearest = address
        if nearest >= 0:
            targets.ok.append(_target(entry, nearest))
        else:
            targets.rejected.append(_rejected(entry, "kallsyms has no symbol at its ftrace site"))


def _by_count(wanted: list[Entry], symbols: Addresses, targets: Targets) -> None:
    """Without sites: all symbols of a name, provided that as many can be traced."""
    count: dict[tuple[bytes, bytes], int] = {}
    for entry in wanted:
        key = entry.name, entry.module
        count[key] = count.get(key, 0) + 1
    done: set[tuple[bytes, bytes]] = set()
    for entry in wanted:
        key = entry.name, entry.module
        if key in done:
            continue
        done.add(key)
        instances = symbols.of(*key)
        if not instances:
            targets.rejected.append(_rejected(entry, "kallsyms has no such symbol"))
        elif len(instances) in (1, count[key]):
            targets.ok += [_target(entry, address) for address in instances]
        else:
            which = f"{count[key]} of them can be traced, and the kernel does not say which"
            targets.rejected.append(_rejected(entry, f"{len(instances)} functions have this name, {which}"))


def labels(targets: Iterable[Target]) -> list[str]:
    """A text per target that tells it from the others: its name, and its address where it must."""
    targets = list(targets)
    count: dict[str, int] = {}
    for target in targets:
        count[target.label] = count.get(target.label, 0) + 1
    return [
        target.label if count[target.label] == 1 or target.address is None else f"{target.label} @{target.address:x}"
        for target in targets
    ]
