"""One attach per function: what all mechanisms that need it have in common."""

from __future__ import annotations

from errno import EACCES, EMFILE, ENFILE, ENOMEM, EPERM

from rawkm.backend.model import Attachment, Unavailable
from rawkm.errors import AttachError, Culprit, SyscallError, VerifierError
from rawkm.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawkm.backend.model import Job, Link, Step
    from rawkm.prog import Program
    from rawkm.targets import Target

    # Attaches to one target: the link, and the program if it is for this target alone.
    One = Callable[[int, Target], tuple[Link, Program | None]]

# From so many on it is worth saying beforehand. Bytes per function as seen on 5.10 to 6.12: a perf event with its probe; a
# program with its trampoline.
_MANY = 1000
_KPROBE_BYTES = 40 << 10
_TRAMPOLINE_BYTES = 24 << 10

# No fault of the function: nothing further can be attached.
_EXHAUSTED = (EMFILE, ENFILE, ENOMEM)


def attach_each(
    job: Job,
    chosen: Sequence[int],
    culprits: list[Culprit],
    one: One,
    *,
    backend: str,
    shared: Program | None,
    step: Step,
) -> Attachment:
    """Attaches to the targets with the indexes ``chosen``; those that the kernel refuses join ``culprits``.

    On any way out but the good one, everything is detached again.
    """
    if len(chosen) >= _MANY:
        size = len(chosen) * (_KPROBE_BYTES if shared is not None else _TRAMPOLINE_BYTES) >> 20
        job.remark(
            f"{backend}: {len(chosen):,} functions are attached one by one; the kernel needs about {size:,} MiB for it, "
            "and detaching takes as long again, or longer"
        )
    files.make_room(job.kernel, len(chosen) * (1 if shared is not None else 2))
    attached: list[int] = []
    progs = [] if shared is None else [shared]
    found = Attachment([], progs, backend, attached, culprits, 0.0)
    first: AttachError | None = None
    try:
        for done, index in enumerate(chosen):
            step(done, len(chosen))
            target = job.targets[index]
            start = job.kernel.monotonic()
            try:
                link, prog = one(index, target)
            except (AttachError, VerifierError) as err:
                if err.errno in _EXHAUSTED:
                    raise
                if err.errno in (EPERM, EACCES) and not attached:
                    raise Unavailable(backend, str(err)) from None
                if first is None and isinstance(err, AttachError):
                    first = err
                culprits.append(Culprit(target.label, err.errno, _words(err)))
                continue
            found.syscall_ms += (job.kernel.monotonic() - start) * 1e3
            found.links.append(link)
            attached.append(index)
            if prog is not None:
                progs.append(prog)
    except BaseException:
        if len(attached) >= _MANY:
            job.remark(f"detaching {len(attached):,} functions again")
        found.close()
        raise
    if not attached:
        refused = first or AttachError(backend, culprits[0].errno, hint="no function is left", backend=backend)
        refused.culprits = tuple(culprits)
        raise refused
    return found


def _words(err: SyscallError) -> str:
    if isinstance(err, VerifierError):
        said = [line.strip() for line in err.log.splitlines() if line.strip() and not line.startswith("processed ")]
        return said[-1] if said else "the verifier refuses the program there"
    return err.hint or "the kernel refused it"
