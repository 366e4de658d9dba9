"""A kernel that only pretends: reading is done, everything else is shown and succeeds."""

from __future__ import annotations

from errno import ENOENT

from rawkm.recording import show
from rawkm.recording.names import Names, kind_made
from rawkm.syscall.call import Call, Observers
from rawkm.syscall.convert import Converter
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.pretended import PretendedMemory
from rawkm.syscall.watched import WatchedMemory
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO, TypeVar

    from rawkm import recording
    from rawkm.syscall.kernel import Memory
    from rawkm.syscall.memory import MappedMemory

    T = TypeVar("T")

# Above what a process can have (NR_OPEN_MAX aside), so that no pretended fd is ever a real one.
_FIRST_FD = 1 << 24
_PID = 1 << 22

# Calls that look and change nothing. fsopen and what follows make a mount that is attached nowhere, to read tracefs through.
_READS = ("openat", "read", "getdents64", "newfstatat", "uname", "getpid", "fsopen", "fsconfig", "fsmount")
_READING_COMMANDS = (
    *(Cmd.PROG_GET_NEXT_ID, Cmd.MAP_GET_NEXT_ID, Cmd.BTF_GET_NEXT_ID, Cmd.LINK_GET_NEXT_ID),
    *(Cmd.PROG_GET_FD_BY_ID, Cmd.MAP_GET_FD_BY_ID, Cmd.BTF_GET_FD_BY_ID, Cmd.LINK_GET_FD_BY_ID),
    *(Cmd.OBJ_GET_INFO_BY_FD, Cmd.PROG_QUERY, Cmd.TASK_FD_QUERY),
    *(Cmd.MAP_LOOKUP_ELEM, Cmd.MAP_GET_NEXT_KEY, Cmd.MAP_LOOKUP_BATCH),
)
_ASKED = ("environ", "clock", "utc offset", "signals", "no signals", "find")


# What a map that nobody has made answers when it is walked: that there is nothing in it, or a walk would never end.
_WALKS = (Cmd.MAP_GET_NEXT_KEY, Cmd.MAP_LOOKUP_BATCH, Cmd.MAP_LOOKUP_AND_DELETE_BATCH)


class DryRun(Exception):
    """The run has come to where it would wait for something to happen."""


class DryRunKernel(LiveKernel):
    """Writes each call that is not made to ``out``, in its canonical form; with ``detail`` every byte of it, too.

    Files and directories are read, clocks and ids are asked for; no other call is made, no process started. ``pretended`` and
    ``made`` count both. Raises DryRun where the run would wait.
    """

    def __init__(self, out: TextIO, *, detail: bool = False) -> None:
        super().__init__(Observers())
        self._out = out
        self._detail = detail
        self._converter = Converter(Names())
        self._next_fd = _FIRST_FD
        self.pretended = 0
        self.made = 0

    def _call(self, call: Call | None, number: int, *args: int | bytes | None, attr: bytearray | None = None) -> int:
        assert call is not None
        made = self._converter.before(call)
        if self._is_reading(call, made):
            self.made += 1
            call.result = super()._call(call, number, *args, attr=attr)
            self._learn(call, made)
            return call.result
        if made.command in _WALKS:
            call.result, call.errno = -1, ENOENT
        self._pretend(call, made)
        if call.errno:
            raise OSError(call.errno, "")
        return call.result

    def _watched(self, call: Call, action: Callable[[], T], what: str = "") -> T:
        if call.name == "epoll_wait":
            raise DryRun
        made = self._converter.before(call)
        if self._is_reading(call, made):
            self.made += 1
            value = super()._watched(call, action, what)
            self._learn(call, made)
            return value
        self._pretend(call, made)
        return call.result  # type: ignore[return-value]  # calls that give more than a number are made

    def _passed(self, name: str, args: Mapping[str, object], action: Callable[[], T], pretended: T) -> T:
        return super()._passed(name, args, action, pretended) if name in _ASKED else pretended

    def _mapped(self, call: Call, action: Callable[[], MappedMemory]) -> Memory:  # noqa: ARG002
        self._regions += 1
        call.value = f"mem#{self._regions}"
        self._pretend(call, self._converter.before(call))
        length = call.args["length"]
        assert isinstance(length, int)
        return _Shown(self, call.value, PretendedMemory(length))

    def _forked(self, argv: list[str], fork: Callable[[], tuple[int, str]], seed: Callable[[], None]) -> tuple[int, str]:  # noqa: ARG002
        call = Call("clone", {"argv": argv})
        self._pretend(call, self._converter.before(call))
        seed()
        return _PID, "k"

    def shown(self, text: str) -> None:
        self._out.write(f"{text}\n")

    def _is_reading(self, call: Call, made: recording.Call) -> bool:
        fds = self._converter.names.uses(made)
        if any(fd.number >= _FIRST_FD for fd in fds.values()):
            return False
        if call.name == "bpf":
            return made.command in _READING_COMMANDS
        if call.name == "openat":
            return "O_RDONLY" in str(call.args["flags"])
        if call.name == "prlimit64":
            return call.args["limits"] is None
        return call.name in _READS or call.name == "close"

    def _learn(self, call: Call, made: recording.Call) -> None:
        """The names of what was really made."""
        made.result, made.errno = call.result, call.errno
        self._converter.names.annotate(made)

    def _pretend(self, call: Call, made: recording.Call) -> None:
        if kind_made(made) and not call.errno:
            call.result = self._next_fd
            self._next_fd += 1
        made = self._converter.after(call, made)
        self.pretended += 1
        text = show.line(made, names=True).rpartition(" <")[0]
        self.shown(text)
        if self._detail:
            for line in show.detail(made):
                self.shown(f"    {line}")


class _Shown(WatchedMemory):
    """Memory whose stores are shown."""

    def __init__(self, kernel: DryRunKernel, name: str, real: Memory) -> None:
        super().__init__(kernel, name, real)
        self._dry = kernel

    def store_u64(self, offset: int, value: int) -> None:
        self._dry.shown(f"*(u64 *)({self._name} + {offset}) = {value:#x}")
