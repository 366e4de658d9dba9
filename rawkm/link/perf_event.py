"""A program on a perf event: a link of its own from Linux 5.15 on, an ioctl before.

Once attached, the program runs for every task on every CPU, whatever the event was opened for, and whether or not it is enabled.
"""

from __future__ import annotations

from errno import EBADF, EINVAL

from rawkm.errors import SyscallError
from rawkm.handle import Handle
from rawkm.link.refusal import refusal
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType, PerfIoc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawkm.answer import Answer
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value


class PerfEventLink(Handle):
    """A live attachment. Closing it detaches. ``linked``: it is a BPF link, else the perf event itself, which tells nothing."""

    __slots__ = ("linked",)

    def __init__(self, kernel: Kernel, fd: int, linked: bool) -> None:
        super().__init__(kernel, fd)
        self.linked = linked

    def missed(self) -> int | None:
        """Hits of a kprobe that did not reach the program; None before Linux 6.7 and for what is no link."""
        if not self.linked:
            return None
        info, filled = self.kernel.obj_info(self.fd, packed.LINK_INFO_PERF_EVENT_KPROBE)
        missed = info["perf_event.kprobe.missed"]
        assert isinstance(missed, int)
        return missed if filled >= 56 else None


def attach(prog: Program, event: int, *, cookie: int = 0, hints: Mapping[int, str], backend: str) -> PerfEventLink:
    """Attaches ``prog`` to the perf event whose fd is ``event``; the fd belongs to this function from now on.

    By LINK_CREATE, else, without a cookie, by PERF_EVENT_IOC_SET_BPF. ``hints`` and ``backend``: for the AttachError.
    """
    kernel = prog.kernel
    values: dict[str, Value] = {
        "link_create.prog_fd": prog.fd,
        "link_create.target_fd": event,
        "link_create.attach_type": AttachType.PERF_EVENT,
        "link_create.perf_event.bpf_cookie": cookie,
    }
    try:
        try:
            link = PerfEventLink(kernel, kernel.bpf(packed.LINK_CREATE_PERF_EVENT, values).ret, True)
        except SyscallError as err:
            if err.errno != EINVAL or cookie:
                raise
        else:
            kernel.close(event)
            return link
        kernel.ioctl(event, PerfIoc.SET_BPF, prog.fd)
    except BaseException as err:
        kernel.close(event)
        if isinstance(err, SyscallError):
            raise refusal(err, hints, backend) from None
        raise
    return PerfEventLink(kernel, event, False)


def probe(kernel: Kernel) -> Answer:
    """Whether perf events can have links, and so cookies: by asking for one on no event at all."""
    from rawkm.answer import NO, UNKNOWN, YES, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.errors import errno_name
    from rawkm.host import caps
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    feature = "perf event links"
    spec = ProgramSpec("rawkm_probe", ProgType.KPROBE, insns=[Mov.imm(R0, 0), exit_()])
    try:
        prog = spec.load(kernel)
    except SyscallError as err:
        return refused(kernel, feature, err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    values: dict[str, Value] = {
        "link_create.prog_fd": prog.fd,
        "link_create.target_fd": prog.fd,
        "link_create.attach_type": AttachType.PERF_EVENT,
    }
    with prog:
        try:
            kernel.close(kernel.bpf(packed.LINK_CREATE_PERF_EVENT, values).ret)
        except SyscallError as err:
            said = f"LINK_CREATE (perf_event) on what is no event → {errno_name(err.errno)}"
            if err.errno == EBADF:
                return Answer(feature, YES, said)
            if err.errno == EINVAL:
                return Answer(feature, NO, f"{said}: this kernel attaches by an ioctl, without cookies", "Linux 5.15 has them")
            return Answer(feature, UNKNOWN, said)
    return Answer(feature, UNKNOWN, "LINK_CREATE (perf_event) attached to a program, which is no event")
