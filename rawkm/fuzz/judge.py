"""One call made and compared with the model."""

from __future__ import annotations

import os
from errno import EINTR, EPERM
from sys import byteorder

from rawkm.fuzz.attr import COMMAND, WHOLE, Attr
from rawkm.fuzz.bounds import Limits
from rawkm.fuzz.case import NEW_FD
from rawkm.fuzz.objects import OBJECTS, names
from rawkm.fuzz.pool import MissingError, Pool
from rawkm.host import cpus
from rawkm.host.facts import describe
from rawkm.rules import Call, Memory, predict
from rawkm.rules.model import Obj
from rawkm.syscall.raw import RawBpf
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rawkm.fuzz.attr import Lowered
    from rawkm.rules import Facts, Prediction
    from rawkm.syscall.kernel import Kernel

    Model = Callable[[Call, Facts], Prediction]

# What may leave an object in another state than it was made in.
_CHANGES_OBJECTS = frozenset(
    {
        *(Cmd.MAP_UPDATE_ELEM, Cmd.MAP_DELETE_ELEM, Cmd.MAP_LOOKUP_AND_DELETE_ELEM, Cmd.MAP_FREEZE),
        *(Cmd.MAP_UPDATE_BATCH, Cmd.MAP_DELETE_BATCH, Cmd.MAP_LOOKUP_AND_DELETE_BATCH),
        *(Cmd.LINK_UPDATE, Cmd.LINK_DETACH, Cmd.LINK_CREATE, Cmd.PROG_BIND_MAP, Cmd.PROG_ASSOC_STRUCT_OPS),
        *(Cmd.OBJ_PIN, Cmd.PROG_ATTACH, Cmd.PROG_DETACH, Cmd.RAW_TRACEPOINT_OPEN),
    }
)
# Bytes of a PROG_LOAD that every kernel takes.
_OLD_PROG_LOAD = 48
# These stop in the middle, with half of their work done.
_IN_STEPS = frozenset({Cmd.MAP_UPDATE_BATCH, Cmd.MAP_DELETE_BATCH, Cmd.MAP_LOOKUP_AND_DELETE_BATCH})


class Outcome:
    """``errno``: 0 for accepted, None when the call was not made, and ``skipped`` says why. ``prediction``: the model's."""

    __slots__ = ("attr", "errno", "prediction", "sent", "skipped")

    def __init__(self, attr: Attr, *, errno: int | None = None, prediction: Prediction | None = None, skipped: str = "") -> None:
        self.attr = attr
        self.errno = errno
        self.prediction = prediction
        self.skipped = skipped
        self.sent = b""

    @property
    def explained(self) -> bool:
        """Whether the model allows what the kernel said."""
        return self.errno is None or self.prediction is None or self.prediction.allows(self.errno)


class Judge:
    """Makes calls with a pool's objects, and asks the model before each. Closes at once whatever a call opened.

    ``owned``: this machine may be disturbed; without it nothing is attached. ``model``: rawkm.rules.predict, or another one to
    try.
    """

    def __init__(self, kernel: Kernel, *, owned: bool = False, model: Model = predict, facts: Facts | None = None) -> None:
        self.kernel = kernel
        self.raw = RawBpf()
        self.pool = Pool(kernel, self.raw, links=owned)
        self.facts = describe(kernel) if facts is None else facts
        self.limits = Limits(_memory(kernel), len(cpus.possible(kernel)), owned=owned)
        self._model = model
        self._policies: dict[int, bool] = {}
        self._others = {int(fd): Obj("file") for fd in kernel.list_dir("/proc/self/fd")}

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pool.close()
        self.raw.close()

    def run(self, attr: Attr) -> Outcome:
        """The call made, or skipped."""
        try:
            lowered = attr.lower(self.pool.fd)
        except MissingError as err:
            return Outcome(attr, skipped=f"no {err.name} here")
        refused = self.limits.refuse(lowered)
        if refused:
            return Outcome(attr, skipped=refused)
        return self._made(attr, lowered)

    def _made(self, attr: Attr, lowered: Lowered) -> Outcome:
        prepared = lowered.prepare(self.raw)
        sent = prepared.sent
        call = Call(
            lowered.cmd,
            sent,
            size=prepared.size,
            fds={**self._others, **self.pool.objects},
            memory=Memory(prepared.regions(), whole=True),
        )
        outcome = Outcome(attr, prediction=self._model(call, self.facts))
        outcome.sent = sent or b""
        result = prepared.send()
        if result == -EINTR:
            return Outcome(attr, skipped="interrupted")
        outcome.errno = -result if result < 0 else 0
        if outcome.errno == EPERM and not outcome.explained and lowered.cmd == Cmd.PROG_LOAD and self._policy(outcome.sent):
            return Outcome(attr, skipped="a security policy of this machine refuses programs of this type")
        self._tidy(attr, lowered.cmd, result)
        return outcome

    def _policy(self, sent: bytes) -> bool:
        """Whether programs of this type are refused with EPERM here, valid or not: a policy may do so before checks."""
        type = int.from_bytes(sent[:4].ljust(4, b"\0"), byteorder)
        known = self._policies.get(type)
        if known is None:
            ours = [name for name in names("prog") if OBJECTS[name].make.valid["prog_type"] == type]
            known = any(self.pool.why_missing(name) == EPERM for name in ours) or self._refuses_first(type)
            self._policies[type] = known
        return known

    def _refuses_first(self, type: int) -> bool:
        """Whether EPERM comes for a program without instructions, which is looked at before privileges for types are."""
        attr = bytearray(_OLD_PROG_LOAD)
        attr[:4] = type.to_bytes(4, byteorder)
        return self.raw.call(Cmd.PROG_LOAD, attr) == -EPERM

    def _tidy(self, attr: Attr, cmd: int, result: int) -> None:
        if result >= 0 and cmd in NEW_FD:
            self.kernel.close(result)
        if cmd in _CHANGES_OBJECTS and (result >= 0 or cmd in _IN_STEPS):
            # Other bytes, or those of another command, may name any fd.
            anything = any(change.place in (WHOLE, COMMAND) for change in attr.changes)
            self.pool.forget(OBJECTS if anything else attr.fds())


def _memory(kernel: Kernel) -> int:
    for line in kernel.read_file("/proc/meminfo").splitlines():
        if line.startswith(b"MemTotal:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
