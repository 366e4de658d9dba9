"""rawkm count: hits per function, counted in the kernel."""

from __future__ import annotations

import sys

from rawkm.cli import options
from rawkm.cli.args import Option
from rawkm.cli.output import clock, count_of, json_line, table
from rawkm.cli.tracing import SCOPE, trace_with
from rawkm.session import CountSession
from rawkm.targets import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.model import Need
    from rawkm.cli.args import Args
    from rawkm.cli.budget import Watch
    from rawkm.scope import Tree
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Target

TAKES_COMMAND = True
BUDGET = """\
--budget measures on this kernel what a hit takes (the function bpf_get_numa_node_id is attached with the others and called some
thousand times, attached and not), and looks at the hits four times a second. While they take more than PERCENT of all CPUs'
time, the hottest functions are muted in the kernel: their hits leave the program at once, which costs less, not nothing. Each
is tried again after 2 seconds, then 4, and so on up to 32. Counts of functions that were muted are incomplete (≥); the others
are exact."""
DESCRIPTION = f"""\
Counts how often each function runs (-r: returns), with one program attached to all of them by one system call where the kernel
can do that (kprobe_multi), or else by what it can do; which, and why, is said.

{options.PATTERNS}

{SCOPE}

{BUDGET}"""
EXAMPLES = """\
examples:
  rawkm count 'tcp_*' 'udp_*' -d 5
  rawkm count -r 'vfs_*' --backend kprobe -d 5
  rawkm count -i 1 --top 20 'vfs_*' -- find / -name passwd
  rawkm count 'vfs_*' --budget 2 -d 60

--json: {"type":"count","function","module","address","count"} per function (address: the symbol's, null where hidden); with -i
also "interval", the round's number from 1, and "ts_ns", CLOCK_MONOTONIC at its end; counts are of that round. Last:
{"type":"summary","backend","attached","hits","dropped","missed","recursion_misses","unfollowed","resolve_ms","attach_ms",
"attach_syscall_ms","detach_ms","command_status"}, null where the kernel cannot tell. With --budget each count also has
"incomplete", and before the summary comes {"type":"budget","percent","hit_ns","muted_hit_ns","most_percent","muted":[names]}.
"""


OPTIONS = (
    *options.TRACING,
    Option("-i", "--interval", convert=options.seconds, metavar="SECONDS", help="print the counts every so often"),
    Option("--top", convert=options.positive, metavar="N", help="print the N functions with most hits only"),
    Option("--zero", help="print functions without a hit, too"),
    Option(
        "--budget",
        convert=options.percent,
        metavar="PERCENT",
        help="mute the hottest functions while the hits take more of all CPUs' time",
    ),
)


def run(args: Args, kernel: Kernel) -> int:
    need = options.need(args)
    return trace_with(
        args,
        kernel,
        lambda targets, tree: _session(args, kernel, targets, tree, need),
        lambda session: Rounds(args, kernel, session),
    )


def _session(args: Args, kernel: Kernel, targets: list[Target], tree: Tree | None, need: Need) -> CountSession:
    if args.budget is None:
        return CountSession(kernel, targets, tree=tree, need=need)
    from rawkm.budget.session import BudgetedCount

    return BudgetedCount(kernel, targets, percent=args.budget, tree=tree, need=need)


def _watch(args: Args, session: CountSession) -> Watch | None:
    if args.budget is None:
        return None
    from rawkm.budget.session import BudgetedCount
    from rawkm.cli.budget import Watch

    assert isinstance(session, BudgetedCount)
    return Watch(args, session)


class Rounds:
    """Prints rounds of counts: one at the end, and with -i one per interval."""

    def __init__(self, args: Args, kernel: Kernel, session: CountSession) -> None:
        self._args = args
        self._kernel = kernel
        self._session = session
        self._before = [0] * len(session.targets)
        self._round = 0
        self._watch = _watch(args, session)

    def until(self, stops: Stops) -> None:
        """Waits for the end, printing a round per interval."""
        interval = self._args.interval
        due = None if interval is None else self._kernel.monotonic() + interval
        while not stops.wait(due):
            if self._watch is not None:
                self._watch.look()
            if due is not None and self._kernel.monotonic() >= due:
                self._print()
                due += interval

    def last(self) -> None:
        """What has been counted since the last round."""
        self._print()
        if self._watch is not None:
            self._watch.account()

    def _print(self) -> None:
        totals = self._session.counts()
        counts = [total - before for total, before in zip(totals, self._before, strict=True)]
        self._before = totals
        self._round += 1
        order = self._session.attached if self._args.zero else [i for i, n in enumerate(counts) if n or self._incomplete(i)]
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
        extra = {} if self._args.interval is None else {"interval": self._round, "ts_ns": self._kernel.monotonic_ns()}
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
            if self._watch is not None:
                row["incomplete"] = self._incomplete(i)
            lines.append(json_line(row) + "\n")
        sys.stdout.write("".join(lines))

    def _text(self, shown: list[int], counts: list[int], left_out: int) -> None:
        names = labels(self._session.targets)
        if self._args.interval is not None:
            print(f"-- {clock(self._kernel, self._kernel.time_ns() // 1_000_000_000)}")
        print(table(("FUNCTION", "COUNT"), [(names[i], self._count(i, counts[i])) for i in shown], right=(1,)))
        if left_out:
            hidden = sum(counts) - sum(counts[i] for i in shown)
            print(f"({count_of(left_out, 'more function')} with {count_of(hidden, 'hit')})")

    def _incomplete(self, index: int) -> bool:
        return self._watch is not None and self._watch.incomplete(index)

    def _count(self, index: int, count: int) -> str:
        return f"≥ {count:,}" if self._incomplete(index) else f"{count:,}"
