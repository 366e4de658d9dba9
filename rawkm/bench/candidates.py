"""Functions to attach to for a measurement: those that every mechanism takes, that do no harm, and that hardly ever run."""

from __future__ import annotations

from rawkm.btf.kinds import FUNC
from rawkm.errors import BTFError, RawkmError, SyscallError
from rawkm.host.deny import DenyList
from rawkm.host.globs import to_bytes
from rawkm.host.lines import lines_holding
from rawkm.targets import Pattern, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawkm.btf import Btf
    from rawkm.syscall.kernel import Kernel

# In names of what runs all the time, or while things are attached: beyond the rules for everybody (rawkm.host.deny).
_BUSY = (
    b"lock", b"rcu", b"sched", b"irq", b"softirq", b"nmi", b"timer", b"clock", b"time", b"tick", b"idle", b"bpf",
    b"btf", b"trace", b"probe", b"perf", b"kallsyms", b"text_poke", b"patch", b"jump_label", b"static_call", b"entry",
    b"exit", b"sys_", b"syscall", b"fault", b"page", b"folio", b"vma", b"mm_", b"mmap", b"slab", b"kmem", b"alloc",
    b"free", b"copy", b"mem", b"str", b"cpu", b"preempt", b"fpu", b"xstate", b"task", b"thread", b"wake", b"wait",
    b"signal", b"work", b"mutex", b"sem", b"atomic", b"fd", b"file", b"read", b"write", b"vfs", b"path", b"dentry",
    b"inode", b"poll", b"tty", b"console", b"print", b"virt", b"fuse", b"module", b"stack", b"unwind", b"panic", b"die",
    b"oops", b"switch", b"get_", b"put_", b"hash", b"list", b"rb_", b"xa", b"idr", b"bit", b"ktime", b"apic", b"msr",
    b"exc_", b"do_", b"notify", b"notifier", b"cgroup", b"security", b"cap", b"audit", b"user", b"ptrace", b"kthread",
)  # fmt: skip


class Candidate:
    """A function: its ``name``, its symbol's ``address``, its BTF ``id`` (0 where there is no BTF)."""

    __slots__ = ("address", "id", "name")

    def __init__(self, name: str, address: int, id: int) -> None:
        self.name = name
        self.address = address
        self.id = id


def choose(kernel: Kernel, count: int) -> list[Candidate]:
    """Up to ``count`` of them, spread over the kernel, the same ones at each call. Raises RawkmError where there is none."""
    targets = resolve(kernel, [Pattern("vmlinux:*")], addresses=True)
    targets.keep_unique_names()
    ids = _btf_ids(kernel)
    named = {to_bytes(target.name): target.address for target in targets.ok if target.address is not None}
    found = [
        Candidate(name.decode(), named[name], ids.get(name, 0))
        for name in named.keys() - _busy(named)
        if name.isascii() and (not ids or name in ids)
    ]
    if not found:
        raise RawkmError(
            "no functions can be chosen to measure with: it takes the list of traceable functions and their addresses "
            "(rawkm doctor tells what is missing)"
        )
    found.sort(key=lambda candidate: candidate.address)
    return spread(found, count)


def _busy(names: Iterable[bytes]) -> set[bytes]:
    """Those with a busy word in them: one search per word through all names, not one per name."""
    text = b"\n" + b"\n".join(names) + b"\n"
    return {line for word in _BUSY for _, line in lines_holding(text, word)}


def spread(candidates: list[Candidate], count: int) -> list[Candidate]:
    """``count`` of them at even distances; all when there are fewer."""
    total = len(candidates)
    if total <= count:
        return candidates
    return [candidates[i * total // count] for i in range(count)]


def named(kernel: Kernel, name: str) -> Candidate:
    """The function ``name``, whatever it is. Raises RawkmError where there is none to trace."""
    targets = resolve(kernel, [Pattern(f"vmlinux:{name}")], deny=DenyList(builtin=False), addresses=True)
    address = targets.ok[0].address if len(targets.ok) == 1 else None
    if address is None:
        raise RawkmError(f"the kernel has no traceable function {name}, or hides its address")
    return Candidate(name, address, _btf_ids(kernel).get(name.encode(), 0))


def _btf_ids(kernel: Kernel) -> dict[bytes, int]:
    """The functions that trampolines take, by name: of one meaning, and without a variable number of arguments."""
    from rawkm.btf.kernel import vmlinux

    try:
        btf = vmlinux(kernel)
    except (SyscallError, BTFError):
        return {}
    ids: dict[bytes, int] = {}
    twice: set[bytes] = set()
    for id, name in zip(btf.of_kind(FUNC), btf.functions(), strict=True):
        if name in ids:
            twice.add(name)
        ids[name] = id
    return {name: id for name, id in ids.items() if name not in twice}


def takes_trampoline(btf: Btf, id: int) -> bool:
    """Whether fentry can be on it: a fixed number of arguments, six at most, none of them a struct."""
    from rawkm.btf.types import Composite

    try:
        params = btf.prototype(id).params
        return len(params) <= 6 and all(type and not isinstance(btf.resolve(type), Composite) for _, type in params)
    except BTFError:
        return False
