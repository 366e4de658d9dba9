"""Targets by their BTF ids, for mechanisms that know functions by these: with what they take and return."""

from __future__ import annotations

from errno import EINVAL, ENOENT

from rawkm.backend.model import Unavailable
from rawkm.btf.kernel import VMLINUX, vmlinux
from rawkm.btf.kinds import FUNC
from rawkm.errors import BTFError, Culprit, SyscallError
from rawkm.host import kallsyms
from rawkm.host.deny import NORETURN_RULES, TRAMPOLINE_RULES, DenyList
from rawkm.programs.signature import Signature, signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rawkm.backend.model import Job, Need
    from rawkm.btf import Btf
    from rawkm.targets import Target

_FEW = 16


class Function:
    """A target's ``index`` and its BTF ``id``."""

    __slots__ = ("_btf", "id", "index")

    def __init__(self, index: int, id: int, btf: Btf) -> None:
        self.index = index
        self.id = id
        self._btf = btf

    @property
    def signature(self) -> Signature:
        """What it takes and returns."""
        return signature(self._btf, self.id)


def functions(job: Job, need: Need, name: str) -> tuple[list[Function], list[Culprit]]:
    """Those of the job's targets that a trampoline can be for, and the others, each with the reason.

    The kernel goes from the BTF id to the name, and by the name to the first function that has it: a name that several have is
    left out. Raises Unavailable where there is no BTF.
    """
    try:
        btf = vmlinux(job.kernel)
        ids = _ids(btf, job.targets)
    except (SyscallError, BTFError) as err:
        raise Unavailable(name, f"it names functions by their BTF ids, and {VMLINUX} cannot be used ({err})") from None
    rules = (*TRAMPOLINE_RULES, *NORETURN_RULES) if need.at_return else TRAMPOLINE_RULES
    deny = DenyList.of(*rules)
    raw = [target.name.encode("utf-8", "surrogateescape") for target in job.targets]
    denied = deny.denied(raw)
    symbols = kallsyms.addresses(job.kernel, [(each, b"") for each in raw])
    good: list[Function] = []
    culprits: list[Culprit] = []
    for index, (target, each) in enumerate(zip(job.targets, raw, strict=True)):
        found = ids.get(each, [])
        errno, reason = EINVAL, denied.get(each, "")
        if reason:
            pass
        elif target.module:
            reason = f"{name} is for functions of the kernel image, this is a module's"
        elif not found:
            errno, reason = ENOENT, "the kernel's BTF does not have it"
        elif len(found) > 1 or len(symbols.of(each, b"")) > 1:
            reason = "several functions have this name, and BTF does not tell them apart"
        elif btf.is_variadic(found[0]):
            reason = "it takes a variable number of arguments"
        else:
            good.append(Function(index, found[0], btf))
            continue
        culprits.append(Culprit(target.label, errno, reason))
    return good, culprits


def _ids(btf: Btf, targets: Sequence[Target]) -> Mapping[bytes, list[int]]:
    """Name → BTF ids. Looking a few names up is faster than going through all functions."""
    if len(targets) > _FEW:
        return btf.function_ids()
    return {target.name.encode("utf-8", "surrogateescape"): btf.find_all(target.name, FUNC) for target in targets}
