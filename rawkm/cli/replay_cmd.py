"""rawkm replay: a recording shown, or its command run again without a kernel."""

from __future__ import annotations

import sys

from rawkm.cli import args, options
from rawkm.cli.args import Args, Option
from rawkm.cli.output import count_of, plain
from rawkm.errors import RawkmError, RecordingError, ReplayMismatch, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from rawkm.recording import Call, Reader
    from rawkm.recording.reader import End
    from rawkm.syscall.kernel import Kernel
    from rawkm.syscall.replay import ReplayKernel

DESCRIPTION = """\
Shows a recording: each system call in one line, in its canonical form (what pointers point to instead of addresses, "prog#1"
instead of a number), with `before => after` for what it changed; with --explain every byte, too. With --verify it runs the
recorded rawkm command again: without a kernel, without privileges, without starting anything. Each call must be the recorded one,
field by field, and gets what that one got; at the end the output must be the same, too.

What a recording made by --record holds: the command line; every system call with the bytes of its attr, addresses of rawkm's own
memory included, and what its pointers point to; the contents of the files that were read (of /proc, /sys and tracefs: kernel
addresses, if they were visible); what was seen in memory shared with the kernel (of `trace`: the records, with the names of
processes); names of files and directories, clocks, ids, exit statuses; and what the command printed. Of the environment it holds
KUBERNETES_SERVICE_HOST alone (doctor asks for it), of other processes' memory nothing. --redact, when recording, leaves out all
addresses and the contents of files and shared memory: such a recording can be shown and made a script of, but not be verified.

A recording of `rawkm audit --record` holds other programs' calls of bpf(2) and what their pointers pointed to."""
EXAMPLES = """\
examples:
  rawkm count 'tcp_*' -d 1 --record run.rkm && rawkm replay run.rkm
  rawkm replay --verify run.rkm

exit status: 0 done (with --verify: all as recorded), 1 different, damaged or of another kind, 2 wrong usage
"""
OPTIONS = (
    Option("--verify", help="run the command again without a kernel, and compare call by call"),
    Option("--seams", help="show also what is no system call: clocks, signals, accesses to shared memory"),
)
RECORDABLE = False


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm replay`."""
    parser = args.new_parser(prog="rawkm replay", **args.texts(DESCRIPTION, EXAMPLES))
    parser.add_argument("file", metavar="FILE", help="a recording (.rkm)")
    for option in (*OPTIONS, *options.COMMON):
        args.add(parser, option)
    return Args(vars(parser.parse_args(list(argv))))


def run(values: Args, kernel: Kernel) -> int:  # noqa: ARG001 (there is none)
    from rawkm.recording import Reader

    with opened(values.file) as file:
        reader = Reader(file)
        if values.verify:
            return _verify(values, reader)
        _show(values, reader)
    return 0


def opened(path: str) -> BinaryIO:
    """The file of a recording. Raises RawkmError."""
    try:
        return open(path, "rb")
    except OSError as err:
        raise RawkmError(f"the recording {path} cannot be read: {err.strerror}") from None


# -- show ----------------------------------------------------------------------------------------------------------------------


def _show(values: Args, reader: Reader) -> None:
    header = reader.header
    redacted = ", redacted" if header.redacted else ""
    command = " ".join(_quoted(word) for word in header.argv)
    title = {"run": f"rawkm {command}", "audit": f"other programs' calls: {command}"}.get(header.kind, f"{header.kind} {command}")
    _write([f"# {title} ({header.tool}, Linux {header.kernel}, {header.machine}{redacted})"])
    calls = reader.calls(seams=values.seams)
    _write(line for call in calls for line in _lines(call, reader.comms, detail=values.explain))
    if reader.end is not None:
        _write([f"# exit status {reader.end.status}"])
    elif header.kind == "run":
        _write(["# it ends here: the run was killed"])


def _lines(call: Call, comms: dict[int, str], *, detail: bool) -> Iterator[str]:
    from rawkm.recording import show

    who = f"[{call.tid or call.pid} {comms.get(call.tid) or comms.get(call.pid, '')}".rstrip() + "] " if call.pid else ""
    if call.kind == "seam":
        rest = ", ".join(f"{name}={value}" for name, value in call.args.items())
        value = f"{len(call.value)} bytes" if isinstance(call.value, bytes) else call.value
        yield f"{'-':>5} {who}{call.name}({rest}): {value}"
        return
    yield f"{call.number:5} {who}{show.line(call, names=True)}"
    if detail:
        yield from (f"          {text}" for text in show.detail(call))


def _quoted(word: str) -> str:
    from shlex import quote

    return quote(word)


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(plain(line) + "\n")


# -- verify --------------------------------------------------------------------------------------------------------------------


def _verify(values: Args, reader: Reader) -> int:
    from rawkm.cli import main
    from rawkm.cli.observed import Copied
    from rawkm.syscall.explain import Explainer
    from rawkm.syscall.replay import ReplayKernel

    kernel = ReplayKernel(reader, Explainer(sys.stderr) if values.explain else None)
    name, rest = main.split(reader.header.argv)
    if name is None:
        raise RecordingError("the recorded command line has no command")
    try:
        module, recorded = main.parse(name, rest)
    except UsageError as err:
        raise RecordingError(f"the recorded command line is none of this rawkm: {err}") from None
    if not getattr(module, "RECORDABLE", True) or getattr(module, "RECORDS", False):
        raise RecordingError(f"rawkm {name} cannot be replayed")

    def again() -> int:
        try:
            return int(module.run(recorded, kernel))
        except (ReplayMismatch, RecordingError):
            if kernel.trouble is None:
                raise
            return 0

    try:
        with Copied("stdout") as out, Copied("stderr") as complaints:
            status = main.attempt(again)
        if kernel.trouble is not None:
            raise kernel.trouble
        kernel.finish()
    except ReplayMismatch as mismatch:
        return _differs(str(mismatch))
    return _compare(kernel, reader.end, status, out.data, complaints.data)


def _compare(kernel: ReplayKernel, end: End | None, status: int, out: bytes, err: bytes) -> int:
    calls = count_of(kernel.calls, "call")
    if end is None:
        return _differs("the recorded run was killed: its end is missing")
    if status != end.status:
        return _differs(f"the exit status is {status}, the recording has {end.status}")
    for name, old, new in (("stdout", end.out, out), ("stderr", end.err, err)):
        if old != new:
            number, before, now = _first_line(old, new)
            return _differs(f"{name}, line {number}: {now!r}, the recording has {before!r}")
    print(f"rawkm: verified: {calls}, output and exit status {status} as recorded", file=sys.stderr)
    return 0


def _differs(text: str) -> int:
    print(f"rawkm: the run differs from its recording: {plain(text)}", file=sys.stderr)
    return 1


def _first_line(old: bytes, new: bytes) -> tuple[int, str, str]:
    """The number of the first line that differs, and both."""
    before, now = (text.decode("utf-8", "replace").split("\n") for text in (old, new))
    length = max(len(before), len(now))
    pairs = zip(before + [""] * (length - len(before)), now + [""] * (length - len(now)), strict=True)
    return next((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b)
