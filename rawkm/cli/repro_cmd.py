"""rawkm repro: a script that makes the calls of a recording, without rawkm."""

from __future__ import annotations

import sys

from rawkm.cli import args, options
from rawkm.cli.args import Args
from rawkm.cli.replay_cmd import opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Writes a Python script to stdout that makes the system calls of a recording again: bpf, perf_event_open, ioctl, mmap, stores to
shared memory, close. It uses Python's standard library only, puts this run's fds where the recorded ones were, moves kernel
addresses to where this boot has them (when the recording tells a symbol), and compares how each call ends with the recording.
Files are not read, commands not started, nothing is waited for."""
EXAMPLES = """\
examples:
  rawkm repro run.rkm > repro.py && python3 repro.py -v
  rawkm repro run.rkm | ssh root@there python3 -

exit status: 0 done, 1 the recording is damaged, 2 wrong usage; of the script: 0 every call ended as recorded, 1 not.
The script needs the privileges that its calls take.
"""
OPTIONS = ()
RECORDABLE = False


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm repro`."""
    parser = args.new_parser(prog="rawkm repro", **args.texts(DESCRIPTION, EXAMPLES))
    parser.add_argument("file", metavar="FILE", help="a recording (.rkm)")
    for option in options.COMMON:
        args.add(parser, option)
    return Args(vars(parser.parse_args(list(argv))))


def run(values: Args, kernel: Kernel) -> int:  # noqa: ARG001 (there is none)
    from rawkm.recording import Reader
    from rawkm.recording.repro import script

    with opened(values.file) as file:
        reader = Reader(file)
        sys.stdout.write(script(reader.header, reader.calls(seams=True)))
    return 0
