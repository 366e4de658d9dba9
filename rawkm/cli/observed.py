"""--record, --redact and --dry-run: a command whose calls are written to a file, or only shown."""

from __future__ import annotations

import sys

from rawkm.cli import main
from rawkm.cli.output import count_of, plain
from rawkm.errors import RawkmError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType, TracebackType
    from typing import Any, TextIO

    from rawkm.cli.args import Args

_SWITCHES = ("--explain", "--redact", "--dry-run")


def run(name: str, module: ModuleType, args: Args, argv: Sequence[str]) -> int:
    """The command ``name`` under the eyes of whatever ``args`` ask for."""
    if not getattr(module, "RECORDABLE", True):
        raise UsageError(f"rawkm {name} takes neither --record nor --redact nor --dry-run")
    if args.dry_run:
        if args.record or args.redact:
            raise UsageError("--dry-run makes no calls that could be recorded: use it without --record and --redact")
        return _dry(module, args)
    if not args.record:
        raise UsageError("--redact goes with --record FILE")
    return _record(module, args, argv)


def _record(module: ModuleType, args: Args, argv: Sequence[str]) -> int:
    from rawkm import __version__
    from rawkm.syscall import open_kernel
    from rawkm.syscall.record import Recorder

    recorder = Recorder(args.record, command_line(argv), redact=args.redact, tool=f"rawkm {__version__}")
    kernel = open_kernel(explain=sys.stderr if args.explain else None, recorder=recorder)
    with Copied("stdout") as out, Copied("stderr") as err:
        status = main.attempt(lambda: int(module.run(args, kernel)))
    recorder.end(status, out.data, err.data)
    return status


def command_line(argv: Sequence[str]) -> list[str]:
    """The words of a command line without the options that only say how to look at it."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            return [*words, word, *rest]
        if word == "--record":
            next(rest, None)
        elif word not in _SWITCHES and not word.startswith("--record="):
            words.append(word)
    return words


class Copied:
    """``data`` has what is written to sys.stdout or sys.stderr (``name``), which still gets it unless ``silent``."""

    def __init__(self, name: str, *, silent: bool = False) -> None:
        self._name = name
        self._silent = silent
        self._real: TextIO = getattr(sys, name)
        self._pieces: list[bytes] = []
        self.buffer = _Buffer(self._pieces, None if silent else self._real)

    def __enter__(self) -> Copied:
        setattr(sys, self._name, self)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        setattr(sys, self._name, self._real)

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)

    def write(self, text: str) -> int:
        self._pieces.append(text.encode("utf-8", "backslashreplace"))
        return len(text) if self._silent else self._real.write(text)

    def flush(self) -> None:
        if not self._silent:
            self._real.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Buffer:
    """What stands below a text stream."""

    def __init__(self, pieces: list[bytes], real: TextIO | None) -> None:
        self._pieces = pieces
        self._real = real

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data) if self._real is None else self._real.buffer.write(data)

    def flush(self) -> None:
        if self._real is not None:
            self._real.buffer.flush()


# -- dry run -------------------------------------------------------------------------------------------------------------------


def _dry(module: ModuleType, args: Args) -> int:
    """Shows the calls on stdout; what the command would print of pretended answers is left out."""
    from rawkm.syscall.dryrun import DryRun, DryRunKernel

    kernel = DryRunKernel(sys.stdout, detail=args.explain)
    trouble = ""
    with Copied("stdout", silent=True) as out, Copied("stderr", silent=True) as err:
        try:
            status = int(module.run(args, kernel))
        except DryRun:
            status = 0
        except RawkmError as error:
            if not kernel.pretended:
                raise
            status, trouble = 0, str(error)
    if not kernel.pretended:
        # Everything that it says has been read from this kernel.
        sys.stdout.flush()
        sys.stdout.buffer.write(out.data)
        sys.stderr.write(err.data.decode("utf-8", "replace"))
    calls = (
        f"{count_of(kernel.pretended, 'call')} would be made"
        if kernel.pretended
        else "no call would be made that changes anything"
    )
    if trouble:
        calls += f", then it depends on the kernel's answers ({trouble})"
    print(f"rawkm: dry run: {plain(calls)}; {count_of(kernel.made, 'reading call')} made", file=sys.stderr)
    return status if not kernel.pretended else 0
