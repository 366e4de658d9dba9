"""What a run of the state machine did, as the steps of a case: what it shows can be shown again without the machine.

Fds and ids are those of the run: here they become the steps that made them.
"""

from __future__ import annotations

import struct
from errno import ENOENT

from rawkm.fuzz.attr import members
from rawkm.fuzz.case import CLOSE, NEW_FD, UNLINK, Check, Data, Pin, Step
from rawkm.uapi import layouts
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from rawkm.fuzz.case import FdSource, Target
    from rawkm.syscall.kernel import Value
    from rawkm.uapi.fields import Definition, Member

    #: (kind, id)
    Object: TypeAlias = tuple[str, int]


class Script:
    """``steps``: so far. Every method is told of what was done, in the order in which it was."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._fds: dict[int, int] = {}
        self._objects: dict[Object, int] = {}

    def call(
        self,
        layout: Definition,
        values: Mapping[str, Value],
        wanted: int,
        result: int,
        *,
        checks: Mapping[str, bytes] | None = None,
        inside: Mapping[str, Mapping[int, int]] | None = None,
    ) -> None:
        """bpf(2). ``wanted``: 0 or an errno; ``checks``: pointer field → what its memory must begin with; ``inside``: pointer
        field → offset in its memory → the fd that stands there."""
        numbers: dict[str, int | bytes] = {}
        fds: dict[int, FdSource] = {}
        ids: dict[int, tuple[int, int]] = {}
        pointers: dict[int, Target] = {}
        for path, value in values.items():
            member = members(layout)[path]
            name = path.rpartition(".")[2]
            if member.role.kind == "pointer":
                pointers[member.offset] = self._memory(member, value, (inside or {}).get(path, {}))
            elif isinstance(value, int) and member.role.kind == "fd":
                fds[member.offset] = self._fds[value]
            elif isinstance(value, int) and (made := self._objects.get((name.removesuffix("_id"), value))) is not None:
                ids[member.offset] = (made, 0)
            elif isinstance(value, int | bytes):
                numbers[path] = value
        places = members(layout)
        found = [Check(path, 0, want, pointer=places[path].offset) for path, want in (checks or {}).items()]
        step = Step(layout.cmd, layout.pack(numbers), pointers=pointers, fds=fds, ids=ids, expect=(wanted,), checks=found)
        self.steps.append(step)
        if result > 0 and layout.cmd in NEW_FD:
            self._fds[result] = len(self.steps) - 1

    def made(self, fd: int, kind: str, id: int) -> None:
        """The object of a new fd has this id."""
        self._objects[kind, id] = self._fds[fd]

    def close(self, fd: int) -> None:
        self.steps.append(Step(CLOSE, bytes(4), fds={0: self._fds.pop(fd)}))

    def unlink(self, name: str) -> None:
        self.steps.append(Step(UNLINK, bytes(8), pointers={0: Pin(name)}))

    def info(self, fd: int, kind: str, numbers: Mapping[str, int], objects: Mapping[str, Object], maps: Sequence[int]) -> None:
        """What the kernel tells of an fd: ``numbers``: field → 32 bits that must be there, ``objects``: field → the object whose
        id must be; ``maps``: of a program, the ids of its maps."""
        struct_ = layouts.named(f"{kind}_info")
        data = bytearray(struct_.size)
        where = layouts.named("obj_get_info_by_fd").offset("info.info")[0]
        checks = [Check(f, struct_.offset(f)[0], struct.pack("=I", n), pointer=where) for f, n in numbers.items()]
        checks += [Check(f, struct_.offset(f)[0], pointer=where, id=self._objects[o]) for f, o in objects.items()]
        pointers = {}
        if kind == "prog":
            count, array = struct_.offset("nr_map_ids")[0], struct_.offset("map_ids")[0]
            struct.pack_into("=I", data, count, 4)
            pointers[array] = Data(bytes(16))
            for i, id in enumerate(maps):
                checks.append(Check(f"map_ids[{i}]", 4 * i, pointer=where, inner=array, id=self._objects["map", id]))
        attr = struct.pack("=IIQ", 0, len(data), 0)
        self.steps.append(
            Step(
                Cmd.OBJ_GET_INFO_BY_FD,
                attr,
                fds={0: self._fds[fd]},
                pointers={where: Data(bytes(data), pointers=pointers)},
                checks=checks,
            )
        )

    def listed(self, kind: str, id: int) -> None:
        """The object is in the kernel's list: the next one after the id before."""
        layout = layouts.named(f"{kind}_get_next_id")
        made = self._objects[kind, id]
        checks = [Check("next_id", layout.offset("next_id")[0], id=made)]
        self.steps.append(Step(layout.cmd, bytes(12), ids={layout.offset("start_id")[0]: (made, -1)}, checks=checks))

    def gone(self, kind: str, id: int, patience: float) -> None:
        """The object is not there any more, after so many seconds at the latest."""
        layout = layouts.named(f"{kind}_get_fd_by_id")
        ids = {layout.offset(f"{kind}_id")[0]: (self._objects[kind, id], 0)}
        self.steps.append(Step(layout.cmd, bytes(4), ids=ids, expect=(ENOENT,), within=patience))

    def _memory(self, member: Member, value: Value, fds: Mapping[int, int]) -> Target:
        if member.path.endswith("pathname"):
            return Pin(str(value).rpartition("/")[2])
        if isinstance(value, str):
            value = value.encode()
        assert isinstance(value, bytes | bytearray)
        if member.role.target == "cstr":
            return Data(bytes(value) + b"\0")
        data = bytearray(len(value)) if isinstance(value, bytearray) else bytearray(value)
        for at in fds:
            data[at : at + 4] = bytes(4)
        return Data(bytes(data), fds={at: self._fds[fd] for at, fd in fds.items()})
