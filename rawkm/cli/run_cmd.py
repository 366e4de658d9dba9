"""rawkm run: a text loaded, attached to functions, and what it left in its maps."""

from __future__ import annotations

import gc
import sys

from rawkm.cli import elements, inputs, options
from rawkm.cli.args import Operand, Option
from rawkm.cli.check_cmd import load
from rawkm.cli.output import count_of, json_line, note
from rawkm.cli.placing import Place
from rawkm.cli.tracing import create_ready, remove_ready
from rawkm.errors import UsageError
from rawkm.stops import Stops
from rawkm.uapi.constants import AttachType, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Source
    from rawkm.buffers.anyring import AnyRing
    from rawkm.cli.args import Args
    from rawkm.maps import Map
    from rawkm.prog import Program
    from rawkm.syscall.kernel import Child, Kernel

TAKES_COMMAND = True
DESCRIPTION = f"""\
Assembles FILE, a program as rawkm asm takes it, loads it, attaches it, and prints its maps at the end: after -d seconds, at
Ctrl-C, or when COMMAND (after --) ends. Records of a ring buffer are printed when they come. Whatever way it ends, the program is
detached.

A kprobe program is attached to the functions that --attach chooses, by one kprobe_multi link; bpf_get_attach_cookie gives it the
number of the function, in the order of `rawkm list`. A raw_tracepoint or tracepoint program is attached to the tracepoints that
--attach names ("sched_switch", "sched:sched_switch"). What --attach does not say is taken from the program's section:
.section "kprobe.multi/tcp_*", kretprobe.multi, kprobe.session, raw_tp, tp. COMMAND is started when everything is attached; whose
hits count is up to the program.

{options.PATTERNS}"""
EXAMPLES = """\
examples:
  rawkm run prog.s --attach 'tcp_*' -d 5
  rawkm run prog.s --attach tcp_v4_connect --return -- curl -s http://localhost

--json: {"type":"record","map","data"} per record of a ring buffer, {"type":"element","map","key","function","value"} per element
of a map (hexadecimal digits in the order of memory; function: where a key of 8 bytes is the address of one; value: of a per-CPU
map a list), and last {"type":"summary","backend","attached","missed","recursion_misses","records","discarded","full"}, null where
the kernel cannot tell; full: how often a ring buffer was found full.
"""
OPERAND = Operand("FILE", help='the program, "-" for standard input')
OPTIONS = (
    Option("--attach", many=True, metavar="PATTERN", help="what to attach to"),
    Option("--return", help="when the functions return"),
    Option("--type", convert=str, metavar="TYPE", help="the program's type, instead of what .type says (kprobe)"),
    Option("-d", "--duration", convert=options.seconds, metavar="SECONDS", help="end after so long"),
    *options.SELECTION,
    Option(
        "--missing",
        choices=("error", "warn", "ignore"),
        default="warn",
        help="what to do about a function that is not there or is refused (default: warn)",
    ),
    Option("--max-funcs", convert=options.positive, metavar="N", help="refuse when more functions than this would be attached"),
    options.JSON,
    Option("--ready-file", convert=str, metavar="FILE", help="created when everything is attached"),
)

_TRACEPOINTS = (ProgType.RAW_TRACEPOINT, ProgType.TRACEPOINT)


def run(args: Args, kernel: Kernel) -> int:
    from rawkm.programs import written

    source = inputs.source(kernel, args.file)
    spec = written.program(source, type=args.type or ("" if source.type or source.section else "kprobe"))
    patterns = args.attach or _from_section(source)
    if spec.type not in (ProgType.KPROBE, *_TRACEPOINTS):
        kind = written.type_name(spec.type) or str(spec.type)
        raise UsageError(f"rawkm run attaches programs of type kprobe, raw_tracepoint and tracepoint, not {kind}")
    if not patterns:
        raise UsageError("nothing to attach to: --attach PATTERN, or a .section such as kprobe.multi/tcp_*")
    if spec.type == ProgType.KPROBE and spec.attach_type == 0:
        spec.attach_type = AttachType.TRACE_KPROBE_MULTI
    remove_ready(kernel, args.ready_file)
    command: Child | None = None
    with Stops(kernel) as stops:
        try:
            with load(kernel, spec) as prog, Place(args, prog, patterns, at_return=_at_return(args, source)) as place:
                output = Output(args, prog)
                try:
                    if args.command:
                        command = kernel.start(args.command, seed=lambda: None, stdout_to_stderr=args.json)
                    place.attach(stops)
                    stops.watch(seconds=args.duration, command=command, pid=None, fds=output.fds)
                    gc.enable()
                    if not stops.signalled:
                        create_ready(kernel, args.ready_file)
                        if command is not None:
                            command.go()
                        while not stops.wait():
                            output.records()
                    place.detach()
                    if command is not None:
                        command.end()
                    output.last(place)
                finally:
                    output.close()
        finally:
            if command is not None:
                command.end()
    if command is not None and command.status:
        note(f"the command ended with status {command.status}")
    return 0


def _from_section(source: Source) -> list[str]:
    """What follows the kind in the section's name: "kprobe.multi/tcp_*", "tp/sched/sched_switch"."""
    kind, _, what = source.section.partition("/")
    return [what.replace("/", ":", 1) if kind in ("tp", "tracepoint") else what] if what else []


def _at_return(args: Args, source: Source) -> bool:
    return bool(getattr(args, "return")) or source.section.startswith("kretprobe")


class Output:
    """Prints the records of the ring buffers as they come, and the maps at the end."""

    def __init__(self, args: Args, prog: Program) -> None:
        from rawkm.buffers.anyring import AnyRing

        self._json = args.json
        self._maps: list[Map] = []
        self._rings: list[AnyRing] = []
        self._printed = 0
        for m in prog.maps.values():
            if m.spec.type == MapType.RINGBUF:
                self._rings.append(AnyRing(m))
            elif m.spec.type in elements.PRINTED:
                self._maps.append(m)
            else:
                note(f"the map {m.name} is of a type that is not printed")

    @property
    def fds(self) -> list[int]:
        return [ring.fd for ring in self._rings]

    def records(self) -> int:
        """Prints what has come; how many records it was."""
        lines: list[str] = []
        count = 0
        for ring in self._rings:
            for data in ring.read():
                count += 1
                self._printed += 1
                if self._json:
                    lines.append(json_line({"type": "record", "map": ring.name, "data": data.hex()}))
                else:
                    lines += [f"{ring.name} #{self._printed}, {count_of(len(data), 'byte')}", *elements.hexdump(data)]
        if lines:
            sys.stdout.write("\n".join([*lines, ""]))
            sys.stdout.flush()
        return count

    def last(self, place: Place) -> None:
        """Everything has come to rest: what is left in the rings, the maps, and the account."""
        while self.records():
            pass
        for m in self._maps:
            lines = elements.as_json(m, place.names) if self._json else elements.as_text(m, place.names)
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        discarded, full = (sum(getattr(ring, what) for ring in self._rings) for what in ("discarded", "full"))
        if self._json:
            summary = {
                "type": "summary",
                "backend": place.backend,
                "attached": place.attached,
                "missed": place.missed,
                "recursion_misses": place.recursion_misses,
                "records": self._printed,
                "discarded": discarded,
                "full": full,
            }
            print(json_line(summary))
        sys.stdout.flush()
        missed = "?" if place.missed is None else f"{place.missed:,}"
        recursion = "?" if place.recursion_misses is None else f"{place.recursion_misses:,}"
        where = "function" if place.names or "kprobe" in place.backend else "tracepoint"
        note(f"{place.backend}: {count_of(place.attached, where)} attached; {missed} missed, {recursion} recursion misses")
        if self._rings:
            note(f"{count_of(self._printed, 'record')}, {discarded:,} discarded by the program")
        if full:
            note(
                f"a ring buffer was full when it was read ({count_of(full, 'time')}): records may have found no room, which only "
                "the program sees (a reserve that gives 0); a larger max_entries helps"
            )

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
