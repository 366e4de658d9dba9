"""The live kernel: system calls through ctypes."""

from __future__ import annotations

import ctypes
import os
from errno import EINVAL, EPERM
from time import localtime, monotonic_ns, perf_counter, sleep, time_ns

from rawkm.errors import SyscallError
from rawkm.syscall import nr
from rawkm.syscall.call import Call
from rawkm.syscall.kernel import Reply
from rawkm.syscall.lower import lower
from rawkm.syscall.memory import MappedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from rawkm.syscall.call import Observer
    from rawkm.syscall.kernel import Child, Memory, Poller, Signals, Value
    from rawkm.uapi.layout import Layout

    T = TypeVar("T")

_CHUNK = 1 << 16
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6


class LiveKernel:
    """The running kernel. Stateless but for its observer; one instance can serve a whole process.

    Everything is done in one of the methods ``_call``, ``_watched``, ``_passed``, ``_mapped`` and ``_forked``: kernels that
    replay or pretend have others.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self._bpf_nr, self._perf_nr = nr.numbers()
        self._observer = observer
        self._regions = 0
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def __enter__(self) -> LiveKernel:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    # -- bpf, perf -------------------------------------------------------------------------------------------------------------

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        return self._bpf(layout, values)

    def _bpf(
        self,
        layout: Layout,
        values: Mapping[str, Value],
        info: Layout | None = None,
        inner: Mapping[str, Value] | None = None,
    ) -> Reply:
        """``info``, ``inner``: the struct that info.info points to, and the values of its pointers."""
        attr, held = _lower_all(layout, values)
        sent = bytes(attr)
        size = len(attr)
        buffer = (ctypes.c_char * size).from_buffer(attr)
        number = layout.cmd
        call = None
        if self._observer is not None:
            memory = _pointees(layout, values)
            if info is not None:
                memory.update({f"info.info.{path}": value for path, value in _pointees(info, inner or {}).items()})
            call = Call("bpf", {"cmd": number, "size": size}, layout=layout, attr=sent, memory=memory, info=info)
        try:
            ret = self._call(call, self._bpf_nr, number, ctypes.addressof(buffer), size, attr=attr)
        except OSError as err:
            raise SyscallError(f"bpf(BPF_{layout.command})", err.errno or 0, attr=sent, attr_after=bytes(attr)) from None
        finally:
            del buffer, held
        return Reply(ret, layout, attr)

    def obj_info(self, fd: int, layout: Layout, values: Mapping[str, Value] | None = None) -> tuple[dict[str, int | bytes], int]:
        from rawkm.uapi.packed import OBJ_GET_INFO_BY_FD

        info, held = _lower_all(layout, values or {})
        where: dict[str, Value] = {"info.bpf_fd": fd, "info.info_len": len(info), "info.info": info}
        reply = self._bpf(OBJ_GET_INFO_BY_FD, where, layout, values)
        del held
        return layout.unpack(info), reply["info.info_len"]

    def perf_event_open(self, values: Mapping[str, Value], *, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
        from rawkm.uapi import packed

        layout = packed.PERF_EVENT_ATTR_KPROBE if "kprobe_func" in values else packed.PERF_EVENT_ATTR
        attr, held = _lower_all(layout, {"size": layout.size, **values})
        sent = bytes(attr)
        buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
        call = None
        if self._observer is not None:
            args = {"pid": pid, "cpu": cpu, "group_fd": group_fd, "flags": flags}
            call = Call("perf_event_open", args, layout=layout, attr=sent, memory=_pointees(layout, values))
        try:
            return self._call(call, self._perf_nr, ctypes.addressof(buffer), pid, cpu, group_fd, flags, attr=attr)
        except OSError as err:
            raise SyscallError("perf_event_open", err.errno or 0, attr=sent, attr_after=bytes(attr)) from None
        finally:
            del buffer, held

    # -- fds, memory -----------------------------------------------------------------------------------------------------------

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int:
        from fcntl import ioctl

        return self._watched(Call("ioctl", {"fd": fd, "request": request, "arg": arg}), lambda: ioctl(fd, request, arg))

    def mmap(self, fd: int, length: int, *, offset: int = 0, writable: bool = False) -> Memory:
        prot = "PROT_READ|PROT_WRITE" if writable else "PROT_READ"
        args = {"addr": None, "length": length, "prot": prot, "flags": "MAP_SHARED", "fd": fd, "offset": offset}
        return self._mapped(Call("mmap", args), lambda: MappedMemory(fd, length, offset, writable))

    def poller(self) -> Poller:
        from rawkm.syscall.poller import EpollPoller

        return EpollPoller(self)

    def close(self, fd: int) -> None:
        self._watched(Call("close", {"fd": fd}), lambda: os.close(fd))

    def close_all(self, fds: Sequence[int], step: Callable[[int, int], None]) -> None:
        if self._observer is None and len(fds) > 1:
            from rawkm.syscall.closing import close_together

            close_together(fds, step)
            return
        left = list(reversed(fds))
        try:
            while left:
                step(len(fds) - len(left), len(fds))
                self.close(left.pop())
        finally:
            while left:
                self.close(left.pop())

    # -- files -----------------------------------------------------------------------------------------------------------------

    def open(self, path: str, *, dir_fd: int | None = None) -> int:
        where = "AT_FDCWD" if dir_fd is None else dir_fd
        call = Call("openat", {"dir_fd": where, "path": path, "flags": "O_RDONLY|O_CLOEXEC"})
        return self._watched(call, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd))

    def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes:
        return b"".join(self.read_chunks(path, dir_fd=dir_fd))

    def read_chunks(self, path: str, *, dir_fd: int | None = None) -> Iterator[bytes]:
        fd = self.open(path, dir_fd=dir_fd)

        # Kernel-made files give a page or less per read: gather, so that the caller's work per piece is worth its while.
        def gather() -> bytes:
            pieces: list[bytes] = []
            gathered = 0
            while gathered < _CHUNK:
                piece = os.read(fd, _CHUNK)
                pieces.append(piece)
                gathered += len(piece)
                if not piece:
                    break
            if len(pieces) > 1:
                call.note = f"{len(pieces)} reads"
            return b"".join(pieces)

        try:
            while True:
                call = Call("read", {"fd": fd, "buf": "...", "count": _CHUNK})
                piece = self._watched(call, gather, f"read({path})")
                if piece:
                    yield piece
                if len(piece) < _CHUNK:
                    break
        finally:
            self.close(fd)

    def append_file(self, path: str, data: bytes, *, dir_fd: int | None = None) -> None:
        where = "AT_FDCWD" if dir_fd is None else dir_fd
        call = Call("openat", {"dir_fd": where, "path": path, "flags": "O_WRONLY|O_APPEND|O_CLOEXEC"})
        fd = self._watched(call, lambda: os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, dir_fd=dir_fd))
        try:
            text = data.decode("ascii", "backslashreplace")
            self._watched(Call("write", {"fd": fd, "data": text, "count": len(data)}), lambda: os.write(fd, data))
        finally:
            self.close(fd)

    def read_stdin(self) -> bytes:
        def gather() -> bytes:
            pieces = []
            while piece := os.read(0, _CHUNK):
                pieces.append(piece)
            return b"".join(pieces)

        return self._watched(Call("read", {"fd": 0, "buf": "...", "count": _CHUNK}), gather, "read(standard input)")

    def list_dir(self, path: str) -> list[str]:
        return self._watched(Call("getdents64", {"path": path}), lambda: os.listdir(path))

    def identity(self, path: str) -> tuple[int, int]:
        def stat() -> tuple[int, int]:
            found = os.stat(path)
            # include/linux/kdev_t.h: 20 bits of minor number; st_dev comes in glibc's encoding.
            return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino

        call = Call("newfstatat", {"dir_fd": "AT_FDCWD", "path": path, "buf": "...", "flags": 0})
        device, inode = self._watched(call, stat)
        return device, inode

    def write_file(self, path: str, data: bytes) -> None:
        temporary = f"{path}.{self.getpid()}"

        def publish() -> None:
            with open(temporary, "wb") as file:
                file.write(data)
            os.rename(temporary, path)

        self._watched(Call("rename", {"path": temporary, "to": path}), publish)

    def overwrite(self, path: str, data: bytes) -> None:
        def save() -> int:
            with open(path, "wb") as file:
                return file.write(data)

        text = data.decode("latin-1")
        self._watched(Call("write", {"path": path, "data": text, "count": len(data)}), save, f"write({path})")

    def unlink(self, path: str) -> None:
        self._watched(Call("unlink", {"path": path}), lambda: os.unlink(path))

    def fsopen(self, filesystem: str) -> int:
        call = Call("fsopen", {"filesystem": filesystem, "flags": "FSOPEN_CLOEXEC"})
        return self._named(call, nr.FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC)

    def fsconfig_create(self, fd: int) -> None:
        call = Call("fsconfig", {"fd": fd, "cmd": "FSCONFIG_CMD_CREATE", "key": None, "value": None, "aux": 0})
        self._named(call, nr.FSCONFIG, fd, _FSCONFIG_CMD_CREATE, None, None, 0)

    def fsmount(self, fd: int) -> int:
        call = Call("fsmount", {"fd": fd, "flags": "FSMOUNT_CLOEXEC", "attr_flags": 0})
        return self._named(call, nr.FSMOUNT, fd, _FSMOUNT_CLOEXEC, 0)

    # -- processes -------------------------------------------------------------------------------------------------------------

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

        new = None if limits is None else list(limits)
        soft, hard = self._watched(Call("prlimit64", {"pid": 0, "resource": resource, "limits": new}), swap)
        return soft, hard

    def uname(self) -> tuple[str, str]:
        release, machine = self._watched(Call("uname", {"buf": "..."}), lambda: (os.uname().release, os.uname().machine))
        return release, machine

    def environ(self, name: str) -> str:
        return self._passed("environ", {"name": name}, lambda: os.environ.get(name, ""), "")

    def getpid(self) -> int:
        return self._watched(Call("getpid"), os.getpid)

    def pidfd_open(self, pid: int) -> int:
        return self._watched(Call("pidfd_open", {"pid": pid, "flags": 0}), lambda: os.pidfd_open(pid))

    def start(self, argv: Sequence[str], *, seed: Callable[[], None], stdout_to_stderr: bool = False) -> Child:
        from rawkm.syscall.child import WaitingChild

        return WaitingChild(self, argv, seed, stdout_to_stderr)

    def signals(self) -> Signals:
        from rawkm.syscall.signals import CaughtSignals

        return CaughtSignals(self)

    # -- time ------------------------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9

    def monotonic_ns(self) -> int:
        return self._passed("clock", {"clock": "CLOCK_MONOTONIC"}, monotonic_ns, 0)

    def time_ns(self) -> int:
        return self._passed("clock", {"clock": "CLOCK_REALTIME"}, time_ns, 0)

    def utc_offset(self, second: int) -> int:
        return self._passed("utc offset", {"second": second}, lambda: localtime(second).tm_gmtoff, 0)

    def sleep(self, seconds: float) -> None:
        self._passed("sleep", {"seconds": seconds}, lambda: sleep(seconds), None)

    # -- plumbing --------------------------------------------------------------------------------------------------------------

    def _call(self, call: Call | None, number: int, *args: int | bytes | None, attr: bytearray | None = None) -> int:
        """syscall(2) by number. Plain ints are passed as C longs, bytes as ``char *``. Raises OSError.

        ``attr``: what the kernel may write to. ``call`` is None when nobody wants to know.
        """
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
        if attr is not None:
            call.attr_after = bytes(attr)
        self._observer.leave(call)
        if code:
            raise OSError(code, "")
        return ret

    def _named(self, call: Call, number: int, *args: int | bytes | None) -> int:
        try:
            return self._call(call, number, *args)
        except OSError as err:
            raise SyscallError(described(call), err.errno or 0) from None

    def _watched(self, call: Call, action: Callable[[], T], what: str = "") -> T:
        """``action()``, which makes the system call ``call`` through Python's own wrappers. ``what``: its name in errors.

        What it returns is a fd or number (the call's result), bytes or a list (whose length is the result), or anything else
        that JSON can tell.
        """
        if self._observer is not None:
            self._observer.enter(call)
        start = perf_counter()
        try:
            value = action()
        except OSError as err:
            call.result, call.errno = -1, err.errno or 0
            raise SyscallError(what or described(call), call.errno) from None
        else:
            if isinstance(value, int):
                call.result = value
            else:
                call.value = value
                call.result = len(value) if isinstance(value, bytes | list) else 0
            return value
        finally:
            if self._observer is not None:
                call.seconds = perf_counter() - start
                self._observer.leave(call)

    def _passed(self, name: str, args: Mapping[str, object], action: Callable[[], T], pretended: T) -> T:  # noqa: ARG002
        """``action()``, which tells something from outside that no single system call does. ``pretended``: as a kernel that only
        pretends has it."""
        value = action()
        if self._observer is not None:
            call = Call(name, args, seam=True)
            call.value = value
            self._observer.passed(call)
        return value

    def _mapped(self, call: Call, action: Callable[[], MappedMemory]) -> Memory:
        if self._observer is None:
            return self._watched(call, action)
        from rawkm.syscall.watched import WatchedMemory

        self._regions += 1
        name = f"mem#{self._regions}"
        made: list[MappedMemory] = []

        def mapped() -> str:
            made.append(action())
            return name

        self._watched(call, mapped)
        return WatchedMemory(self, name, made[0])

    def _begun(self, name: str, memory: Memory) -> None:
        """The mapped region ``name`` is about to be written to, from how it is now."""
        self._passed("begin", {"mem": name}, lambda: bytes(memory.view), b"")

    def _filled(self, name: str, data: bytes) -> None:
        """The mapped region ``name`` was written to, and is now as ``data``."""
        self._passed("fill", {"mem": name}, lambda: data, data)

    def _forked(self, argv: list[str], fork: Callable[[], tuple[int, str]], seed: Callable[[], None]) -> tuple[int, str]:  # noqa: ARG002
        """``fork()``, whose child calls ``seed`` and says how that went before the parent goes on: (its pid, what it said)."""
        if self._observer is None:
            return fork()
        self._passed("fork", {"argv": argv}, lambda: None, None)
        call = Call("clone", {"argv": argv})
        call.result, call.value = fork()
        self._observer.enter(call)
        self._observer.leave(call)
        return call.result, call.value


def described(call: Call) -> str:
    """The call's name, with its path where it has one."""
    path = call.args.get("path")
    return call.name if path is None else f"{call.name}({path})"


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
