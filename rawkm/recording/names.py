"""What the numbers of fds stand for: "prog#1" is the first program that was made."""

from __future__ import annotations

import struct
import sys

from rawkm.recording.call import Fd
from rawkm.uapi.constants import Cmd, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.recording.call import Call

# What a command of bpf gives.
_MAKES = {
    Cmd.MAP_CREATE: "map",
    Cmd.PROG_LOAD: "prog",
    Cmd.BTF_LOAD: "btf",
    Cmd.LINK_CREATE: "link",
    Cmd.RAW_TRACEPOINT_OPEN: "link",
    Cmd.OBJ_GET: "obj",
    Cmd.PROG_GET_FD_BY_ID: "prog",
    Cmd.MAP_GET_FD_BY_ID: "map",
    Cmd.BTF_GET_FD_BY_ID: "btf",
    Cmd.LINK_GET_FD_BY_ID: "link",
    Cmd.ITER_CREATE: "iter",
    Cmd.ENABLE_STATS: "stats",
    Cmd.TOKEN_CREATE: "token",
}
# … and other calls.
_OTHERS = {
    "perf_event_open": "event",
    "openat": "file",
    "epoll_create1": "epoll",
    "pidfd_open": "pidfd",
    "fsopen": "fs",
    "fsmount": "mount",
}
#: The arguments that are fds.
FD_ARGS = ("fd", "dir_fd", "group_fd", "epoll_fd")
_FD_VALUED = (
    MapType.PROG_ARRAY,
    MapType.PERF_EVENT_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.ARRAY_OF_MAPS,
    MapType.HASH_OF_MAPS,
)
_LD_IMM64 = 0x18
# The source register of an ld_imm64 says what its immediate is (include/uapi/linux/bpf.h).
_MAP_FD, _MAP_VALUE, _BTF_ID = 1, 2, 3


class Names:
    """The open fds of each process, as far as the calls tell."""

    def __init__(self, order: str = sys.byteorder) -> None:
        self._order = "<" if order == "little" else ">"
        self._counts: dict[str, int] = {}
        self._open: dict[tuple[int, int], Fd] = {}
        self._map_types: dict[str, int] = {}
        self._parents: dict[int, int] = {}

    def of(self, pid: int, number: int) -> Fd:
        """What ``number`` stands for in the process ``pid``."""
        seen = {pid}
        while (found := self._open.get((pid, number))) is None:
            pid = self._parents.get(pid, -1)
            if pid in seen or pid < 0:
                return Fd(f"fd {number}", number)
            seen.add(pid)
        return found

    def forked(self, pid: int, parent: int) -> None:
        """A child has what its parent has."""
        if pid != parent:
            self._parents[pid] = parent

    def closed(self, pid: int, number: int) -> None:
        self._open.pop((pid, number), None)

    def new(self, pid: int, number: int, kind: str, call: int) -> Fd:
        """A fd of this kind was made."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return self.called(pid, Fd(f"{kind}#{count}", number, call))

    def called(self, pid: int, fd: Fd) -> Fd:
        """A fd with this name was made."""
        self._open[pid, fd.number] = fd
        return fd

    def annotate(self, call: Call) -> None:
        """Fills in ``fds`` and ``makes`` of a call that has none, from its bytes."""
        call.fds = self.uses(call)
        kind = kind_made(call)
        if kind and not call.errno:
            call.makes = self.new(call.pid, call.result, kind, call.number)
        self.passed(call)

    def uses(self, call: Call) -> dict[str, Fd]:
        """The fds that the call is given, by place."""
        return {place: fd for place, fd in self._uses(call) if fd is not None}

    def passed(self, call: Call) -> None:
        """A call has been made: what later ones need to know of it."""
        if call.makes is not None and call.name == "bpf" and call.command & ~Cmd.COMMON_ATTRS == Cmd.MAP_CREATE:
            self._map_types[call.makes.name] = self._u32(call.attr, 0)
        if call.name == "close" and not call.errno and type(call.args.get("fd")) is int:
            self.closed(call.pid, call.args["fd"])

    def _uses(self, call: Call) -> Iterator[tuple[str, Fd | None]]:
        for name in FD_ARGS:
            number = call.args.get(name)
            if type(number) is int and number >= 0:
                yield f"args.{name}", self.of(call.pid, number)
        if call.name != "bpf":
            return
        definition = call.definition
        if definition is None:
            return
        for member in definition.members:
            if member.role.kind == "fd" and len(call.attr) >= member.offset + 4:
                yield member.path, self._named(call, self._u32(call.attr, member.offset))
        for path, pointee in call.memory.items():
            data = pointee.data
            if data is None:
                continue
            for at in self._inside(call, path, data):
                yield f"{path}@{at}", self._named(call, self._u32(data, at))

    def _named(self, call: Call, number: int) -> Fd | None:
        """None for what stands for no fd: 0 does, unless it was seen to be one."""
        if number >> 31:
            return None
        found = self.of(call.pid, number)
        return None if number == 0 and found.made_by is None else found

    def _inside(self, call: Call, path: str, data: bytes) -> Iterator[int]:
        """Where in what ``path`` points to there are fds."""
        command = call.command & ~Cmd.COMMON_ATTRS
        if command == Cmd.PROG_LOAD and path == "insns":
            yield from self._in_insns(data)
        elif command == Cmd.PROG_LOAD and path == "fd_array":
            yield from range(0, len(data) - 3, 4)
        elif command == Cmd.MAP_UPDATE_ELEM and path == "value" and len(data) >= 4:
            fd = self.of(call.pid, self._u32(call.attr, 0))
            if self._map_types.get(fd.name) in _FD_VALUED:
                yield 0

    def _in_insns(self, data: bytes) -> Iterator[int]:
        at = 0
        while at + 16 <= len(data):
            if data[at] != _LD_IMM64:
                at += 8
                continue
            src = data[at + 1] >> 4 if self._order == "<" else data[at + 1] & 15
            if src in (_MAP_FD, _MAP_VALUE):
                yield at + 4
            elif src == _BTF_ID:
                # The second half names the BTF, 0 the kernel's own.
                yield at + 12
            at += 16

    def _u32(self, data: bytes, at: int) -> int:
        number: int = struct.unpack_from(f"{self._order}I", data.ljust(at + 4, b"\0"), at)[0]
        return number


def kind_made(call: Call) -> str:
    """The kind of fd that the call gives when it succeeds, "" when it gives none."""
    if call.name == "bpf":
        return _MAKES.get(call.command & ~Cmd.COMMON_ATTRS, "")
    return _OTHERS.get(call.name, "")
