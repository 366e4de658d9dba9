"""rawkm fuzz: bpf(2) against models of what it must do, by examples that hypothesis makes and shrinks."""

from __future__ import annotations

import sys

from rawkm.cli import args, options
from rawkm.cli.args import Args, Option
from rawkm.cli.output import count_of, json_line, plain
from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rawkm.fuzz.campaign import Campaign
    from rawkm.syscall.live import LiveKernel

DESCRIPTION = """\
Compares the kernel with models of it, by examples that hypothesis makes; what differs is shrunk to the smallest example that
does, and written as a pytest and as C. Nothing is touched that the campaign did not make; what may disturb others, attaching
included, is done in a test guest only, or with --i-own-this-kernel."""
EXAMPLES = """\
examples:
  rawkm fuzz attr --cmd MAP_CREATE --examples 500 --seed 7
  rawkm fuzz stateful --examples 50 --steps 40
  tools/vm run -k 7.2 -- rawkm fuzz attr --json

exit status: 0 done, no difference and nothing left behind, 1 a finding, 2 wrong usage, 3 this kernel or container cannot do it
"""
OPTIONS = ()
# Its calls go past what --record and --dry-run know of: it refuses them itself.
RECORDS = True


class Action:
    """One campaign: ``module`` has ``run(campaign, options)``; ``options`` are its own, ``examples`` its default number;
    ``hypothesis``: it needs that package. ``file``: the name of its positional argument, "" without one."""

    __slots__ = ("description", "examples", "file", "help", "hypothesis", "module", "options")

    def __init__(
        self,
        module: str,
        help: str,
        description: str,
        *,
        examples: int = 100,
        options: Sequence[Option] = (),
        hypothesis: bool = True,
        file: str = "",
    ) -> None:
        self.hypothesis = hypothesis
        self.file = file
        self.module = module
        self.help = help
        self.description = description
        self.examples = examples
        self.options = tuple(options)


_REPLAY = """\
Makes the calls of a failure that a campaign recorded (--out DIR), and compares what each comes to with what was expected:
status 1 where the failure is still there, 0 where not. --out DIR writes the recording of this run, a pytest and a C program,
each of which does the same on its own."""


_PROG = """\
Programs made of statements (arithmetic, stack, maps, packets, branches, bounded loops, subprograms) are loaded, run by
PROG_TEST_RUN and compared with an interpreter: return value, maps, packet, context. Three in five are such as the verifier should
take, others have bounds that it may not see, or one field of one instruction is off. What the verifier refuses is counted by its
own words. Some are loaded with the verifier's checks of itself on, and where the machine may be disturbed, with the JIT
hardened or off.
"""


_ATTR_TEXT = """\
Makes calls of bpf(2) that are valid but for a change, and compares what the kernel says with the errno model (rawkm.rules): first
--calls of them where coverage is thin, then --examples by hypothesis. What differs is shrunk to the valid call and one field.

Whatever a call opens is closed at once. Out of a test guest nothing is attached; commands that do are left out without
--i-own-this-kernel. At the end: which errnos each command gave, and which answers of the model's rules were not seen."""


_STATEFUL_TEXT = """\
Runs that create, load, attach, pin, look up, update, freeze, query, detach and close at random, against a model of references:
an object lives for as long as an fd, a pin or another object refers to it. After each run nothing may be left in the kernel.
A difference is shrunk to the fewest steps. Out of a test guest no links are made without --i-own-this-kernel.

--examples: how many runs."""


def _count(text: str) -> int:
    """A number that may be 0."""
    return 0 if text == "0" else options.positive(text)


ACTIONS: dict[str, Action] = {
    "attr": Action(
        "rawkm.fuzz.attr_campaign",
        "the kernel's answers to calls against the errno model",
        _ATTR_TEXT,
        examples=300,
        options=(
            Option(
                "--cmd", convert=str, metavar="NAME", help="one command (LINK_CREATE), or one variant (LINK_CREATE.kprobe_multi)"
            ),
            Option("--calls", convert=_count, metavar="N", help="changed calls before the examples (default: 10 for each)"),
            Option("--from", convert=str, metavar="FILE", help="change the calls of this recording, too (.rkm)"),
            Option("--coverage", convert=str, metavar="FILE", help="go on from the coverage stored there, and store it again"),
            Option(
                "--answers", convert=str, metavar="FILE", help="make calls that depend on the seed only; write down the answers"
            ),
        ),
    ),
    "stateful": Action(
        "rawkm.fuzz.stateful_campaign",
        "maps, programs and links as a state machine",
        _STATEFUL_TEXT,
        examples=50,
        options=(Option("--steps", convert=options.positive, metavar="N", help="steps of a run at most (default: 30)"),),
    ),
    "prog": Action(
        "rawkm.fuzz.prog_campaign",
        "verifier and JIT against an interpreter of BPF",
        _PROG,
        examples=500,
        hypothesis=False,
    ),
    "replay": Action(
        "rawkm.fuzz.replay_campaign",
        "a recorded failure again",
        _REPLAY,
        hypothesis=False,
        file="FAILURE.rkm",
    ),
}

_SUMMARY = """
The last line with --json: {"type":"summary","campaign","seed","examples","calls","accepted","unexplained","leaks","seconds",...};
before it {"type":"finding",...} with its reproducers, and {"type":"leak","what"}."""

_SHARED = (
    Option("--examples", convert=options.positive, metavar="N", help="how many examples"),
    Option("--seed", convert=options.positive, metavar="S", help="what the examples are made from (default: another each time)"),
    Option("--seconds", convert=options.seconds, metavar="T", help="end after so long, whatever is left to do"),
    Option("--out", convert=str, metavar="DIR", help="keep the reproducers of each finding there"),
    Option(
        "--last",
        convert=str,
        metavar="FILE",
        help="append each example before it runs, for the case that the machine dies (in a guest: /dev/stderr)",
    ),
    Option("--i-own-this-kernel", help="this machine may be disturbed, even broken"),
    options.JSON,
)


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm fuzz`. Raises UsageError; prints the help and leaves with status 0."""
    parser = args.new_parser(prog="rawkm fuzz", **args.texts(DESCRIPTION, EXAMPLES))
    for option in options.COMMON:
        args.add(parser, option)
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    for name, action in ACTIONS.items():
        one = actions.add_parser(name, help=action.help, **args.texts(action.description + _SUMMARY))
        if action.file:
            one.add_argument("file", metavar=action.file)
        for option in (*action.options, *_SHARED):
            args.add(one, option)
        for option in options.COMMON:
            args.add(one, option, again=True)
    return Args(vars(parser.parse_args(list(argv))))


def run(values: Args, kernel: LiveKernel) -> int:
    from random import SystemRandom

    from rawkm.fuzz import need_hypothesis
    from rawkm.fuzz.campaign import Campaign
    from rawkm.fuzz.findings import Store

    if values.record or values.redact or values.dry_run:
        raise UsageError("rawkm fuzz keeps what it finds by --out DIR; --record, --redact and --dry-run are not for it")
    action = ACTIONS[values.action]
    if action.hypothesis:
        need_hypothesis()
        from rawkm.fuzz.explore import leave_sources_alone

        leave_sources_alone()
    __import__(action.module)
    show = _as_json if values.json else _as_text
    campaign = Campaign(
        values.action,
        kernel,
        examples=values.examples or action.examples,
        seed=values.seed or SystemRandom().randrange(1, 1 << 32),
        report=show,
        own=values.i_own_this_kernel,
        seconds=values.seconds,
        store=Store(values.out) if values.out else None,
        last=values.last,
    )
    with campaign:
        _run(campaign, action, values)
        campaign.look_for_leaks()
    show(campaign.summary())
    return campaign.status


def _run(campaign: Campaign, action: Action, values: Args) -> None:
    own = {option.dest: getattr(values, option.dest) for option in action.options}
    if action.file:
        own["file"] = values.file
    try:
        sys.modules[action.module].run(campaign, own)
    except KeyboardInterrupt:
        campaign.extra["interrupted"] = True


def _as_json(row: Mapping[str, object]) -> None:
    print(json_line(row), flush=True)


def _as_text(row: Mapping[str, object]) -> None:
    kind = row["type"]
    if kind == "finding":
        print(plain(f"FOUND {row['what']}: expected {row['expected']}, seen {row['seen']}"))
        print(plain(f"  {row['title']}"))
        for line in str(row["text"]).splitlines():
            print(plain(f"  {line.expandtabs(4)}"))
        for path in row["files"] if isinstance(row["files"], list) else ():
            print(plain(f"  kept: {path}"))
    elif kind == "difference":
        print(plain(f"{row['what']}: expected {row['expected']}, seen {row['seen']}"))
    elif kind == "leak":
        print(plain(f"LEFT BEHIND {row['what']}"))
    elif kind == "coverage":
        from rawkm.fuzz.coverage import table

        print("\n".join(map(plain, table(row))))
    elif kind == "summary":
        counts = [
            count_of(int(str(row[key])), noun) for key, noun in (("examples", "example"), ("calls", "call"), ("leaks", "leak"))
        ]
        print(f"{row['campaign']}: {', '.join(counts)}, {row['accepted']} calls accepted, {row['unexplained']} unexplained")
        print(f"seed {row['seed']}, {row['seconds']} s")
    else:
        print(plain(" ".join(f"{key}={value}" for key, value in row.items())))
    sys.stdout.flush()
