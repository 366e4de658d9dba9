"""rawkm doctor: what this kernel and container allow, with evidence."""

from __future__ import annotations

import os
import sys

from rawkm import features
from rawkm.cli import options
from rawkm.cli.output import json_line, plain
from rawkm.host import caps, kconfig, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.cli.args import Args
    from rawkm.features import Answer
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Tries what tracing needs, one thing after the other, and says what came back. Nothing is attached to any function, and nothing is
left behind."""
EXAMPLES = """\
examples:
  rawkm doctor
  rawkm doctor --json

--json: one object: {"type":"doctor","can_trace":true|false,"kernel","machine","capabilities":[...],"settings":{...},
"checks":[{"feature","state":"yes"|"no"|"unknown","evidence","help"}]}. can_trace says whether count and trace work.
The exit status is 0 when they do, 3 when not.
"""
OPTIONS = (options.JSON,)

# What decides, whatever else may be missing.
_NEEDED = ("bpf maps", "tracing programs", "kprobe_multi")


def run(args: Args, kernel: Kernel) -> int:
    answers = [probe(kernel) for probe in features.ALL]
    settings = _settings(kernel)
    held = [name for cap, name in caps.NAMES.items() if caps.effective(kernel) >> cap & 1]
    can_trace = all(answer.state == features.YES for answer in answers if answer.feature in _NEEDED)
    if args.json:
        _json(answers, settings, held, can_trace)
    else:
        _text(answers, settings, held, can_trace)
    return 0 if can_trace else 3


def _settings(kernel: Kernel) -> dict[str, object]:
    """What else decides; None where it cannot be read."""
    config = kconfig.load(kernel)
    return {
        "kernel.kptr_restrict": sysctl.number(kernel, "kernel/kptr_restrict"),
        "kernel.perf_event_paranoid": sysctl.number(kernel, "kernel/perf_event_paranoid"),
        "kernel.unprivileged_bpf_disabled": sysctl.number(kernel, "kernel/unprivileged_bpf_disabled"),
        "kernel.ftrace_enabled": sysctl.number(kernel, "kernel/ftrace_enabled"),
        "lockdown": sysctl.lockdown(kernel),
        "CONFIG_FPROBE": config.get("FPROBE"),
    }


def _json(answers: list[Answer], settings: dict[str, object], held: list[str], can_trace: bool) -> None:
    report = {
        "type": "doctor",
        "can_trace": can_trace,
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "capabilities": held,
        "settings": settings,
        "checks": [{"feature": a.feature, "state": a.state, "evidence": a.evidence, "help": a.help or None} for a in answers],
    }
    print(json_line(report))


def _text(answers: list[Answer], settings: dict[str, object], held: list[str], can_trace: bool) -> None:
    lines = [f"Linux {os.uname().release}, {os.uname().machine}; capabilities: {', '.join(held) or 'none that matter'}", ""]
    width = max(len(a.feature) for a in answers)
    for a in answers:
        lines.append(f"{a.feature:{width}}  {a.state:7}  {a.evidence}")
        if a.help and a.state != features.YES:
            lines.append(f"{'':{width}}  {'':7}  help: {a.help}")
    lines.append("")
    lines += [f"{name} = {'not known' if value is None else value}" for name, value in settings.items()]
    lines += ["", "count and trace work here" if can_trace else "count and trace do not work here"]
    if settings["kernel.ftrace_enabled"] == 0:
        lines.append("but kernel.ftrace_enabled is 0: nothing fires until it is 1 (sysctl kernel.ftrace_enabled=1)")
    sys.stdout.write("".join(plain(line) + "\n" for line in lines))
