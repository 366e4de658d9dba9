"""Instructions to text: LLVM's BPF assembly as ``llvm-objdump -d --mcpu=v4`` prints it.

What LLVM cannot say is spelled as ``rawkm.asm.parser`` describes; ``parse`` takes all of it back.
"""

from __future__ import annotations

import re
from operator import attrgetter

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label, checked
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rawkm.asm.insn import Item
    from rawkm.asm.opcodes import Form

# What LLVM takes as a name; another one stands in quotes. A register's name is always the register.
BARE_NAME = re.compile(r"(?![rRwW](?:1[01]|[0-9])$)[A-Za-z_.$][A-Za-z0-9_.$@]*")

# Placeholders of a Form's text: how they are printed, and where the value is from.
_PRINTED = {
    "dst": ("%d", "dst"),
    "src": ("%d", "src"),
    "imm": ("%#x", "imm"),
    "index": ("%#x", "off"),
    "jump": ("%+#x", "off"),
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_fields = attrgetter("opcode", "dst", "src", "off", "imm", "raw")
_extras = attrgetter("target", "symbol", "comment")
_PLAIN = (None, None, None)


def format(items: Iterable[Item], *, labels: bool = False, helpers: bool = False) -> str:
    """A program as text, one line for each instruction and label; ``parse`` gives an equal program.

    ``labels``: jumps, calls and pointers to subprograms that have a distance get a label each, where the
    distance leads to an instruction of the program. LLVM can say some of them only so: calls of subprograms,
    and ``gotol`` beyond 16 bits. ``helpers``: calls of helpers by name. In a program with labels the
    instructions are indented.

    Raises AssembleError for an Insn that was made by hand with fields that are no instruction, together with
    a label or a map.
    """
    program = with_labels(items) if labels else list(items)
    own = {item.name for item in program if isinstance(item, Label)}
    names = helper_names() if helpers else {}
    names = {number: name for number, name in names.items() if name not in own}
    indent = "\t" if own else ""
    seen: dict[tuple[object, ...], str] = {}
    lines: list[str] = []
    append = lines.append
    for item in program:
        if isinstance(item, Insn):
            if _extras(item) != _PLAIN:
                append(indent + _line(item, names, own))
                continue
            key = _fields(item)
            line = seen.get(key)
            if line is None:
                line = seen[key] = indent + _line(item, names, own)
            append(line)
        elif isinstance(item, Label):
            append(f"{quoted(item.name)}:")
        else:
            raise AssembleError(f"item {len(lines)} is neither an instruction nor a label: {item!r}")
    append("")
    return "\n".join(lines)


def format_insn(insn: Insn, *, helpers: bool = False) -> str:
    """One instruction as text, without its comment. For one that is two ``.insn``, they stand on two lines."""
    return _insn(insn, helper_names() if helpers else {}, set())


def quoted(name: str) -> str:
    """A name as it stands in text: as it is, or in quotes where it is not a plain one."""
    if BARE_NAME.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _line(insn: Insn, helpers: Mapping[int, str], labels: set[str]) -> str:
    text = _insn(insn, helpers, labels)
    if insn.comment is None:
        return text
    return f"{text}  # {' '.join(insn.comment.split())}"


def _insn(insn: Insn, helpers: Mapping[int, str], labels: set[str]) -> str:
    opcode, src, off, imm = insn.opcode, insn.src, insn.off, insn.imm
    form = None if insn.raw else opcodes.find_form(opcode, insn.dst, src, off, imm)
    if insn.target is not None or insn.symbol is not None:
        if form is None:
            raise AssembleError(f"there is no text for {insn!r}", src_loc=insn.loc)
        return _named(insn, form, labels)
    if form is None:
        return _verbatim(insn)
    if opcode == opcodes.CALL and src == opcodes.CALL_HELPER and imm in helpers:
        return f"call {helpers[imm]}"
    template, values = _printers.get(form) or _printer(form)
    return template % values(insn)


def _named(insn: Insn, form: Form, labels: set[str]) -> str:
    name = insn.target if insn.target is not None else insn.symbol_name
    assert name is not None
    shown = quoted(name)
    if insn.symbol is not None and name in labels:
        shown = f"map({shown})"
    hi = f"{insn.imm >> 32 & 0xFFFFFFFF:#x}"
    imm = f"{insn.imm:#x}"
    return form.named.format(dst=insn.dst, src=insn.src, imm=imm, hi=hi, name=shown)


def _verbatim(insn: Insn) -> str:
    """The slots of what is no instruction."""
    line = f".insn {insn.opcode:#04x}, r{insn.dst}, r{insn.src}, {insn.off:#x}, "
    if insn.slots == 1:
        return f"{line}{insn.imm:#x}"
    lo = ((insn.imm & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return f"{line}{lo:#x}\n.insn 0x00, r0, r0, 0x0, {insn.imm >> 32:#x}"


def _printer(form: Form) -> tuple[str, Callable[[Insn], object]]:
    """A % format, and what gets its values from an Insn."""
    text = form.text.replace("%", "%%")
    names = _PLACEHOLDER.findall(text)
    jump = opcodes.target_field(form.opcode, form.src or 0)
    printed = dict(_PRINTED, jump=("%+#x", jump))
    values: Callable[[Insn], object]
    if set(names) <= printed.keys():
        template = _PLACEHOLDER.sub(lambda found: printed[found[1]][0], text)
        if names:
            values = attrgetter(*(printed[name][1] for name in names))
        else:
            values = _nothing
    else:
        # Numbers with a sign that stands apart, and halves.
        template = _PLACEHOLDER.sub("%s", text)

        def values(insn: Insn) -> object:
            return tuple([_shown(insn, name) for name in names])

    _printers[form] = template, values
    return template, values


_printers: dict[Form, tuple[str, Callable[[Insn], object]]] = {}


def _nothing(insn: Insn) -> tuple[()]:  # noqa: ARG001
    return ()


def _shown(insn: Insn, name: str) -> object:
    if name == "off" or name == "sum":
        value = insn.off if name == "off" else insn.imm
        return f"- {-value:#x}" if value < 0 else f"+ {value:#x}"
    if name == "lo":
        return f"{insn.imm & 0xFFFFFFFF:#x}"
    if name == "hi":
        return f"{insn.imm >> 32 & 0xFFFFFFFF:#x}"
    return f"{insn.imm:#x}" if name == "imm" else getattr(insn, name)


def with_labels(items: Iterable[Item]) -> list[Item]:
    """The program with labels for distances that lead to one of its instructions."""
    program = list(items)
    starts: dict[int, int] = {}  # slot → index of its item
    known: dict[int, str] = {}  # slot → a label that stands there
    taken: set[str] = set()
    slot = 0
    for index, item in enumerate(program):
        if isinstance(item, Insn):
            starts[slot] = index
            slot += item.slots
        elif isinstance(item, Label):
            known.setdefault(slot, item.name)
            taken.add(item.name)
    made: dict[int, list[Item]] = {}
    changed = list(program)
    for at, index in starts.items():
        insn = program[index]
        assert isinstance(insn, Insn)
        field = "" if insn.raw or insn.target is not None else opcodes.target_field(insn.opcode, insn.src)
        if not field or not opcodes.find_form(insn.opcode, insn.dst, insn.src, insn.off, insn.imm):
            continue
        distance = insn.off if field == "off" else ((insn.imm & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        to = at + 1 + distance
        if to not in starts:
            continue
        if to not in known:
            name = f"func_{to}" if insn.opcode in (opcodes.CALL, opcodes.LD_IMM64) else f"l_{to}"
            while name in taken:
                name += "_"
            taken.add(name)
            known[to] = name
            made[starts[to]] = [Label(name, loc=insn.loc)]
        off, imm = (0, insn.imm) if field == "off" else (insn.off, 0)
        changed[index] = checked(insn.opcode, insn.dst, insn.src, off, imm, known[to], loc=insn.loc, comment=insn.comment)
    return [item for index, old in enumerate(changed) for item in (*made.get(index, ()), old)]


def helper_names() -> dict[int, str]:
    from rawkm.uapi.constants import Helper

    return {
        number: f"bpf_{name}"
        for name, number in vars(Helper).items()
        if isinstance(number, int) and not name.startswith("_") and number
    }
