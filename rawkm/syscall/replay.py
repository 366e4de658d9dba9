"""A kernel that is a recording: each call must be the next recorded one, and gets what that one got."""

from __future__ import annotations

import sys

from rawkm import recording
from rawkm.errors import RecordingError, ReplayMismatch, SyscallError
from rawkm.recording.compare import NOTHING, called, difference
from rawkm.recording.names import Names
from rawkm.syscall.call import Call, Observers
from rawkm.syscall.convert import Converter
from rawkm.syscall.live import LiveKernel, described
from rawkm.syscall.memory import PAGE_SIZE
from rawkm.syscall.pretended import PretendedMemory
from rawkm.syscall.watched import WatchedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn, TypeVar, cast

    from rawkm.recording import Reader
    from rawkm.syscall.call import Observer
    from rawkm.syscall.kernel import Memory
    from rawkm.syscall.memory import MappedMemory

    T = TypeVar("T")
else:

    def cast(kind: str, value: object) -> object:  # noqa: ARG001
        """typing would be dear to import."""
        return value


class ReplayKernel(LiveKernel):
    """Answers from ``reader``; makes no system call, reads no file, starts no process and asks no clock.

    Raises ReplayMismatch at the first call that is not as recorded, RecordingError at one whose recorded answer makes no sense,
    and the same again at every later call, as the run cleans up: ``trouble`` keeps it. Raises RecordingError at once for
    recordings that cannot be replayed: of other programs, redacted, or of another kind of machine.
    """

    def __init__(self, reader: Reader, observer: Observer | None = None) -> None:
        header = reader.header
        if header.kind != recording.header.RUN:
            raise RecordingError("this recording is of other programs' calls: only a run of rawkm can be verified")
        if header.redacted:
            raise RecordingError("this recording is redacted: what was read is left out, so nothing can be run from it")
        if (header.order, header.page) != (sys.byteorder, PAGE_SIZE):
            raise RecordingError(
                f"this recording was made on a {header.order}-endian machine with pages of {header.page} bytes: "
                f"it can be verified on such a machine only"
            )
        self._observer = Observers() if observer is None else observer
        self._bpf_nr = self._perf_nr = 0
        self._regions = 0
        self._recorded = reader.calls(seams=True)
        self._converter = Converter(Names(header.order))
        self.calls = 0
        self.trouble: ReplayMismatch | RecordingError | None = None

    def finish(self) -> None:
        """The run is over. Raises ReplayMismatch when the recording is not."""
        left = next(self._recorded, None)
        if left is not None:
            self._fail(left, "what comes next", called(left), NOTHING)

    # -- plumbing --------------------------------------------------------------------------------------------------------------

    def _call(self, call: Call | None, number: int, *args: int | bytes | None, attr: bytearray | None = None) -> int:  # noqa: ARG002
        assert call is not None
        recorded = self._next(call)
        if attr is not None:
            self._fill(recorded, "the attr", attr, recorded.attr_after)
        for path, pointee in recorded.outputs.items():
            target = call.memory.get(path)
            if not isinstance(target, bytearray | memoryview) or pointee.data is None:
                raise self._senseless(recorded, f"{path} is nothing that the kernel writes to")
            self._fill(recorded, path, target, pointee.data)
        self._done(call, recorded)
        if recorded.errno:
            raise OSError(recorded.errno, "")
        return recorded.result

    def _watched(self, call: Call, action: Callable[[], T], what: str = "") -> T:  # noqa: ARG002
        recorded = self._next(call)
        self._done(call, recorded)
        if recorded.errno:
            raise SyscallError(what or described(call), recorded.errno)
        return cast("T", self._value(recorded))

    def _passed(self, name: str, args: Mapping[str, object], action: Callable[[], T], pretended: T) -> T:  # noqa: ARG002
        call = Call(name, args, seam=True)
        return cast("T", self._value(self._next(call)))

    def _mapped(self, call: Call, action: Callable[[], MappedMemory]) -> Memory:  # noqa: ARG002
        length = call.args["length"]
        assert isinstance(length, int)
        name: str = self._watched(call, lambda: "")
        return WatchedMemory(self, name, PretendedMemory(length))

    def _begun(self, name: str, memory: Memory) -> None:
        recorded = self._next(Call("begin", {"mem": name}, seam=True))
        self._fill(recorded, name, memory.view, self._value(recorded))

    def _filled(self, name: str, data: bytes) -> None:
        recorded = self._next(Call("fill", {"mem": name}, seam=True))
        old: bytes = self._value(recorded)
        if old != data:
            at = next((i for i, (a, b) in enumerate(zip(old, data, strict=False)) if a != b), min(len(old), len(data)))
            self._fail(recorded, f"{name}, byte {at}", old[at & ~7 :][:8].hex(" "), data[at & ~7 :][:8].hex(" "))

    def _forked(self, argv: list[str], fork: Callable[[], tuple[int, str]], seed: Callable[[], None]) -> tuple[int, str]:  # noqa: ARG002
        self._passed("fork", {"argv": argv}, lambda: None, None)
        # What the child did before it waited; then it said so.
        try:
            seed()
        except (ReplayMismatch, RecordingError):
            raise
        except Exception as err:
            said = str(err)[:4000]
        else:
            said = "k"
        recorded = self._next(Call("clone", {"argv": argv}))
        if recorded.value != said:
            self._fail(recorded, "what the child said", str(recorded.value), said)
        return recorded.result, said

    def _next(self, call: Call) -> recording.Call:
        """The recorded call, which must be this one."""
        if self.trouble is not None:
            raise self.trouble
        made = self._converter.before(call)
        names = self._converter.names
        made.fds = names.uses(made)
        try:
            recorded = next(self._recorded, None)
        except RecordingError as err:
            self.trouble = err
            raise
        if recorded is None:
            self.trouble = ReplayMismatch(0, "after the last recorded call", "what comes next", NOTHING, called(made))
            raise self.trouble
        found = difference(recorded, made)
        if found is not None:
            self._fail(recorded, *found)
        made.result, made.errno = recorded.result, recorded.errno
        names.annotate(made)
        if (made.makes is None) != (recorded.makes is None):
            self._fail(recorded, "what it makes", *(NOTHING if fd is None else fd.name for fd in (recorded.makes, made.makes)))
        if made.makes is not None and recorded.makes is not None and made.makes.name != recorded.makes.name:
            self._fail(recorded, "what it makes", recorded.makes.name, made.makes.name)
        if recorded.kind == "call":
            self.calls += 1
        return recorded

    def _fail(self, recorded: recording.Call, field: str, old: str, new: str) -> NoReturn:
        where = called(recorded) if recorded.kind == "call" else f"behind it: {recorded.name}"
        self.trouble = ReplayMismatch(recorded.number, where, field, old, new)
        raise self.trouble

    def _senseless(self, recorded: recording.Call, why: str) -> RecordingError:
        self.trouble = RecordingError(f"call {recorded.number}, {called(recorded)}: {why}")
        return self.trouble

    def _fill(self, recorded: recording.Call, what: str, target: bytearray | memoryview, data: bytes) -> None:
        view = memoryview(target).cast("B")
        if len(view) != len(data):
            raise self._senseless(recorded, f"{what} has {len(view)} bytes, {len(data)} are recorded for it")
        view[:] = data

    def _done(self, call: Call, recorded: recording.Call) -> None:
        """Tells the observer."""
        assert self._observer is not None
        self._observer.enter(call)
        call.attr_after = recorded.attr_after
        call.result, call.errno, call.value = recorded.result, recorded.errno, recorded.value
        call.seconds, call.note = recorded.seconds, recorded.note
        self._observer.leave(call)

    def _value(self, recorded: recording.Call) -> Any:
        value = recorded.value
        if value is None:
            value = recorded.result if recorded.kind == "call" else None
        kind = _VALUES[recorded.kind].get(recorded.name, _anything)
        if not kind(value):
            raise self._senseless(recorded, f"it cannot have the value {str(value)[:40]!r}")
        if recorded.name == "read" and recorded.kind == "seam" and len(value) != recorded.args.get("length"):
            raise self._senseless(recorded, f"a read of {recorded.args.get('length')} bytes has {len(value)}")
        return value


# -- what a recording may hold -------------------------------------------------------------------------------------------------


def _anything(value: object) -> bool:
    return value is None or type(value) in (int, str)


def _integer(value: object) -> bool:
    return type(value) is int


def _maybe_integer(value: object) -> bool:
    return value is None or type(value) is int


def _text(value: object) -> bool:
    return type(value) is str


def _flag(value: object) -> bool:
    return type(value) is bool


def _bytes(value: object) -> bool:
    return type(value) is bytes


def _two(kind: type) -> Callable[[object], bool]:
    return lambda value: type(value) is list and len(value) == 2 and all(type(item) is kind for item in value)


def _many(kind: type) -> Callable[[object], bool]:
    return lambda value: type(value) is list and all(type(item) is kind for item in value)


_VALUES: dict[str, dict[str, Callable[[object], bool]]] = {
    "call": {
        "read": _bytes,
        "getdents64": _many(str),
        "newfstatat": _two(int),
        "prlimit64": _two(int),
        "uname": _two(str),
        "epoll_wait": _many(int),
        "mmap": _text,
    },
    "seam": {
        "clock": _integer,
        "utc offset": _integer,
        "signals": _integer,
        "signalled": _flag,
        "find": _text,
        "environ": _text,
        "go": _text,
        "ended": _maybe_integer,
        "end": _integer,
        "load": _integer,
        "read": _bytes,
        "begin": _bytes,
        "fill": _bytes,
    },
}
