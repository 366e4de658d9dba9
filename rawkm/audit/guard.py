"""The process that traces: apart from the one that shows, so that the watched program outlives either.

What a seccomp filter sends to a tracer fails with ENOSYS once there is no tracer, and a filter cannot be taken off again. If
the process that the user sees, and ends, were the tracer, its end would take bpf(2) away from the program. So a child of it
traces, in a session of its own, where no terminal's signals reach it. When it is alone, it stays as a guard: it lets every call
pass, looks at nothing any more, and ends with the last watched thread. If it is the one that is killed, its parent makes another
one. (The kernel's other way, SECCOMP_RET_USER_NOTIF, fails just so without a listener, and shows no results.)
"""

from __future__ import annotations

import marshal
import os
import signal
import time
from errno import EPERM, ESRCH

from rawkm.audit.tracer import Tracer
from rawkm.errors import RawkmError
from rawkm.syscall import ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from typing import Any

    from rawkm.audit.raw import Row

# Kinds of messages to the parent.
CALLS, READY, FAILED, THREADS, END = range(5)
_LENGTH = 4

# A call reaches the parent at the latest after so many seconds, or with so many others.
_LATEST = 0.05
_MOST_ROWS = 256
_MOST_BYTES = 1 << 20
# The parent's end is told by a signal. Should that come just before we wait, this often we look anyway.
_LOOK_EVERY = 1.0
_NAME = "rawkm-guard"


class Guard:
    """The parent's side. ``every``: see Tracer. ``detach``: without the parent, let go of everything and end."""

    def __init__(self, *, every: bool, detach: bool, cpus: int) -> None:
        self._every = every
        self._detach = detach
        self._cpus = cpus
        self.fd = -1
        self.pid = -1
        self._orders = -1
        self._received = bytearray()
        self.threads: set[int] = set()
        self.ended = False
        self._start()

    def _start(self) -> None:
        """Forks. The child waits for the threads to trace."""
        self.fd, theirs = os.pipe2(os.O_CLOEXEC)
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                _Child(theirs, orders, parent, every=self._every, detach=self._detach, cpus=self._cpus).run()
                code = 0
            finally:
                os._exit(code)
        os.close(theirs)
        os.close(orders)
        os.set_blocking(self.fd, False)
        self._received.clear()

    def seize(self, tids: Sequence[int], *, stop: bool) -> None:
        """Traces these threads from now on. Raises PermissionError (with the thread's number as its filename) or
        ProcessLookupError."""
        os.write(self._orders, marshal.dumps((tuple(tids), stop)))
        os.close(self._orders)
        self._orders = -1
        os.set_blocking(self.fd, True)
        try:
            for kind, what in self._messages(os.read(self.fd, 1 << 16)):
                if kind == READY:
                    self.threads |= set(tids)
                    return
                if kind == FAILED:
                    number, tid = what
                    raise OSError(number, os.strerror(number), str(tid))
        finally:
            os.set_blocking(self.fd, False)
        raise RawkmError("the process that traces ended before it began")

    def read(self) -> Iterator[Row]:
        """The rows of the calls that have come by now. Sets ``ended`` when there will be no more."""
        while not self.ended:
            try:
                data = os.read(self.fd, 1 << 18)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
                return
            for kind, what in self._messages(data):
                if kind == CALLS:
                    yield from what
                elif kind == THREADS:
                    born, gone = what
                    self.threads |= set(born)
                    self.threads -= set(gone)
                elif kind == FAILED:
                    raise RawkmError(f"the process that traces failed: {what}")
                elif kind == END:
                    self.ended = True
                    self.threads.clear()

    def _messages(self, data: bytes) -> Iterator[tuple[int, Any]]:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= _LENGTH:
            size = int.from_bytes(received[at : at + _LENGTH], "little")
            if len(received) - at - _LENGTH < size:
                break
            message = marshal.loads(memoryview(received)[at + _LENGTH : at + _LENGTH + size].tobytes())
            at += _LENGTH + size
            yield message
        del received[:at]

    def revive(self) -> list[int]:
        """Another tracer instead of one that was killed. The threads that it could not take over."""
        self.close()
        lost = [tid for tid in sorted(self.threads) if os.path.exists(f"/proc/{tid}")]
        self.ended = False
        self._start()
        deadline = time.monotonic() + 2
        while lost:
            try:
                self.seize(lost, stop=False)
                return []
            except ProcessLookupError:
                lost = [tid for tid in lost if os.path.exists(f"/proc/{tid}")]
            except PermissionError:
                # The dead tracer is not quite dead.
                if time.monotonic() > deadline:
                    break
                time.sleep(0.001)
            self.close()
            self._start()
        self.ended = True
        return lost

    def let_go(self) -> None:
        """Asks the tracer to let go of everything and end; ``read`` on until it has."""
        os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        for fd in (self.fd, self._orders):
            if fd >= 0:
                os.close(fd)
        self.fd = self._orders = -1
        if self.ended and self.pid > 0:
            os.waitpid(self.pid, 0)
            self.pid = -1


class _Child:
    """The tracer's side."""

    def __init__(self, fd: int, orders: int, parent: int, *, every: bool, detach: bool, cpus: int) -> None:
        self._fd = fd
        self._parent = parent
        self._detach = detach
        self._rows: list[Row] = []
        self._weight = 0
        self._born: list[int] = []
        self._gone: list[int] = []
        self._told_to_leave = False
        self._alone = False
        self._become_a_guard(orders)
        self._tracer = Tracer(self._call, self._thread, self._attend, every=every, cpus=cpus)

    def _become_a_guard(self, orders: int) -> None:
        """Nothing of the parent's is kept but the two pipes, and nothing that ends it ends us."""
        os.setsid()
        ptrace.name_self(_NAME)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGALRM, self._alarmed)
        null = os.open(os.devnull, os.O_RDWR)
        self._orders = os.dup(orders)
        self._fd = os.dup(self._fd)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        keep = sorted((self._fd, self._orders))
        os.closerange(3, keep[0])
        os.closerange(keep[0] + 1, keep[1])
        os.closerange(keep[1] + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        ptrace.signal_at_parents_end(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY, _LOOK_EVERY)

    def run(self) -> None:
        data = os.read(self._orders, 1 << 20)
        os.close(self._orders)
        if not data:
            return
        tids, stop = marshal.loads(data)
        for tid in tids:
            try:
                self._tracer.seize([tid], stop=stop)
            except OSError as err:
                if err.errno == ESRCH and tid != tids[0]:
                    continue
                self._send(FAILED, (err.errno or EPERM, tid))
                return
        self._send(READY, None)
        try:
            self._tracer.run()
        except RawkmError as err:
            self._flush()
            self._send(FAILED, str(err))
            return
        self._flush()
        self._send(END, None)

    # -- signals: they only wake the tracer up -----------------------------------------------------------------------------------

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_leave = True
        self._tracer.attention = True

    def _alarmed(self, _number: int, _frame: FrameType | None) -> None:
        self._tracer.attention = True

    def _attend(self) -> None:
        """Between two events."""
        if os.getppid() != self._parent:
            self._be_alone()
        elif self._told_to_leave:
            self._tracer.leave = True
        self._flush()

    def _be_alone(self) -> None:
        self._alone = True
        self._tracer.silent = True
        self._tracer.leave = self._tracer.leave or self._detach
        signal.setitimer(signal.ITIMER_REAL, 0)

    # -- to the parent -----------------------------------------------------------------------------------------------------------

    def _call(self, row: Row) -> None:
        if self._alone:
            return
        if not self._rows:
            signal.setitimer(signal.ITIMER_REAL, _LATEST, _LOOK_EVERY)
        self._rows.append(row)
        # What is behind pointers is what may be large.
        for memory in (*row[13].values(), *row[14].values()):
            self._weight += len(memory[2])
        if self._weight > _MOST_BYTES or len(self._rows) >= _MOST_ROWS:
            self._flush()

    def _thread(self, tid: int, born: bool) -> None:
        """At once: whoever takes over from us must know them all."""
        self._send(THREADS, ((tid,), ()) if born else ((), (tid,)))

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows, self._weight = self._rows, [], 0
            self._send(CALLS, rows)

    def _send(self, kind: int, what: Any) -> None:
        if self._alone:
            return
        data = marshal.dumps((kind, what))
        view = memoryview(len(data).to_bytes(_LENGTH, "little") + data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            self._be_alone()
