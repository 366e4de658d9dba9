"""A command, or a process that runs already, under audit."""

from __future__ import annotations

import os
from errno import EPERM

from rawkm.audit.guard import Guard
from rawkm.errors import NotSupportedError, RawkmError
from rawkm.host import caps, cpus, sysctl
from rawkm.syscall import ptrace, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.syscall.kernel import Child, Kernel


class Watch:
    """``guard`` has the calls; ``command`` is what was started, None of a process that ran before. ``notes``: what the user shall
    know."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.command: Child | None = None
        self.notes: list[str] = []
        self.guard: Guard

    def start(self, argv: Sequence[str], *, stdout_to_stderr: bool, every: bool = False) -> None:
        """Prepares a command, which begins with ``go()``. ``every``: without a seccomp filter."""
        if not every and not seccomp.supported():
            self.notes.append(
                "this kernel takes no seccomp filter: the program is stopped at every system call, and so is slower"
            )
            every = True
        filter = b"" if every else seccomp.trace_bpf_filter()
        no_new_privs = bool(filter) and not caps.has(caps.effective(self._kernel), caps.CAP_SYS_ADMIN)
        if no_new_privs:
            self.notes.append(
                "without CAP_SYS_ADMIN a seccomp filter takes no_new_privs: set-user-ID programs and file capabilities "
                "have no effect in the program"
            )
        self.guard = self._guard(every=every)
        guard = self.guard.pid

        def prepare() -> None:
            ptrace.allow_tracer(guard)
            if filter:
                seccomp.install(filter, no_new_privs=no_new_privs)

        try:
            self.command = self._kernel.start(argv, seed=prepare, stdout_to_stderr=stdout_to_stderr)
            self._seize([self.command.pid], stop=False)
        except BaseException:
            self.close()
            raise

    def go(self) -> None:
        assert self.command is not None
        self.command.go()

    def attach(self, pid: int) -> None:
        """All threads of a process. It is stopped at every system call: a filter cannot be put in from outside."""
        try:
            tids = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
        except OSError:
            raise RawkmError(f"there is no process {pid}") from None
        self.guard = self._guard(every=True)
        try:
            self._seize(tids, stop=True)
        except BaseException:
            self.close()
            raise

    def _guard(self, *, every: bool) -> Guard:
        return Guard(every=every, detach=every, cpus=len(cpus.possible(self._kernel)))

    def _seize(self, tids: Sequence[int], *, stop: bool) -> None:
        try:
            self.guard.seize(tids, stop=stop)
        except ProcessLookupError:
            raise RawkmError("the process ended before it could be traced") from None
        except OSError as err:
            if err.errno != EPERM:
                raise RawkmError(f"ptrace(PTRACE_SEIZE) was refused: {err.strerror}") from None
            why, help = self._why(int(err.filename))
            raise NotSupportedError("rawkm cannot trace this process", why, help=help) from None

    def _why(self, tid: int) -> tuple[str, str]:
        """(evidence, what would help) of an EPERM of PTRACE_SEIZE."""
        said = "ptrace(PTRACE_SEIZE) was refused with EPERM"
        status = _status(tid)
        if (tracer := status.get("TracerPid", "0")) != "0":
            return f"{said}: it is traced by process {tracer} already", "only one can trace it at a time"
        scope = sysctl.number(self._kernel, "kernel/yama/ptrace_scope")
        if scope == 3:
            return (
                f"{said}: kernel.yama.ptrace_scope is 3, which forbids ptrace to everybody",
                "it can only be undone by a reboot",
            )
        if not caps.has(caps.effective(self._kernel), caps.CAP_SYS_PTRACE):
            if scope == 2:
                return (
                    f"{said}: kernel.yama.ptrace_scope is 2, and CAP_SYS_PTRACE is missing",
                    "run as root, or give CAP_SYS_PTRACE",
                )
            if scope == 1 and self.command is None:
                return (
                    f"{said}: kernel.yama.ptrace_scope is 1, which lets children only be traced, and CAP_SYS_PTRACE is missing",
                    "run as root, or start the program with rawkm audit -- COMMAND",
                )
            return f"{said}: CAP_SYS_PTRACE is missing, needed for a process of another user or with more rights", "run as root"
        if tid == os.getpid():
            return f"{said}: this is rawkm itself", ""
        return f"{said}: a seccomp filter, a security module or a user namespace forbids it", ""

    def close(self) -> None:
        """Gives everything back that need not stay; a guard of living threads stays."""
        self.guard.close()
        if self.command is not None and not self.command.started:
            self.command.end()


def _status(tid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{tid}/status", encoding="utf-8", errors="replace") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}
