"""rawkm audit: every bpf(2) call of a program, a process or the whole machine, decoded."""

from __future__ import annotations

import sys
from os import kill
from signal import SIG_DFL, SIGINT, SIGTERM, signal
from time import monotonic

from rawkm.cli import options
from rawkm.cli.args import Args, Option
from rawkm.cli.output import count_of, json_line, note, table
from rawkm.cli.tracing import create_ready, remove_ready
from rawkm.errors import RawkmError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO, Protocol, TextIO

    from rawkm.audit.raw import Row
    from rawkm.audit.record import Recording
    from rawkm.audit.watch import Watch
    from rawkm.syscall.kernel import Kernel

    class Sink(Protocol):
        """Where what was seen goes. ``takes_stdout``: standard output is for the calls alone."""

        takes_stdout: bool
        command_status: int | None

        def add(self, rows: Iterable[Row]) -> None: ...


TAKES_COMMAND = True
# --record FILE takes the calls of the programs, not of rawkm.
RECORDS = True
DESCRIPTION = """\
Prints every bpf(2) call of COMMAND (after --) and of all its children and threads, as strace would, with every field of the
attr and what its pointers point to: names, arrays, instructions, logs, info structs. A field that the kernel changed is shown
as before => after, an fd with what it stands for, memory that cannot be read as such. Last comes a summary: calls and errors
per command, and what was made.

COMMAND is stopped at bpf(2) only (by a seccomp filter; ptrace does the rest), and it outlives rawkm: a small process,
rawkm-guard, stays with it as long as it runs, for its bpf(2) would fail with ENOSYS without a tracer. With -p PID a process that
runs already, with all its threads, is stopped at every system call, and let go at the end. Under a tracer without
CAP_SYS_PTRACE, set-user-ID programs run without their rights."""
EXAMPLES = """\
examples:
  rawkm audit -- bpftool prog show
  rawkm audit --json -o calls.json -- bpftrace -e 'kprobe:tcp_connect { @[comm] = count(); }'

output: on stderr with COMMAND, whose own output stays its own; on stdout with -p; in FILE with -o.
--json: {"type":"call","time","pid","tid","comm","cmd","command","variant","size","attr","values","after","memory","written",
"fds","result","errno","seconds"} per call, {"type":"summary","calls","unknown","unreadable","commands","made"} last. values:
path of field -> number, or hexadecimal digits; after: those that the kernel changed; memory and written: what pointers point to,
before and after. With --system the summary also has "dropped_calls", "dropped_pieces" (the ring was full), "own_calls"
(rawkm's, left out) and "passed_by": beginnings and ends of system calls of any kind at which the kernel ran no program of ours.
"""

# Seconds; a signal just before a wait is seen so much later.
_LOOK_EVERY = 0.2
# Tracers that are killed are replaced; not for ever.
_MOST_REVIVED = 10

OPTIONS = (
    Option("-f", "--follow", help="follow children and threads: always done, as they inherit the filter"),
    Option("-o", "--output", convert=str, metavar="FILE", help="write the calls there; the summary still goes to stderr"),
    Option("-v", "--verbose", help="abbreviate nothing; instructions disassembled and logs below their call"),
    Option("-q", "--quiet", help="the summary only"),
    Option("--system", help="the whole machine, by BPF programs on its system calls; until Ctrl-C, or for -d SECONDS"),
    Option("-p", "--pid", convert=options.pid, metavar="PID", help="a process that runs already; ends when it does"),
    Option("-d", "--duration", convert=options.seconds, metavar="SECONDS", help="end after so long (with -p and --system)"),
    Option("--ready-file", convert=str, metavar="FILE", help="created when every call is seen from now on"),
    Option("--no-seccomp", help="stop COMMAND at every system call: slower, but it needs no guard"),
    options.JSON,
)


def parse(argv: list[str]) -> Args:
    from rawkm.cli import args

    known = (*OPTIONS, *options.COMMON)
    return args.full(argv, known, None, prog="rawkm audit", description=DESCRIPTION, epilog=f"{EXAMPLES}\n{_STATUS}")


_STATUS = "exit status: 0 done, 1 failed, 2 wrong usage, 3 this kernel or container cannot do it"


def run(args: Args, kernel: Kernel) -> int:
    _check(args)
    remove_ready(kernel, args.ready_file)
    with Report(args) as report:
        if args.system:
            _system(args, kernel, report)
        else:
            _watch(args, kernel, report)
        report.end()
    return 0


def _check(args: Args) -> None:
    chosen = [name for name, given in (("a COMMAND", args.command), ("-p PID", args.pid), ("--system", args.system)) if given]
    if not chosen:
        raise UsageError("what to audit? Give a COMMAND after --, -p PID or --system")
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other")
    if args.dry_run:
        raise UsageError("an audit makes no calls of its own that --dry-run could show")
    if args.redact and not args.record:
        raise UsageError("--redact goes with --record FILE")
    if args.command and args.duration:
        raise UsageError("-d goes with -p: a COMMAND is followed to its end")


# -- a command or a process ----------------------------------------------------------------------------------------------------


def watch_command(kernel: Kernel, command: list[str], report: Sink) -> None:
    """Follows a command and its children to their end, for another report than this command's own."""
    values = Args({"pid": None, "duration": None, "no_seccomp": False, "ready_file": None})
    values.command = command
    _watch(values, kernel, report)


def _watch(args: Args, kernel: Kernel, report: Sink) -> None:
    from rawkm.audit.watch import Watch

    watch = Watch(kernel)
    with _Signals() as signals:
        if args.command:
            watch.start(args.command, stdout_to_stderr=report.takes_stdout, every=args.no_seccomp)
        else:
            watch.attach(args.pid)
        try:
            for text in watch.notes:
                note(text)
            create_ready(kernel, args.ready_file)
            if watch.command is not None:
                watch.go()
            _follow(args, kernel, watch, signals, report)
        finally:
            watch.close()
    if watch.command is not None and watch.command.ended():
        report.command_status = watch.command.status


def _follow(args: Args, kernel: Kernel, watch: Watch, signals: _Signals, report: Sink) -> None:
    """Reads what the guard sends until everything has ended, or the user has had enough."""
    guard, command = watch.guard, watch.command
    deadline = monotonic() + args.duration if args.duration else None
    poller = kernel.poller()
    poller.add(guard.fd)
    heeded = revived = 0
    try:
        while True:
            poller.wait(_LOOK_EVERY if deadline is None else max(0.0, min(_LOOK_EVERY, deadline - monotonic())))
            report.add(guard.read())
            if guard.ended:
                if not guard.threads:
                    return
                revived += 1
                if revived > _MOST_REVIVED:
                    raise RawkmError("the process that traces is killed again and again")
                poller.close()
                _revive(watch)
                poller = kernel.poller()
                poller.add(guard.fd)
                continue
            if deadline is not None and monotonic() >= deadline:
                deadline = None
                guard.let_go()
            if signals.count == heeded:
                continue
            heeded = signals.count
            if heeded > 1 or (command is not None and command.ended()):
                if command is not None:
                    note(f"what the command has started goes on, and rawkm-guard (process {guard.pid}) stays with it")
                return
            if command is None:
                guard.let_go()
            elif signals.number == SIGTERM:
                kill(command.pid, SIGTERM)
            else:
                # Whoever pressed Ctrl-C has sent it to the command, too.
                note("waiting for the command to end; once more, and it is left alone")
    finally:
        poller.close()


def _revive(watch: Watch) -> None:
    """The tracer was killed: another one takes its place."""
    if watch.command is None:
        raise RawkmError("the process that traces was killed; the program goes on")
    lost = watch.guard.revive()
    note("the process that traces was killed and replaced: calls made in between are missing here, and failed with ENOSYS")
    if lost:
        raise RawkmError(f"these threads could not be traced again, and have no bpf(2) any more: {', '.join(map(str, lost))}")


class _Signals:
    """Counts SIGINT and SIGTERM; the third one acts as if rawkm did not catch it."""

    def __init__(self) -> None:
        self.count = 0
        self.number = 0

    def __enter__(self) -> _Signals:
        self._before = {number: signal(number, self._caught) for number in (SIGINT, SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal(number, handler)

    def _caught(self, number: int, _frame: object) -> None:
        self.count += 1
        self.number = number
        if self.count > 1:
            signal(number, SIG_DFL)


# -- the whole machine ---------------------------------------------------------------------------------------------------------


def _system(args: Args, kernel: Kernel, report: Report) -> None:
    from rawkm.audit.system import System

    with _Signals() as signals, System(kernel) as system:
        deadline = monotonic() + args.duration if args.duration else None
        poller = kernel.poller()
        try:
            for fd in system.fds:
                poller.add(fd)
            create_ready(kernel, args.ready_file)
            while not signals.count and (deadline is None or monotonic() < deadline):
                poller.wait(_LOOK_EVERY if deadline is None else max(0.0, min(_LOOK_EVERY, deadline - monotonic())))
                report.add(system.read())
        finally:
            poller.close()
        report.add(system.read())
        report.dropped = system.dropped_calls, system.dropped_pieces, system.own_calls
        report.passed_by = system.passed_by()


# -- what is printed -----------------------------------------------------------------------------------------------------------


class Report:
    """Decodes, prints and sums up. ``takes_stdout``: standard output is for the calls alone."""

    def __init__(self, args: Args) -> None:
        from rawkm.audit.decode import Call
        from rawkm.audit.objects import Objects
        from rawkm.audit.raw import from_row
        from rawkm.audit.summary import Summary

        self._args = args
        self._call, self._from_row = Call, from_row
        self._objects = Objects()
        self._summary = Summary()
        self.takes_stdout = args.json and args.output is None
        self.command_status: int | None = None
        #: Of --system: calls, and pieces of calls, that were lost; rawkm's own calls.
        self.dropped: tuple[int, int, int] | None = None
        self.passed_by = 0
        self._file: TextIO | None = None
        self._stream: TextIO = sys.stderr
        self._write: Callable[[str], object]
        self._recording: Recording | None = None
        self._recorded: BinaryIO | None = None
        # A recording is decoded when it is looked at.
        self._shows = args.record is None or args.output is not None or args.json or args.verbose

    def __enter__(self) -> Report:
        args = self._args
        if args.record is not None:
            self._record(args)
        if args.output is not None:
            self._file = open(args.output, "w", encoding="utf-8", errors="backslashreplace")
            self._write = self._file.write
        else:
            self._stream = sys.stderr if args.command and not args.json else sys.stdout
            self._write = self._stream.write
        return self

    def _record(self, args: Args) -> None:
        from rawkm import __version__
        from rawkm.audit.record import Recording
        from rawkm.recording import Header, Writer
        from rawkm.recording.header import AUDIT

        what = args.command or (["--system"] if args.system else ["-p", str(args.pid)])
        self._recorded = open(args.record, "wb", buffering=1 << 18)  # noqa: SIM115 (closed by __exit__)
        header = Header(AUDIT, what, tool=f"rawkm {__version__}", redacted=args.redact)
        self._recording = Recording(Writer(self._recorded.write, header))

    def __exit__(self, *exc: object) -> None:
        for file in (self._file, self._recorded):
            if file is not None:
                file.close()

    def add(self, rows: Iterable[Row]) -> None:
        args, summary, objects = self._args, self._summary, self._objects
        raw_calls = [self._from_row(row) for row in rows]
        if self._recording is not None:
            self._recording.add(raw_calls)
            if not self._shows:
                self._summary.calls += len(raw_calls)
                return
        lines = []
        for raw in raw_calls:
            call = self._call(raw, objects)
            summary.add(call)
            if args.json:
                lines.append(json_line(call.row()))
            elif not args.quiet:
                lines.append(call.line(full=args.verbose))
                if args.verbose:
                    lines += call.details()
        if lines:
            self._write("\n".join(lines) + "\n")
            # Whoever watches the output sees each call when it is made.
            (self._file or self._stream).flush()

    def end(self) -> None:
        summary = self._summary
        if self._args.json:
            row = {**summary.row(), "command_status": self.command_status}
            if self.dropped is not None:
                row.update(zip(("dropped_calls", "dropped_pieces", "own_calls"), self.dropped, strict=True))
                row["passed_by"] = self.passed_by
            self._write(json_line(row) + "\n")
            return
        if self._file is None:
            sys.stdout.flush()
        headings, rows = summary.table()
        if rows:
            print(table(headings, rows, right=(1, 2)), file=sys.stderr)
        if self._recording is not None:
            note(f"recorded: rawkm replay {self._args.record} shows the calls")
        for text in summary.made():
            note(f"made {text}")
        words = [count_of(summary.calls, "bpf(2) call")]
        if summary.unknown:
            words.append(f"{summary.unknown:,} of commands that rawkm does not know, shown as bytes")
        if summary.unreadable:
            words.append(f"{summary.unreadable:,} whose attr could not be read")
        if self.dropped is not None:
            calls, pieces, own = self.dropped
            words.append(f"{calls:,} calls and {pieces:,} pieces of others dropped, as the ring was full")
            words.append(f"{count_of(own, 'call')} of rawkm itself left out")
        note("; ".join(words))
        if self.passed_by:
            what = f"the kernel passed our programs by at {self.passed_by:,} beginnings and ends of system calls of any kind"
            note(f"{what}: calls of bpf(2) among them are missing above; -- COMMAND or -p PID misses none")
        if self.command_status:
            note(f"the command ended with status {self.command_status}")
