"""rawkm trace: one line per hit."""

from __future__ import annotations

import sys

from rawkm.cli import options
from rawkm.cli.args import Option
from rawkm.cli.output import clock, comm, note, plain
from rawkm.cli.tracing import SCOPE, trace_with
from rawkm.errors import BTFError, NotSupportedError, SyscallError
from rawkm.session import TraceSession
from rawkm.targets import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.buffers import Batch
    from rawkm.cli.args import Args
    from rawkm.programs.signature import Signature
    from rawkm.scope import Tree
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Target

TAKES_COMMAND = True
DESCRIPTION = f"""\
Prints one line per hit: time, CPU, process and thread, command name, function; with --args what it was called with, with -r what
it returned.

{options.PATTERNS}

{SCOPE}"""
EXAMPLES = """\
examples:
  rawkm trace 'tcp_v4_*' -n 20
  rawkm trace --args tcp_sendmsg -- curl http://localhost/
  rawkm trace -r vfs_open -- make
  rawkm trace --json --buffer-size 16M 'vfs_open' -- make

--args shows integers by their types, pointers in hexadecimal, and "?" for what is not recorded: structs of more than 8 bytes,
arguments behind the sixth 8 bytes, and all of a function that BTF does not have. -r shows what a function returned, and nothing
of a void one; both together need fexit (or Linux 7.2), for at return the registers hold no arguments any more.

--json: {"type":"event","ts_ns","cpu","pid","tid","comm","function"} per hit (ts_ns: CLOCK_MONOTONIC), with --args "args", an
object or null, with -r "ret", null of a void function, a u64 where BTF does not have it; and last the same summary as of
`rawkm count`. Hits that found the buffer full are counted as dropped: events + dropped = hits.
"""

_RING_DEFAULT = 4 << 20
_PERF_DEFAULT = 256 << 10


OPTIONS = (
    *options.TRACING,
    Option("--args", help="the arguments of each call, as the kernel's BTF describes them"),
    Option("-n", "--limit", convert=options.positive, metavar="N", help="end after N events"),
    Option(
        "--buffer",
        choices=("ring", "perf"),
        default="ring",
        help="through one ring buffer for all CPUs (default), or a perf buffer per CPU",
    ),
    Option(
        "--buffer-size",
        convert=options.size,
        metavar="BYTES",
        help="ring: in total, default 4M; perf: per CPU, default 256K; rounded up to a power of two",
    ),
)


def run(args: Args, kernel: Kernel) -> int:
    need = options.need(args)
    perf = args.buffer == "perf"
    size = args.buffer_size or (_PERF_DEFAULT if perf else _RING_DEFAULT)
    calls: list[Signature | None] = []

    def session(targets: list[Target], tree: Tree | None) -> TraceSession:
        if need.arguments or need.at_return:
            calls.extend(_signatures(kernel, targets, required=need.arguments))
        arguments = max((call.recorded for call in calls if call is not None), default=0) if need.arguments else 0
        return TraceSession(kernel, targets, tree=tree, need=need, arguments=arguments, perf=perf, size=size)

    return trace_with(args, kernel, session, lambda session: Lines(args, kernel, session, calls))


def _signatures(kernel: Kernel, targets: list[Target], *, required: bool) -> list[Signature | None]:
    """What each function takes and returns. ``required``: a kernel without BTF cannot do it."""
    from rawkm.programs.signature import signatures

    try:
        return signatures(kernel, [(target.name, target.module) for target in targets])
    except (SyscallError, BTFError) as err:
        if required:
            raise NotSupportedError("--args", f"what functions take is in the kernel's BTF, and {err}") from None
        return [None] * len(targets)


class Lines:
    """Turns batches into lines, written a batch at a time."""

    def __init__(self, args: Args, kernel: Kernel, session: TraceSession, calls: list[Signature | None]) -> None:
        self._kernel = kernel
        self._session = session
        self._calls = calls
        self._arguments = session.need.arguments
        self._returned = session.need.at_return
        self._json = args.json
        self._left = args.limit
        self._unread = 0
        self._names = [plain(label) for label in labels(session.targets)]
        if args.json:
            self._names = [json_line_text(target.name) for target in session.targets]
        self._comms: dict[bytes, str] = {}
        # Records carry CLOCK_MONOTONIC, people read the wall clock.
        self._epoch = kernel.time_ns() - kernel.monotonic_ns()
        self._second, self._clock = 0, ""
        if not args.json:
            print(f"{'TIME':15} {'CPU':>3} {'PID':>7} {'TID':>7} {'COMM':16} FUNCTION", flush=True)

    def until(self, stops: Stops) -> None:
        """Reads and prints until something ends the trace or the limit is reached."""
        while not stops.wait() and self._left != 0:
            # One batch a turn: a buffer that fills as fast as it is read must not keep us from looking for a reason to stop.
            self._print(self._session.read())

    def last(self) -> None:
        """Reads what was left in the buffer."""
        while len(batch := self._session.read()):
            self._print(batch)
        if self._unread:
            note(f"{self._unread:,} more events came and were not printed (-n)")

    def _print(self, batch: Batch) -> None:
        # CPUs write side by side: within a batch, put things in order.
        rows = sorted(batch.rows())
        if self._left is not None:
            rows, rest = rows[: self._left], rows[self._left :]
            self._left -= len(rows)
            self._unread += len(rest)
        make = self._as_json if self._json else self._as_text
        sys.stdout.write("".join([make(*row) for row in rows]))  # type: ignore[arg-type]  # as the schema says
        sys.stdout.flush()

    def _as_text(self, ts: int, pid_tgid: int, func: int, cpu: int, raw_comm: bytes, *words: int) -> str:
        second, rest = divmod(ts + self._epoch, 1_000_000_000)
        if second != self._second:
            self._second, self._clock = second, clock(self._kernel, second)
        name = self._comms.get(raw_comm) or self._remember(raw_comm)
        called = self._names[func]
        if self._calls:
            called += self._call_text(self._calls[func], words)
        when = self._clock
        return f"{when}.{rest // 1000:06} {cpu:3} {pid_tgid >> 32:7} {pid_tgid & 0xFFFFFFFF:7} {name:16} {called}\n"

    def _call_text(self, call: Signature | None, words: tuple[int, ...]) -> str:
        """What stands behind the function's name: "(sk=0xffff…, size=5) = 0"."""
        text = ""
        if self._arguments:
            slots = words[1:] if self._returned else words
            known = "?" if call is None else ", ".join(f"{plain(a.name)}={a.text(slots)}" for a in call.arguments)
            text = f"({known})"
        if self._returned and call is None:
            return f"{text} = {words[0]:#x}"
        if self._returned and call is not None and call.returned is not None:
            return f"{text} = {call.returned.text(words[:1])}"
        return text

    def _call_json(self, call: Signature | None, words: tuple[int, ...]) -> str:
        row: dict[str, object] = {}
        if self._arguments:
            slots = words[1:] if self._returned else words
            row["args"] = None if call is None else {a.name: a.decode(slots) for a in call.arguments}
        if self._returned:
            row["ret"] = words[0] if call is None else None
            if call is not None and call.returned is not None:
                row["ret"] = call.returned.decode(words[:1])
        return "," + json_line_text(row)[1:-1]

    def _as_json(self, ts: int, pid_tgid: int, func: int, cpu: int, raw_comm: bytes, *words: int) -> str:
        name = self._comms.get(raw_comm) or self._remember(raw_comm)
        return (
            f'{{"type":"event","ts_ns":{ts},"cpu":{cpu},"pid":{pid_tgid >> 32},"tid":{pid_tgid & 0xFFFFFFFF},'
            f'"comm":{name},"function":{self._names[func]}{self._call_json(self._calls[func], words) if self._calls else ""}}}\n'
        )

    def _remember(self, raw: bytes) -> str:
        if len(self._comms) > 4096:
            self._comms.clear()
        name = json_line_text(comm(raw)) if self._json else comm(raw)
        self._comms[raw] = name
        return name


def json_line_text(value: object) -> str:
    from json import dumps

    return dumps(value, separators=(",", ":"))
