"""A kprobe or kretprobe for each function, through perf or through tracefs."""

from __future__ import annotations

from rawkm.backend.model import REGISTERS_ARE_GONE, Unavailable
from rawkm.backend.multi import ADDRS, BY_ADDRESSES, SYMS, load
from rawkm.backend.singles import attach_each
from rawkm.errors import NotSupportedError
from rawkm.programs import context as contexts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.model import Attachment, Job, Link, Need, Step
    from rawkm.prog import Program
    from rawkm.targets import Target


def attach(job: Job, need: Need, name: str, *, by: str, step: Step) -> Attachment:
    """``name``: "kprobe" or "tracefs-kprobe". One program serves all where perf events have links, and with them cookies (5.15);
    else each function has its own. Raises Unavailable where the kernel or container forbids such probes.
    """
    from rawkm import features

    kernel = job.kernel
    if need.arguments and need.at_return:
        raise Unavailable(name, REGISTERS_ARE_GONE)
    if need.arguments:
        try:
            contexts.registers(kernel)
        except NotSupportedError as err:
            raise Unavailable(err.feature, err.evidence) from None
    answer = features.ask(kernel, features.kprobe if name == "kprobe" else features.tracefs_kprobe)
    if answer.state == features.NO:
        raise Unavailable.by(answer)
    context = contexts.Registers(kernel, 0, at_return=need.at_return)
    cookies = features.ask(kernel, features.perf_link).state == features.YES
    shared = load(job, context, "loading") if cookies else None

    def where(target: Target) -> tuple[str | None, int | None]:
        """By name, or by address."""
        if target.address is not None and by != SYMS:
            return None, target.address
        if by == ADDRS:
            raise NotSupportedError(BY_ADDRESSES, "symbol addresses are hidden", help="--by syms needs none")
        return f"{target.module}:{target.name}" if target.module else target.name, None

    def program(index: int) -> tuple[Program, Program | None, int]:
        """The program, the same again if it is for this function alone, and the cookie."""
        if shared is not None:
            return shared, None, index
        own = load(job, context, "loading", index)
        return own, own, 0

    if name == "kprobe":
        from rawkm.link import perf_kprobe

        pmu = perf_kprobe.read_pmu(kernel)

        def by_perf(index: int, target: Target) -> tuple[Link, Program | None]:
            prog, own, cookie = program(index)
            symbol, address = where(target)
            return perf_kprobe.attach(prog, name=symbol, address=address, retprobe=need.at_return, cookie=cookie, pmu=pmu), own

        chosen = range(len(job.targets))
        return attach_each(job, chosen, [], by_perf, backend=_label(name, need), shared=shared, step=step)

    from rawkm.link import tracefs_kprobe

    left = tracefs_kprobe.leftovers(kernel)
    if left:
        many = f"{len(left):,} probes that a killed rawkm left" if len(left) > 1 else "a probe that a killed rawkm left"
        job.remark(f"kprobe_events has {many} (rawkm doctor --clean removes what nobody uses): {left[0].event}")
    maker = tracefs_kprobe.Maker(kernel)

    def by_tracefs(index: int, target: Target) -> tuple[Link, Program | None]:
        prog, own, cookie = program(index)
        symbol, address = where(target)
        return maker.attach(prog, name=symbol, address=address, retprobe=need.at_return, cookie=cookie), own

    try:
        found = attach_each(job, range(len(job.targets)), [], by_tracefs, backend=_label(name, need), shared=shared, step=step)
    except BaseException:
        maker.close()
        raise
    # It removes the events, to which nothing must be attached any more.
    found.afterwards = maker.close
    return found


def _label(name: str, need: Need) -> str:
    return name.replace("kprobe", "kretprobe") if need.at_return else name
