"""The loop that stops the watched threads at bpf(2), looks, and lets them go on.

strace's rules (ptrace(2), "Stopped states"): signals are delivered as they came, group-stops stay stops, new children and
threads are followed by the kernel itself. A thread is stopped twice per bpf(2) call: at its entry (by seccomp) and at its
exit. Where there is no seccomp filter (``every``), it is stopped at every system call.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from errno import ESRCH
from time import monotonic_ns, time_ns

from rawkm.audit import capture
from rawkm.audit import plan as plans
from rawkm.audit.facts import BELIEVED as FACTS_BELIEVED
from rawkm.audit.facts import Facts
from rawkm.audit.raw import MOST_ATTR
from rawkm.syscall import ptrace, seccomp
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rawkm.audit.plan import Plan, Values
    from rawkm.audit.raw import FactRow as Fact
    from rawkm.audit.raw import MemoryRow as Memory
    from rawkm.audit.raw import Row

_FOLLOW = ptrace.O_TRACEFORK | ptrace.O_TRACEVFORK | ptrace.O_TRACECLONE | ptrace.O_TRACEEXEC | ptrace.O_TRACESYSGOOD
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_SYSCALL_STOP = signal.SIGTRAP | 0x80
# Nanoseconds. A thread may change its name without a word to us.
_COMM_BELIEVED = 50_000_000
_MOST_SEEN = 32
_MASK = 0xFFFFFFFF
# The wait status of a stop by seccomp, and of one at the exit.
_AT_CALL = ptrace.EVENT_SECCOMP << 16 | signal.SIGTRAP << 8 | 0x7F
_AT_EXIT = _SYSCALL_STOP << 8 | 0x7F


class _Thread:
    """``call``: the bpf(2) call that it is in. ``seen``: its recent calls, by command and place of the attr."""

    __slots__ = ("call", "comm", "comm_at", "pid", "seen", "tid")

    def __init__(self, tid: int, pid: int) -> None:
        self.tid = tid
        self.pid = pid
        self.comm = b""
        self.comm_at = 0
        self.call: _Entered | None = None
        self.seen: dict[tuple[int, int, int], _Seen] = {}


class _Entered:
    """A call between its entry and its exit. Memory and facts are rows of the types in raw."""

    __slots__ = ("abi", "args", "attr", "attr_errno", "begun", "common", "entry", "facts", "nested", "plan", "values")

    def __init__(
        self,
        begun: int,
        abi: int,
        args: tuple[int, ...],
        attr: bytes,
        attr_errno: int,
        plan: Plan | None,
        values: Values,
        facts: dict[str, Fact],
        entry: dict[str, Memory],
    ) -> None:
        self.begun = begun
        self.abi = abi
        self.args = args
        self.attr = attr
        self.attr_errno = attr_errno
        self.plan = plan
        self.values = values
        self.facts = facts
        self.entry = entry
        self.nested: tuple[Plan, bytes, Values] | None = None
        self.common = b""


class _Seen:
    """A call whose attr lay at the same place, with the same pointers in it: what to read then is known before it is read."""

    __slots__ = ("attr", "believed_until", "facts", "parts", "plan", "reading", "values")

    def __init__(self, call: _Entered, reading: ptrace.Reading, until: int) -> None:
        self.attr = call.attr
        self.plan = call.plan
        self.values = call.values
        self.facts = call.facts
        # path, address, start and end of what is behind it in all that is read
        self.parts: list[tuple[str, int, int, int]] = []
        at = len(call.attr)
        for path, memory in call.entry.items():
            self.parts.append((path, memory[0], at, at + memory[1]))
            at += memory[1]
        self.reading = reading
        self.believed_until = until


class _Space:
    """The memory of one thread, for capture."""

    __slots__ = ("_tid", "_tracer")

    def __init__(self, tracer: ptrace.Tracer, tid: int) -> None:
        self._tracer = tracer
        self._tid = tid

    def gather(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
        return self._tracer.gather(self._tid, ranges)

    def string(self, address: int, most: int) -> tuple[bytes, int]:
        return self._tracer.string(self._tid, address, most)


class Tracer:
    """Traces until no thread is left.

    ``call`` is told the row of each call, ``thread`` the id of each thread when it is first seen (True) and when it has ended.
    ``every``: stop at every system call, for there is no seccomp filter. A signal handler may set ``attention``: then
    ``attend`` is called between two events, which may set ``silent``: from now on only let the threads go on; and ``leave``:
    let go of all of them, and be done.
    """

    def __init__(
        self,
        call: Callable[[Row], None],
        thread: Callable[[int, bool], None],
        attend: Callable[[], None],
        *,
        every: bool,
        cpus: int,
    ) -> None:
        self._sink = call
        self._tell_thread = thread
        self._attend = attend
        self._every = every
        self._ptrace = ptrace.Tracer()
        self._threads: dict[int, _Thread] = {}
        self._facts = Facts(cpus)
        self._epoch = time_ns() - monotonic_ns()
        self._numbers: dict[int, tuple[int, ...]] = defaultdict(tuple, seccomp.bpf_numbers())
        self.attention = False
        self.silent = False
        self.leave = False

    def seize(self, tids: Iterable[int], *, stop: bool = False) -> None:
        """Becomes the tracer of these threads. ``stop``: they run already, and must be stopped once for it."""
        options = _FOLLOW | (0 if self._every else ptrace.O_TRACESECCOMP)
        for tid in tids:
            if tid not in self._threads:
                self._ptrace.seize(tid, options)
                self._threads[tid] = _Thread(tid, _process_of(tid))
                if stop or self._every:
                    self._ptrace.interrupt(tid)

    def run(self) -> None:
        """Until no thread is left."""
        told = False
        # What happens at every call is done here, everything else by _handle.
        ptrace_ = self._ptrace
        wait, entered, cont, to_syscall = ptrace_.wait, ptrace_.entered, ptrace_.cont, ptrace_.to_syscall
        threads, numbers, enter, handle = self._threads, self._numbers, self._enter, self._handle
        leave, left, simple = self._leave, ptrace_.left, not self._every
        while True:
            try:
                news = wait()
            except ChildProcessError:
                return
            if self.attention:
                self.attention = False
                self._attend()
                if self.leave and not told:
                    told = True
                    self._interrupt_all()
            if news is not None:
                tid, status = news
                try:
                    if status == _AT_CALL and not self.silent and not self.leave and (thread := threads.get(tid)) is not None:
                        info = entered(tid)
                        if info[4] in numbers[info[1]]:
                            enter(thread, info)
                            to_syscall(tid, 0)
                        else:
                            cont(tid, 0)
                    elif status == _AT_EXIT and simple and not self.leave and (thread := threads.get(tid)) and thread.call:
                        call, thread.call = thread.call, None
                        leave(thread, call, left(tid))
                        cont(tid, 0)
                    else:
                        handle(tid, status)
                except OSError as err:
                    # Killed while it was stopped; its end is reported.
                    if err.errno != ESRCH:
                        raise

    def _interrupt_all(self) -> None:
        for tid in list(self._threads):
            try:
                self._ptrace.interrupt(tid)
            except OSError:
                pass  # it is gone, or stopped with its news on the way

    def _handle(self, tid: int, status: int) -> None:
        thread = self._threads.get(tid)
        if status & 0xFF != 0x7F:
            self._ended(tid, thread)
            return
        if thread is None:
            # A child's first stop may come before its parent's news.
            thread = self._threads[tid] = _Thread(tid, _process_of(tid))
            self._tell_thread(tid, True)
        number, event = status >> 8 & 0xFF, status >> 16
        deliver = 0
        if event == 0:
            if number == _SYSCALL_STOP:
                self._at_syscall(thread)
            else:
                deliver = number
        elif event == ptrace.EVENT_SECCOMP:
            if not self.silent:
                info = self._ptrace.entered(tid)
                if info[4] in self._numbers[info[1]]:
                    self._enter(thread, info)
        elif event == ptrace.EVENT_STOP:
            if number in _STOPPING and not self.leave:
                self._ptrace.listen(tid)
                return
        elif event == ptrace.EVENT_EXEC:
            thread = self._executed(thread, self._ptrace.event_message(tid))
        if self.leave:
            self._let_go(thread, deliver)
        elif (thread.call is not None or self._every) and not self.silent:
            self._ptrace.to_syscall(tid, deliver)
        else:
            self._ptrace.cont(tid, deliver)

    def _let_go(self, thread: _Thread, deliver: int) -> None:
        self._unfinished(thread)
        self._forget(thread.tid)
        self._ptrace.detach(thread.tid, deliver)

    def _executed(self, thread: _Thread, former: int) -> _Thread:
        """A thread that executes a program takes its process's id."""
        if former != thread.tid:
            self._forget(former)
        thread.call = None
        thread.comm_at = 0
        return thread

    def _ended(self, tid: int, thread: _Thread | None) -> None:
        if thread is not None:
            self._unfinished(thread)
            self._forget(tid)

    def _forget(self, tid: int) -> None:
        if self._threads.pop(tid, None) is not None:
            self._tell_thread(tid, False)

    # -- calls -----------------------------------------------------------------------------------------------------------------

    def _at_syscall(self, thread: _Thread) -> None:
        call = thread.call
        if call is not None:
            thread.call = None
            self._leave(thread, call, self._ptrace.left(thread.tid))
        elif self._every and not self.silent:
            info = self._ptrace.entered(thread.tid)
            if info[0] == ptrace.INFO_ENTRY and info[4] in self._numbers[info[1]]:
                self._enter(thread, info)

    def _enter(self, thread: _Thread, info: tuple[int, ...]) -> None:
        now = monotonic_ns()
        tid = thread.tid
        if now - thread.comm_at > _COMM_BELIEVED:
            thread.comm, thread.comm_at = _comm(tid), now
            self._epoch = time_ns() - now
        args = info[5:]
        cmd, attr_at, size = args[0] & _MASK, args[1], args[2] & _MASK
        seen = thread.seen.get((cmd, attr_at, size))
        if seen is not None and now < seen.believed_until:
            data = self._ptrace.reread(tid, seen.reading)
            if data.startswith(seen.attr):
                entry: dict[str, Memory] = {
                    path: (address, end - start, bytes(data[start:end]), 0) for path, address, start, end in seen.parts
                }
                thread.call = _Entered(now, info[1], args, seen.attr, 0, seen.plan, seen.values, seen.facts, entry)
                return
        attr, code = self._ptrace.read(tid, attr_at, min(size, MOST_ATTR))
        plan = plans.for_call(cmd, attr)
        if plan is None:
            thread.call = _Entered(now, info[1], args, attr, code, None, {}, {}, {})
            return
        values = plan.definition.unpack(attr)
        facts: dict[str, Fact] = {}
        for path in plan.fds:
            fd = values[path]
            # 0 is what a field that is not used holds; no program has a map there.
            if 0 < fd < 1 << 31:  # type: ignore[operator]  # an fd is an int
                fact = self._facts.of(tid, thread.pid, fd)  # type: ignore[arg-type]
                if fact is not None:
                    facts[path] = fact
        space = _Space(self._ptrace, tid)
        entry = capture.entry(space, plan, values, facts)
        call = thread.call = _Entered(now, info[1], args, attr, code, plan, values, facts, entry)
        if "info.info" in entry:
            self._enter_info(call)
        elif cmd & Cmd.COMMON_ATTRS:
            call.common, _ = self._ptrace.read(tid, args[3], min(args[4] & _MASK, MOST_ATTR))
        elif plan.plain and not code:
            self._remember(thread, (cmd, attr_at, size), call, now)

    def _remember(self, thread: _Thread, key: tuple[int, int, int], call: _Entered, now: int) -> None:
        if any(memory[3] for memory in call.entry.values()):
            return
        reading = self._ptrace.reading([(key[1], len(call.attr)), *((memory[0], memory[1]) for memory in call.entry.values())])
        if reading is not None:
            if len(thread.seen) >= _MOST_SEEN:
                thread.seen.clear()
            thread.seen[key] = _Seen(call, reading, now + FACTS_BELIEVED)

    def _enter_info(self, call: _Entered) -> None:
        """The struct to fill carries pointers, too."""
        fact = call.facts.get("info.bpf_fd")
        data = call.entry["info.info"][2]
        if fact is None or not isinstance(data, bytes):
            return
        plan = plans.for_info(fact[0], data)
        if plan is not None:
            call.nested = plan, data, plan.definition.unpack(data)

    def _leave(self, thread: _Thread, call: _Entered, ret: int) -> None:
        ns = monotonic_ns() - call.begun
        tid, plan = thread.tid, call.plan
        after: bytes | None = None
        common_after: bytes | None = None
        found: dict[str, Memory] = {}
        if plan is None or plan.writes_back:
            after, _ = self._ptrace.read(tid, call.args[1], len(call.attr))
        facts = call.facts
        if plan is not None:
            before = call.values
            if plan.writes and (ret >= 0 or plan.on_error):
                now = before if after is None else plan.definition.unpack(after)
                found = capture.exit(_Space(self._ptrace, tid), plan, before, now, facts, ret)
                if call.nested is not None and "info.info" in found:
                    self._leave_info(tid, call, found, ret)
            if call.common:
                common_after, _ = self._ptrace.read(tid, call.args[3], len(call.common))
                common = plans.for_common()
                before, now = common.definition.unpack(call.common), common.definition.unpack(common_after)
                found |= capture.exit(_Space(self._ptrace, tid), common, before, now, {}, ret, "common.")
            if ret > 0 and plan.returns_fd:
                fact = self._facts.returned(tid, thread.pid, ret)
                if fact is not None:
                    facts = {**facts, "": fact}
        self._emit(thread, call, ret, ns, after, found, facts, common_after)

    def _leave_info(self, tid: int, call: _Entered, found: dict[str, Memory], ret: int) -> None:
        assert call.nested is not None
        plan, data, before = call.nested
        filled = found["info.info"][2]
        assert isinstance(filled, bytes)
        # Of a link the kind is known only now.
        really = plans.for_info(call.facts["info.bpf_fd"][0], filled)
        if really is not None and really is not plan:
            plan, before = really, really.definition.unpack(data)
        found |= capture.exit(_Space(self._ptrace, tid), plan, before, plan.definition.unpack(filled), {}, ret, "info.info.")

    def _emit(
        self,
        thread: _Thread,
        call: _Entered,
        ret: int | None,
        ns: int,
        after: bytes | None,
        found: dict[str, Memory],
        facts: dict[str, Fact],
        common_after: bytes | None,
    ) -> None:
        args = call.args
        common = (args[3], args[4] & _MASK) if args[0] & Cmd.COMMON_ATTRS else (0, 0)
        self._sink(
            (
                thread.pid,
                thread.tid,
                thread.comm,
                call.begun + self._epoch,
                ns,
                call.abi,
                args[0] & _MASK,
                args[1],
                args[2] & _MASK,
                ret,
                call.attr,
                call.attr_errno,
                after,
                call.entry,
                found,
                facts,
                *common,
                call.common,
                common_after,
            )
        )

    def _unfinished(self, thread: _Thread) -> None:
        """It ended, or was let go, within a call."""
        call, thread.call = thread.call, None
        if call is not None and not self.silent:
            self._emit(thread, call, None, monotonic_ns() - call.begun, None, {}, call.facts, None)


def _process_of(tid: int) -> int:
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    return int(line.split()[1])
    except OSError:
        pass  # it is gone
    return tid


def _comm(tid: int) -> bytes:
    try:
        fd = os.open(f"/proc/{tid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 64).removesuffix(b"\n")
    except OSError:
        return b""
    finally:
        os.close(fd)
