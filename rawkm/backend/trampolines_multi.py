"""fentry or fexit on many functions by one link (Linux 7.2)."""

from __future__ import annotations

from errno import EINVAL, ENOENT

from rawkm.backend.functions import functions
from rawkm.backend.model import Attachment, Unavailable
from rawkm.backend.multi import load, search
from rawkm.errors import AttachError, Culprit
from rawkm.link import tracing_multi
from rawkm.programs.context import TrampolineMulti

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.functions import Function
    from rawkm.backend.model import Job, Need, Step
    from rawkm.link.tracing_multi import TracingMultiLink

_SPOILED = (EINVAL, ENOENT)
_REASONS = {
    EINVAL: "the kernel does not let a program of this kind on it",
    ENOENT: "the kernel has no traceable function there",
}


def attach(job: Job, need: Need, *, step: Step) -> Attachment:
    """One link on all functions that the kernel takes; the others are searched for, and named."""
    from rawkm import features

    name = "fexit-multi" if need.at_return else "fentry-multi"
    answer = features.ask(job.kernel, features.fentry_multi)
    if answer.state == features.NO:
        raise Unavailable.by(answer)
    chosen, culprits = functions(job, need, name)
    prog = load(job, TrampolineMulti(at_return=need.at_return), "fentry_multi")

    def link(some: list[Function]) -> TracingMultiLink:
        cookies = [function.index for function in some] if job.cookies else None
        return tracing_multi.attach(prog, [function.id for function in some], cookies=cookies)

    def probe(some: list[Function]) -> int:
        step(0, 0)
        try:
            link(some).close()
        except AttachError as err:
            if err.errno in _SPOILED:
                return err.errno
            raise
        return 0

    searched = False
    while True:
        if not chosen:
            errno = culprits[0].errno if culprits else EINVAL
            raise AttachError("bpf(BPF_LINK_CREATE)", errno, hint="no function is left", backend=name, culprits=culprits)
        start = job.kernel.monotonic()
        try:
            live = link(chosen)
        except AttachError as err:
            bad = {} if searched or err.errno not in _SPOILED else search(chosen, probe)
            if not bad:
                raise
            searched = True
            for function, errno in bad.items():
                label = job.targets[function.index].label
                culprits.append(Culprit(label, errno, _REASONS.get(errno, "the kernel refused it")))
            chosen = [function for function in chosen if function not in bad]
            continue
        milliseconds = (job.kernel.monotonic() - start) * 1e3
        return Attachment([live], [prog], name, [function.index for function in chosen], culprits, milliseconds)
