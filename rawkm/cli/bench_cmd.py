"""rawkm bench: what attaching and hits cost on this kernel, by mechanism."""

from __future__ import annotations

import sys
from io import StringIO

from rawkm.cli import inputs, options
from rawkm.cli.args import Args, Option
from rawkm.cli.output import json_line, plain, table
from rawkm.errors import NotSupportedError, RawkmError, SyscallError, UsageError
from rawkm.host import cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rawkm.bench import attach as attach_bench
    from rawkm.bench import hit as hit_bench
    from rawkm.bench.mechanisms import Mechanism
    from rawkm.stops import Stops
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Measures the ways to attach on this kernel: what they cost to set up (attach) and at each hit (hit). Each mechanism that the
kernel has takes its turn, with the same functions, in the same run: compare within one run only. Root, and a quiet machine.

What is attached does nothing (and for a part of `hit`, counts). Functions are chosen that hardly ever run."""
EXAMPLES = """\
examples:
  rawkm bench attach
  rawkm bench attach -n 1,100,10000 --only kprobe-multi --only kprobe -o attach.svg
  rawkm bench hit --json
"""
_ATTACH = """\
The time to attach a program that does nothing to N functions, and to detach it: medians of --rounds rounds (fewer of what takes
seconds). Attach includes loading: fentry and fexit load a program for each function, the others one for all. What is expected to
take more than --limit seconds is not measured but estimated from the largest N that was (marked ≈): one by one, the time grows
with N. Memory is the growth of SUnreclaim, VmallocUsed, Percpu, KernelStack and PageTables in /proc/meminfo while it is attached,
exact to some hundred KiB.

--json: {"type":"machine",...}, then one object per line {"type":"attach","mechanism","n","load_s","attach_s","detach_s",
"memory_bytes","measured_at","rounds","refused"}; measured_at is less than n for an estimate; refused, how many functions the
kernel did not take, which others stood in for. --csv: the same as a table."""
_HIT = """\
What a call of a function takes longer because a program is on it, in nanoseconds: medians of --rounds rounds, in each the best
of many short runs with the attachment, less the best without one. The function is the kernel's bpf_get_numa_node_id, called some
thousand times by a program under BPF_PROG_TEST_RUN; every hit of COUNT's program is checked to have been counted.
EMPTY is a program that does nothing; COUNT counts as `rawkm count` does. The ratio is to kprobe-multi's empty program (or to the
first row). A mechanism "at both" runs its program twice per call: at entry and at return.

--json: {"type":"machine",...}, then one object per line {"type":"hit","mechanism","at","empty_ns","count_ns","rounds"}. --csv:
the same as a table."""
OPTIONS = (
    options.JSON,
    Option("--csv", help="comma-separated values on stdout"),
    Option("-o", "--output", convert=str, metavar="FILE.svg", help="write the plot into this file"),
)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(options.positive(part) for part in text.split(","))


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm bench`. Raises UsageError; prints the help and leaves with status 0."""
    from rawkm.bench.mechanisms import NAMES
    from rawkm.cli.args import add, new_parser, texts
    from rawkm.cli.main import STATUS_TEXT

    parser = new_parser(prog="rawkm bench", **texts(DESCRIPTION, f"{EXAMPLES}\n{STATUS_TEXT}"))
    for option in options.COMMON:
        add(parser, option)
    actions = parser.add_subparsers(dest="action", required=True, metavar="attach|hit")
    attach = actions.add_parser("attach", help="the time to attach and detach, and the memory", **texts(_ATTACH, EXAMPLES))
    hit = actions.add_parser("hit", help="the cost of one hit", **texts(_HIT, EXAMPLES))
    only = Option("--only", many=True, choices=NAMES, metavar="MECHANISM", help=f"this one; one or several of {', '.join(NAMES)}")
    for action, rounds in ((attach, 3), (hit, 5)):
        for option in (*OPTIONS, only):
            add(action, option)
        add(action, Option("--rounds", convert=options.positive, default=rounds, metavar="R", help=f"(default: {rounds})"))
        for option in options.COMMON:
            add(action, option, again=True)
    numbers = Option(
        "-n", "--numbers", convert=_numbers, default=(10, 100, 1000, 10000), metavar="N,...", help="how many functions"
    )
    add(attach, numbers)
    add(attach, Option("--limit", convert=options.seconds, default=20.0, metavar="SECONDS", help="(default: 20)"))
    values = vars(parser.parse_args(list(argv)))
    args = Args({**values, "only": values["only"] or []})
    if args.json and args.csv:
        raise UsageError("--json and --csv exclude each other")
    return args


def run(args: Args, kernel: Kernel) -> int:
    from rawkm.bench.mechanisms import ALL
    from rawkm.stops import Stops

    chosen = [mechanism for mechanism in ALL if not args.only or mechanism.name in args.only]
    absent = _absent(kernel, chosen)
    if len(absent) == len(chosen):
        raise NotSupportedError("there is nothing to measure", "; ".join(absent))
    if args.output is not None:
        # What cannot be written is said before anything is measured.
        inputs.write(kernel, args.output, b"")
    if args.json:
        print(json_line({"type": "machine", **_machine(kernel)}))
    elif not args.csv:
        print(_title(kernel))
        for text in absent:
            print(plain(text))
        sys.stdout.flush()
    with Stops(kernel) as stops:
        svg = (_attach if args.action == "attach" else _hit)(args, kernel, chosen, lambda: _go_on(stops))
    if args.output is not None:
        inputs.write(kernel, args.output, svg.encode())
    return 0


def _absent(kernel: Kernel, chosen: Iterable[Mechanism]) -> list[str]:
    """What this kernel cannot do, a line each."""
    answers = [(mechanism.name, mechanism.answer(kernel)) for mechanism in chosen]
    return [f"{name}: not here: {answer.evidence}" for name, answer in answers if answer.state != "yes"]


def _go_on(stops: Stops) -> None:
    if stops.signalled:
        raise RawkmError("interrupted; everything is detached")


# -- the machine ---------------------------------------------------------------------------------------------------------------


def _machine(kernel: Kernel) -> dict[str, object]:
    release, machine = kernel.uname()
    return {"kernel": release, "machine": machine, "cpu": _cpu(kernel), "cpus": len(cpus.online(kernel))}


def _cpu(kernel: Kernel) -> str | None:
    try:
        for line in kernel.read_file("/proc/cpuinfo").splitlines():
            if line.startswith(b"model name"):
                return line.partition(b":")[2].strip().decode("ascii", "replace")
    except SyscallError:
        pass
    return None


def _title(kernel: Kernel) -> str:
    found = _machine(kernel)
    return plain(f"Linux {found['kernel']}, {found['machine']}, {found['cpus']} × {found['cpu'] or 'a CPU without a name'}")


# -- attach --------------------------------------------------------------------------------------------------------------------


def _attach(args: Args, kernel: Kernel, chosen: Sequence[Mechanism], step: Callable[[], None]) -> str:
    from rawkm.bench.attach import Bench

    def tell(result: attach_bench.Result) -> None:
        if args.json:
            print(json_line(_attach_row(result)), flush=True)
        else:
            print(f"rawkm: {result.mechanism}, {result.n:,} functions", file=sys.stderr)

    results = Bench(kernel, rounds=args.rounds, limit=args.limit, step=step).run(chosen, args.numbers, tell)
    if args.csv:
        _csv([_attach_row(result) for result in results], kernel.uname()[0])
    elif not args.json:
        print("\n".join(_attach_text(results)))
    return attach_svg(results, _title(kernel))


def _attach_row(r: attach_bench.Result) -> dict[str, object]:
    return {
        "type": "attach",
        "mechanism": r.mechanism,
        "n": r.n,
        "load_s": round(r.load, 6),
        "attach_s": round(r.attach, 6),
        "detach_s": round(r.detach, 6),
        "memory_bytes": r.memory,
        "measured_at": r.measured_at,
        "rounds": r.rounds,
        "refused": r.refused,
    }


def _attach_text(results: Sequence[attach_bench.Result]) -> list[str]:
    from rawkm.bench import text
    from rawkm.bench.svg import seconds

    def about(r: attach_bench.Result, said: str) -> str:
        return f"≈ {said}" if r.estimated else said

    rows = [
        (
            r.mechanism,
            f"{r.n:,}",
            about(r, seconds(r.up)),
            about(r, seconds(r.detach)),
            about(r, seconds((r.up + r.detach) / r.n)),
            "-" if r.memory is None else f"{r.memory / 1024:,.0f} KiB",
        )
        for r in sorted(results, key=lambda r: r.n)
    ]
    lines = ["", table(("MECHANISM", "N", "ATTACH", "DETACH", "BOTH / N", "MEMORY"), rows, right=(1, 2, 3, 4, 5))]
    if any(r.estimated for r in results):
        lines.append("≈: estimated from the largest N that was measured (--limit)")
    refused = [f"{r.mechanism} {r.refused} of {r.n:,}" for r in results if r.refused]
    if refused:
        lines.append(f"functions that the kernel did not take, others stood in for them: {', '.join(refused)}")
    most = max(r.n for r in results)
    for what, times in (("attach", [r.up for r in results]), ("detach", [r.detach for r in results])):
        bars = [(r.mechanism, time, about(r, seconds(time))) for r, time in zip(results, times, strict=True) if r.n == most]
        lines += ["", f"time to {what} {most:,} functions (logarithmic)", *text.bars(bars, logarithmic=True)]
    return lines


def attach_svg(results: Sequence[attach_bench.Result], title: str) -> str:
    from rawkm.bench import svg

    def series(value: Callable[[attach_bench.Result], float]) -> list[svg.Series]:
        found: list[svg.Series] = []
        for name in dict.fromkeys(r.mechanism for r in results):
            rows = sorted((r for r in results if r.mechanism == name), key=lambda r: r.n)
            found.append((name, [(float(r.n), value(r)) for r in rows], [not r.estimated for r in rows]))
        return found

    panels = [("attach", series(lambda r: r.up)), ("detach", series(lambda r: r.detach))]
    return svg.lines("Attaching to N functions", f"{title}; hollow: estimated", panels, x_label="functions")


# -- hit -----------------------------------------------------------------------------------------------------------------------


def _hit(args: Args, kernel: Kernel, chosen: Sequence[Mechanism], step: Callable[[], None]) -> str:
    from rawkm.bench.hit import Bench

    results = Bench(kernel, rounds=args.rounds, step=step).run(chosen)
    rows = [
        {
            "type": "hit",
            "mechanism": r.mechanism,
            "at": r.at,
            "empty_ns": round(r.empty, 1),
            "count_ns": round(r.count, 1),
            "rounds": r.rounds,
        }
        for r in results
    ]
    if args.csv:
        _csv(rows, kernel.uname()[0])
    elif args.json:
        print("\n".join(json_line(row) for row in rows))
    else:
        print("\n".join(_hit_text(results)))
    return hit_svg(results, _title(kernel))


def _hit_text(results: Sequence[hit_bench.Result]) -> list[str]:
    from rawkm.bench import text

    one = next((r.empty for r in results if r.mechanism == "kprobe-multi"), results[0].empty)
    rows = [
        (r.mechanism, r.at, f"{r.empty:,.0f} ns", f"{r.count:,.0f} ns", f"{r.empty / one:.2f}", f"{r.count / one:.2f}")
        for r in results
    ]
    headings = ("MECHANISM", "AT", "EMPTY", "COUNT", "RATIO", "RATIO")
    bars = [(r.mechanism, r.empty, f"{r.empty:,.0f} ns") for r in results]
    return ["", table(headings, rows, right=(2, 3, 4, 5)), "", "one hit, empty program", *text.bars(bars)]


def hit_svg(results: Sequence[hit_bench.Result], title: str) -> str:
    from rawkm.bench import svg

    rows = [(f"{r.mechanism} ({r.at})", [("empty program", r.empty), ("count", r.count)]) for r in results]
    return svg.bars("The cost of one hit", title, rows, unit="ns")


def _csv(rows: Sequence[dict[str, object]], release: str) -> None:
    from csv import writer

    text = StringIO()
    out = writer(text, lineterminator="\n")
    names = [name for name in rows[0] if name != "type"]
    out.writerow([*names, "kernel"])
    out.writerows([[*(row[name] for name in names), release] for row in rows])
    sys.stdout.write(text.getvalue())
