"""rawkm trace: one line per hit."""

from __future__ import annotations

import sys
from time import localtime, monotonic_ns, strftime, time_ns

from rawkm.cli import options
from rawkm.cli.args import Option
from rawkm.cli.output import comm, plain
from rawkm.cli.tracing import SCOPE, note, trace_with
from rawkm.session import TraceSession
from rawkm.targets import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.buffers import Batch
    from rawkm.cli.args import Args
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Kernel

TAKES_COMMAND = True
DESCRIPTION = f"""\
Prints one line per hit: time, CPU, process and thread, command name, function.

{options.PATTERNS}

{SCOPE}"""
EXAMPLES = """\
examples:
  rawkm trace 'tcp_v4_*' -n 20
  rawkm trace --json --buffer-size 16M 'vfs_open' -- make

--json: {"type":"event","ts_ns","cpu","pid","tid","comm","function"} per hit (ts_ns: CLOCK_MONOTONIC), and last the same summary
as of `rawkm count`. Hits that found the buffer full are counted as dropped: events + dropped = hits.
"""

_RING_DEFAULT = 4 << 20
_PERF_DEFAULT = 256 << 10


OPTIONS = (
    *options.TRACING,
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
    perf = args.buffer == "perf"
    size = args.buffer_size or (_PERF_DEFAULT if perf else _RING_DEFAULT)
    return trace_with(
        args,
        kernel,
        lambda targets, tree: TraceSession(kernel, targets, tree=tree, perf=perf, size=size),
        lambda session: Lines(args, session),
    )


class Lines:
    """Turns batches into lines, written a batch at a time."""

    def __init__(self, args: Args, session: TraceSession) -> None:
        self._session = session
        self._json = args.json
        self._left = args.limit
        self._unread = 0
        self._names = [plain(label) for label in labels(session.targets)]
        if args.json:
            self._names = [json_line_text(target.name) for target in session.targets]
        self._comms: dict[bytes, str] = {}
        # Records carry CLOCK_MONOTONIC, people read the wall clock.
        self._epoch = time_ns() - monotonic_ns()
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

    def _as_text(self, ts: int, pid_tgid: int, func: int, cpu: int, raw_comm: bytes) -> str:
        second, rest = divmod(ts + self._epoch, 1_000_000_000)
        when = strftime("%H:%M:%S", localtime(second))
        name = self._comms.get(raw_comm) or self._remember(raw_comm)
        return f"{when}.{rest // 1000:06} {cpu:3} {pid_tgid >> 32:7} {pid_tgid & 0xFFFFFFFF:7} {name:16} {self._names[func]}\n"

    def _as_json(self, ts: int, pid_tgid: int, func: int, cpu: int, raw_comm: bytes) -> str:
        name = self._comms.get(raw_comm) or self._remember(raw_comm)
        return (
            f'{{"type":"event","ts_ns":{ts},"cpu":{cpu},"pid":{pid_tgid >> 32},"tid":{pid_tgid & 0xFFFFFFFF},'
            f'"comm":{name},"function":{self._names[func]}}}\n'
        )

    def _remember(self, raw: bytes) -> str:
        if len(self._comms) > 4096:
            self._comms.clear()
        name = json_line_text(comm(raw)) if self._json else comm(raw)
        self._comms[raw] = name
        return name


def json_line_text(text: str) -> str:
    from json import dumps

    return dumps(text)
