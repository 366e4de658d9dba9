"""The whole machine under audit: the rows of all bpf(2) calls, put together from the pieces that two BPF programs send."""

from __future__ import annotations

import os
import sys
from errno import ENOENT, EPERM
from struct import unpack_from
from time import monotonic_ns, time_ns

from rawkm.audit import plan as plans
from rawkm.audit.facts import Facts
from rawkm.audit.objects import MAKES
from rawkm.audit.plan import PER_CPU, STRING
from rawkm.audit.raw import CUT
from rawkm.btf import Btf
from rawkm.buffers import RingBuf
from rawkm.buffers.ringbuf import ring_size
from rawkm.errors import AttachError, BTFError, NotSupportedError, SyscallError
from rawkm.host import caps, cpus, denied
from rawkm.link import raw_tracepoint
from rawkm.programs import syscalls
from rawkm.programs.syscalls import ATTR, COMM, COMMON_AT, DATA, DATA_SIZE, ENTER, PIECE, Command, Compat, Pointee
from rawkm.scope import INITIAL_PID_NAMESPACE
from rawkm.syscall import seccomp
from rawkm.uapi import layouts, link
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from rawkm.audit.plan import Pointer
    from rawkm.audit.raw import FactRow, MemoryRow, Row
    from rawkm.handle import Handle
    from rawkm.maps import Map
    from rawkm.prog import Program, ProgramSpec
    from rawkm.syscall.kernel import Kernel
    from rawkm.uapi.fields import Definition

_VMLINUX = "/sys/kernel/btf/vmlinux"
_MOST_MADE = 1 << 16
#: The ring: some 30,000 pieces.
RING = 8 << 20
# How the kernel marks a task within a 32-bit system call, whose numbers mean others: TS_COMPAT in thread_info.status,
# TIF_32BIT in thread_info.flags (arch/*/include/asm/thread_info.h).
_COMPAT = {"x86_64": ("thread_info.status", 2), "aarch64": ("thread_info.flags", 1 << 22)}


class _Piece:
    """What has come of one pointer. ``content``: bytes, or of an array of strings each by its place."""

    __slots__ = ("address", "content", "errno", "strings", "wanted")

    def __init__(self, address: int, wanted: int) -> None:
        self.address = address
        self.wanted = wanted
        self.content = bytearray()
        self.strings: dict[int, bytes | None] = {}
        self.errno = 0


class _Pending:
    """A call whose end has not come yet. ``pieces``: by the pointer's number."""

    __slots__ = ("address", "attr", "cmd", "comm", "common_at", "common_size", "entered", "errno", "pieces", "size")

    def __init__(self, ts: int, address: int, size: int, cmd: int, length: int, data: bytes) -> None:
        self.entered = ts
        self.address = address
        self.size = size
        self.cmd = cmd
        self.comm = data[COMM : COMM + 16].partition(b"\0")[0]
        self.common_at, self.common_size = unpack_from("=QI", data, COMMON_AT)
        self.attr = data[ATTR : ATTR + max(length, 0)]
        self.errno = max(-length, 0)
        self.pieces: dict[int, _Piece] = {}


class System:
    """Attached from ``with`` to its end. ``fds``: for a poller."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._machine = os.uname().machine
        if self._machine not in syscalls.REGISTERS:
            raise NotSupportedError(
                f"rawkm audit --system on {self._machine}",
                f"where its system calls keep their arguments is known of {', '.join(syscalls.REGISTERS)} only",
            )
        self._cpus = len(cpus.possible(kernel))
        self._facts = Facts(self._cpus)
        # What each pointer's number stands for, and whether it is copied at the exit.
        self._pointers: list[tuple[Pointer, bool]] = []
        # What was made by calls that were seen: (process, fd).
        self._made: dict[tuple[int, int], FactRow] = {}
        self._pending: dict[int, _Pending] = {}
        self._open: list[Handle] = []
        self._maps: dict[str, Map] = {}
        self._ring: RingBuf | None = None
        self._epoch = 0
        self._unknown = 0
        self._programs: list[Program] = []
        self._initial = kernel.identity("/proc/self/ns/pid")[1] == INITIAL_PID_NAMESPACE
        #: Calls and pieces of calls that found no room in the ring; calls of this process.
        self.dropped_calls = self.dropped_pieces = self.own_calls = 0

    def __enter__(self) -> System:
        try:
            self._attach()
        except AttachError as err:
            self.close()
            if err.errno != ENOENT:
                raise
            raise NotSupportedError(
                "rawkm audit --system", f"{err}: the kernel was built without tracepoints of system calls"
            ) from None
        except SyscallError as err:
            self.close()
            if err.errno != EPERM:
                raise
            raise denied.error(self._kernel, err, "trace system calls", caps.CAP_BPF, caps.CAP_PERFMON) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def fds(self) -> list[int]:
        return self._ring.fds if self._ring is not None else []

    def _attach(self) -> None:
        for spec in (syscalls.events(ring_size(RING)), *syscalls.MAPS[1:]):
            self._maps[spec.name] = spec.create(self._kernel)
            self._open.append(self._maps[spec.name])
        self._load(syscalls.seed()).test_run()
        number = seccomp.ABIS[self._machine][0][1][0]
        # In this order: an end without a beginning is left out.
        leave = self._load(syscalls.on_exit(self._commands(at_exit=True)))
        enter = self._load(syscalls.on_enter(number, self._machine, self._commands(at_exit=False), self._compat()))
        self._programs = [enter, leave]
        self._ring = RingBuf(self._maps["events"], PIECE)
        for program, tracepoint in ((leave, "sys_exit"), (enter, "sys_enter")):
            self._open.append(raw_tracepoint.attach(program, tracepoint))
        self._epoch = time_ns() - monotonic_ns()

    def _load(self, spec: ProgramSpec) -> Program:
        program = spec.load(self._kernel, self._maps)
        self._open.append(program)
        return program

    def _compat(self) -> Compat | None:
        member, mask = _COMPAT[self._machine]
        try:
            return Compat(Btf(self._kernel.read_file(_VMLINUX)).member_offset("task_struct", member), mask)
        except (SyscallError, BTFError):
            # Then some system calls of 32-bit programs are taken for bpf(2).
            return None

    def _commands(self, *, at_exit: bool) -> Iterator[Command]:
        """What to copy of each command, from the same definitions as everything else."""
        for definition in layouts.DEFINITIONS:
            if definition.cmd < 0:
                continue
            kinds = [kind for kind, variant in link.BY_ATTACH_TYPE.items() if variant is definition] if definition.variant else []
            pointees = list(self._pointees(definition, at_exit))
            if pointees:
                yield Command(definition.cmd, pointees, kinds)

    def _pointees(self, definition: Definition, at_exit: bool) -> Iterator[Pointee]:
        members = {member.path: member for member in definition.members}
        for pointer in plans.of(definition).pointers:
            if not (pointer.writes if at_exit else pointer.reads):
                continue
            self._pointers.append((pointer, at_exit))
            yield Pointee(
                len(self._pointers) - 1,
                members[pointer.path].offset,
                factors=[(members[path].offset, members[path].size) for path in pointer.factors],
                width=pointer.width,
                string=not pointer.factors and not pointer.map_fd,
                strings=pointer.strings,
                always=pointer.target == "log",
            )

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[Row]:
        """The rows of the calls that have ended since the last time."""
        assert self._ring is not None
        while len(batch := self._ring.read()):
            for piece in batch.rows():
                row = self._piece(*piece)
                if row is not None:
                    yield row
        self._count()

    def passed_by(self) -> int:
        """Beginnings and ends of system calls, of any kind, that the kernel did not tell our programs of.

        It does not run one on a CPU where it is under way already, which a task that was preempted in it leaves it for long.
        (On Linux 7.2 many of a storm of system calls have been seen to pass by, on 6.12 none.)
        """
        return sum(program.recursion_misses() or 0 for program in self._programs)

    def _count(self) -> None:
        ledger = self._maps["ledger"].lookup(0) or bytes(24)
        self.dropped_calls, self.dropped_pieces, self.own_calls = (
            int.from_bytes(ledger[at : at + 8], sys.byteorder)
            for at in (syscalls.DROPPED_CALLS, syscalls.DROPPED_PIECES, syscalls.OWN_CALLS)
        )

    def _piece(self, *values: Any) -> Row | None:
        pid_tgid, ts, address, wanted, kind, index, length, offset, data = values
        if kind == ENTER:
            # Whatever this thread was in has ended without our seeing it.
            lost = self._pending.pop(pid_tgid, None)
            self._pending[pid_tgid] = _Pending(ts, address, wanted, index, length, data)
            return None if lost is None else self._row(pid_tgid, lost, None, None, 0)
        pending = self._pending.get(pid_tgid)
        if pending is None:
            return None
        if kind == DATA:
            piece = pending.pieces.setdefault(index, _Piece(address, wanted))
            if self._pointers[index][0].strings:
                piece.strings[offset] = data[: length - 1] if length > 0 else None
            elif length < 0:
                piece.errno = -length
            elif offset == len(piece.content):
                piece.content += data[:length]
            return None
        del self._pending[pid_tgid]
        ret = wanted - (1 << 64) if wanted >> 63 else wanted
        after = data[ATTR : ATTR + max(length, 0)]
        return self._row(pid_tgid, pending, ret, after if len(after) == len(pending.attr) else None, ts - pending.entered)

    # -- putting together ------------------------------------------------------------------------------------------------------

    def _row(self, pid_tgid: int, call: _Pending, ret: int | None, after: bytes | None, ns: int) -> Row:
        pid = pid_tgid >> 32
        plan = plans.for_call(call.cmd, call.attr)
        values = plan.definition.unpack(call.attr) if plan is not None else {}
        facts: dict[str, FactRow] = {}
        for path in plan.fds if plan is not None else ():
            fd = values[path]
            if isinstance(fd, int) and 0 < fd < 1 << 31 and (fact := self._fact(pid, fd)) is not None:
                facts[path] = fact
        entry: dict[str, MemoryRow] = {}
        exit: dict[str, MemoryRow] = {}
        now = plan.definition.unpack(after) if plan is not None and after is not None else values
        for index, piece in call.pieces.items():
            pointer, at_exit = self._pointers[index]
            memory = _memory(pointer, piece, now if at_exit else values, facts.get(pointer.map_fd))
            if memory is not None:
                (exit if at_exit else entry)[pointer.path] = memory
        if plan is not None and plan.returns_fd and ret is not None and ret > 0:
            made = self._returned(pid, ret, plan.definition.cmd, values)
            if made is not None:
                facts[""] = made
        with_common = bool(call.cmd & Cmd.COMMON_ATTRS)
        return (
            pid,
            pid_tgid & 0xFFFFFFFF,
            call.comm,
            call.entered + self._epoch,
            ns,
            0,
            call.cmd,
            call.address,
            call.size,
            ret,
            call.attr,
            call.errno,
            after if plan is None or plan.writes_back else None,
            entry,
            exit,
            facts,
            call.common_at if with_common else 0,
            call.common_size if with_common else 0,
            b"",
            None,
        )

    def _fact(self, pid: int, fd: int) -> FactRow | None:
        """By the call that made it, else by what the process has there now."""
        made = self._made.get((pid, fd))
        return self._facts.of(pid, pid, fd) if made is None and self._initial else made

    def _returned(self, pid: int, fd: int, cmd: int, values: Mapping[str, Any]) -> FactRow | None:
        self._made.pop((pid, fd), None)
        seen = self._facts.returned(pid, pid, fd) if self._initial else None
        kind = MAKES.get(cmd)
        if kind == "map":
            type, key, value = values["map_type"], values["key_size"], values["value_size"]
            if seen is None or seen[0] != kind or seen[2:5] != (type, key, value):
                # It is closed again, or something else by now: a number that no object has.
                self._unknown -= 1
                seen = kind, self._unknown, type, key, value, self._cpus if type in PER_CPU else 0
        elif kind is not None and (seen is None or seen[0] != kind):
            self._unknown -= 1
            seen = kind, self._unknown, 0, 0, 0, 0
        if seen is not None:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            self._made[pid, fd] = seen
        return seen

    def close(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        while self._open:
            self._open.pop().close()


def _memory(pointer: Pointer, piece: _Piece, values: Mapping[str, Any], fact: FactRow | None) -> MemoryRow | None:
    """What is known of the memory behind a pointer; None where nobody can say how much is meant."""
    if pointer.strings:
        count = max(piece.strings, default=-1) + 1
        found = [piece.strings.get(at) for at in range(count)]
        return piece.address, piece.wanted, found, CUT if count < piece.wanted else 0
    content = bytes(piece.content)
    size = pointer.measure(values, fact)
    if size == STRING:
        # The kernel ends what it cuts with a NUL, too.
        return piece.address, size, content[:-1], piece.errno or (CUT if len(content) == DATA_SIZE else 0)
    if pointer.target == "log":
        text, nul, _ = content.partition(b"\0")
        return piece.address, size, text, 0 if nul else piece.errno or CUT
    if size <= 0:
        return None
    return piece.address, size, content[:size], piece.errno or (CUT if len(content) < size else 0)
