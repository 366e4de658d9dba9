"""Raw calls as a recording has them: nothing is decoded but what says where memory belongs."""

from __future__ import annotations

from rawkm.audit import plan as plans
from rawkm.audit.raw import CUT
from rawkm.errors import errno_name
from rawkm.recording import Call, Pointee, Writer
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawkm.audit.raw import Memory, RawCall

_NS = 1e-9


class Recording:
    """Writes calls to ``writer``, each process with its name before its first call."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._comms: dict[int, bytes] = {}

    def add(self, calls: Iterable[RawCall]) -> None:
        writer, comms = self._writer, self._comms
        for call in calls:
            if comms.get(call.tid) != call.comm:
                comms[call.tid] = call.comm
                parent = call.pid if call.tid != call.pid else 0
                writer.task(call.tid, parent=parent, comm=call.comm.decode("utf-8", "backslashreplace"))
            writer.call(recorded(call))


def recorded(raw: RawCall) -> Call:
    """One call as ``rawkm.recording`` has it."""
    ret = raw.ret
    memory = {path: _pointee(item) for path, item in raw.entry.items()}
    outputs = {path: _pointee(item) for path, item in raw.exit.items()}
    _add_room(raw, memory)
    note = "it ended within the call" if ret is None else ""
    if raw.attr_errno:
        note = f"its attr at {raw.attr_at:#x} could not be read: {errno_name(raw.attr_errno)}"
    return Call(
        "bpf",
        pid=raw.pid,
        tid=raw.tid,
        command=raw.cmd,
        size=raw.size,
        attr=raw.attr,
        common=raw.common,
        common_size=raw.common_size,
        memory=memory,
        outputs=outputs,
        attr_after=raw.after,
        common_after=raw.common_after,
        result=0 if ret is None else max(ret, -1),
        errno=-ret if ret is not None and ret < 0 else 0,
        seconds=raw.ns * _NS,
        info=_info(raw),
        note=note,
    )


def _pointee(item: Memory) -> Pointee:
    data, error = item.data, item.errno
    if isinstance(data, bytes):
        if error and not data:
            return Pointee(error=_why(error), address=item.address, size=max(item.wanted, 0))
        return Pointee(data, address=item.address, size=item.wanted if item.wanted > len(data) else None)
    if error and not data:
        return Pointee(error=_why(error), address=item.address)
    return Pointee(items=[b"" if text is None else text for text in data], address=item.address)


def _why(error: int) -> str:
    return "too long" if error == CUT else errno_name(error)


def _add_room(raw: RawCall, memory: dict[str, Pointee]) -> None:
    """What the kernel only writes to was not read before the call: how much room there is, says the call."""
    plan = plans.for_call(raw.cmd, raw.attr)
    if plan is None or not plan.write_only:
        return
    values = plan.definition.unpack(raw.attr)
    for pointer in plan.write_only:
        path = pointer.path
        address = values[path]
        if isinstance(address, int) and address:
            size = pointer.measure(values, raw.facts.get(pointer.map_fd))
            if size > 0:
                memory[path] = Pointee(b"", size=size, address=address)


def _info(raw: RawCall) -> str:
    """The definition of the struct that OBJ_GET_INFO_BY_FD fills."""
    if raw.cmd != Cmd.OBJ_GET_INFO_BY_FD:
        return ""
    fact = raw.facts.get("info.bpf_fd")
    item = raw.exit.get("info.info") or raw.entry.get("info.info")
    if fact is None or item is None or not isinstance(item.data, bytes):
        return ""
    plan = plans.for_info(fact.kind, item.data)
    return "" if plan is None else plan.definition.name
