"""Options that several commands share."""

from __future__ import annotations

from rawkm.cli.args import Operand, Option
from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.backend.model import Need
    from rawkm.cli.args import Args
    from rawkm.host.deny import DenyList
    from rawkm.targets import Pattern

PATTERNS = """\
PATTERN chooses functions: a name, a glob ('tcp_*', 'vfs_[rw]*', '*'), a regular expression between slashes
('/^tcp_.*_sock$/'), each optionally within a module ('nf_conntrack:*', 'vmlinux:vfs_*'). Quote it for the
shell."""


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError(f"{text!r} is no number of seconds above 0")
    return value


def percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise ValueError(f"{text!r} is no percentage: write a number above 0, 100 at most")
    return value


def positive(text: str) -> int:
    if not _is_number(text):
        raise ValueError(f"{text!r} is no whole number above 0")
    return int(text)


def pid(text: str) -> int:
    # include/linux/threads.h, PID_MAX_LIMIT.
    if not _is_number(text) or int(text) > 1 << 22:
        raise ValueError(f"{text!r} is no process id")
    return int(text)


def size(text: str) -> int:
    """Bytes, with an optional K, M or G."""
    units = {"k": 10, "m": 20, "g": 30}
    shift = units.get(text[-1:].lower(), 0)
    digits = text[:-1] if shift else text
    if not _is_number(digits) or int(digits) << shift > 1 << 31:
        raise ValueError(f"{text!r} is no size: write bytes, or 64K, 16M (at most 2G)")
    return int(digits) << shift


def _is_number(text: str) -> bool:
    """A whole number above 0, and short enough for int() to take."""
    return text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) > 0


# What stands between the options of a command that says nothing else.
FUNCTIONS = Operand("PATTERN", dest="patterns", help="functions to trace", many=True)

COMMON = (
    Option("--explain", help="print every system call on stderr, its attr byte by byte"),
    Option("--record", convert=str, metavar="FILE", help="write all that the run asks of the kernel to FILE (see rawkm replay)"),
    Option("--redact", help="leave addresses and the contents of files out of the recording"),
    Option("--dry-run", help="show which system calls would be made; files are read, nothing else is done"),
)

JSON = Option("--json", help="JSON Lines on stdout")

SELECTION = (
    Option("--deny", many=True, metavar="GLOB", help="leave these functions out, too"),
    Option("--unsafe", help="drop the built-in list of functions to leave alone"),
)

# As rawkm.backend.ladder has them; importing it takes longer than telling it again.
BACKENDS = ("kprobe-multi", "kprobe-session", "fentry-multi", "fentry", "fexit", "kprobe", "tracefs-kprobe")

# What `count` and `trace` have in common.
TRACING = (
    *SELECTION,
    Option("-d", "--duration", convert=seconds, metavar="SECONDS", help="end after so long"),
    Option(
        "-p",
        "--pid",
        convert=pid,
        metavar="PID",
        help="only this process, its threads and descendants; ends when it does",
    ),
    Option("-a", "--all", help="everybody's hits, though a COMMAND is given"),
    Option(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help="how to attach: the best way that works here (auto, default), or the one that is named and no other",
    ),
    Option("-r", "--return", help="when functions return, instead of when they are called"),
    Option("--by", choices=("auto", "addrs", "syms"), default="auto", help="attach by addresses or by names"),
    Option(
        "--missing",
        choices=("error", "warn", "ignore"),
        default="warn",
        help="what to do about a function that is not there or is refused (default: warn)",
    ),
    Option(
        "--max-funcs",
        convert=positive,
        metavar="N",
        help="refuse when more functions than this would be attached",
    ),
    JSON,
    Option("--ready-file", convert=str, metavar="FILE", help="created when everything is attached"),
)


def patterns(args: Args) -> list[Pattern]:
    from rawkm.targets import Pattern

    return [Pattern(text) for text in dict.fromkeys(args.patterns)]


def need(args: Args) -> Need:
    from rawkm.backend.model import Need

    at_return = getattr(args, "return")
    if args.backend == "fexit" and not at_return:
        raise UsageError("--backend fexit runs at return: it goes with -r")
    if args.backend == "fentry" and at_return:
        raise UsageError("--backend fentry runs at entry: with -r it is --backend fexit")
    return Need(at_return=at_return, arguments=getattr(args, "args", False))


def deny_list(args: Args) -> DenyList:
    from rawkm.host.deny import DenyList

    return DenyList(args.deny, builtin=not args.unsafe, ring=getattr(args, "buffer", None) == "ring")


def check_scope(args: Args) -> None:
    if args.pid is not None and args.command:
        raise UsageError("-p PID and a COMMAND exclude each other: trace one process tree at a time")
    if args.all and not args.command:
        raise UsageError("-a goes with a COMMAND: without one, everybody's hits count anyway")
