"""Finds the command, parses its options, runs it, and turns every expected failure into one sentence and an exit status."""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper

from rawkm.cli.output import plain
from rawkm.errors import NotSupportedError, RawkmError, SyscallError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from rawkm.cli.args import Args

# name: one line. Each is a module of this package, NAME_cmd, with OPTIONS, run, DESCRIPTION and EXAMPLES. One with RECORDS has
# something else to record than its own calls; one that is not RECORDABLE has nothing that a recording would be good for.
COMMANDS = {
    "list": "show which functions would be attached, which not, and why not",
    "count": "count hits per function",
    "trace": "print one line per hit",
    "run": "load a text, attach it to functions, print its maps",
    "doctor": "tell what this kernel and container allow, with evidence",
    "bench": "measure what attaching and hits cost on this kernel, by mechanism",
    "asm": "assemble a text of BPF instructions",
    "disasm": "show the instructions of a file, an ELF object or a loaded program",
    "check": "ask lint and this kernel's verifier about a text",
    "abi": "show the layouts of bpf(2), check them against kernels, decode attrs",
    "audit": "show every bpf(2) call of other programs, decoded",
    "why": "tell which field of a refused call the kernel did not take",
    "replay": "show a recording, or run its command again without a kernel and compare",
    "repro": "make a script of a recording that makes its calls without rawkm",
    "fuzz": "compare bpf(2), the verifier and the JIT with models of them, by examples made at random",
}

DONE, FAILED, USAGE, NOT_SUPPORTED = 0, 1, 2, 3

STATUS_TEXT = "exit status: 0 done, 1 failed, 2 wrong usage, 3 this kernel or container cannot do it"


def run(argv: Sequence[str]) -> int:
    """The exit status of ``rawkm argv...``."""
    # Until everything is attached nothing becomes garbage: looking for it would only take time.
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding != "utf-8":
            stream.reconfigure(errors="backslashreplace")
    return attempt(lambda: _dispatch(list(argv)))


def attempt(do: Callable[[], int]) -> int:
    """The exit status that ``do`` returns, or that its failure stands for, which is said in one sentence."""
    try:
        status = do()
        sys.stdout.flush()
        return status
    except UsageError as err:
        return _complain(str(err), USAGE)
    except NotSupportedError as err:
        return _complain(str(err), NOT_SUPPORTED)
    except (SyscallError, RawkmError) as err:
        return _complain(str(err), FAILED)
    except BrokenPipeError:
        # Whoever read our output has enough.
        _drop_output()
        return DONE
    except OSError as err:
        _drop_output()
        return _complain(f"the output cannot be written: {err.strerror}", FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def _dispatch(argv: list[str]) -> int:
    name, rest = split(argv)
    if name is None:
        return _overview(rest)
    chosen, args = parse(name, rest)
    if (args.record or args.redact or args.dry_run) and not getattr(chosen, "RECORDS", False):
        from rawkm.cli import observed

        return observed.run(name, chosen, args, argv)
    from rawkm.syscall import open_kernel

    status: int = chosen.run(args, open_kernel(explain=sys.stderr if args.explain else None))
    return status


def parse(name: str, rest: list[str]) -> tuple[ModuleType, Args]:
    """The module of the command ``name`` and its options."""
    found = module(name)
    if found is None:
        raise UsageError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    return found, _parse(name, found, rest)


def _drop_output() -> None:
    """Keeps the interpreter from complaining about what it cannot flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def split(argv: list[str]) -> tuple[str | None, list[str]]:
    """The command's name, wherever it stands among the options that all commands share, and everything else."""
    value = False
    for i, word in enumerate(argv):
        if value:
            value = False
        elif not word.startswith("-"):
            return word, argv[:i] + argv[i + 1 :]
        elif word == "--record":
            value = True
        elif word not in ("--explain", "--redact", "--dry-run"):
            break
    return None, argv


def module(name: str) -> ModuleType | None:
    """The module of a command, None when there is none of that name."""
    # importlib would cost a few modules more.
    return getattr(__import__("rawkm.cli", fromlist=[f"{name}_cmd"]), f"{name}_cmd") if name in COMMANDS else None


def _parse(name: str, module: ModuleType, rest: list[str]) -> Args:
    """What follows a "--" is the user's command, options and all."""
    from rawkm.cli import args, options

    command: list[str] = []
    if "--" in rest:
        cut = rest.index("--")
        rest, command = rest[:cut], rest[cut + 1 :]
        if not command:
            raise UsageError("no command follows the --")
    known = (*module.OPTIONS, *options.COMMON)
    operand = getattr(module, "OPERAND", options.FUNCTIONS)
    # A command with actions of its own reads what follows itself.
    own = getattr(module, "parse", None)
    values: Args | None = args.quick(rest, known, operand) if own is None else own(rest)
    if values is None:
        values = args.full(
            rest,
            known,
            operand,
            prog=f"rawkm {name}",
            description=module.DESCRIPTION,
            epilog=f"{module.EXAMPLES}\n{STATUS_TEXT}",
        )
    if command and not getattr(module, "TAKES_COMMAND", False):
        raise UsageError(f"rawkm {name} takes no command after --")
    values.command = command
    return values


def _overview(rest: list[str]) -> int:
    """What ``rawkm`` and ``rawkm --help`` print."""
    options = [word for word in rest if word not in ("--explain", "--redact", "--dry-run")]
    if options and options[0] == "--version":
        from rawkm import __version__

        print(f"rawkm {__version__}")
        return DONE
    if options and options[0] not in ("-h", "--help"):
        return _complain(f"unknown option {options[0]!r}; see rawkm --help", USAGE)
    width = max(map(len, COMMANDS))
    lines = [
        "usage: rawkm [--explain | --record FILE | --dry-run] COMMAND [options] ...",
        "",
        "Traces kernel functions with BPF that Python assembles: no compiler, no headers, no libbpf.",
        "",
        *(f"  {name:{width}}  {text}" for name, text in COMMANDS.items()),
        "",
        "  rawkm count 'tcp_*' -d 5             which TCP functions ran in five seconds, and how often",
        "  rawkm trace 'tcp_v4_*' -- curl ...   every call of them that a command makes",
        "",
        "rawkm COMMAND --help tells more. --explain shows every system call with its bytes, --record FILE keeps them,",
        "--dry-run shows those that would be made.",
    ]
    print("\n".join(lines), file=sys.stdout if options else sys.stderr)
    return DONE if options else USAGE


def _complain(sentence: str, status: int) -> int:
    print(f"rawkm: {plain(sentence)}", file=sys.stderr)
    return status
