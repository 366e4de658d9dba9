"""rawkm list: what would be attached, what not, and why not."""

from __future__ import annotations

import sys

from rawkm.cli import options
from rawkm.cli.output import count_of, json_line, note, plain
from rawkm.targets import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.cli.args import Args
    from rawkm.syscall.kernel import Kernel
    from rawkm.targets import Rejected, Targets

DESCRIPTION = f"""\
Shows which functions PATTERN chooses, and which of them would not be attached, with the reason.

{options.PATTERNS}"""
EXAMPLES = """\
examples:
  rawkm list 'tcp_*'
  rawkm list --json 'nf_conntrack:*'

output: a line per function: + NAME ADDRESS for one that would be attached, - NAME (REASON) for one that would not.
--json: {"type":"target","function","module","address","site"} per function to attach (address: the symbol's, null where hidden;
site: the ftrace location, null where unknown), {"type":"rejected","function","module","denied","reason"} per other one,
{"type":"summary","attachable","rejected","source","notes"} last.
"""


OPTIONS = (*options.SELECTION, options.JSON)


def run(args: Args, kernel: Kernel) -> int:
    from rawkm.targets.reasons import explain_missing, untraceable

    patterns = options.patterns(args)
    targets = resolve(kernel, patterns, deny=options.deny_list(args), addresses=True)
    rejected = list(targets.rejected)
    if targets.certain:
        rejected += untraceable(kernel, targets, patterns)
    explain_missing(kernel, targets, patterns)
    known = {r.name for r in rejected}
    rejected += [r for r in targets.missing if r.name not in known]
    if args.json:
        _json(targets, rejected)
    else:
        _text(targets, rejected)
    return 0 if targets.ok else 1


def _json(targets: Targets, rejected: list[Rejected]) -> None:
    write = sys.stdout.write
    for t in targets.ok:
        row = {"type": "target", "function": t.name, "module": t.module or None, "address": t.address, "site": t.site}
        write(json_line(row) + "\n")
    for r in rejected:
        row = {
            "type": "rejected",
            "function": r.name,
            "module": r.module or None,
            "denied": r.denied,
            "reason": r.reason,
        }
        write(json_line(row) + "\n")
    summary = {
        "type": "summary",
        "attachable": len(targets.ok),
        "rejected": len(rejected),
        "source": targets.source,
        "notes": targets.notes,
    }
    write(json_line(summary) + "\n")


def _text(targets: Targets, rejected: list[Rejected]) -> None:
    lines = []
    for target in targets.ok:
        address = "-" if target.address is None else f"{target.address:016x}"
        lines.append(f"+ {plain(target.label)} {address}\n")
    for r in rejected:
        name = f"{r.name} [{r.module}]" if r.module else r.name
        lines.append(plain(f"- {name} ({'denied: ' if r.denied else ''}{r.reason})") + "\n")
    sys.stdout.write("".join(lines))
    sys.stdout.flush()
    for text in targets.notes:
        note(text)
    note(f"{count_of(len(targets.ok), 'function')} would be attached, {len(rejected):,} not; source: {targets.source}")
