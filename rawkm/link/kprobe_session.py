"""kprobe session: one program that runs at entry and at return of many functions (Linux 6.10), with 8 bytes in between.

The link is a kprobe_multi link of another type. Returning 0 from the entry run asks for the return run, 1 does without. Which run
it is, and the 8 bytes that the entry run leaves to the return run, the program learns from two kernel functions.
"""

from __future__ import annotations

from errno import EOPNOTSUPP, ESRCH

from rawkm.errors import AttachError, BTFError, NotSupportedError, SyscallError
from rawkm.link import kprobe_multi
from rawkm.uapi.constants import AttachType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.answer import Answer
    from rawkm.link.kprobe_multi import KprobeMultiLink
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel

FEATURE = "kprobe_session"


class Kfuncs:
    """The BTF ids of the two kernel functions, for ``asm.kfunc``. R1 is the context for both: Linux 7.0 wants it so, older
    kernels do not look at it. ``is_return``: R0 = 0 or 1. ``cookie``: R0 = the address of the 8 bytes, which at entry are
    whatever was there before."""

    __slots__ = ("cookie", "is_return")

    def __init__(self, is_return: int, cookie: int) -> None:
        self.is_return = is_return
        self.cookie = cookie


def kfuncs(kernel: Kernel) -> Kfuncs:
    """Raises NotSupportedError where the kernel's BTF has no such functions."""
    from rawkm.btf.kernel import function_id

    try:
        return Kfuncs(function_id(kernel, "bpf_session_is_return"), function_id(kernel, "bpf_session_cookie"))
    except (BTFError, SyscallError) as err:
        raise NotSupportedError(f"{FEATURE} does not work here", str(err), help="Linux 6.10 and newer have it") from None


def attach(
    prog: Program,
    *,
    addrs: Sequence[int] | None = None,
    syms: Sequence[str] | None = None,
    cookies: Sequence[int] | None = None,
) -> KprobeMultiLink:
    """As kprobe_multi.attach, for a program that was loaded for TRACE_KPROBE_SESSION."""
    return kprobe_multi.attach(prog, addrs=addrs, syms=syms, cookies=cookies, session=True)


def probe(kernel: Kernel) -> Answer:
    """By asking for a function that does not exist, and for the two kernel functions."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.errors import errno_name
    from rawkm.host import caps
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    spec = ProgramSpec(
        "rawkm_probe", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_SESSION, insns=[Mov.imm(R0, 0), exit_()]
    )
    try:
        with spec.load(kernel) as prog:
            attach(prog, syms=[kprobe_multi.NO_SUCH_FUNCTION]).close()
    except AttachError as err:
        said = f"LINK_CREATE ({FEATURE}) → {errno_name(err.errno)}"
        try:
            kfuncs(kernel)
        except NotSupportedError as missing:
            return Answer(FEATURE, NO, f"{said}, and {missing.evidence}", missing.help)
        if err.errno == ESRCH:
            return Answer(FEATURE, YES, f"{said} for a name that does not exist, and the kernel's BTF has bpf_session_is_return")
        return Answer(FEATURE, NO if err.errno == EOPNOTSUPP else UNKNOWN, f"{said}: {err.hint}")
    except SyscallError as err:
        return refused(kernel, FEATURE, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    return Answer(FEATURE, UNKNOWN, f"LINK_CREATE attached to {kprobe_multi.NO_SUCH_FUNCTION}, which should not exist")
