"""By one kprobe_multi link: choose by addresses or by names, find what spoils the batch, attach the rest."""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENOENT, EOPNOTSUPP, ESRCH

from rawkm.backend.model import REGISTERS_ARE_GONE, Attachment, Unavailable, no_step
from rawkm.errors import CANNOT_TRACE, AttachError, Culprit, NotSupportedError, SyscallError, UsageError
from rawkm.host import sysctl
from rawkm.link import kprobe_multi
from rawkm.uapi.constants import AttachType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from rawkm.answer import Probe
    from rawkm.backend.model import Job, Need, Step
    from rawkm.link.kprobe_multi import KprobeMultiLink
    from rawkm.prog import Program
    from rawkm.programs.context import Context
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Target

    # A target with its index, which is its cookie.
    Numbered = Sequence[tuple[int, Target]]
    T = TypeVar("T")
    Search = Callable[[Program, Numbered, str, bool, Step], dict[int, Culprit]]

AUTO, ADDRS, SYMS = "auto", "addrs", "syms"

# The ``feature`` of a NotSupportedError.
BY_ADDRESSES = "attaching by addresses"

# What one bad entry makes of a whole batch: names ESRCH (EINVAL in 5.18), addresses EINVAL (up to 6.13) or ENOENT.
_SPOILED = (ESRCH, EINVAL, ENOENT)

# From so many on a short table would be felt (see ``slow``).
_MANY = 5000

_RLIMIT_NOFILE = 7  # include/uapi/asm-generic/resource.h

_REASONS = {
    ESRCH: "the kernel finds no traceable function of this name",
    EINVAL: "the kernel has no traceable function there",
    ENOENT: "the kernel has no traceable function there",
}


def choose(kernel: Kernel, targets: Sequence[Target], by: str) -> str:
    """ADDRS or SYMS: addresses, which are never ambiguous, when all are known.

    Raises NotSupportedError for ADDRS when some are hidden, UsageError for SYMS when a name stands for several targets.
    """
    addressed = None not in [target.address for target in targets]
    if by == ADDRS and not addressed:
        restrict = sysctl.number(kernel, "kernel/kptr_restrict")
        help = "kernel.kptr_restrict is 2, which hides them from everybody" if restrict == 2 else "CAP_SYSLOG shows them"
        raise NotSupportedError(BY_ADDRESSES, "symbol addresses are hidden", help=f"{help}; --by syms needs none")
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
    step: Step = no_step,
) -> Attachment:
    """One link on all ``targets`` that the kernel takes. With ``cookies``, that of each is its index in ``targets``.

    A refused batch is searched for the culprits, and the rest is attached. That may take many calls: ``step`` is called before
    each, and may raise to end it. Raises AttachError when nothing is left or the kernel refuses for another reason,
    NotSupportedError when it cannot do kprobe_multi at all.
    """
    form = choose(prog.kernel, targets, by)
    left = list(enumerate(targets))
    culprits: list[Culprit] = []
    searches: list[Search] = [_by_symbols, _by_list, _by_names, _by_attaching]
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
        name = "kprobe-session" if prog.spec.attach_type == AttachType.TRACE_KPROBE_SESSION else "kprobe-multi"
        return Attachment([link], [prog], f"{name} ({form})", indexes, culprits, seconds * 1e3)


def attach_job(job: Job, need: Need, *, by: str, step: Step, session: bool = False) -> Attachment:
    """``attach`` for a job; ``session``: as a kprobe session."""
    from rawkm.programs import context as contexts

    name = "kprobe-session" if session else "kprobe-multi"
    if need.arguments and need.at_return:
        raise Unavailable(name, REGISTERS_ARE_GONE)
    try:
        if need.arguments:
            contexts.registers(job.kernel)
        is_return = _is_return(job.kernel) if session else 0
    except NotSupportedError as err:
        raise Unavailable(err.feature, err.evidence, help=err.help) from None
    if session:
        context: Context = contexts.Session(job.kernel, at_return=need.at_return, is_return=is_return)
    else:
        context = contexts.Registers(job.kernel, AttachType.TRACE_KPROBE_MULTI, at_return=need.at_return)
    prog = load(job, context, "kprobe_session" if session else "kprobe_multi")
    if len(job.targets) > _MANY and _table_is_short(job.kernel):
        job.remark(
            f"this kernel keeps the functions of its probes in 256 lists: with {len(job.targets):,} of them, each hit is slow "
            "(Linux 6.18 has a better table)"
        )
    retprobe = need.at_return and not session
    return attach(prog, job.targets, by=by, cookies=job.cookies, retprobe=retprobe, step=step)


def _is_return(kernel: Kernel) -> int:
    from rawkm.link.kprobe_session import kfuncs

    return kfuncs(kernel).is_return


def _table_is_short(kernel: Kernel) -> bool:
    # Reading the kernel's types takes as long as attaching: only where it can be.
    if not kernel.uname()[0].startswith(("6.14", "6.15", "6.16", "6.17")):
        return False
    from rawkm.backend.slow import short_table

    return short_table(kernel)


def load(job: Job, context: Context, feature: str, index: int | None = None) -> Program:
    """The job's program. Where that fails as the kernel does not have ``feature`` (of rawkm.features): NotSupportedError."""
    try:
        return job.load(context, index)
    except SyscallError:
        # An old kernel lacks a helper, or has smaller maps, long before it is asked for its link type: say what counts.
        from rawkm import features

        probe: Probe = getattr(features, feature)
        answer = features.ask(job.kernel, probe)
        if answer.state == features.NO:
            raise Unavailable.by(answer) from None
        raise
    except NotSupportedError as err:
        if err.feature == CANNOT_TRACE and context.type != ProgType.KPROBE:
            # Programs of another type may be allowed.
            raise Unavailable(err.feature, err.evidence, help=err.help) from None
        raise


def _link(prog: Program, chosen: Numbered, form: str, cookies: bool, retprobe: bool) -> tuple[KprobeMultiLink, float]:
    """The link, and the seconds that the kernel took."""
    addrs = syms = None
    if form == ADDRS:
        addrs = [target.address or 0 for _, target in chosen]
    else:
        syms = [target.name for _, target in chosen]
    numbers = [index for index, _ in chosen] if cookies else None
    session = prog.spec.attach_type == AttachType.TRACE_KPROBE_SESSION
    kernel = prog.kernel
    start = kernel.monotonic()
    link = kprobe_multi.attach(prog, addrs=addrs, syms=syms, cookies=numbers, retprobe=retprobe, session=session)
    return link, kernel.monotonic() - start


def _raise_if_unsupported(prog: Program, err: AttachError) -> None:
    """NotSupportedError where ``err`` means that this kernel has no kprobe_multi."""
    from rawkm import features

    if err.errno in (*_SPOILED, EOPNOTSUPP):
        session = prog.spec.attach_type == AttachType.TRACE_KPROBE_SESSION
        answer = features.ask(prog.kernel, features.kprobe_session if session else features.kprobe_multi)
        if answer.state == features.NO:
            raise Unavailable.by(answer) from None


# -- finding culprits ----------------------------------------------------------------------------------------------------------


def _by_symbols(prog: Program, targets: Numbered, _form: str, _retprobe: bool, _step: Step) -> dict[int, Culprit]:
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


def _by_list(prog: Program, targets: Numbered, form: str, retprobe: bool, step: Step) -> dict[int, Culprit]:
    """Of the functions that are not in the kernel's list of traceable ones, those that it refuses."""
    from rawkm.host.lines import whole_lines
    from rawkm.host.tracefs import TraceFs

    listed: set[bytes] = set()
    with TraceFs(prog.kernel) as tracefs:
        for text in whole_lines(tracefs.chunks("available_filter_functions") or ()):
            listed.update(line.partition(b" ")[0] for line in text.split(b"\n"))
    suspects = [(i, t) for i, t in targets if t.name.encode("utf-8", "surrogateescape") not in listed]
    if not listed or not suspects:
        return {}
    if form == ADDRS:
        # An address that is none is refused at once; a name takes a walk over all symbols.
        return _by_attaching(prog, suspects, form, retprobe, step)
    return _by_names(prog, suspects, form, retprobe, step)


def _by_names(prog: Program, targets: Numbered, _form: str, retprobe: bool, step: Step) -> dict[int, Culprit]:
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
    session = prog.spec.attach_type == AttachType.TRACE_KPROBE_SESSION

    def probe(some: Numbered) -> int:
        step(0, 0)
        kernel.rlimit(_RLIMIT_NOFILE, (0, hard))
        try:
            kprobe_multi.attach(prog, syms=[t.name for _, t in some], retprobe=retprobe, session=session).close()
        except AttachError as err:
            return 0 if err.errno == EMFILE else err.errno
        finally:
            kernel.rlimit(_RLIMIT_NOFILE, (soft, hard))
        return 0

    return _search(unique, probe)


def _by_attaching(prog: Program, targets: Numbered, form: str, retprobe: bool, step: Step) -> dict[int, Culprit]:
    """Attaches and detaches parts: slow, but it finds whatever the kernel refuses."""

    def probe(some: Numbered) -> int:
        step(0, 0)
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
    """The culprits among ``targets``, by index."""
    return {
        index: Culprit(target.label, errno, _REASONS.get(errno, "the kernel refused it"))
        for (index, target), errno in search(list(targets), probe).items()
    }


def search(targets: list[T], probe: Callable[[list[T]], int]) -> dict[T, int]:
    """Those that fail on their own, each with its errno, in about log2(n / k) probes for each of k among n.

    ``probe``: the errno of an attach to some of them, 0 when it works. Block after block is asked about; in a bad one, halving
    finds the first culprit. Blocks are as long as culprits lay apart before, and grow as long as they are good.
    """
    found: dict[T, int] = {}
    begin, block = 0, len(targets)
    while begin < len(targets):
        part = targets[begin : begin + block]
        errno = probe(part)
        if not errno:
            begin, block = begin + len(part), 2 * block
            continue
        first = 0
        while len(part) > 1:
            left = part[: len(part) // 2]
            wrong = probe(left)
            if wrong:
                part, errno = left, wrong
            else:
                # What the whole did wrong, the right half did.
                part, first = part[len(left) :], first + len(left)
        found[part[0]] = errno
        begin, block = begin + first + 1, first + 1
    return found
