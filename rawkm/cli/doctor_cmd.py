"""rawkm doctor: what this kernel and container allow, with evidence."""

from __future__ import annotations

import sys

from rawkm.cli import options
from rawkm.cli.args import Args
from rawkm.cli.output import json_line, plain
from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rawkm.doctor.report import Report
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Tries what tracing needs, one thing after the other, and says what came back, and what a container must be given for what is
missing. What is attached meanwhile is attached to a function that nobody calls, and nothing is left behind."""
EXAMPLES = """\
examples:
  rawkm doctor
  rawkm doctor --json > here.json
  rawkm doctor --diff here.json there.json
  rawkm doctor --clean

--json: one object: {"type":"doctor","can_trace":true|false,"kernel","machine","capabilities":[...],"confinement":{"container",
"evidence","user_namespace","seccomp":"off"|"strict"|"filter"|"unknown","blocked":{system call: errno},"label"},"settings":{...},
"checks":[{"feature","state":"yes"|"no"|"unknown","evidence","help"}],"grants":{"missing":[{"grant","reason"}],"container":[...],
"docker","kubernetes","notes":[...]},"leftovers":[{"event","where","pid"}]}.
can_trace says whether count and trace work; missing, what this process or container lacks; container, docker and kubernetes, what
a container must be given: this one, or one on this kernel (null: nothing); leftovers, the events in kprobe_events of killed runs,
which --clean removes.
The exit status is 0 when they do, 3 when not; with --diff 0 when the reports say the same, 1 when not; with --clean 0 when
nothing is left, 1 when something is.
"""
OPTIONS = (options.JSON,)


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm doctor`. Raises UsageError; prints the help and leaves with status 0."""
    from rawkm.cli.args import add, new_parser, texts
    from rawkm.cli.main import STATUS_TEXT

    parser = new_parser(prog="rawkm doctor", **texts(DESCRIPTION, f"{EXAMPLES}\n{STATUS_TEXT}"))
    job = parser.add_mutually_exclusive_group()
    job.add_argument("--diff", nargs=2, metavar=("A.json", "B.json"), help="what differs between two reports that --json wrote")
    job.add_argument("--clean", action="store_true", help="remove the events in kprobe_events that killed runs left")
    for option in (*OPTIONS, *options.COMMON):
        add(parser, option)
    args = Args(vars(parser.parse_args(list(argv))))
    if args.json and (args.diff or args.clean):
        raise UsageError("--json is for the report: --diff and --clean go without it")
    return args


def run(args: Args, kernel: Kernel) -> int:
    if args.diff:
        return _diff(kernel, *args.diff)
    if args.clean:
        return _clean(kernel)
    from rawkm.doctor import report

    found = report.make(kernel)
    if args.json:
        print(json_line(found))
    else:
        _print(_text(found))
    return 0 if found["can_trace"] else 3


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(plain(line) + "\n" for line in lines))


# -- the report as text --------------------------------------------------------------------------------------------------------


def _text(report: Report) -> list[str]:
    held = ", ".join(report["capabilities"]) or "none that matter"
    lines = [f"Linux {report['kernel']}, {report['machine']}; capabilities: {held}", *_confinement(report["confinement"]), ""]
    checks = report["checks"]
    width = max(len(check["feature"]) for check in checks)
    for check in checks:
        lines.append(f"{check['feature']:{width}}  {check['state']:7}  {check['evidence']}")
        if check["help"] and check["state"] != "yes":
            lines.append(f"{'':{width}}  {'':7}  help: {check['help']}")
    settings = report["settings"]
    lines.append("")
    lines += [f"{name} = {'not known' if value is None else value}" for name, value in settings.items()]
    lines += _grants(report)
    if report["leftovers"]:
        events = ", ".join(f"{one['event']} on {one['where']}" for one in report["leftovers"])
        lines += ["", f"left in kprobe_events by killed runs (rawkm doctor --clean removes it): {events}"]
    lines += ["", "count and trace work here" if report["can_trace"] else "count and trace do not work here"]
    if settings["kernel.ftrace_enabled"] == 0:
        lines.append("but kernel.ftrace_enabled is 0: nothing fires until it is 1 (sysctl kernel.ftrace_enabled=1)")
    return lines


def _confinement(found: dict[str, Any]) -> list[str]:
    """One line, none where nothing shuts this process in."""
    parts = []
    if found["container"]:
        kind = "a container" if found["container"] == "unknown" else f"a {found['container']} container"
        parts.append(f"in {kind} ({found['evidence']})")
    if found["user_namespace"]:
        parts.append("in a user namespace of its own")
    if found["seccomp"] in ("strict", "filter"):
        calls = ", ".join(f"{name} → {code}" for name, code in found["blocked"].items())
        parts.append(f"behind a seccomp filter ({calls or 'which lets through what rawkm needs'})")
    if found["label"]:
        parts.append(f"labelled {found['label']}")
    return ["; ".join(parts)] if parts else []


def _grants(report: Report) -> list[str]:
    """What is missing here, and what a container must be given."""
    grants = report["grants"]
    inside = report["confinement"]["container"] is not None
    lines = _listed(f"this {'container' if inside else 'process'} lacks:", grants["missing"])
    lines += [f"  note: {text}" for text in grants["notes"]]
    if not inside:
        lines += _listed("a container on this kernel would need:", grants["container"])
    if grants["docker"]:
        lines += ["", f"  {grants['docker']}"]
    if grants["kubernetes"]:
        lines += ["", *(f"  {line}" for line in grants["kubernetes"].splitlines())]
    return lines


def _listed(heading: str, rows: list[dict[str, str]]) -> list[str]:
    width = max((len(row["grant"]) for row in rows), default=0)
    return ["", heading, *(f"  {row['grant']:{width}}  {row['reason']}" for row in rows)] if rows else []


# -- leftovers -----------------------------------------------------------------------------------------------------------------


def _clean(kernel: Kernel) -> int:
    from rawkm.link import tracefs_kprobe

    removed, kept = tracefs_kprobe.clean(kernel)
    lines = [f"removed {one.event} on {one.where}" for one in removed]
    lines += [f"could not remove {one.event} on {one.where}: {err}" for one, err in kept]
    _print(lines or ["nothing was left behind"])
    return 1 if kept else 0


# -- the difference ------------------------------------------------------------------------------------------------------------


def _diff(kernel: Kernel, *paths: str) -> int:
    from rawkm.doctor.diff import differences

    a, b = (_load(kernel, path) for path in paths)
    lines = differences(a, b)
    if lines:
        _print([f"A = {paths[0]}: Linux {a['kernel']}", f"B = {paths[1]}: Linux {b['kernel']}", *lines])
    return 1 if lines else 0


def _load(kernel: Kernel, path: str) -> Report:
    """A report from a file. Raises UsageError when it is none."""
    from json import JSONDecodeError, loads

    from rawkm.doctor.diff import is_report
    from rawkm.errors import SyscallError

    try:
        report = loads(kernel.read_file(path))
    except SyscallError as err:
        raise UsageError(f"{path} cannot be read: {err}") from None
    except (JSONDecodeError, UnicodeDecodeError):
        report = None
    if not is_report(report):
        raise UsageError(f"{path} holds no report of rawkm doctor --json")
    return dict(report)
