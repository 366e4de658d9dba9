"""kprobe_multi: one program on many functions by one BPF_LINK_CREATE (Linux 5.18, CONFIG_FPROBE).

All or nothing: one entry that cannot be attached fails the batch, and the kernel does not say which. ``rawkm.backend`` finds it.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, EMFILE, ENOENT, ENOMEM, EOPNOTSUPP, ESRCH

from rawkm.errors import AttachError, SyscallError, UsageError
from rawkm.handle import Handle
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType, KprobeMultiFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.prog import Program
    from rawkm.syscall.kernel import Value

_HINTS = {
    EOPNOTSUPP: "the kernel was built without CONFIG_FPROBE",
    ESRCH: "a name is unknown, not traceable, or given twice",
    EINVAL: "an address is not traceable, the program was not loaded for kprobe_multi, or the kernel has none (before 5.18)",
    ENOENT: "an address is not traceable",
    E2BIG: "more than 1,048,576 functions, or a name of 512 characters or more",
    ENOMEM: "too many functions for one link (Linux 7.2 takes 131,070), or too little memory",
    EMFILE: "too many open files",
}


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
        self.missed = _int(fields["kprobe_multi.missed"]) if filled >= 40 else None
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
        hint = _HINTS.get(err.errno, "")
        raise AttachError(err.call, err.errno, attr=err.attr, hint=hint, backend="kprobe-multi") from None
    return KprobeMultiLink(prog.kernel, fd)


def _int(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value
