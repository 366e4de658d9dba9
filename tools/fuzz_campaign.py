"""What tools/fuzz-campaign does: one guest for each kernel, all campaigns of ``rawkm fuzz`` in it, then kernel against kernel.

A guest that dies is a finding: its console's end and the last examples before are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

HERE = os.path.dirname(os.path.realpath(__file__))
KERNELS = ("7.2", "6.12", "6.1", "5.10")
_LAST = 400  # lines of standard error kept of a guest: the last examples, and the console's end
_ANSWERS = "/tmp/answers"
_COVERAGE = "/tmp/coverage"

# What runs in a guest: name → the options of `rawkm fuzz`, in full and in short.
_FULL = {
    "attr": "--calls 50000 --examples 5000",
    "prog": "--examples 2000",
    "stateful": "--examples 300",
}
_SHORT = {
    "attr": "--calls 3000 --examples 150 --seconds 40",
    "prog": "--examples 120 --seconds 20",
    "stateful": "--examples 20 --seconds 20",
}
_COUNTS = ("examples", "calls", "accepted", "unexplained", "leaks")
_ANSWERED = {False: "--calls 5000", True: "--calls 600 --seconds 20"}

Row = dict[str, Any]


class Guest:
    """One kernel's run. ``rows``: what the campaigns printed; ``status``: of the guest; ``last``: its standard error's end."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.rows: list[Row] = []
        self.answers: dict[int, Row] = {}
        self.last: deque[str] = deque(maxlen=_LAST)
        self.status = -1
        self.seconds = 0.0

    def run(self, script: str, timeout: float) -> None:
        """Boots the guest and runs the script in it."""
        start = time.monotonic()
        command = [os.path.join(HERE, "vm"), "run", "-k", self.kernel, "--timeout", f"{timeout:g}", "--", "sh", "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        reader = threading.Thread(target=self._errors, args=(process,), daemon=True)
        reader.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self._line(line)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
        finally:
            self.status = process.wait()
            reader.join()
            self.seconds = time.monotonic() - start

    def _errors(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.last.append(line.rstrip("\n"))

    def _line(self, line: str) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            self.last.append(line.rstrip("\n"))
            return
        if "n" in row and "call" in row:
            self.answers[row["n"]] = row
        else:
            self.rows.append(row)

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row.get("type") == kind]

    def missing(self, campaigns: Sequence[str]) -> list[str]:
        """The campaigns that did not come to their ends."""
        ended = {row["campaign"] for row in self.of("summary")}
        return [name for name in campaigns if name not in ended]


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    what = dict(_SHORT if options.short else _FULL)
    campaigns = options.only or [name for name in what if _there(name)]
    script = _script({name: what[name] for name in campaigns}, options.seed, _ANSWERED[options.short], options.crash)
    guests = [Guest(kernel) for kernel in options.kernel or KERNELS]
    os.makedirs(options.out, exist_ok=True)
    bad = 0
    for guest in _run(guests, script, options.jobs, options.timeout):
        bad += _report(guest, campaigns, options.out)
        sys.stdout.flush()
    bad += compare(guests, options.out)
    print(f"{'nothing unexplained' if not bad else f'{bad} things to look at'}; kept in {options.out}")
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fuzz-campaign",
        description="Fuzz bpf(2) in a guest of each kernel: calls against the errno model, programs against the interpreter, "
        "objects as a state machine; then compare the kernels' answers to the same calls. Status 1: look at it.",
        allow_abbrev=False,
    )
    parser.add_argument("-k", "--kernel", action="append", choices=KERNELS, help="a kernel (all when none is named)")
    parser.add_argument("--short", action="store_true", help="about two minutes for all kernels")
    parser.add_argument("--only", action="append", choices=tuple(_FULL), help="one kind of campaign (all when none is named)")
    parser.add_argument("--seed", type=int, default=1, help="what examples are made from (default 1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="guests at a time (default 2)")
    parser.add_argument("--timeout", type=float, default=7200, metavar="S", help="seconds that a guest may take (default 7200)")
    # For the test of what is kept of a guest that dies.
    parser.add_argument("--crash", type=int, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--out", default=".cache/fuzz", metavar="DIR", help="where to keep what is found (default .cache/fuzz)")
    return parser


def _there(name: str) -> bool:
    """Whether this rawkm has the campaign."""
    sys.path.insert(0, os.path.dirname(HERE))
    from rawkm.cli.fuzz_cmd import ACTIONS

    return name in ACTIONS


def _script(campaigns: dict[str, str], seed: int, answers: str, crash: int | None = None) -> str:
    """What runs in the guest. ``crash``: after so many examples its kernel is made to panic."""
    lines, last = ["bad=0"], "/dev/stderr"
    if crash is not None:
        last = "/tmp/last"
        look = f"n=$((n+1)); [ $n -lt {crash} ] || echo c >/proc/sysrq-trigger"
        lines += [f"mkfifo {last}", f'(n=0; while read -r line; do echo "$line" >&2; {look}; done <{last}) &']
    for name, how in campaigns.items():
        extra = f" --coverage {_COVERAGE}" if name == "attr" else ""
        lines.append(f"rawkm fuzz {name} --json --seed {seed} {how} --last {last}{extra} || bad=1")
    if "attr" in campaigns:
        lines.append(f"rawkm fuzz attr --json --seed {seed} {answers} --examples 1 --answers {_ANSWERS} || bad=1")
        lines += [f"cat {_COVERAGE} {_ANSWERS}"]
    lines.append("exit $bad")
    return "\n".join(lines)


def _run(guests: Sequence[Guest], script: str, jobs: int, timeout: float) -> Iterator[Guest]:
    """Runs the guests, ``jobs`` at a time; each as soon as it has ended."""
    waiting = list(guests)
    running: dict[Guest, threading.Thread] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            guest = waiting.pop(0)
            running[guest] = threading.Thread(target=guest.run, args=(script, timeout), daemon=True)
            running[guest].start()
        time.sleep(0.1)
        for guest in [guest for guest, thread in running.items() if not thread.is_alive()]:
            del running[guest]
            yield guest


def _report(guest: Guest, campaigns: Sequence[str], out: str) -> int:
    """Prints a guest's summaries and keeps its findings; how many things are to be looked at."""
    print(f"== {guest.kernel} ({guest.seconds:.0f} s)")
    bad = 0
    for row in guest.of("summary"):
        shown = ", ".join(
            f"{name} {row[name]:,}" for name in ("examples", "calls", "accepted", "unexplained", "leaks") if name in row
        )
        print(f"{row['campaign']:9} {shown}, {row['seconds']} s{', time was up' if row.get('time_is_up') else ''}")
    for number, row in enumerate(guest.of("finding"), 1):
        bad += 1
        base = os.path.join(out, f"{guest.kernel}-{number}")
        for suffix, name in ((".rkm", "rkm"), (".py", "pytest"), (".c", "c"), (".txt", "text")):
            with open(base + suffix, "w", encoding="utf-8") as file:
                file.write(str(row.get(name, "")) + "\n")
        print(f"FOUND {row['what']}: expected {row['expected']}, seen {row['seen']} ({base}.rkm, .py, .c, .txt)")
    for row in guest.of("leak"):
        bad += 1
        print(f"LEFT BEHIND {row['what']}")
    cells = [row for row in guest.rows if row.get("type") in ("cell", "rule", "skipped", "unknown")]
    if cells:
        with open(os.path.join(out, f"coverage-{guest.kernel}.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in cells)
    missing = guest.missing(campaigns)
    if missing or guest.status not in (0, 1):
        bad += 1
        path = os.path.join(out, f"last-{guest.kernel}.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in guest.last)
        print(f"THE GUEST ENDED with status {guest.status} before {', '.join(missing) or 'its end'} (its last words: {path})")
    return bad


def compare(guests: Sequence[Guest], out: str) -> int:
    """The same calls on several kernels: what differs is explained by the model of each, beyond the model, or to be looked at."""
    with_answers = [guest for guest in guests if guest.answers]
    if len(with_answers) < 2:
        return 0
    common = set.intersection(*(set(guest.answers) for guest in with_answers))
    same = explained = beyond = skipped = 0
    wrong: list[str] = []
    rows = []
    for n in sorted(common):
        answers = {guest.kernel: guest.answers[n] for guest in with_answers}
        if len({row["command"] for row in answers.values()}) != 1:
            wrong.append(f"call {n} is not the same on all kernels")
            continue
        made = {kernel: row for kernel, row in answers.items() if row["errno"] is not None}
        if len(made) < 2:
            skipped += 1
        elif len({row["errno"] for row in made.values()}) == 1:
            same += 1
        else:
            seen = ", ".join(f"{kernel} {row['errno']}" for kernel, row in made.items())
            if any(not row["explained"] for row in made.values()):
                wrong.append(f"{next(iter(made.values()))['call']}: {seen}")
            elif all(row["known"] for row in made.values()):
                explained += 1
            else:
                beyond += 1
            rules = {kernel: row["rules"] for kernel, row in made.items()}
            rows.append({"n": n, "command": answers[with_answers[0].kernel]["command"], "answers": seen, "rules": rules})
    with open(os.path.join(out, "differences.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    kernels = " ".join(guest.kernel for guest in with_answers)
    print(f"== {kernels}, the same {len(common):,} calls: {same:,} alike, {explained:,} differences that the model explains")
    print(f"   {beyond:,} in what is beyond the model, {len(wrong):,} unexplained; {skipped:,} not made on two of them")
    for line in wrong[:20]:
        print(f"DIFFERENT {line}")
    return len(wrong)
