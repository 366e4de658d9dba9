"""Attaching to a list of targets: choose by addresses or by names, find what spoils the batch, attach the rest."""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENOENT, ESRCH
from time import perf_counter

from rawkm.errors import AttachError, Culprit, NotSupportedError, UsageError
from rawkm.link import kprobe_multi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawkm.link.kprobe_multi import KprobeMultiLink
    from rawkm.prog import Program
    from rawkm.targets import Target

    Probe = Callable[[Sequence[Target]], int]

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
    """A live link and how it came about. ``backend``: "kprobe-multi (addrs)"; ``attached``: how many functions.

    ``culprits``: targets left out because the kernel refused them. ``syscall_ms``: LINK_CREATE alone, the successful one.
    """

    __slots__ = ("attached", "backend", "culprits", "link", "syscall_ms")

    def __init__(
        self, link: KprobeMultiLink, backend: str, attached: int, culprits: list[Culprit], syscall_ms: float
    ) -> None:
        self.link = link
        self.backend = backend
        self.attached = attached
        self.culprits = culprits
        self.syscall_ms = syscall_ms


def choose(targets: Sequence[Target], by: str) -> str:
    """ADDRS or SYMS. Addresses are never ambiguous, so they are taken when all are known. Raises UsageError where ``by`` cannot be."""
    addressed = all(target.address is not None for target in targets)
    if by == ADDRS and not addressed:
        raise NotSupportedError(
            "attaching by addresses", "symbol addresses are hidden", help="use --by syms, or give CAP_SYSLOG (kernel.kptr_restrict)"
        )
    if by == SYMS or (by == AUTO and not addressed):
        names = [target.name for target in targets]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})[:3]
            raise UsageError(f"several functions are named {', '.join(twice)}: names do not tell them apart, use --by addrs")
        return SYMS
    return ADDRS


def attach(prog: Program, targets: Sequence[Target], *, by: str = AUTO, retprobe: bool = False) -> Attachment:
    """One link on all ``targets`` that the kernel takes. The cookie of each is its index in ``targets``.

    A refused batch is searched for the culprits, and the rest is attached. Raises AttachError when nothing is left or the kernel
    refuses for another reason, NotSupportedError when it cannot do kprobe_multi at all.
    """
    form = choose(targets, by)
    culprits: dict[int, Culprit] = {}
    for find in (None, _by_names, _by_attaching):
        if find is not None:
            found = find(prog, [(i, t) for i, t in enumerate(targets) if i not in culprits], form, retprobe)
            if not found:
                continue
            culprits.update(found)
        chosen = [(i, t) for i, t in enumerate(targets) if i not in culprits]
        if not chosen:
            break
        try:
            link, seconds = _link(prog, chosen, form, retprobe)
        except AttachError as err:
            failure = err
            if err.errno not in _SPOILED:
                raise _explained(prog, err) from None
            if find is None:
                # Before a long search: is it the batch, or can this kernel not do it at all?
                unsupported = _explained(prog, err)
                if isinstance(unsupported, NotSupportedError):
                    raise unsupported from None
            continue
        return Attachment(link, f"kprobe-multi ({form})", len(chosen), list(culprits.values()), seconds * 1e3)
    raise AttachError(
        failure.call,
        failure.errno,
        attr=failure.attr,
        hint=failure.hint,
        backend="kprobe-multi",
        culprits=list(culprits.values()),
    )


def _link(
    prog: Program, chosen: Sequence[tuple[int, Target]], form: str, retprobe: bool
) -> tuple[KprobeMultiLink, float]:
    cookies = [index for index, _ in chosen]
    if form == ADDRS:
        addrs = [target.address or 0 for _, target in chosen]
        start = perf_counter()
        link = kprobe_multi.attach(prog, addrs=addrs, cookies=cookies, retprobe=retprobe)
    else:
        syms = [target.name for _, target in chosen]
        start = perf_counter()
        link = kprobe_multi.attach(prog, syms=syms, cookies=cookies, retprobe=retprobe)
    return link, perf_counter() - start


def _explained(prog: Program, err: AttachError) -> AttachError | NotSupportedError:
    """``err``, or what it means where the kernel cannot do kprobe_multi."""
    from rawkm import features

    answer = features.kprobe_multi(prog.kernel)
    return answer.error() if answer.state == features.NO else err


# -- finding culprits ----------------------------------------------------------------------------------------------------------


def _by_names(
    prog: Program, targets: Sequence[tuple[int, Target]], form: str, retprobe: bool
) -> dict[int, Culprit]:
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

    def probe(some: Sequence[tuple[int, Target]]) -> int:
        kernel.rlimit(_RLIMIT_NOFILE, (0, hard))
        try:
            kprobe_multi.attach(prog, syms=[t.name for _, t in some], retprobe=retprobe).close()
        except AttachError as err:
            return 0 if err.errno == EMFILE else err.errno
        finally:
            kernel.rlimit(_RLIMIT_NOFILE, (soft, hard))
        return 0

    return _search(unique, probe)


def _by_attaching(
    prog: Program, targets: Sequence[tuple[int, Target]], form: str, retprobe: bool
) -> dict[int, Culprit]:
    """Attaches and detaches parts: slow, but it finds whatever the kernel refuses."""

    def probe(some: Sequence[tuple[int, Target]]) -> int:
        try:
            link, _ = _link(prog, some, form, retprobe)
        except AttachError as err:
            if err.errno in _SPOILED:
                return err.errno
            raise
        link.close()
        return 0

    return _search(list(targets), probe)


def _search(
    targets: Sequence[tuple[int, Target]], probe: Callable[[Sequence[tuple[int, Target]]], int]
) -> dict[int, Culprit]:
    """The targets that fail on their own, by halving: about k × log2(n / k) probes for k of n."""
    found: dict[int, Culprit] = {}
    # (part, known to be bad)
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
        # A bad part whose left half is good has a bad right half: no need to ask.
        left_bad = bool(probe(left)) if len(left) > 1 else None
        if left_bad is None:
            parts += [(right, False), (left, False)]
        elif left_bad:
            parts += [(right, False), (left, True)]
        else:
            parts.append((right, True))
    return found
