"""An fentry or fexit program for each function: the cheapest at each hit, and the dearest to attach and to detach."""

from __future__ import annotations

from errno import EINVAL

from rawkm.backend.functions import functions
from rawkm.backend.model import Partial, Unavailable
from rawkm.backend.multi import load
from rawkm.backend.singles import attach_each
from rawkm.errors import AttachError, UsageError
from rawkm.link import tracing
from rawkm.programs.context import Trampoline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.model import Attachment, Job, Link, Need, Step
    from rawkm.prog import Program
    from rawkm.targets import Target


def attach(job: Job, need: Need, name: str, *, step: Step, auto: bool) -> Attachment:
    """``name``: "fentry" or "fexit", as ``need`` has it. ``auto``: nobody asked for it by name.

    Raises Unavailable where the kernel has none; with ``auto`` also where it has no protection against recursion, and Partial
    where some of the functions cannot have one.
    """
    if name == "fexit" and not need.at_return:
        raise UsageError("fexit runs at return: it goes with -r")
    if name == "fentry" and need.at_return:
        raise UsageError("fentry runs at entry: at return there is fexit")
    chosen, culprits = functions(job, need, name)
    if auto and culprits:
        some = f"{len(culprits):,} of {len(job.targets):,} functions cannot have a trampoline"
        raise Partial(name, f"{some} ({culprits[0].target}: {culprits[0].reason})")
    by_index = {function.index: function for function in chosen}

    def one(index: int, _target: Target) -> tuple[Link, Program | None]:
        known = by_index[index]
        call = known.signature
        if call.untraceable:
            raise AttachError(name, EINVAL, hint=call.untraceable, backend=name)
        returns = call.returned is not None
        context = Trampoline(known.id, call.slots, at_return=need.at_return, returns=returns)
        prog = load(job, context, name, index)
        if auto and prog.recursion_misses() is None:
            raise Unavailable(name, "before Linux 5.12 the kernel does not keep such programs from recursion")
        return tracing.attach(prog), prog

    if not chosen:
        raise AttachError(name, culprits[0].errno, hint="no function is left", backend=name, culprits=culprits)
    indexes = [function.index for function in chosen]
    return attach_each(job, indexes, culprits, one, backend=name, shared=None, step=step)
