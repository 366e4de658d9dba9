"""kprobe_multi: one program on many functions by one BPF_LINK_CREATE (Linux 5.18, CONFIG_FPROBE).

All or nothing: one entry that cannot be attached fails the batch, and the kernel does not say which. ``rawkm.backend`` finds it.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, EMFILE, ENOENT, ENOMEM, EOPNOTSUPP, ESRCH

from rawkm.errors import SyscallError, UsageError
from rawkm.handle import Handle
from rawkm.link.refusal import refusal
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType, KprobeMultiFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.answer import Answer
    from rawkm.errors import AttachError
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Kernel, Value

_HINTS = {
    EOPNOTSUPP: "the kernel was built without CONFIG_FPROBE",
    ESRCH: "a name is unknown, not traceable, or given twice",
    EINVAL: "an address is not traceable, the program was not loaded for kprobe_multi, or the kernel has none (before 5.18)",
    ENOENT: "an address is not traceable",
    E2BIG: "more than 1,048,576 functions, or a name of 512 characters or more",
    ENOMEM: "too many functions for one link (Linux 7.2 takes 131,070), or too little memory",
    EMFILE: "too many open files",
}

# A name that no kernel has: resolving it fails before anything is attached.
NO_SUCH_FUNCTION = "rawkm_probe_no_such_function"


class KprobeMultiInfo:
    """What the kernel says of a link. ``missed``: hits that did not reach the program; None before Linux 6.7.

    ``addrs``: symbol addresses (or what was passed), 0 where they are hidden; ``cookies``: in the same order (6.9, else zeros).
    """

    __slots__ = ("addrs", "cookies", "count", "flags", "id", "missed", "prog_id")

    def __init__(self, fields: dict[str, int | bytes], filled: int) -> None:
        self.id = _int(fields["id"])
        self.prog_id = _int(fields["prog_id"])
        self.count = _int(fields["kprobe_multi.count"])
        self.flags = _int(fields["kprobe_multi.flags"])
        # The union of Linux 6.6 ends at 48; `missed` came with what makes it 56.
        self.missed = _int(fields["kprobe_multi.missed"]) if filled >= 56 else None
        self.addrs: list[int] = []
        self.cookies: list[int] = []


class KprobeMultiLink(Handle):
    """A live link. Closing it detaches; there is no other way (LINK_DETACH says EOPNOTSUPP)."""

    __slots__ = ("attr",)

    def info(self, *, lists: bool = False) -> KprobeMultiInfo:
        """OBJ_GET_INFO_BY_FD (Linux 6.6 for more than the ids); with ``lists`` also the addresses and cookies."""
        info = self._info({})
        if lists and info.count:
            addrs, cookies = bytearray(8 * info.count), bytearray(8 * info.count)
            again = self._info({"kprobe_multi.addrs": addrs, "kprobe_multi.cookies": cookies, "kprobe_multi.count": info.count})
            again.addrs = memoryview(addrs).cast("Q").tolist()
            again.cookies = memoryview(cookies).cast("Q").tolist()
            return again
        return info

    def missed(self) -> int | None:
        """As KprobeMultiInfo.missed."""
        return self.info().missed

    def _info(self, values: dict[str, Value]) -> KprobeMultiInfo:
        return KprobeMultiInfo(*self.kernel.obj_info(self.fd, packed.LINK_INFO_KPROBE_MULTI, values))


def attach(
    prog: Program,
    *,
    addrs: Sequence[int] | None = None,
    syms: Sequence[str] | None = None,
    cookies: Sequence[int] | None = None,
    retprobe: bool = False,
    session: bool = False,
) -> KprobeMultiLink:
    """Attaches ``prog`` to the functions at ``addrs`` or named ``syms`` (one of the two).

    ``addrs``: symbol addresses (kallsyms) or ftrace sites; cookies are found by symbol address only. ``cookies``: one per
    function, what bpf_get_attach_cookie gives. ``retprobe``: run at return. ``session``: the program was loaded for
    KPROBE_SESSION. Raises AttachError: EOPNOTSUPP without CONFIG_FPROBE, ESRCH for a bad name, EINVAL (6.12) or ENOENT (7.2) for
    a bad address.
    """
    if (addrs is None) == (syms is None):
        raise UsageError("kprobe_multi takes either addrs or syms")
    count = len(addrs if addrs is not None else syms or ())
    if count == 0:
        raise UsageError("kprobe_multi needs at least one function")
    if cookies is not None and len(cookies) != count:
        raise UsageError(f"{count} functions but {len(cookies)} cookies")
    values: dict[str, Value] = {
        "link_create.prog_fd": prog.fd,
        "link_create.attach_type": AttachType.TRACE_KPROBE_SESSION if session else AttachType.TRACE_KPROBE_MULTI,
        "link_create.kprobe_multi.flags": KprobeMultiFlag.RETURN if retprobe else 0,
        "link_create.kprobe_multi.cnt": count,
        "link_create.kprobe_multi.syms": syms,
        "link_create.kprobe_multi.addrs": addrs,
        "link_create.kprobe_multi.cookies": cookies,
    }
    try:
        fd = prog.kernel.bpf(packed.LINK_CREATE_KPROBE_MULTI, values).ret
    except SyscallError as err:
        raise refusal(err, _HINTS, "kprobe-session" if session else "kprobe-multi") from None
    return KprobeMultiLink(prog.kernel, fd)


def _int(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def probe(kernel: Kernel) -> Answer:
    """Whether one link can attach many functions: by asking for a function that does not exist.

    The kernel says ESRCH when it looked for the name (5.19 and later). Nothing is attached.
    """
    from rawkm.answer import UNKNOWN, Answer, refused
    from rawkm.asm import R0, Mov, exit_
    from rawkm.errors import AttachError
    from rawkm.host import caps
    from rawkm.prog import ProgramSpec
    from rawkm.uapi.constants import ProgType

    spec = ProgramSpec("rawkm_probe", ProgType.KPROBE, attach_type=AttachType.TRACE_KPROBE_MULTI, insns=[Mov.imm(R0, 0), exit_()])
    try:
        with spec.load(kernel) as prog:
            attach(prog, syms=[NO_SUCH_FUNCTION]).close()
    except AttachError as err:
        return _judge(kernel, err)
    except SyscallError as err:
        return refused(kernel, "kprobe_multi", err, "load a tracing program", caps.CAP_BPF, caps.CAP_PERFMON)
    return Answer("kprobe_multi", UNKNOWN, f"LINK_CREATE attached to {NO_SUCH_FUNCTION}, which should not exist")


def _judge(kernel: Kernel, err: AttachError) -> Answer:
    from rawkm.answer import NO, UNKNOWN, YES, Answer
    from rawkm.errors import errno_name

    evidence = f"LINK_CREATE (kprobe_multi) → {errno_name(err.errno)}"
    if err.errno == ESRCH:
        return Answer("kprobe_multi", YES, f"{evidence} for a name that does not exist")
    if err.errno == EOPNOTSUPP:
        from rawkm.host import kconfig

        config = kconfig.load(kernel)
        seen = f", and {config.source} says so" if config.get("FPROBE") == "n" else ""
        return Answer(
            "kprobe_multi",
            NO,
            f"{evidence}: CONFIG_FPROBE is off in this kernel{seen}",
            "a kernel built with CONFIG_FPROBE=y is needed",
        )
    if err.errno == EINVAL:
        fields = _attr_has_kprobe_multi(kernel)
        if fields is False:
            return Answer(
                "kprobe_multi",
                NO,
                f"{evidence}: this kernel's union bpf_attr (its BTF) has no link_create.kprobe_multi",
                "Linux 5.18 or newer with CONFIG_FPROBE=y is needed",
            )
        return Answer("kprobe_multi", UNKNOWN if fields else NO, f"{evidence}: too old for kprobe_multi, or a 5.18 kernel")
    return Answer("kprobe_multi", UNKNOWN, evidence)


def _attr_has_kprobe_multi(kernel: Kernel) -> bool | None:
    """Whether the kernel's own bpf_attr can know the fields; None when its BTF cannot be read."""
    from rawkm.btf.kernel import knows_name

    try:
        return knows_name(kernel, "kprobe_multi")
    except SyscallError:
        return None
