"""The live kernel: system calls through ctypes."""

from __future__ import annotations

import ctypes
import os
import select
from errno import EINTR, EINVAL, EPERM
from time import perf_counter

from rawkm.errors import SyscallError
from rawkm.syscall import nr
from rawkm.syscall.kernel import Reply
from rawkm.syscall.lower import lower
from rawkm.syscall.memory import MappedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Protocol, TypeVar

    from rawkm.syscall.kernel import Memory, Poller, Value
    from rawkm.uapi.layout import Layout

    T = TypeVar("T")
else:
    Protocol = object

_CHUNK = 1 << 16
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


class Call:
    """One system call as it is really made, for an observer.

    ``args``: the arguments as values (text is quoted by the observer); for bpf and perf_event_open, ``layout`` and ``attr`` (the
    bytes as sent, addresses included), ``memory`` (pointer field → what it points to); then ``attr_after``, ``result``, ``errno``
    (0 on success) and ``seconds``. ``note``: something that the arguments do not show.
    """

    __slots__ = ("args", "attr", "attr_after", "errno", "layout", "memory", "name", "note", "result", "seconds")

    def __init__(
        self,
        name: str,
        args: tuple[object, ...] = (),
        *,
        layout: Layout | None = None,
        attr: bytes = b"",
        memory: Mapping[str, Value] | None = None,
    ) -> None:
        self.name = name
        self.args = args
        self.layout = layout
        self.attr = attr
        self.memory = memory or {}
        self.attr_after = attr
        self.result = 0
        self.errno = 0
        self.seconds = 0.0
        self.note = ""


class Observer(Protocol):
    """Told of every call before (``enter``) and after (``leave``) it is made."""

    def enter(self, call: Call) -> None: ...
    def leave(self, call: Call) -> None: ...
    def filled(self, layout: Layout, data: bytes) -> None:
        """The last call has filled this struct."""


class LiveKernel:
    """The running kernel. Stateless but for its observer; one instance can serve a whole process."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._bpf_nr, self._perf_nr = nr.numbers()
        self._observer = observer
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def __enter__(self) -> LiveKernel:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    # -- bpf, perf -------------------------------------------------------------------------------------------------------------

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        attr, held = _lower_all(layout, values)
        sent = bytes(attr)
        size = len(attr)
        buffer = (ctypes.c_char * size).from_buffer(attr)
        number = layout.cmd
        call = None
        if self._observer is not None:
            call = Call("bpf", (number, size), layout=layout, attr=sent, memory=_pointees(layout, values))
        try:
            ret = self._raw(call, self._bpf_nr, number, ctypes.addressof(buffer), size, written=attr)
        except OSError as err:
            raise SyscallError(f"bpf(BPF_{layout.command})", err.errno or 0, attr=sent, attr_after=bytes(attr)) from None
        finally:
            del buffer, held
        return Reply(ret, layout, attr)

    def obj_info(self, fd: int, layout: Layout, values: Mapping[str, Value] | None = None) -> tuple[dict[str, int | bytes], int]:
        from rawkm.uapi.packed import OBJ_GET_INFO_BY_FD

        info, held = _lower_all(layout, values or {})
        reply = self.bpf(OBJ_GET_INFO_BY_FD, {"info.bpf_fd": fd, "info.info_len": len(info), "info.info": info})
        del held
        if self._observer is not None:
            self._observer.filled(layout, bytes(info))
        return layout.unpack(info), reply["info.info_len"]

    def perf_event_open(self, values: Mapping[str, Value], *, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
        from rawkm.uapi.packed import PERF_EVENT_ATTR

        attr, held = _lower_all(PERF_EVENT_ATTR, {"size": PERF_EVENT_ATTR.size, **values})
        sent = bytes(attr)
        buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
        call = None
        if self._observer is not None:
            memory = _pointees(PERF_EVENT_ATTR, values)
            call = Call("perf_event_open", (pid, cpu, group_fd, flags), layout=PERF_EVENT_ATTR, attr=sent, memory=memory)
        try:
            return self._raw(call, self._perf_nr, ctypes.addressof(buffer), pid, cpu, group_fd, flags, written=attr)
        except OSError as err:
            raise SyscallError("perf_event_open", err.errno or 0, attr=sent, attr_after=bytes(attr)) from None
        finally:
            del buffer, held

    # -- fds, memory -----------------------------------------------------------------------------------------------------------

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int:
        from fcntl import ioctl

        return self._watched(Call("ioctl", (fd, request, arg)), lambda: ioctl(fd, request, arg), int)

    def mmap(self, fd: int, length: int, *, offset: int = 0, writable: bool = False) -> Memory:
        protection = "PROT_READ|PROT_WRITE" if writable else "PROT_READ"
        call = Call("mmap", (None, length, _Word(protection), _Word("MAP_SHARED"), fd, offset))
        return self._watched(call, lambda: MappedMemory(fd, length, offset, writable), lambda _: 0)

    def poller(self) -> Poller:
        return EpollPoller(self)

    def close(self, fd: int) -> None:
        self._watched(Call("close", (fd,)), lambda: os.close(fd), lambda _: 0)

    # -- files -----------------------------------------------------------------------------------------------------------------

    def open(self, path: str, *, dir_fd: int | None = None) -> int:
        where = _Word("AT_FDCWD") if dir_fd is None else dir_fd
        call = Call("openat", (where, path, _Word("O_RDONLY|O_CLOEXEC")))
        return self._watched(call, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd), int)

    def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes:
        return b"".join(self.read_chunks(path, dir_fd=dir_fd))

    def read_chunks(self, path: str, *, dir_fd: int | None = None) -> Iterator[bytes]:
        fd = self.open(path, dir_fd=dir_fd)
        # Kernel-made files give a page or less per read: gather, so that the caller's work per piece is worth its while.
        call = Call("read", (fd, _Word("..."), _CHUNK)) if self._observer is not None else None
        reads = total = 0
        try:
            pieces: list[bytes] = []
            gathered = 0
            while True:
                try:
                    piece = os.read(fd, _CHUNK)
                except OSError as err:
                    if call is not None:
                        call.errno = err.errno or 0
                    raise SyscallError(f"read({path})", err.errno or 0) from None
                reads += 1
                gathered += len(piece)
                total += len(piece)
                pieces.append(piece)
                if gathered >= _CHUNK or not piece:
                    if gathered:
                        yield b"".join(pieces)
                    pieces, gathered = [], 0
                if not piece:
                    break
        finally:
            if call is not None and self._observer is not None:
                call.result = total
                call.note = f"{reads} reads" if reads != 1 else ""
                self._observer.enter(call)
                self._observer.leave(call)
            self.close(fd)

    def list_dir(self, path: str) -> list[str]:
        return self._watched(Call("getdents64", (path,)), lambda: os.listdir(path), len)

    def identity(self, path: str) -> tuple[int, int]:
        found = self._watched(Call("newfstatat", (_Word("AT_FDCWD"), path, _Word("..."), 0)), lambda: os.stat(path), lambda _: 0)
        # include/linux/kdev_t.h: 20 bits of minor number; st_dev comes in glibc's encoding.
        return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino

    def fsopen(self, filesystem: str) -> int:
        call = Call("fsopen", (filesystem, _Word("FSOPEN_CLOEXEC")))
        return self._named(call, nr.FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC)

    def fsconfig_create(self, fd: int) -> None:
        call = Call("fsconfig", (fd, _Word("FSCONFIG_CMD_CREATE"), None, None, 0))
        self._named(call, nr.FSCONFIG, fd, _FSCONFIG_CMD_CREATE, None, None, 0)

    def fsmount(self, fd: int) -> int:
        call = Call("fsmount", (fd, _Word("FSMOUNT_CLOEXEC"), 0))
        return self._named(call, nr.FSMOUNT, fd, _FSMOUNT_CLOEXEC, 0)

    def rlimit(self, resource: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        from resource import getrlimit, setrlimit

        def swap() -> tuple[int, int]:
            before = getrlimit(resource)
            if limits is not None:
                try:
                    setrlimit(resource, limits)
                except ValueError as err:  # what the resource module makes of EPERM and EINVAL
                    raise OSError(EPERM if "not allowed" in str(err) else EINVAL, str(err)) from None
            return before

        return self._watched(Call("prlimit64", (0, resource, limits)), swap, lambda _: 0)

    # -- plumbing --------------------------------------------------------------------------------------------------------------

    def _raw(self, call: Call | None, number: int, *args: int | bytes | None, written: bytearray | None = None) -> int:
        """syscall(2) by number. Plain ints are passed as C longs, bytes as ``char *``. Raises OSError."""
        words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
        if call is None or self._observer is None:
            ret: int = self._syscall(ctypes.c_long(number), *words)
            if ret < 0:
                raise OSError(ctypes.get_errno(), "")
            return ret
        self._observer.enter(call)
        start = perf_counter()
        ret = self._syscall(ctypes.c_long(number), *words)
        code = ctypes.get_errno() if ret < 0 else 0
        call.seconds = perf_counter() - start
        call.result, call.errno = ret, code
        if written is not None:
            call.attr_after = bytes(written)
        self._observer.leave(call)
        if code:
            raise OSError(code, "")
        return ret

    def _named(self, call: Call, number: int, *args: int | bytes | None) -> int:
        try:
            return self._raw(call, number, *args)
        except OSError as err:
            raise SyscallError(call.name, err.errno or 0) from None

    def _watched(self, call: Call, action: Callable[[], T], result: Callable[[T], int]) -> T:
        """``action()``, which makes the system call ``call`` through Python's own wrappers."""
        if self._observer is not None:
            self._observer.enter(call)
        start = perf_counter()
        try:
            value = action()
        except OSError as err:
            call.errno = err.errno or 0
            names = [str(arg) for arg in call.args if type(arg) is str]
            raise SyscallError(f"{call.name}({names[0]})" if names else call.name, call.errno) from None
        else:
            call.result = result(value)
            return value
        finally:
            if self._observer is not None:
                call.seconds = perf_counter() - start
                self._observer.leave(call)


class _Word(str):
    """An argument that is shown as it stands, without quotes."""

    __slots__ = ()


class EpollPoller:
    """epoll(7), level-triggered for reading."""

    def __init__(self, kernel: LiveKernel) -> None:
        self._kernel = kernel
        self._epoll = kernel._watched(Call("epoll_create1", (_Word("EPOLL_CLOEXEC"),)), select.epoll, lambda e: e.fileno())

    def add(self, fd: int) -> None:
        call = Call("epoll_ctl", (self._epoll.fileno(), _Word("EPOLL_CTL_ADD"), fd, _Word("{events=EPOLLIN}")))
        self._kernel._watched(call, lambda: self._epoll.register(fd, select.EPOLLIN), lambda _: 0)

    def wait(self, timeout: float | None) -> list[int]:
        """The fds with something to read, at the latest after ``timeout`` seconds (None: for ever)."""
        call = Call("epoll_wait", (self._epoll.fileno(), _Word("..."), timeout))
        try:
            events = self._kernel._watched(call, lambda: self._epoll.poll(timeout), len)
        except SyscallError as err:
            if err.errno == EINTR:
                return []
            raise
        return [fd for fd, _ in events]

    def close(self) -> None:
        if not self._epoll.closed:
            call = Call("close", (self._epoll.fileno(),))
            self._kernel._watched(call, self._epoll.close, lambda _: 0)


def _lower_all(layout: Layout, values: Mapping[str, Value]) -> tuple[bytearray, list[object]]:
    """The attr's bytes with every pointer field lowered, and what must stay alive during the call."""
    ints: dict[str, int | bytes] = {}
    held: list[object] = []
    kinds = dict(layout.pointers)
    for path, value in values.items():
        kind = kinds.get(path)
        if kind is not None:
            ints[path], keep = lower(path, kind, value)
            held.append(keep)
        else:
            ints[path] = value  # type: ignore[assignment]  # Layout.pack says so when it is neither int nor bytes
    return layout.pack(ints), held


def _pointees(layout: Layout, values: Mapping[str, Value]) -> dict[str, Value]:
    return {path: values[path] for path, _ in layout.pointers if values.get(path) is not None}
