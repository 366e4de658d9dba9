"""rawkm count: hits per function, counted in the kernel."""

from __future__ import annotations

import sys
from time import localtime, monotonic, monotonic_ns, strftime

from rawkm.cli import options
from rawkm.cli.args import Option
from rawkm.cli.output import count_of, json_line, table
from rawkm.cli.tracing import SCOPE, trace_with
from rawkm.session import CountSession
from rawkm.targets import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.cli.args import Args
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Kernel

TAKES_COMMAND = True
DESCRIPTION = f"""\
Counts how often each function runs, with one program attached to all of them by one system call.

{options.PATTERNS}

{SCOPE}"""
EXAMPLES = """\
examples:
  rawkm count 'tcp_*' 'udp_*' -d 5
  rawkm count -i 1 --top 20 'vfs_*' -- find / -name passwd

--json: {"type":"count","function","module","address","count"} per function (address: the symbol's, null where hidden); with -i
also "interval", the round's number from 1, and "ts_ns", CLOCK_MONOTONIC at its end; counts are of that round. Last:
{"type":"summary","backend","attached","hits","dropped","missed","recursion_misses","unfollowed","resolve_ms","attach_ms",
"attach_syscall_ms","detach_ms","command_status"}, null where the kernel cannot tell.
"""


OPTIONS = (
    *options.TRACING,
    Option("-i", "--interval", convert=options.seconds, metavar="SECONDS", help="print the counts every so often"),
    Option("--top", convert=options.positive, metavar="N", help="print the N functions with most hits only"),
    Option("--zero", help="print functions without a hit, too"),
)


def run(args: Args, kernel: Kernel) -> int:
    return trace_with(
        args,
        kernel,
        lambda targets, tree: CountSession(kernel, targets, tree=tree),
        lambda session: Rounds(args, session),
    )


class Rounds:
    """Prints rounds of counts: one at the end, and with -i one per interval."""

    def __init__(self, args: Args, session: CountSession) -> None:
        self._args = args
        self._session = session
        self._before = [0] * len(session.targets)
        self._round = 0

    def until(self, stops: Stops) -> None:
        """Waits for the end, printing a round per interval."""
        interval = self._args.interval
        due = None if interval is None else monotonic() + interval
        while not stops.wait(due):
            if due is not None and monotonic() >= due:
                self._print()
                due += interval

    def last(self) -> None:
        """What has been counted since the last round."""
        self._print()

    def _print(self) -> None:
        totals = self._session.counts()
        counts = [total - before for total, before in zip(totals, self._before, strict=True)]
        self._before = totals
        self._round += 1
        order = self._session.attached if self._args.zero else [i for i, n in enumerate(counts) if n]
        shown = sorted(order, key=lambda i: (-counts[i], i))
        left_out = 0
        if self._args.top is not None and len(shown) > self._args.top:
            left_out = len(shown) - self._args.top
            shown = shown[: self._args.top]
        if self._args.json:
            self._json(shown, counts)
        else:
            self._text(shown, counts, left_out)
        sys.stdout.flush()

    def _json(self, shown: list[int], counts: list[int]) -> None:
        self._session.learn_addresses()
        extra = {} if self._args.interval is None else {"interval": self._round, "ts_ns": monotonic_ns()}
        lines = []
        for i in shown:
            target = self._session.targets[i]
            row = {
                "type": "count",
                "function": target.name,
                "module": target.module or None,
                "address": target.address,
                "count": counts[i],
                **extra,
            }
            lines.append(json_line(row) + "\n")
        sys.stdout.write("".join(lines))

    def _text(self, shown: list[int], counts: list[int], left_out: int) -> None:
        names = labels(self._session.targets)
        if self._args.interval is not None:
            print(f"-- {strftime('%H:%M:%S', localtime())}")
        print(table(("FUNCTION", "COUNT"), [(names[i], f"{counts[i]:,}") for i in shown], right=(1,)))
        if left_out:
            hidden = sum(counts) - sum(counts[i] for i in shown)
            print(f"({count_of(left_out, 'more function')} with {count_of(hidden, 'hit')})")
