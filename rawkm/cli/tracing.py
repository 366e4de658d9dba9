"""What `count` and `trace` do alike: from options to an attached session, and the account at the end."""

from __future__ import annotations

import gc
import sys
from errno import ENOENT
from os import strerror

from rawkm.cli import options
from rawkm.cli.output import count_of, json_line, note
from rawkm.errors import RawkmError, SyscallError, errno_name
from rawkm.targets import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeVar

    from rawkm.cli.args import Args
    from rawkm.errors import Culprit
    from rawkm.scope import Tree
    from rawkm.session import Account, Session
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Child, Kernel
    from rawkm.targets import Pattern, Target, Targets

    S = TypeVar("S", bound=Session)
else:
    Protocol = object

SCOPE = """\
With COMMAND (after --), only hits in its process tree count (every thread and descendant), with -p PID those of a living
process's tree; without either, everybody's. COMMAND starts when everything is attached, and the trace ends with it; where -d or
Ctrl-C ends the trace, COMMAND gets SIGTERM (what it has started itself does not). Process numbers are the kernel's. A hit
belongs to the task that was running: work in interrupts and softirqs (most of packet reception) runs in whatever task it
interrupts, so it may be counted for a process that has nothing to do with it, or missed for one that has."""


class Report(Protocol):
    """What a command prints of its session."""

    def until(self, stops: Stops) -> None:
        """Reads and prints until there is a reason to stop."""

    def last(self) -> None:
        """Everything has come to rest: prints what is left."""


def trace_with(
    args: Args,
    kernel: Kernel,
    make_session: Callable[[list[Target], Tree | None], S],
    make_report: Callable[[S], Report],
) -> int:
    """Runs a whole trace: resolve, attach, let the command go, report, detach, account. Returns the exit status."""
    from rawkm.stops import Stops

    options.check_scope(args)
    patterns = options.patterns(args)
    deny = options.deny_list(args)
    remove_ready(kernel, args.ready_file)
    tree: Tree | None = None
    command: Child | None = None
    with Stops(kernel) as stops:
        try:
            if args.command and not args.all:
                tree = _tree(kernel)
            elif args.pid is not None:
                tree = _tree(kernel)
                tree.add(args.pid)
            start = kernel.monotonic()
            targets = resolve(kernel, patterns, deny=deny, addresses=args.by == "addrs")
            if args.by == "syms":
                targets.keep_unique_names()
            resolve_ms = (kernel.monotonic() - start) * 1e3
            remarks = check_targets(kernel, args, targets, patterns)
            if args.command:
                command = _start(kernel, args, tree)
            with make_session(targets.ok, tree) as session:
                interrupted(stops)
                session.on_remark = note
                session.attach(backend=args.backend, by=args.by, step=Patience(kernel, stops, "attached"))
                # Only now: if it had failed, what was left out would not matter.
                for remark in remarks:
                    note(remark)
                for name, reason in session.account.tried:
                    note(f"not by {name}: {reason}")
                report_culprits(args, session.culprits)
                report = make_report(session)
                stops.watch(seconds=args.duration, command=command, pid=args.pid, fds=session.fds)
                gc.enable()
                # A signal that came during a long attach: there is nothing to start any more.
                if not stops.signalled:
                    session.activate()
                    create_ready(kernel, args.ready_file)
                    if command is not None:
                        command.go()
                    report.until(stops)
                account = session.finish(Patience(kernel, stops, "detached", end=False))
                if command is not None:
                    command.end()
                report.last()
                _account(args, account, resolve_ms, command)
        finally:
            if command is not None:
                command.end()
            if tree is not None:
                tree.close()
    return 0


def _tree(kernel: Kernel) -> Tree:
    from rawkm.scope import Tree

    return Tree(kernel)


def _start(kernel: Kernel, args: Args, tree: Tree | None) -> Child:
    """The command, held until everything is attached; with --json its stdout becomes stderr, for ours is for JSON."""
    if tree is not None:
        return tree.start(args.command, stdout_to_stderr=args.json)
    return kernel.start(args.command, seed=lambda: None, stdout_to_stderr=args.json)


def check_targets(kernel: Kernel, args: Args, targets: Targets, patterns: list[Pattern]) -> list[str]:
    """What will not be traced, a sentence each. Raises RawkmError for what cannot or shall not go on."""
    remarks: list[str] = []
    if not targets.ok or targets.missing or targets.rejected or targets.notes:
        from rawkm.cli.selection import left_out

        remarks = left_out(kernel, args, targets, patterns)
    if args.max_funcs is not None and len(targets.ok) > args.max_funcs:
        raise RawkmError(
            f"{count_of(len(targets.ok), 'function')} would be attached, more than --max-funcs {args.max_funcs}: "
            "narrow the patterns or raise the limit"
        )
    return remarks


def report_culprits(args: Args, culprits: Sequence[Culprit]) -> None:
    """Says whom the kernel refused, as --missing asks. Raises RawkmError for --missing error."""
    if not culprits:
        return
    by_reason: dict[str, list[str]] = {}
    for culprit in culprits:
        by_reason.setdefault(f"{errno_name(culprit.errno)}, {culprit.reason}", []).append(culprit.target)
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
    text = f"the kernel refused {count_of(len(culprits), 'function')}: {reasons}"
    if args.missing == "error":
        raise RawkmError(text)
    if args.missing == "warn":
        note(text)


def interrupted(stops: Stops) -> None:
    """Raises RawkmError when a signal has come."""
    if stops.signalled:
        raise RawkmError("interrupted before anything was attached")


class Patience:
    """Called at each of many steps: says on stderr how far it is when that takes long, and lets Ctrl-C end it (``end``)."""

    def __init__(self, kernel: Kernel, stops: Stops, what: str = "attached", *, end: bool = True) -> None:
        self._kernel = kernel
        self._stops = stops
        self._what = what
        self._end = end
        self._due: float | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._end:
            interrupted(self._stops)
        now = self._kernel.monotonic()
        if self._due is None:
            self._due = now + 1
        elif now >= self._due:
            if total:
                note(f"{self._what} {done:,} of {total:,} functions{' (Ctrl-C ends this)' if self._end else ''}")
                self._due = now + 5
            else:
                note("the kernel refuses some of these functions: looking for them (Ctrl-C ends this)")
                self._due = now + 1e9


# -- the account ---------------------------------------------------------------------------------------------------------------


def _account(args: Args, account: Account, resolve_ms: float, command: Child | None) -> None:
    status = command.status if command is not None and command.started else None
    if args.json:
        summary = {
            "type": "summary",
            "backend": account.backend,
            "attached": account.attached,
            "hits": account.hits,
            "dropped": account.dropped,
            "missed": account.missed,
            "recursion_misses": account.recursion_misses,
            "unfollowed": account.unfollowed,
            "resolve_ms": round(resolve_ms, 3),
            "attach_ms": round(account.attach_ms, 3),
            "attach_syscall_ms": round(account.attach_syscall_ms, 3),
            "detach_ms": round(account.detach_ms, 3),
            "command_status": status,
        }
        print(json_line(summary), flush=True)
    sys.stdout.flush()
    note(
        f"{account.backend}: {count_of(account.attached, 'function')} attached; "
        f"resolve {resolve_ms:.0f} ms, attach {account.attach_ms:.0f} ms "
        f"(LINK_CREATE {account.attach_syscall_ms:.0f} ms), detach {account.detach_ms:.0f} ms"
    )
    note(
        f"{count_of(account.hits, 'hit')}, {account.dropped:,} dropped, {_or_unknown(account.missed)} missed, "
        f"{_or_unknown(account.recursion_misses)} recursion misses{_words(account)}"
    )
    if account.dropped:
        note("dropped: the buffer was full when the hit came; a larger --buffer-size helps")
    if account.missed:
        note("missed: the kernel could not call the program for a hit (nested too deep, or out of room for returns)")
    if account.unfollowed:
        what = count_of(account.unfollowed, "child process")
        note(f"at most {what} could not be followed: too many at a time, or passed by under load (Linux 7.0 and later)")
    if status:
        note(f"the command ended with status {status}")


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _words(account: Account) -> str:
    """What the recursion misses mean, where there are any."""
    if not account.recursion_misses:
        return ""
    return (
        " (hits while their CPU was inside a BPF program or a map operation, mostly in interrupts that came just then: "
        "the kernel runs no program for them)"
    )


# -- the ready file ------------------------------------------------------------------------------------------------------------


def remove_ready(kernel: Kernel, path: str | None) -> None:
    if path is None:
        return
    try:
        kernel.unlink(path)
    except SyscallError as err:
        if err.errno != ENOENT:
            raise RawkmError(f"the ready file {path} cannot be removed: {strerror(err.errno)}") from None


def create_ready(kernel: Kernel, path: str | None) -> None:
    """All at once: whoever sees the file may start its work."""
    if path is None:
        return
    try:
        kernel.write_file(path, b"%d\n" % kernel.getpid())
    except SyscallError as err:
        raise RawkmError(f"the ready file {path} cannot be created: {strerror(err.errno)}") from None
