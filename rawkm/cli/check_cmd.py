"""rawkm check: what lint and the running kernel's verifier say of a text."""

from __future__ import annotations

import sys
from errno import EPERM

from rawkm.cli import inputs
from rawkm.cli.args import Operand, Option
from rawkm.cli.output import count_of, plain
from rawkm.errors import RawkmError, SyscallError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.cli.args import Args
    from rawkm.prog import Program, ProgramSpec
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Checks FILE, a program as rawkm asm takes it: first lint, which needs no kernel and no rights, then this kernel's verifier, by
loading the program (its maps are made, too) and closing it again. Nothing is attached."""
EXAMPLES = """\
examples:
  rawkm check prog.s --type kprobe
  rawkm check --log prog.s

A finding of lint is an error where every kernel refuses the program, and a warning where one refuses it once its verifier gets
there. Status 1 if lint finds an error or the verifier refuses.
"""
OPERAND = Operand("FILE", help='the program, "-" for standard input')
OPTIONS = (
    Option("--type", convert=str, metavar="TYPE", help="the program's type (kprobe, xdp, ...), instead of what .type says"),
    Option("--attach-type", convert=str, metavar="TYPE", help="its attach type, instead of what .attach says"),
    Option("--log", help="print the verifier's whole log where it refuses"),
)


def run(args: Args, kernel: Kernel) -> int:
    from rawkm.asm import lint
    from rawkm.programs import written

    source = inputs.source(kernel, args.file)
    spec = written.program(source, type=args.type or "", attach=args.attach_type or "")
    findings = lint(spec.insns, type=written.type_name(spec.type))
    sys.stdout.write("".join(f"{plain(str(finding))}\n" for finding in findings))
    sys.stdout.flush()
    wrong = sum(finding.level == "error" for finding in findings)
    try:
        with load(kernel, spec) as prog:
            print(plain(f"{inputs.shown(args.file)}: this kernel takes it: {_size(prog)}"))
    except VerifierError as err:
        if args.log:
            sys.stdout.write("".join(f"{plain(line)}\n" for line in err.log.splitlines()))
            sys.stdout.flush()
        raise
    if wrong:
        raise RawkmError(f"lint has {count_of(wrong, 'error')}, though this kernel takes the program")
    return 0


def load(kernel: Kernel, spec: ProgramSpec) -> Program:
    """The loaded program. Raises NotSupportedError where a right is missing."""
    try:
        return spec.load(kernel)
    except VerifierError:
        raise
    except SyscallError as err:
        if err.errno != EPERM:
            raise
        from rawkm.host import caps, denied

        raise denied.error(kernel, err, "load a program", caps.CAP_BPF, caps.CAP_PERFMON) from None


def _size(prog: Program) -> str:
    """How much it is; the kernel tells since 5.16 how many instructions its verifier walked."""
    from rawkm.asm import locate

    slots, walked = len(locate(prog.spec.insns)), prog.info()["verified_insns"]
    return f"{slots:,} slots, {walked!r} instructions walked" if walked else f"{slots:,} slots"
