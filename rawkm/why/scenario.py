"""The refused call and those that made what it takes, made again."""

from __future__ import annotations

import struct

from rawkm.errors import SyscallError
from rawkm.host.facts import describe
from rawkm.recording.names import kind_made
from rawkm.rules import Call as Asked
from rawkm.rules import Memory, Obj, Prediction, predict
from rawkm.syscall.raw import Address, Block, RawBpf
from rawkm.uapi.constants import AttachType, Cmd, LinkType, ProgFlag, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rawkm.recording import Call
    from rawkm.rules import Facts
    from rawkm.syscall.kernel import Kernel
    from rawkm.uapi.fields import Definition, Member

    #: What a pointer points to: bytes, C strings, or None for memory that cannot be read.
    Content = bytes | list[bytes] | None

RETURN_0 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
# A fd that nobody has open, and an address where nothing is.
_CLOSED = 1 << 20
_NOWHERE = Address(0x10)
# Room for what the kernel writes, where nobody says how much that is.
_ROOM = 4096
_ROOM_MAX = 1 << 20
_FEW = 4

_FOUND = (Cmd.OBJ_GET, Cmd.PROG_GET_FD_BY_ID, Cmd.MAP_GET_FD_BY_ID, Cmd.BTF_GET_FD_BY_ID, Cmd.LINK_GET_FD_BY_ID)
_ATTACHES = (Cmd.LINK_CREATE, Cmd.RAW_TRACEPOINT_OPEN)
_ON_LINKS = (Cmd.LINK_UPDATE, Cmd.LINK_DETACH, Cmd.ITER_CREATE)
#: Commands by which programs come to run: theirs are replaced by ones that do nothing.
_RUNS = (*_ATTACHES, *_ON_LINKS, Cmd.PROG_TEST_RUN)
#: Commands that leave something behind, or act on what others use.
_LASTING = (Cmd.OBJ_PIN, Cmd.PROG_ATTACH, Cmd.PROG_DETACH)
_CHANGES = (
    Cmd.MAP_UPDATE_ELEM,
    Cmd.MAP_DELETE_ELEM,
    Cmd.MAP_LOOKUP_AND_DELETE_ELEM,
    Cmd.MAP_FREEZE,
    Cmd.MAP_LOOKUP_AND_DELETE_BATCH,
    Cmd.MAP_UPDATE_BATCH,
    Cmd.MAP_DELETE_BATCH,
    Cmd.PROG_TEST_RUN,
    Cmd.PROG_BIND_MAP,
    Cmd.LINK_UPDATE,
    Cmd.LINK_DETACH,
)
# What may be attached for a moment: programs that only look on (and their instructions are replaced).
_LOOKING_PROGS = (
    ProgType.KPROBE,
    ProgType.TRACEPOINT,
    ProgType.PERF_EVENT,
    ProgType.RAW_TRACEPOINT,
    ProgType.TRACING,
)
_LIVE_FRAMES = 1 << 1
# What belongs to instructions that are not there.
_DEBUG_FIELDS = (
    "prog_btf_fd",
    "func_info_rec_size",
    "func_info",
    "func_info_cnt",
    "line_info_rec_size",
    "line_info",
    "line_info_cnt",
    "core_relo_cnt",
    "core_relos",
    "core_relo_rec_size",
    "fd_array",
    "fd_array_cnt",
    "log_level",
    "log_size",
    "log_buf",
    "signature",
    "signature_size",
)
# What a map is like: frozen, and what it holds.
_STATE = (Cmd.MAP_FREEZE, Cmd.MAP_UPDATE_ELEM)
_STATE_MAX = 256


class Step:
    """One call, as it can be changed: ``attr``, ``size``, and ``memory`` (pointer's path → what is there)."""

    __slots__ = ("attr", "call", "command", "definition", "memory", "places", "size")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.command = call.command & ~Cmd.COMMON_ATTRS
        self.definition = call.definition
        self.attr = bytearray(call.attr)
        self.size = call.size
        self.places = call.fds
        self.memory: dict[str, Content] = {}
        for path, pointee in call.memory.items():
            if pointee.items is not None:
                self.memory[path] = list(pointee.items)
            elif pointee.data is not None and not pointee.error:
                size = min(max(pointee.size, len(pointee.data)), _ROOM_MAX)
                self.memory[path] = pointee.data.ljust(size, b"\0")
            else:
                self.memory[path] = None

    def copy(self) -> Step:
        other = object.__new__(Step)
        other.call, other.command, other.definition, other.places = self.call, self.command, self.definition, self.places
        other.attr, other.size, other.memory = bytearray(self.attr), self.size, dict(self.memory)
        return other

    def member(self, path: str) -> Member | None:
        return next((m for m in self.members() if path == m.path or path in m.also), None)

    def members(self) -> Iterable[Member]:
        return () if self.definition is None else self.definition.members

    def number(self, path: str) -> int:
        """The value of a number, 0 where the attr ends before it."""
        member = self.member(path)
        if member is None:
            return 0
        raw = bytes(self.attr[: self.size][member.offset : member.offset + member.size])
        return int.from_bytes(raw.ljust(member.size, b"\0"), "little")

    def put(self, path: str, value: int | bytes) -> None:
        """Sets a field; the attr grows up to it where it was shorter."""
        member = self.member(path)
        assert member is not None, path
        end = member.offset + member.size
        if len(self.attr) < end:
            self.attr.extend(bytes(end - len(self.attr)))
        self.size = max(self.size, end)
        if isinstance(value, bytes):
            raw = value.ljust(member.size, b"\0")[: member.size]
        else:
            raw = (value & (1 << 8 * member.size) - 1).to_bytes(member.size, "little")
        self.attr[member.offset : end] = raw


class Change:
    """One change to a step. ``field``: its path; ``was`` and ``now``: in words; ``adds``: something that was not there."""

    __slots__ = ("apply", "field", "now", "step", "was")

    def __init__(self, step: int, field: str, was: str, now: str, apply: Callable[[Step], None]) -> None:
        self.step = step
        self.field = field
        self.was = was
        self.now = now
        self.apply = apply

    @property
    def adds(self) -> bool:
        return self.was in ("0", "NULL") or self.was.startswith("0 (")

    def __repr__(self) -> str:
        return f"<{self.field}: {self.now} for {self.was}>"


class Outcome:
    """What came of a run. ``errno``: 0 when the kernel accepts; ``lost``: why the call was not made, or ""."""

    __slots__ = ("attr", "errno", "lost", "objs", "prediction")

    def __init__(
        self,
        errno: int,
        prediction: Prediction | None = None,
        *,
        objs: dict[str, Obj] | None = None,
        attr: bytes = b"",
        lost: str = "",
    ) -> None:
        self.errno = errno
        self.prediction = prediction
        self.objs = objs or {}
        self.attr = attr
        self.lost = lost


class Scenario:
    """The steps to a refused call, the call last. ``obstacle``: why it cannot be made again, or ""."""

    def __init__(self, kernel: Kernel, calls: Sequence[Call], call: Call) -> None:
        self._kernel = kernel
        self._raw = RawBpf()
        self.facts: Facts = describe(kernel)
        self.order = [*_needed(calls, call), call]
        self.steps = [Step(c) for c in self.order]
        self.obstacle = self._obstacle()
        self.runs = 0
        self._blocks: dict[int, Block | Address] = {}
        self._file = -1
        self._own = self._open_fds()
        if self.last.command in _RUNS:
            for step in self.steps[:-1]:
                if step.command == Cmd.PROG_LOAD:
                    _do_nothing(step)

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def close(self) -> None:
        self._raw.close()
        if self._file >= 0:
            self._kernel.close(self._file)

    def _open_fds(self) -> dict[int, Obj]:
        try:
            return {int(name): Obj("file") for name in self._kernel.list_dir("/proc/self/fd")}
        except SyscallError:
            return {n: Obj("file") for n in range(3)}

    def _obstacle(self) -> str:
        """The kinds of calls that are not made again, each with its reason."""
        step = self.last
        for other in self.steps[:-1]:
            if other.call.name != "bpf":
                return f"{other.call.makes.name if other.call.makes else other.call.name} cannot be made again"
        if step.command in _LASTING:
            return "it would leave something behind"
        if step.command in _CHANGES and any(s.command in _FOUND for s in self.steps[:-1]):
            return "it would change what is in use"
        kinds = [s.number("prog_type") for s in self.steps[:-1] if s.command == Cmd.PROG_LOAD]
        if step.command in (*_ATTACHES, *_ON_LINKS) and not all(kind in _LOOKING_PROGS for kind in kinds):
            return "it would attach a program that does more than look on"
        if step.command == Cmd.PROG_TEST_RUN and step.number("test.flags") & _LIVE_FRAMES:
            return "it would send packets"
        if any(pointee.error == "redacted" for other in self.steps for pointee in other.call.memory.values()):
            return "the recording was redacted"
        return ""

    # -- running -------------------------------------------------------------------------------------------------------

    def draft(self, changes: Iterable[Change]) -> list[Step]:
        steps = [step.copy() for step in self.steps]
        for change in changes:
            change.apply(steps[change.step])
        return steps

    def run(self, changes: Iterable[Change] = ()) -> Outcome:
        """Makes all calls with these changes, closes what they gave, and tells what the last one came to."""
        self.runs += 1
        steps = self.draft(changes)
        fds: dict[str, int] = {}
        objs: dict[int, Obj] = dict(self._own)
        try:
            for step in steps[:-1]:
                result, prediction = self._make(step, fds, objs)
                if result < 0:
                    return Outcome(-result, prediction, lost=f"call {step.call.number} is refused here already")
                if step.call.makes is not None:
                    fds[step.call.makes.name] = result
                    objs[result] = obj_of(step)
                elif step.command == Cmd.MAP_FREEZE:
                    frozen = step.places.get("map_fd")
                    if frozen is not None and frozen.name in fds:
                        objs[fds[frozen.name]].frozen = True
            last = steps[-1]
            result, prediction = self._make(last, fds, objs)
            if result >= 0 and kind_made(last.call):
                self._kernel.close(result)
            named = {name: objs[number] for name, number in fds.items() if number in objs}
            return Outcome(max(0, -result), prediction, objs=named, attr=bytes(last.attr[: last.size]))
        finally:
            for fd in fds.values():
                self._kernel.close(fd)

    def verifier_log(self, size: int = 1 << 18) -> str:
        """What the verifier says to the program, "" where it says nothing."""

        def with_log(step: Step) -> None:
            step.put("log_level", 1)
            step.put("log_size", size)
            step.put("log_buf", 1)
            step.memory["log_buf"] = bytes(size)

        self.run([Change(len(self.steps) - 1, "log_buf", "", "", with_log)])
        member = self.last.member("log_buf")
        block = self._blocks.get(member.offset) if member is not None else None
        return block.data.partition(b"\0")[0].decode("utf-8", "replace") if isinstance(block, Block) else ""

    def predicted(self, facts: Facts) -> Prediction:
        """What the model says of the call as it was recorded, to a process and kernel like these; nothing is made."""
        fds = {fd.number: Obj(fd.kind) for fd in self.last.call.fds.values()}
        for step in self.steps[:-1]:
            if step.call.makes is not None:
                fds[step.call.makes.number] = obj_of(step)
        pointers = self._pointers(self.last, {name.name: name.number for name in self.last.call.fds.values()})
        prepared = self._raw.prepare(
            self.last.call.command, bytearray(self.last.attr[: self.last.size]), self.last.size, pointers
        )
        memory = Memory(prepared.regions(), whole=True)
        return predict(Asked(self.last.call.command, prepared.sent, size=self.last.size, fds=fds, memory=memory), facts)

    def ranks(self) -> dict[str, int]:
        """The rules of the call's command by the order of the kernel's checks."""
        table = self.facts.tables.get(self.last.call.command)
        return {} if table is None else {rule.name: n for n, rule in enumerate(table)}

    def _make(self, step: Step, fds: dict[str, int], objs: dict[int, Obj]) -> tuple[int, Prediction]:
        attr = bytearray(step.attr[: step.size]) if step.size <= len(step.attr) else bytearray(step.attr)
        for path, fd in step.places.items():
            member = step.member(path)
            if member is None or step.number(path) != fd.number:
                continue
            number = self._number(step, fd.name, fd.number, fds)
            word = struct.pack("=I", number & 0xFFFF_FFFF)
            attr[member.offset : member.offset + 4] = word[: max(0, len(attr) - member.offset)]
        pointers = self._pointers(step, fds)
        self._blocks = pointers
        prepared = self._raw.prepare(step.call.command, attr, step.size, pointers)
        asked = Asked(
            step.call.command,
            prepared.sent,
            size=step.size,
            fds=objs,
            memory=Memory(prepared.regions(), whole=True),
        )
        prediction = predict(asked, self.facts)
        result = prepared.send()
        return result, prediction

    def _number(self, step: Step, name: str, number: int, fds: dict[str, int]) -> int:
        """What a fd of the recording is here."""
        if name in fds:
            return fds[name]
        if number < 3:
            return number
        # Nobody saw it made: it was not open, or something else.
        if step.call.errno in (9, 77):
            return _CLOSED
        if self._file < 0:
            self._file = self._kernel.open("/dev/null")
            self._own[self._file] = Obj("file")
        return self._file

    def _pointers(self, step: Step, fds: dict[str, int]) -> dict[int, Block | Address]:
        found: dict[int, Block | Address] = {}
        for member in step.members():
            if member.role.kind != "pointer" or step.number(member.path) == 0:
                continue
            if member.path not in step.memory:
                found[member.offset] = self._unrecorded(step, member)
                continue
            content = step.memory[member.path]
            if isinstance(content, list):
                texts = {8 * i: Block(text + b"\0") for i, text in enumerate(content)}
                found[member.offset] = Block(bytes(8 * len(content)), texts)
            elif content is None:
                found[member.offset] = _NOWHERE
            else:
                # Strings are recorded without their NUL.
                data = bytearray(content + b"\0" if member.role.target == "cstr" else content)
                if not data:
                    data = bytearray(self._room(step, member))
                for place, fd in step.places.items():
                    path, at, offset = place.partition("@")
                    if at and path == member.path and int(offset) + 4 <= len(data):
                        data[int(offset) : int(offset) + 4] = struct.pack(
                            "=I", self._number(step, fd.name, fd.number, fds) & 0xFFFF_FFFF
                        )
                found[member.offset] = Block(data, self._inner(step, member, data))
        return found

    def _unrecorded(self, step: Step, member: Member) -> Block | Address:
        """What a pointer leads to that nobody has looked behind: an array whose count was 0, or room for what comes out."""
        if member.role.target == "cstrs":
            return Block(bytes(8 * _FEW), {8 * i: Block(b"\0") for i in range(_FEW)})
        if member.role.direction == "in" and member.role.target not in ("u64s", "u32s"):
            return _NOWHERE
        return Block(bytes(self._room(step, member)))

    @staticmethod
    def _room(step: Step, member: Member) -> int:
        size = step.number(member.role.of) if member.role.of else 0
        return min(max(size, _ROOM), _ROOM_MAX)

    def _inner(self, step: Step, member: Member, data: bytearray) -> dict[int, Block]:
        """The pointers in the info struct that the call fills in: nobody's own addresses may stand there."""
        if member.path != "info.info":
            return {}
        found: dict[int, Block] = {}
        for inner in self._info_members(step):
            if inner.role.kind != "pointer" or inner.offset + 8 > len(data) or not any(data[inner.offset : inner.offset + 8]):
                continue
            content = step.memory.get(f"info.info.{inner.path}", b"")
            found[inner.offset] = Block(content if isinstance(content, bytes) and content else bytes(_ROOM))
        return found

    def _info_members(self, step: Step) -> Iterable[Member]:
        definition = info_definition(step)
        return () if definition is None else definition.members


def info_definition(step: Step) -> Definition | None:
    """The info struct of an OBJ_GET_INFO_BY_FD, by what its fd is."""
    from rawkm.errors import UsageError
    from rawkm.uapi import layouts

    fd = step.places.get("info.bpf_fd")
    kind = "" if fd is None else fd.kind
    try:
        return layouts.named(step.call.info or f"{kind}_info")
    except UsageError:
        return None


def _do_nothing(step: Step) -> None:
    """A program that is attached for a moment: of the same kind, but it does nothing."""
    step.memory["insns"] = RETURN_0
    step.put("insn_cnt", 2)
    for path in _DEBUG_FIELDS:
        if step.number(path):
            step.put(path, 0)


def _needed(calls: Sequence[Call], call: Call) -> list[Call]:
    """The calls that made what ``call`` takes, and what that takes; with them those that filled or froze the maps."""
    by_number = {c.number: c for c in calls if c.kind == "call"}
    wanted: set[int] = set()
    names: set[str] = set()
    todo = [call]
    while todo:
        for fd in todo.pop().fds.values():
            maker = by_number.get(fd.made_by or 0)
            if maker is not None and maker.number not in wanted and maker.number < call.number:
                wanted.add(maker.number)
                names.add(fd.name)
                todo.append(maker)
    if call.command & ~Cmd.COMMON_ATTRS not in (*_ATTACHES, *_ON_LINKS):
        state = [
            c.number
            for c in by_number.values()
            if c.number < call.number
            and c.name == "bpf"
            and not c.errno
            and c.command in _STATE
            and (target := c.fds.get("map_fd")) is not None
            and target.name in names
        ]
        wanted.update(state[-_STATE_MAX:])
    return [by_number[number] for number in sorted(wanted)]


_LINK_TYPES = {
    AttachType.PERF_EVENT: LinkType.PERF_EVENT,
    AttachType.TRACE_KPROBE_MULTI: LinkType.KPROBE_MULTI,
    AttachType.TRACE_KPROBE_SESSION: LinkType.KPROBE_MULTI,
    AttachType.TRACE_UPROBE_MULTI: LinkType.UPROBE_MULTI,
    AttachType.TRACE_ITER: LinkType.ITER,
    AttachType.TRACE_FENTRY: LinkType.TRACING,
    AttachType.TRACE_FEXIT: LinkType.TRACING,
}


def obj_of(step: Step) -> Obj:
    """What the step has made, for the model."""
    number = step.number
    if step.command == Cmd.MAP_CREATE:
        flags = number("map_flags")
        return Obj(
            "map",
            number("map_type"),
            key_size=number("key_size"),
            value_size=number("value_size"),
            max_entries=number("max_entries"),
            flags=flags,
            readable=not flags & 1 << 4,
            writable=not flags & 1 << 3,
        )
    if step.command == Cmd.PROG_LOAD:
        return Obj(
            "prog",
            number("prog_type"),
            attach_type=number("expected_attach_type"),
            attach_btf_id=number("attach_btf_id"),
            sleepable=bool(number("prog_flags") & ProgFlag.SLEEPABLE),
            context_size=None,
        )
    if step.command == Cmd.BTF_LOAD:
        return Obj("btf")
    if step.command == Cmd.LINK_CREATE:
        return Obj("link", _LINK_TYPES.get(number("link_create.attach_type")))
    if step.command == Cmd.RAW_TRACEPOINT_OPEN:
        return Obj("link", LinkType.RAW_TRACEPOINT)
    makes = step.call.makes
    return Obj(makes.kind if makes is not None else "fd")
