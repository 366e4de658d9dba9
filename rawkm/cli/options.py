"""Options that several commands share."""

from __future__ import annotations

from rawkm.cli.args import Option
from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
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


COMMON = (Option("--explain", help="print every system call on stderr, its attr byte by byte"),)

JSON = Option("--json", help="JSON Lines on stdout")

SELECTION = (
    Option("--deny", many=True, metavar="GLOB", help="leave these functions out, too"),
    Option("--unsafe", help="drop the built-in list of functions to leave alone"),
)

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


def deny_list(args: Args) -> DenyList:
    from rawkm.host.deny import DenyList

    return DenyList(args.deny, builtin=not args.unsafe, ring=getattr(args, "buffer", None) == "ring")


def check_scope(args: Args) -> None:
    if args.pid is not None and args.command:
        raise UsageError("-p PID and a COMMAND exclude each other: trace one process tree at a time")
    if args.all and not args.command:
        raise UsageError("-a goes with a COMMAND: without one, everybody's hits count anyway")
