"""rawkm abi: the layouts of bpf(2) shown, checked against kernels, and used to read bytes."""

from __future__ import annotations

import sys

from rawkm.cli import inputs, options
from rawkm.cli.args import Args
from rawkm.cli.output import count_of, plain
from rawkm.errors import BTFError, NotSupportedError, SyscallError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

    from rawkm.btf import Btf
    from rawkm.syscall.kernel import Kernel
    from rawkm.uapi.compare import Change, Finding, Place, Report

DESCRIPTION = """\
Shows every field of bpf(2)'s attrs and of the structs around it, as of Linux 7.2; checks these tables against a kernel; tells
what changed between two kernels; reads the bytes of an attr."""
EXAMPLES = """\
examples:
  rawkm abi show LINK_CREATE
  rawkm abi show --json | jq '.[] | select(.kind == "fd")'
  rawkm abi check
  rawkm abi diff vmlinux-6.1.btf vmlinux-6.12.btf
  rawkm abi rules LINK_CREATE
  rawkm abi decode --cmd OBJ_GET_INFO_BY_FD '05000000 e8000000 0010adde 00000000'

exit status: 0 done, 1 failed, 2 wrong usage; of check: 1 if something is wrong
"""
OPTIONS = ()

VMLINUX = "/sys/kernel/btf/vmlinux"

_SHOW = """\
Every field: offset, size, type, the first release that has it, and what the kernel takes it for.

COMMAND is a command of bpf(2) (LINK_CREATE, or its number), one variant (link_create.kprobe_multi), or a struct that is no attr
(prog_info, link_info, common_attr, perf_event_attr, ...). Without it: all commands.

--json: one array of {"command","variant","path","offset","size","kind","since"}, paths from the top of union bpf_attr."""
_CHECK = """\
Compares the generated tables and constants with a kernel's own description of its types, by name, offset, size and value. What
this kernel does not have yet, and what it has beyond the tables, is listed; it is not wrong.

Status 1 if something is wrong. --json: one object {"type":"abi_check","wrong","members","enumerators","findings":[{"state":
"wrong"|"not yet here"|"newer here"|"not in BTF","where","name","ours","theirs","since"}]}; ours and theirs: [offset, size] of a
member, [first bit, bits] of a bit-field, the value of an enumerator, or null."""
_DIFF = """\
What changed in the structs and enums of bpf(2) and perf_event_open(2) from one kernel to another. The files: copies of
/sys/kernel/btf/vmlinux.

--json: one array of {"where","name","before","after"}; [offset, size] of a member, [first bit, bits] of a bit-field, the value of
an enumerator, a size, or null."""
_DECODE = """\
Every byte of an attr with its field, then the attr in one line as strace prints it.

HEX is hexadecimal digits (spaces, 0x and \\x are skipped); otherwise it is a FILE of bytes or of such text, or - for standard
input. --cmd also takes the struct names that `rawkm abi show` knows.

--json: one object {"command","variant","size","values":{path: number, or hexadecimal digits of an array},"uncovered":{offset:
hexadecimal digits}}."""

_RULES = """\
What the kernel checks, in its order: one rule to a line, with the errno that it answers, the releases that have the check, and
the kernel's function. Rules without an errno say where the model ends.

--json: one array of {"name","command","fields","errno","text","source","since","until","unseen"}; errno: a list of names, "0" for
accepted; null in since and until: from or up to all of the releases that are known (5.10 to 7.2)."""


def parse(argv: Sequence[str]) -> Args:
    """The values of the options behind `rawkm abi`. Raises UsageError; prints the help and leaves with status 0."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    class Parser(ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message} ({self.prog} --help tells more)")

    def plain_text(text: str, epilog: str = "") -> dict[str, Any]:
        return {
            "description": text,
            "epilog": epilog,
            "formatter_class": RawDescriptionHelpFormatter,
            "allow_abbrev": False,
        }

    parser = Parser(prog="rawkm abi", **plain_text(DESCRIPTION, EXAMPLES))
    _add_common(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|check|diff|decode|rules")
    show = actions.add_parser("show", help="every field", **plain_text(_SHOW))
    show.add_argument("what", nargs="?", metavar="COMMAND")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one array of rows")
    form.add_argument("--c", action="store_true", help="as C structs")
    form.add_argument("--markdown", action="store_true", help="as Markdown tables")
    check = actions.add_parser("check", help="the tables against a kernel", **plain_text(_CHECK))
    check.add_argument("--btf", metavar="FILE", help=f"another kernel's BTF (default: {VMLINUX})")
    diff = actions.add_parser("diff", help="what changed between two kernels", **plain_text(_DIFF))
    diff.add_argument("before", metavar="BTF_A")
    diff.add_argument("after", metavar="BTF_B")
    decode = actions.add_parser("decode", help="the bytes of an attr as fields", **plain_text(_DECODE))
    decode.add_argument("--cmd", required=True, metavar="NAME", help="the command of bpf(2), or a struct")
    decode.add_argument("data", metavar="HEX|FILE")
    rules = actions.add_parser("rules", help="what the kernel checks, and what it answers", **plain_text(_RULES))
    rules.add_argument("what", nargs="?", metavar="COMMAND", help="of one command (default: of all)")
    for action in (check, diff, decode, rules):
        action.add_argument("--json", action="store_true", help="as JSON")
    for action in (show, check, diff, decode, rules):
        _add_common(action, again=True)
    return Args(vars(parser.parse_args(list(argv))))


def _add_common(parser: ArgumentParser, *, again: bool = False) -> None:
    """The switches of all commands, before and behind the action."""
    from argparse import SUPPRESS

    for option in options.COMMON:
        how: dict[str, Any] = {"help": option.help}
        if option.convert is None:
            how["action"] = "store_true"
        else:
            how.update(metavar=option.metavar, type=option.convert)
        if again:
            # Behind the action an option that is not given must not undo one before it.
            how["default"] = SUPPRESS
        parser.add_argument(*option.flags, **how)


def run(args: Args, kernel: Kernel) -> int:
    actions: dict[str, Callable[[Args, Kernel], int]] = {
        "show": _show,
        "check": _check,
        "diff": _diff,
        "decode": _decode,
        "rules": _rules,
    }
    return actions[args.action](args, kernel)


def _show(args: Args, kernel: Kernel) -> int:  # noqa: ARG001 (every action has the same form)
    from rawkm.uapi import layouts, show

    definitions = show.select(args.what)
    if args.json:
        print(show.as_json(definitions))
    elif args.c:
        print(show.as_c(definitions))
    elif args.markdown:
        print(show.as_markdown(definitions))
    else:
        print(show.as_text(definitions))
        if args.what is None:
            print(f"\nand, by name, the structs {', '.join(layouts.STRUCTS)}")
    return 0


def _check(args: Args, kernel: Kernel) -> int:
    from rawkm.uapi import compare

    path = args.btf or VMLINUX
    try:
        btf = _btf(kernel, path)
    except SyscallError as err:
        if args.btf:
            raise
        raise NotSupportedError("the kernel's BTF", str(err), help="--btf FILE takes that of another kernel") from None
    report = compare.check(btf)
    wrong = report.of(compare.WRONG)
    # Tables in which something is wrong need not make definitions, which know the releases.
    since = {} if wrong else {finding: _since(finding) for finding in report.findings}
    if args.json:
        _json(
            {
                "type": "abi_check",
                "btf": path,
                "wrong": len(wrong),
                "members": report.members,
                "enumerators": report.enumerators,
                "findings": [
                    {
                        "state": f.state,
                        "where": f.where,
                        "name": f.name,
                        "ours": f.ours,
                        "theirs": f.theirs,
                        "since": since.get(f) or None,
                    }
                    for f in report.findings
                ],
            }
        )
    else:
        _write(_report(report, since))
    return 1 if wrong else 0


def _since(finding: Finding) -> str:
    from rawkm.uapi import show

    kind, _, tag = finding.where.partition(" ")
    return show.since(finding.name, tag) if kind in ("struct", "union") else ""


def _report(report: Report, since: dict[Finding, str]) -> Iterable[str]:
    from rawkm.uapi import compare

    yield from _findings(report.of(compare.NOT_YET), since)
    yield from _findings(report.of(compare.NEWER), since)
    unused = list(dict.fromkeys(finding.where for finding in report.of(compare.UNUSED)))
    if unused:
        yield f"not in this BTF, because the kernel is older or its code does not name them: {', '.join(unused)}"
    yield from _findings(report.of(compare.WRONG), since)
    counts = ", ".join(f"{len(report.of(state))} {state}" for state in (compare.WRONG, compare.NOT_YET, compare.NEWER))
    members, enumerators = count_of(report.members, "member"), count_of(report.enumerators, "enumerator")
    yield f"{members} and {enumerators} agree; {counts}"


def _findings(findings: Sequence[Finding], since: dict[Finding, str]) -> Iterable[str]:
    where = ""
    for finding in findings:
        if finding.where != where:
            where = finding.where
            yield f"{finding.state}, {where}:"
        yield f"  {finding.name}{_difference(finding, since.get(finding, ''))}"


def _difference(finding: Finding, since: str) -> str:
    bits = finding.name.endswith("(bits)")
    ours, theirs = (None if value is None else _at(value, bits) for value in (finding.ours, finding.theirs))
    if ours and theirs:
        return f": {ours} in rawkm's tables, {theirs} in the kernel"
    if finding.state == "wrong":
        return f": {ours} in rawkm's tables, and the kernel has another name for that"
    return f" (since Linux {since})" if since else f" {theirs or ours}"


def _at(value: Place | int, bits: bool) -> str:
    if isinstance(value, int):
        return f"= {value}"
    return f"at bit {value[0]}, {count_of(value[1], 'bit')}" if bits else f"at {value[0]}, {count_of(value[1], 'byte')}"


def _diff(args: Args, kernel: Kernel) -> int:
    from rawkm.uapi import compare

    changes = compare.diff(_btf(kernel, args.before), _btf(kernel, args.after))
    if args.json:
        _json([{"where": c.where, "name": c.name, "before": c.before, "after": c.after} for c in changes])
    else:
        _write(_changes(changes))
    return 0


def _changes(changes: Sequence[Change]) -> Iterable[str]:
    where = ""
    for change in changes:
        if change.where != where:
            where = change.where
            yield f"{where}:"
        bits = change.name.endswith("(bits)")
        if change.name == "(size)":
            sizes = [count_of(size, "byte") if isinstance(size, int) else "none" for size in (change.before, change.after)]
            yield f"  ~ size: {' -> '.join(sizes)}"
        elif change.before is None and change.after is not None:
            yield f"  + {change.name} {_at(change.after, bits)}"
        elif change.after is None and change.before is not None:
            yield f"  - {change.name} {_at(change.before, bits)}"
        elif change.before is not None and change.after is not None:
            yield f"  ~ {change.name} {_at(change.before, bits)} -> {_at(change.after, bits)}"
    if not changes:
        yield "no difference in the structs and enums of bpf(2) and perf_event_open(2)"


def _decode(args: Args, kernel: Kernel) -> int:
    from rawkm.uapi import annotate, codec, layouts

    data = _bytes(args.data, kernel)
    struct = args.cmd if args.cmd.partition(".")[0] in layouts.STRUCTS else None
    if struct is None:
        cmd = codec.number(int(args.cmd) if args.cmd.isascii() and args.cmd.isdecimal() else args.cmd)
        found, rows, line = codec.decode(cmd, data), annotate.annotate(cmd, data), annotate.inline(cmd, data)
    else:
        definition = layouts.for_struct(struct, data)
        found = codec.decode_struct(struct, data)
        rows, line = annotate.annotate_struct(definition, data), annotate.inline_struct(definition, data)
    if args.json:
        _json(
            {
                "command": found.command,
                "variant": found.variant,
                "size": found.size,
                "values": {path: v.hex() if isinstance(v, bytes) else v for path, v in found.values.items()},
                "uncovered": {str(offset): raw.hex() for offset, raw in found.uncovered.items()},
            }
        )
        return 0
    name = f"BPF_{found.command}" if struct is None else found.command
    variant = f", {found.variant}" if found.variant else ""
    _write([f"{name}{variant}: {count_of(found.size, 'byte')}", *annotate.table(rows), line])
    return 0


def _bytes(text: str, kernel: Kernel) -> bytes:
    """What HEX|FILE stands for."""
    data = inputs.from_hex(text)
    if data is not None:
        return data
    raw = kernel.read_stdin() if text == "-" else kernel.read_file(text)
    try:
        written = inputs.from_hex(raw.decode("ascii"))
    except UnicodeDecodeError:
        return raw
    return raw if written is None or not raw.strip() else written


def _btf(kernel: Kernel, path: str) -> Btf:
    from rawkm.btf import Btf

    try:
        return Btf(kernel.read_file(path))
    except BTFError as err:
        raise BTFError(f"{path}: {err}") from None


def _json(value: object) -> None:
    from json import dumps

    print(dumps(value, separators=(",", ":")))


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(plain(line) + "\n" for line in lines))


# -- rules -------------------------------------------------------------------------------------------------------------------


def _rules(args: Args, kernel: Kernel) -> int:  # noqa: ARG001
    from rawkm.errors import errno_name
    from rawkm.rules import rules
    from rawkm.uapi import names
    from rawkm.uapi.codec import number
    from rawkm.uapi.constants import Cmd

    what = int(args.what) if args.what is not None and args.what.isdigit() else args.what
    command = None if what is None else names.name(Cmd, number(what)).removeprefix("BPF_")
    found = [rule for rule in rules() if command in (None, rule.command) or not rule.command]
    answers = {rule: [errno_name(n) if n else "0" for n in sorted(rule.errnos)] for rule in found}
    releases = {rule: (_release(rule.since), _release(rule.until)) for rule in found}
    if args.json:
        _json(
            [
                {
                    "name": rule.name,
                    "command": rule.command or None,
                    "fields": list(rule.fields),
                    "errno": answers[rule],
                    "text": rule.text,
                    "source": rule.source or None,
                    "since": releases[rule][0],
                    "until": releases[rule][1],
                    "unseen": rule.unseen or None,
                }
                for rule in found
            ]
        )
        return 0
    width = max(len(rule.name) for rule in found)
    _write(
        f"{rule.name:{width}}  {' or '.join(answers[rule]) or '-':10}  {_span(*releases[rule]):12}  {rule.text}"
        + (f" [{rule.source}]" if rule.source else "")
        for rule in found
    )
    return 0


def _release(version: tuple[int, int]) -> str | None:
    major, minor = version
    if version in ((0, 0), (99, 0)):
        return None
    return f"{major}.x" if minor == 99 else f"{major}.{minor}"


def _span(since: str | None, until: str | None) -> str:
    if since and until:
        return f"{since} to {until}"
    return f"{since} on" if since else f"to {until}" if until else "all"
