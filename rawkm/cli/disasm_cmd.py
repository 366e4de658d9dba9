"""rawkm disasm: the instructions of a file, an ELF object or a loaded program as text."""

from __future__ import annotations

import sys

from rawkm.cli import inputs, options
from rawkm.cli.args import Operand, Option
from rawkm.cli.output import plain
from rawkm.errors import DisassembleError, NotSupportedError, RawkmError, SyscallError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm.code import Code
    from rawkm.cli.args import Args
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Shows BPF instructions as text, which rawkm asm takes back to the same bytes; what is no instruction is a verbatim .insn. FILE has
the bytes of a program, or is an ELF object as clang -target bpf makes it: then maps, functions and data are shown by name, as a
loader would put them in. --prog shows a program that the kernel has, after the verifier's rewriting, with the names of its maps,
helpers and kernel functions."""
EXAMPLES = """\
examples:
  rawkm disasm prog.o --section kprobe/tcp_connect
  rawkm disasm --bytes prog.bin
  echo 'b7 00 00 00 01 00 00 00 95 00 00 00 00 00 00 00' | rawkm disasm - --hex
  rawkm disasm --prog 42

--bytes: the bytes as they are, a line each with slot, bytes, text and the slot that it jumps to, as llvm-objdump -d prints it;
names are comments.
"""
OPERAND = Operand("FILE", help='the program, "-" for standard input', optional=True)
OPTIONS = (
    Option("--prog", convert=options.positive, metavar="ID", help="the loaded program with this id"),
    Option("--section", convert=str, metavar="NAME", help="only this section of an ELF object"),
    Option("--hex", help="FILE is hexadecimal text"),
    Option("--bytes", help="with slots and bytes"),
    Option("--python", help="as Python code that makes the program"),
)


def run(args: Args, kernel: Kernel) -> int:
    if (args.file is None) == (args.prog is None):
        raise UsageError("rawkm disasm takes either a FILE or --prog ID")
    if args.bytes and args.python:
        raise UsageError("--bytes and --python exclude each other")
    try:
        programs = [_loaded(kernel, args.prog)] if args.file is None else _in_file(args, inputs.read(kernel, args.file))
        text = "\n".join(_shown(code, args, several=len(programs) > 1) for code in programs)
    except DisassembleError as err:
        raise DisassembleError(f"{inputs.shown(args.file)}: {err}") from None
    sys.stdout.write("".join(f"{line if line.isprintable() else _plain(line)}\n" for line in text.splitlines()))
    return 0


def _plain(line: str) -> str:
    return "\t".join(map(plain, line.split("\t")))


def _in_file(args: Args, data: bytes) -> list[Code]:
    from rawkm.asm.code import Code
    from rawkm.asm.elf import MAGIC, Object

    if args.hex:
        raw = inputs.from_hex(data.decode("utf-8", "replace"))
        if raw is None:
            raise DisassembleError("this is no hexadecimal text")
        data = raw
    if not data.startswith(MAGIC):
        if args.section:
            raise UsageError("--section goes with an ELF object")
        if len(data) % 8 and inputs.from_hex(data.decode("utf-8", "replace")) is not None:
            raise DisassembleError(f"{len(data)} bytes are no instructions; hexadecimal text takes --hex")
        return [Code("", data)]
    found = Object(data).code
    chosen = [code for code in found if args.section in (None, code.name)]
    if not chosen:
        names = ", ".join(code.name for code in found) or "none"
        raise DisassembleError(
            f"no section {args.section!r} with instructions; there are: {names}" if args.section else "no code"
        )
    return chosen


def _loaded(kernel: Kernel, id: int) -> Code:
    from rawkm.host import caps, denied
    from rawkm.objects import LoadedProgram
    from rawkm.programs import xlated

    try:
        program = LoadedProgram(kernel, id)
    except SyscallError as err:
        why, help = denied.explain(kernel, "read other programs", caps.CAP_SYS_ADMIN)
        raise NotSupportedError(f"the program {id} cannot be read", f"{err}: {why}", help=help) from None
    if not program.xlated:
        raise RawkmError(f"the kernel hides the instructions of program {id}: CAP_PERFMON and CAP_SYS_ADMIN show them")
    return xlated.code(kernel, program)


def _shown(code: Code, args: Args, *, several: bool) -> str:
    head = f"# section {code.name}\n" if several else ""
    if args.bytes:
        return head + code.listing()
    from rawkm.asm import format
    from rawkm.asm.script import script
    from rawkm.asm.text import with_labels

    items = code.items()
    if args.python:
        return head + script(with_labels(items))
    return head + format(items, labels=True, helpers=True)
