"""rawkm asm: a text of BPF instructions to bytes."""

from __future__ import annotations

import sys

from rawkm.cli import inputs
from rawkm.cli.args import Operand, Option
from rawkm.cli.output import note
from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rawkm.asm import Insn, Item, Source
    from rawkm.cli.args import Args
    from rawkm.syscall.kernel import Kernel

DESCRIPTION = """\
Assembles FILE. The syntax is that of clang's inline assembly and of llvm-objdump -d; the verifier's is taken, too. What LLVM has
no spelling for (maps by name, helpers and kernel functions by name, directives) is described by `pydoc rawkm.asm.parser`."""
EXAMPLES = """\
examples:
  rawkm asm prog.s
  rawkm asm prog.s -o prog.bin
  echo 'r0 = 0; exit' | rawkm asm - --format c

hex: an instruction per line. raw: the bytes as PROG_LOAD takes them. c: an array of struct bpf_insn. python: the same program as
code of rawkm's own. Bytes have 0 where the file descriptor of a map belongs; which, is said on stderr.
"""
OPERAND = Operand("FILE", help='the text, "-" for standard input')
OPTIONS = (
    Option("-o", "--output", convert=str, metavar="FILE", help="write to FILE (default: standard output)"),
    Option("--format", choices=("raw", "hex", "c", "python"), help="default: raw with -o, else hex"),
)


def run(args: Args, kernel: Kernel) -> int:
    source = inputs.source(kernel, args.file)
    form = args.format or ("raw" if args.output else "hex")
    texts: dict[str, Callable[[Source], str]] = {"hex": _hex, "c": _c, "python": _python}
    data = _raw(source.insns) if form == "raw" else texts[form](source).encode()
    if args.output:
        inputs.write(kernel, args.output, data)
    elif form == "raw" and sys.stdout.isatty():
        raise UsageError("raw bytes are nothing for a terminal: -o FILE writes them to a file")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    if form != "python":
        _tell_maps(source.insns)
    return 0


def _raw(items: Iterable[Item]) -> bytes:
    from rawkm.asm import encode, map_refs
    from rawkm.asm.insn import map_name

    items = list(items)
    return encode(items, maps=dict.fromkeys((map_name(ref, None) for ref in map_refs(items)), 0))


def _slots(items: Iterable[Item]) -> Iterator[tuple[int, Insn]]:
    """The instructions, each with its slot."""
    from rawkm.asm import Insn

    slot = 0
    for item in items:
        if isinstance(item, Insn):
            yield slot, item
            slot += item.slots


def _tell_maps(items: Iterable[Item]) -> None:
    places: dict[str, list[str]] = {}
    for slot, insn in _slots(items):
        if insn.symbol_name:
            places.setdefault(insn.symbol_name, []).append(str(slot))
    for name, slots in places.items():
        few = ", ".join(slots[:8]) + (", ..." if len(slots) > 8 else "")
        note(f"the fd of the map {name} belongs into the imm of slot{'s' if len(slots) > 1 else ''} {few}")


def _hex(source: Source) -> str:
    raw = _raw(source.insns)
    return "".join(f"{raw[8 * slot : 8 * (slot + insn.slots)].hex(' ')}\n" for slot, insn in _slots(source.insns))


def _c(source: Source) -> str:
    """Fields rather than the kernel's macros, which its UAPI headers do not have."""
    from rawkm.asm import decode, format_insn

    raw = _raw(source.insns)
    lines = ["/* struct bpf_insn is in <linux/bpf.h> */", "static const struct bpf_insn program[] = {"]
    for slot, insn in _slots(source.insns):
        text = format_insn(insn, helpers=True).replace("*/", "* /").replace("/*", "/ *")
        for at in range(slot, slot + insn.slots):
            # Slot by slot, ld_imm64 has no second half and so is verbatim.
            [half] = decode(raw[8 * at : 8 * at + 8])
            registers = f".dst_reg = {half.dst}, .src_reg = {half.src}"
            fields = f".code = {half.opcode:#04x}, {registers}, .off = {half.off}, .imm = {half.imm}"
            lines.append(f"\t{{ {fields} }}," + (f" /* {text} */" if at == slot else ""))
    return "\n".join([*lines, "};", ""])


def _python(source: Source) -> str:
    from rawkm.asm.script import script
    from rawkm.programs import written

    return written.script(written.program(source)) if source.type or source.section else script(source.insns)
