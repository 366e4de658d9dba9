"""Functions by another of their names.

Several symbols may stand at one address (SYSCALL_DEFINE0 makes __do_sys_getppid, __x64_sys_getppid and __ia32_sys_getppid one
function). The kernel's list has one of them; who names another means the same function, and the kernel takes it.
"""

from __future__ import annotations

from rawkm.errors import SyscallError
from rawkm.host import kallsyms
from rawkm.host.lines import whole_lines
from rawkm.targets.listing import SITES
from rawkm.targets.model import Rejected, Target, as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.host.deny import DenyList
    from rawkm.host.tracefs import TraceFs
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets.model import Targets
    from rawkm.targets.patterns import Pattern


def find_aliases(
    kernel: Kernel, tracefs: TraceFs, patterns: Sequence[Pattern], deny: DenyList, reach: int, targets: Targets
) -> None:
    """Moves exact names that ``targets`` miss, but that are further names of listed functions, to where they belong.

    ``reach``: how far an ftrace site may lie behind its symbol. Does nothing where addresses are hidden, or before Linux 6.5,
    whose list has no sites.
    """
    missing = {rejected.name for rejected in targets.missing}
    lost = [pattern for pattern in patterns if pattern.exact and pattern.text in missing]
    wanted: dict[int, tuple[Pattern, bytes, bytes]] = {}
    try:
        for address, name, module in kallsyms.functions(kernel, [pattern.prefix for pattern in lost]):
            for pattern in lost:
                if address and pattern.matches(name) and pattern.within(module):
                    wanted[address] = pattern, name, module
    except SyscallError:
        return
    if not wanted:
        return
    have = {(target.name, target.module) for target in targets.ok}
    for address, (site, other) in _sites(tracefs, list(wanted), reach).items():
        pattern, name, module = wanted[address]
        text, within = as_text(name), as_text(module)
        reason = deny.reason(name) or deny.reason(other)
        targets.missing = [rejected for rejected in targets.missing if rejected.name != pattern.text]
        if reason is not None:
            targets.rejected.append(Rejected(text, reason, module=within, denied=True))
        elif (as_text(other), within) in have:
            targets.rejected.append(Rejected(text, f"another name of {as_text(other)}, which is chosen, too", module=within))
        else:
            have.add((as_text(other), within))
            targets.ok.append(Target(text, within, address, site))


def _sites(tracefs: TraceFs, addresses: Sequence[int], reach: int) -> dict[int, tuple[int, bytes]]:
    """address → (ftrace site, the name that the list has for it), for those that have one."""
    found: dict[int, tuple[int, bytes]] = {}
    for text in whole_lines(tracefs.chunks(SITES) or ()):
        for address in addresses:
            for site in range(address, address + reach + 1):
                at = text.find(b"\n%x " % site)
                if at >= 0:
                    line = text[at + 1 : text.index(b"\n", at + 1)]
                    found[address] = site, line.split(b" ")[1]
                    break
    return found
