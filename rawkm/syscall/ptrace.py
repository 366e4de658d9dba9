"""ptrace(2) and process_vm_readv(2): to stop other threads, and to read their memory.

Only what a tracer by PTRACE_SEIZE (Linux 3.4) with PTRACE_GET_SYSCALL_INFO (Linux 5.3) needs. Nothing here changes a thread: no
register, no byte of memory. All buffers are made once: a tracer's speed is its users' programs'.
"""

from __future__ import annotations

import ctypes
import os
import sys
from errno import EFAULT, EINTR, EIO, ENOSYS, EPERM
from struct import Struct

from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    #: The addresses of two arrays of struct iovec, the length of the second, the bytes in all, and what keeps the arrays alive.
    Reading = tuple[int, int, int, int, object]

# include/uapi/linux/ptrace.h.
_PEEKDATA = 2
_CONT = 7
_DETACH = 17
_SYSCALL = 24
_GETEVENTMSG = 0x4201
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
_GET_SYSCALL_INFO = 0x420E

O_TRACESYSGOOD = 1
O_TRACEFORK = 2
O_TRACEVFORK = 4
O_TRACECLONE = 8
O_TRACEEXEC = 16
O_TRACESECCOMP = 128

EVENT_FORK = 1
EVENT_VFORK = 2
EVENT_CLONE = 3
EVENT_EXEC = 4
EVENT_SECCOMP = 7
EVENT_STOP = 128

INFO_ENTRY = 1
INFO_EXIT = 2
INFO_SECCOMP = 3

_WALL = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_PTRACER = 0x59616D61

# struct ptrace_syscall_info: op, arch, instruction and stack pointers; then nr and args, or rval and is_error.
_ENTERED = Struct("=B3xIQQ7Q")
_LEFT = Struct("=24xq")
_INFO_SIZE = 88
_IOVEC = Struct("@NN")
_IOVECS = 512
_BUFFER = 1 << 16
_PAGE = 4096


class Tracer:
    """The primitives, for one tracing process. Methods that name a ``tid`` raise ProcessLookupError once it is gone."""

    def __init__(self) -> None:
        # These are short: without giving up the interpreter's lock they are faster. Waiting is not short.
        quick = ctypes.PyDLL(None, use_errno=True)
        self._ptrace = quick.ptrace
        self._ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self._ptrace.restype = ctypes.c_long
        self._readv = quick.process_vm_readv
        self._readv.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_void_p,
            ctypes.c_ulong,
            ctypes.c_ulong,
        )
        self._readv.restype = ctypes.c_ssize_t
        self._wait4 = ctypes.CDLL(None, use_errno=True).wait4
        self._status = ctypes.c_int()
        self._status_at = ctypes.byref(self._status)
        self._kept: list[object] = []
        self._info, self._info_at = self._buffer(_INFO_SIZE)
        self._message, self._message_at = self._buffer(8)
        self._local, self._local_at = self._buffer(_IOVEC.size)
        self._remote, self._remote_at = self._buffer(_IOVEC.size * _IOVECS)
        self._data, self._data_at = self._buffer(_BUFFER)
        self._view = memoryview(self._data)

    def _buffer(self, size: int) -> tuple[bytearray, int]:
        """Memory that never moves, and its address."""
        memory = bytearray(size)
        # As long as there is a view of it, it cannot be resized.
        held = (ctypes.c_char * size).from_buffer(memory)
        self._kept.append(held)
        return memory, ctypes.addressof(held)

    # -- stopping and going on -------------------------------------------------------------------------------------------------

    def seize(self, tid: int, options: int) -> None:
        """Becomes the tracer of a thread, which goes on running. Raises PermissionError."""
        self._do(_SEIZE, tid, 0, options)

    def interrupt(self, tid: int) -> None:
        self._do(_INTERRUPT, tid, 0, 0)

    def cont(self, tid: int, number: int) -> None:
        """On to the next event; ``number``: the signal to deliver, 0 for none."""
        if self._ptrace(_CONT, tid, 0, number) < 0:
            _failed()

    def to_syscall(self, tid: int, number: int) -> None:
        """On to the next event, or the next entry into or exit from a system call."""
        if self._ptrace(_SYSCALL, tid, 0, number) < 0:
            _failed()

    def listen(self, tid: int) -> None:
        """Stays stopped as job control wants it, and still reports events."""
        self._do(_LISTEN, tid, 0, 0)

    def detach(self, tid: int, number: int) -> None:
        self._do(_DETACH, tid, 0, number)

    def event_message(self, tid: int) -> int:
        """Of a fork the new thread's id; of an exec the thread's id before it."""
        self._do(_GETEVENTMSG, tid, 0, self._message_at)
        return int.from_bytes(self._message, sys.byteorder)

    def wait(self) -> tuple[int, int] | None:
        """(tid, wait status) of the next thread with news; None when a signal came first. Raises ChildProcessError."""
        tid: int = self._wait4(-1, self._status_at, _WALL, None)
        if tid > 0:
            return tid, self._status.value
        if ctypes.get_errno() != EINTR:
            _failed()
        return None

    def _do(self, request: int, tid: int, address: int, data: int) -> None:
        if self._ptrace(request, tid, address, data) < 0:
            _failed()

    # -- looking ---------------------------------------------------------------------------------------------------------------

    def entered(self, tid: int) -> tuple[int, ...]:
        """(op, arch, ip, sp, nr, six arguments) of the system call that a thread stopped in; op is one of INFO_*."""
        if self._ptrace(_GET_SYSCALL_INFO, tid, _INFO_SIZE, self._info_at) < 0:
            self._no_info()
        return _ENTERED.unpack_from(self._info)

    def left(self, tid: int) -> int:
        """What the system call that a thread stopped at the exit of returns: negative for an errno."""
        if self._ptrace(_GET_SYSCALL_INFO, tid, _INFO_SIZE, self._info_at) < 0:
            self._no_info()
        value: int = _LEFT.unpack_from(self._info)[0]
        return value

    def _no_info(self) -> None:
        code = ctypes.get_errno()
        if code in (EPERM, ENOSYS, EIO):
            raise SyscallError("ptrace(PTRACE_GET_SYSCALL_INFO)", code, hint="it takes Linux 5.3")
        _failed()

    def read(self, tid: int, address: int, size: int) -> tuple[bytes, int]:
        """(what could be read from the beginning on, 0 or the errno that ended it)."""
        if size <= 0:
            return b"", 0
        if size <= _BUFFER:
            _IOVEC.pack_into(self._local, 0, self._data_at, size)
            got = self._vm(tid, address, size)
            data = bytes(self._view[:got]) if got > 0 else b""
        else:
            big = bytearray(size)
            held = (ctypes.c_char * size).from_buffer(big)
            _IOVEC.pack_into(self._local, 0, ctypes.addressof(held), size)
            got = self._vm(tid, address, size)
            del held
            data = bytes(memoryview(big)[: max(got, 0)])
        if got == size:
            return data, 0
        code = ctypes.get_errno() if got < 0 else EFAULT
        return self._peek(tid, address, size) if code in (EPERM, ENOSYS) else (data, code)

    def _vm(self, tid: int, address: int, size: int) -> int:
        if address < 0 or address + size > 1 << 64:
            ctypes.set_errno(EFAULT)
            return -1
        _IOVEC.pack_into(self._remote, 0, address, size)
        got: int = self._readv(tid, self._local_at, 1, self._remote_at, 1, 0)
        return got

    def gather(self, tid: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
        """``read()`` of each (address, size), in one system call where all of it can be read."""
        if len(ranges) == 1:
            return [self.read(tid, *ranges[0])]
        total = 0
        for at, (address, size) in enumerate(ranges[:_IOVECS]):
            if not 0 <= address < 1 << 64:
                break
            _IOVEC.pack_into(self._remote, at * _IOVEC.size, address, size)
            total += size
        else:
            if total <= _BUFFER and len(ranges) <= _IOVECS:
                _IOVEC.pack_into(self._local, 0, self._data_at, total)
                if self._readv(tid, self._local_at, 1, self._remote_at, len(ranges), 0) == total:
                    found = []
                    start = 0
                    for _, size in ranges:
                        found.append((bytes(self._view[start : start + size]), 0))
                        start += size
                    return found
        return [self.read(tid, *each) for each in ranges]

    def reading(self, ranges: Sequence[tuple[int, int]]) -> Reading | None:
        """These ranges, to be read again and again by ``reread``; None when they are too many or too large for that."""
        total = sum(size for _, size in ranges)
        if total > _BUFFER or len(ranges) > _IOVECS or any(not 0 <= address < 1 << 64 for address, _ in ranges):
            return None
        words = [word for each in ((self._data_at, total), *ranges) for word in each]
        vectors = (ctypes.c_ulong * len(words))(*words)
        local = ctypes.addressof(vectors)
        return local, local + _IOVEC.size, len(ranges), total, vectors

    def reread(self, tid: int, reading: Reading) -> bytes | bytearray:
        """All of it, one behind the other; nothing where some of it cannot be read."""
        local, remote, count, total, _ = reading
        return self._data[:total] if self._readv(tid, local, 1, remote, count, 0) == total else b""

    def string(self, tid: int, address: int, most: int) -> tuple[bytes, int]:
        """Bytes up to the first NUL (without it), at most ``most`` of them, and the errno when memory ends before one."""
        found = b""
        while len(found) < most:
            # Never across a page that need not be there, unless the string goes there.
            step = min(_PAGE - (address + len(found)) % _PAGE, most - len(found))
            piece, code = self.read(tid, address + len(found), step)
            text, nul, _ = piece.partition(b"\0")
            found += text
            if nul or code:
                return found, 0 if nul else code
        return found, 0

    def _peek(self, tid: int, address: int, size: int) -> tuple[bytes, int]:
        """Word by word: where process_vm_readv is forbidden or missing."""
        found = bytearray()
        while len(found) < size:
            ctypes.set_errno(0)
            word = self._ptrace(_PEEKDATA, tid, address + len(found), 0)
            code = ctypes.get_errno()
            if word == -1 and code:
                return bytes(found[:size]), code
            found += (word & (1 << 64) - 1).to_bytes(8, sys.byteorder)
        return bytes(found[:size]), 0


def _failed() -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def allow_tracer(pid: int) -> None:
    """Lets ``pid`` trace this process where Yama (kernel.yama.ptrace_scope 1) would let ancestors only."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def signal_at_parents_end(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)


def name_self(name: str) -> None:
    """The calling thread's name, as ps shows it: 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
