"""rawkm why: which field of a call of bpf(2) the kernel refused."""

from __future__ import annotations

import sys

from rawkm.cli import args, options
from rawkm.cli.args import Args, Option
from rawkm.cli.output import json_line, note, plain
from rawkm.errors import RawkmError, SyscallError, UsageError
from rawkm.host import caps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.audit.raw import Row
    from rawkm.recording import Call, Writer
    from rawkm.syscall.kernel import Kernel

TAKES_COMMAND = True
RECORDABLE = False
DESCRIPTION = """\
Says why the kernel refused a call of bpf(2), and what would make it accept: the call of a recording (of rawkm --record or of
rawkm audit --record), or the last one that was refused to COMMAND, which is run under rawkm audit.

The answer comes from the rules of bpf(2) that rawkm knows (for Linux 5.10 to 7.2), and from trying: the maps and programs that
the call takes are made again from the recording, then the call is made with one field changed, then with two, until the kernel
accepts or gets to a later check. Of a program that the verifier refuses its words are shown.

What is tried leaves nothing behind: new fds are closed at once. A program that is attached for a moment does nothing (it is one
of the same kind without its instructions), and only kinds that merely look on are attached at all; calls that pin, or attach to
cgroups, sockets and devices, are explained by their bytes alone."""
EXAMPLES = """\
examples:
  rawkm why -- bpftool prog load prog.o /sys/fs/bpf/prog
  rawkm count 'tcp_*' -d 1 --record run.rkm; rawkm why run.rkm

--json: one object {"type":"why","call","command","errno","answer","reason","rule":{"name","text","fields","source","since",
"until"},"candidates","findings":[{"changes":[{"call","field","was","now"}],"errno","accepted"}],"verifier","missing",
"obstacle","tried"} per call.

exit status: 0 done, 1 the reason was not found, or nothing was refused, 2 wrong usage, 3 this kernel or container cannot do it
"""


def _number(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"{text!r} is no number of a call")
    return int(text)


OPTIONS = (
    Option("--call", convert=_number, metavar="N", help="this call of the recording (default: the last one that was refused)"),
    Option("--all", help="every refused call, one after the other"),
    options.JSON,
)


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm why`."""
    parser = args.new_parser(prog="rawkm why", **args.texts(DESCRIPTION, EXAMPLES))
    parser.add_argument("file", nargs="?", metavar="FILE", help="a recording (.rkm)")
    for option in (*OPTIONS, *options.COMMON):
        args.add(parser, option)
    return Args(vars(parser.parse_args(list(argv))))


def run(values: Args, kernel: Kernel) -> int:
    if bool(values.file) == bool(values.command):
        raise UsageError("rawkm why takes a recording, or a COMMAND after --")
    if values.call and values.all:
        raise UsageError("--call and --all exclude each other")
    held: dict[int, int] = {}
    calls = _watched(kernel, values.command, held) if values.command else _read(values.file)
    chosen = _chosen(values, calls)
    found = True
    for call in chosen:
        found = _explain(values, kernel, calls, call, held.get(call.pid)) and found
    return 0 if found else 1


def _explain(values: Args, kernel: Kernel, calls: Sequence[Call], call: Call, held: int | None) -> bool:
    from rawkm.why import explain

    answer = explain(kernel, calls, call, held=held)
    if values.json:
        print(json_line(answer.row()))
    else:
        sys.stdout.write("".join(plain(line) + "\n" for line in answer.lines()))
    return bool(answer.reason())


def _chosen(values: Args, calls: Sequence[Call]) -> list[Call]:
    from rawkm.why import refused

    failed = refused(calls)
    if values.call:
        found = [call for call in calls if call.number == values.call]
        if not found:
            raise UsageError(f"there is no call {values.call}: the recording has {len(calls)}")
        return found
    if not failed:
        raise RawkmError("no call of bpf(2) was refused" if calls else "no call of bpf(2) was made")
    if values.all:
        return failed
    if len(failed) > 1:
        others = ", ".join(str(call.number) for call in failed[-9:-1])
        note(f"{len(failed)} calls were refused; this is the last one (--call N explains another: {others})")
    return failed[-1:]


def _read(path: str) -> list[Call]:
    from rawkm.cli.replay_cmd import opened
    from rawkm.recording import Reader

    with opened(path) as file:
        reader = Reader(file)
        if reader.header.order != sys.byteorder:
            raise RawkmError(f"{path} was recorded on a {reader.header.order}-endian machine: it means nothing here")
        return list(reader.calls())


# -- a command -----------------------------------------------------------------------------------------------------------------


def _watched(kernel: Kernel, command: list[str], held: dict[int, int]) -> list[Call]:
    """The calls of bpf(2) that a command makes. ``held`` gets the capabilities of its processes, where they still run."""
    from io import BytesIO

    from rawkm import __version__
    from rawkm.cli import audit_cmd
    from rawkm.recording import Header, Reader, Writer
    from rawkm.recording.header import AUDIT

    file = BytesIO()
    writer = Writer(file.write, Header(AUDIT, command, tool=f"rawkm {__version__}"))
    audit_cmd.watch_command(kernel, command, _Recorder(kernel, writer, held))
    file.seek(0)
    return list(Reader(file).calls())


class _Recorder:
    """What an audit reports to: all goes into a recording."""

    takes_stdout = False

    def __init__(self, kernel: Kernel, writer: Writer, held: dict[int, int]) -> None:
        from rawkm.audit.record import Recording

        self._kernel = kernel
        self._held = held
        self._recording = Recording(writer)
        self.command_status: int | None = None

    def add(self, rows: Iterable[Row]) -> None:
        from rawkm.audit.raw import from_row

        calls = [from_row(row) for row in rows]
        self._recording.add(calls)
        for pid in {call.pid for call in calls}:
            try:
                self._held[pid] = caps.effective(self._kernel, pid)
            except SyscallError:
                pass  # it has ended
