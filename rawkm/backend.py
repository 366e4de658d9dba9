"""Attaching to many targets: choose by addresses or by names, find what spoils the batch, attach the rest."""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENOENT, EOPNOTSUPP, ESRCH
from time import perf_counter

from rawkm.errors import AttachError, Culprit, NotSupportedError, SyscallError, UsageError
from rawkm.host import sysctl
from rawkm.link import kprobe_multi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawkm.link.kprobe_multi import KprobeMultiLink
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Target

    # A target with its index, which is its cookie.
    Numbered = Sequence[tuple[int, Target]]
    Search = Callable[[Program, Numbered, str, bool, Callable[[], None]], dict[int, Culprit]]

AUTO, ADDRS, SYMS = "auto", "addrs", "syms"

# What one bad entry makes of a whole batch: names ESRCH (EINVAL in 5.18), addresses EINVAL (up to 6.13) or ENOENT.
_SPOILED = (ESRCH, EINVAL, ENOENT)

_RLIMIT_NOFILE = 7  # include/uapi/asm-generic/resource.h

_REASONS = {
    ESRCH: "the kernel finds no traceable function of this name",
    EINVAL: "the kernel has no traceable function there",
    ENOENT: "the kernel has no traceable function there",
}


class Attachment:
    """A live link and how it came about. ``backend``: "kprobe-multi (addrs)"; ``attached``: the indexes of the targets that are.

    ``culprits``: targets left out because the kernel refused them. ``syscall_ms``: LINK_CREATE alone, the successful one.
    """

    __slots__ = ("attached", "backend", "culprits", "link", "syscall_ms")

    def __init__(
        self, link: KprobeMultiLink, backend: str, attached: list[int], culprits: list[Culprit], syscall_ms: float
    ) -> None:
        self.link = link
        self.backend = backend
        self.attached = attached
        self.culprits = culprits
        self.syscall_ms = syscall_ms


def choose(kernel: Kernel, targets: Sequence[Target], by: str) -> str:
    """ADDRS or SYMS: addresses, which are never ambiguous, when all are known.

    Raises NotSupportedError for ADDRS when some are hidden, UsageError for SYMS when a name stands for several targets.
    """
    addressed = None not in [target.address for target in targets]
    if by == ADDRS and not addressed:
        restrict = sysctl.number(kernel, "kernel/kptr_restrict")
        help = "kernel.kptr_restrict is 2, which hides them from everybody" if restrict == 2 else "CAP_SYSLOG shows them"
        raise NotSupportedError("attaching by addresses", "symbol addresses are hidden", help=f"{help}; --by syms needs none")
    if by == SYMS or (by == AUTO and not addressed):
        seen: set[str] = set()
        for target in targets:
            if target.name in seen:
                raise UsageError(f"several functions are named {target.name}: names do not tell them apart, addresses do")
            seen.add(target.name)
        return SYMS
    return ADDRS


def attach(
    prog: Program,
    targets: Sequence[Target],
    *,
    by: str = AUTO,
    cookies: bool = True,
    retprobe: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Attachment:
    """One link on all ``targets`` that the kernel takes. With ``cookies``, that of each is its index in ``targets``.

    A refused batch is searched for the culprits, and the rest is attached. That may take many calls: ``step`` is called before
    each, and may raise to end it. Raises AttachError when nothing is left or the kernel refuses for another reason,
    NotSupportedError when it cannot do kprobe_multi at all.
    """
    form = choose(prog.kernel, targets, by)
    left = list(enumerate(targets))
    culprits: list[Culprit] = []
    searches: list[Search] = [_by_symbols, _by_names, _by_attaching]
    while True:
        try:
            link, seconds = _link(prog, left, form, cookies, retprobe)
        except AttachError as err:
            if not culprits:
                # Before a long search: is it the batch, or can this kernel not do it at all?
                _raise_if_unsupported(prog, err)
            found: dict[int, Culprit] = {}
            while searches and not found and err.errno in _SPOILED:
                found = searches.pop(0)(prog, left, form, retprobe, step)
            culprits += found.values()
            left = [(index, target) for index, target in left if index not in found]
            if not found or not left:
                err.culprits = tuple(culprits)
                raise
            continue
        indexes = [index for index, _ in left]
        return Attachment(link, f"kprobe-multi ({form})", indexes, culprits, seconds * 1e3)


def _link(prog: Program, chosen: Numbered, form: str, cookies: bool, retprobe: bool) -> tuple[KprobeMultiLink, float]:
    """The link, and the seconds that the kernel took."""
    addrs = syms = None
    if form == ADDRS:
        addrs = [target.address or 0 for _, target in chosen]
    else:
        syms = [target.name for _, target in chosen]
    numbers = [index for index, _ in chosen] if cookies else None
    start = perf_counter()
    link = kprobe_multi.attach(prog, addrs=addrs, syms=syms, cookies=numbers, retprobe=retprobe)
    return link, perf_counter() - start


def _raise_if_unsupported(prog: Program, err: AttachError) -> None:
    """NotSupportedError where ``err`` means that this kernel has no kprobe_multi."""
    from rawkm import features

    if err.errno in (*_SPOILED, EOPNOTSUPP):
        answer = features.kprobe_multi(prog.kernel)
        if answer.state == features.NO:
            raise answer.error() from None


# -- finding culprits ----------------------------------------------------------------------------------------------------------


def _by_symbols(prog: Program, targets: Numbered, _form: str, _retprobe: bool, _step: Callable[[], None]) -> dict[int, Culprit]:
    """Names that are no symbols at all: one look at kallsyms, whose names everybody may read, finds them all."""
    from rawkm.host import kallsyms

    wanted = {target.name.encode("utf-8", "surrogateescape") for _, target in targets}
    try:
        known = {name for _, name, _ in kallsyms.functions(prog.kernel) if name in wanted}
    except SyscallError:
        return {}
    return {
        index: Culprit(target.label, ESRCH, "the kernel has no function of this name")
        for index, target in targets
        if target.name.encode("utf-8", "surrogateescape") not in known
    }


def _by_names(prog: Program, targets: Numbered, _form: str, retprobe: bool, step: Callable[[], None]) -> dict[int, Culprit]:
    """Asks for names while no fd can be made: EMFILE says that every name resolved, ESRCH that one did not. Nothing is attached.

    The kernel resolves the names before it makes the fd, and makes the fd before it attaches (6.12, 7.2). Only names that stand
    for one function are asked for.
    """
    count: dict[str, int] = {}
    for _, target in targets:
        count[target.name] = count.get(target.name, 0) + 1
    unique = [(i, t) for i, t in targets if count[t.name] == 1]
    kernel = prog.kernel
    soft, hard = kernel.rlimit(_RLIMIT_NOFILE)

    def probe(some: Numbered) -> int:
        step()
        kernel.rlimit(_RLIMIT_NOFILE, (0, hard))
        try:
            kprobe_multi.attach(prog, syms=[t.name for _, t in some], retprobe=retprobe).close()
        except AttachError as err:
            return 0 if err.errno == EMFILE else err.errno
        finally:
            kernel.rlimit(_RLIMIT_NOFILE, (soft, hard))
        return 0

    return _search(unique, probe)


def _by_attaching(prog: Program, targets: Numbered, form: str, retprobe: bool, step: Callable[[], None]) -> dict[int, Culprit]:
    """Attaches and detaches parts: slow, but it finds whatever the kernel refuses."""

    def probe(some: Numbered) -> int:
        step()
        try:
            link, _ = _link(prog, some, form, False, retprobe)
        except AttachError as err:
            if err.errno in _SPOILED:
                return err.errno
            raise
        link.close()
        return 0

    return _search(list(targets), probe)


def _search(targets: Numbered, probe: Callable[[Numbered], int]) -> dict[int, Culprit]:
    """The targets that fail on their own, by halving: about k × log2(n / k) probes for k of n."""
    found: dict[int, Culprit] = {}
    # (part, whether it is known to hold a culprit)
    parts = [(list(targets), False)]
    while parts:
        part, bad = parts.pop()
        if not part:
            continue
        if len(part) == 1 or not bad:
            errno = probe(part)
            if not errno:
                continue
            if len(part) == 1:
                index, target = part[0]
                found[index] = Culprit(target.label, errno, _REASONS.get(errno, "the kernel refused it"))
                continue
        middle = len(part) // 2
        left, right = part[:middle], part[middle:]
        if probe(left):
            parts += [(right, False), (left, True)]
        else:
            # A bad part whose left half is good has a bad right half: no need to ask.
            parts.append((right, True))
    return found
