r"""Text to instructions: LLVM's BPF assembly, what it has no spelling for, and the verifier's.

*Instructions* are those of ``llvm-mc -arch=bpf -mcpu=v4``, and what ``llvm-objdump -d`` prints of an object:
the slot's number before an instruction, the ``<label>`` after it and the lines between sections mean
nothing; the bytes before it say what the text leaves out (``<unknown>``, the kind of a call, the upper half
of a constant). Statements end with the line or with ``;``. ``#``, ``//`` and ``/* */`` are comments. Numbers
are decimal, 0x, 0b or, with a 0 before them, octal. An immediate of 32 bits may be signed or unsigned; LLVM
cuts off what is wider, here it is an error.

Labels are ``name:``, where they are used ``goto name``; ``1:`` with ``goto 1f`` (the next) and ``goto 1b``
(the last) where such jumps occur. A name that is none for LLVM stands in quotes, with ``\"``, ``\\``, ``\n``.

*Beyond LLVM*::

    call pc+3                     a subprogram by distance; LLVM has only  call name
    call name                     a label of this text, else a helper (bpf_ktime_get_ns, or without bpf_),
                                  else a kernel function
    call kfunc(0x1234, 0x1)       a kernel function by BTF id and index into fd_array; kfunc(0x1234) in vmlinux
    call kfunc(name)              by name
    r1 = counts ll                a map's address (a subprogram's if a label has that name and no map has)
    r1 = map(counts) ll           a map's address, whatever the labels are
    r1 = counts[8] ll             the address of byte 8 in the value of a map; also  counts + 8
    r1 = &name ll                 a subprogram's address
    ld_pseudo r1, 2, 5, 8         any source of ld_imm64 by number, with the upper half; LLVM has it without
    gotox r1                      as LLVM 22
    r1 = load_acquire((u64 *)(r2 + 8))     as LLVM 20, and store_release((u64 *)(r2 + 8), r1)
    *(u64 *)(r11 - 8) = r1        arguments from the sixth on, and  r1 = *(u64 *)(r11 + 8)
    r0 = *(u8 *)skb[r1 + 4]       with an offset
    .insn 0xff, r1, r2, 0x3, 0x4  a slot as it is: opcode, registers, off, imm

*The verifier's spelling* is taken too: ``goto pc+3``, ``r1`` where 32 bits are meant, ``atomic64_xchg``,
``call bpf_ktime_get_ns#5``. Its opcode in parentheses decides what the text after it means, so
``(18) r1 = 0x11`` is ld_imm64, and what follows a ``;`` there is a comment; so is a line that begins with it.
Without it LLVM's reading wins.

*Directives* make a file a whole program; ``parse`` refuses them::

    .license "GPL"
    .type kprobe                  the program's type, as in BPF_PROG_TYPE_KPROBE
    .attach trace_kprobe_multi    its attach type
    .name count_ip
    .section "kprobe.multi/tcp_*" free text, once
    .map counts, type=percpu_hash, key=8, value=8, max_entries=65536, flags=0x1

Commas are optional. ``.text``, ``.globl``, ``.p2align`` and their like, which compilers write and which
place no instruction, are skipped.
"""

from __future__ import annotations

import re

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label, checked
from rawkm.asm.program import MapDecl, Source
from rawkm.asm.shapes import integer, read
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from rawkm.asm.insn import Item

    # (opcode, dst, src, off, imm, target, symbol, raw, comment)
    Made: TypeAlias = tuple[int, int, int, int, int, str | None, str | None, bool, str | None]

_NAME = r'[A-Za-z_.$][A-Za-z0-9_.$@]*|"(?:[^"\\]|\\.)*"'
_LABEL = re.compile(rf"\s*({_NAME})\s*:(?!:)")
_NUMBERED = re.compile(r"\s*([0-9]+)\s*:")
_NUMBERED_USE = re.compile(r"\b(?:goto|gotol|may_goto|call)[ \t]+[0-9]+[bf]\b")
_BYTES = re.compile(r"\s*([0-9a-f]{2}(?: [0-9a-f]{2}){7}(?:(?: [0-9a-f]{2}){8})?)(?=\s|$)")
_OPCODE = re.compile(r"\s*\(([0-9a-f]{2})\)\s*")
_AFTER_TARGET = re.compile(r"\s<[^<>]*>$")
_BETWEEN_SECTIONS = re.compile(r"[0-9a-f]{8,16} <.*>:\s*|Disassembly of section .*:\s*|.*:\s+file format elf64-bpf\s*")
_QUOTED_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|(#|//)')
# The verifier's call bpf_name#number is no comment.
_HELPER_NUMBER = re.compile(r"\bcall\s+[A-Za-z_]\w*#-?[0-9]")
_BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STATEMENT = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^;])+')

_JUMP = re.compile(rf"(.*\bgoto|gotol|may_goto|call)\s+({_NAME}|[0-9]+[bf])")
_CALL_NUMBERED = re.compile(r"call\s+([A-Za-z_]\w*)#(-?[0-9]+)")
_KFUNC = re.compile(rf"call\s+kfunc\s*\(\s*({_NAME})\s*(?:,\s*([0-9a-fA-Fx]+)\s*)?\)")
_CONSTANT = re.compile(
    rf"[rR]([0-9]|10)\s*=\s*(?:(&)\s*({_NAME})|map\s*\(\s*({_NAME})\s*\)|({_NAME}))"
    r"\s*(?:\[\s*([0-9a-fA-Fx]+)\s*\]|\+\s*([0-9a-fA-Fx]+))?\s+ll"
)
_VERBATIM = re.compile(r"\.insn\s+(\w+)\s*,\s*r([0-9]|1[0-5])\s*,\s*r([0-9]|1[0-5])\s*,\s*(-?\s*\w+)\s*,\s*(-?\s*\w+)")

# What compilers write that places no instruction.
_SKIPPED = {
    ".addrsig", ".addrsig_sym", ".align", ".balign", ".file", ".global", ".globl", ".hidden", ".ident", ".loc",
    ".local", ".p2align", ".protected", ".size", ".text", ".weak",
}  # fmt: skip
_TEXTS = {".license": "license", ".type": "type", ".attach": "attach", ".name": "name", ".section": "section"}
_MAP_NUMBERS = ("key", "value", "max_entries", "flags")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,]+')


def parse(text: str, *, file: str = "<text>", kfuncs: Callable[[str], int] | None = None) -> list[Item]:
    """Instructions and labels from text, as ``encode`` takes them. The syntax is in this module's docstring.

    ``file``: the name that the instructions carry as their origin. ``kfuncs``: the BTF id of a kernel
    function by its name. Raises AssembleError with the line of what cannot be read.
    """
    return _Parser(file, kfuncs, directives=False).parse(text).insns


def parse_file(text: str, *, file: str = "<text>", kfuncs: Callable[[str], int] | None = None) -> Source:
    """As ``parse``, with the directives that make a text a whole program."""
    return _Parser(file, kfuncs, directives=True).parse(text)


class _Parser:
    def __init__(self, file: str, kfuncs: Callable[[str], int] | None, *, directives: bool) -> None:
        self._file = file
        self._kfuncs = kfuncs
        self._directives = directives
        self._items: list[Item] = []
        self._labels: set[str] = set()
        self._maps: dict[str, MapDecl] = {}
        self._texts: dict[str, str] = {}
        self._calls: list[int] = []  # items that call a name
        self._names: list[int] = []  # items that load the address of a name
        self._numbered: dict[str, int] | None = None  # how often each 1: was met, where they count
        self._line = 0

    def parse(self, text: str) -> Source:
        if "/*" in text:
            text = _BLOCK_COMMENT.sub(lambda found: "\n" * found[0].count("\n") or " ", text)
        if _NUMBERED_USE.search(text):
            self._numbered = {}
        file, append = self._file, self._items.append
        seen: dict[str, Made | tuple[()]] = {}
        for number, line in enumerate(text.split("\n"), 1):
            made = seen.get(line)
            if made is None:
                self._line = number
                made = self._read_line(line)
                if made is None:
                    continue
                seen[line] = made
            if made:
                opcode, dst, src, off, imm, target, symbol, raw, comment = made
                append(checked(opcode, dst, src, off, imm, target, symbol, raw, (file, number), comment))
        self._resolve()
        return Source(self._items, maps=tuple(self._maps.values()), **self._texts)

    def _read_line(self, line: str) -> Made | tuple[()] | None:
        """What the line makes whenever it is met: one instruction or nothing; None when it did more here."""
        try:
            fields = read(line)
            if fields is not None:  # most lines are nothing but an instruction
                return (*fields, None, None, False, None)
        except AssembleError:
            pass  # it may be in a comment
        try:
            return self._line_of(line)
        except AssembleError as error:
            if error.src_loc is not None:
                raise
            raise AssembleError(str(error), src_loc=(self._file, self._line)) from None

    def _line_of(self, line: str) -> Made | tuple[()] | None:
        line, comment = _without_comment(line)
        line = line.strip()
        if not line or line[0] == ";":
            return ()
        if line[0].isdigit() or line[0] == "(":
            return self._prefixed(line, comment)
        if line[0] != "." and '"' not in line and ":" not in line and ";" not in line:
            return self._one(line, comment)
        if _BETWEEN_SECTIONS.fullmatch(line):
            return ()
        for statement in _STATEMENT.findall(line):
            self._statement(statement.strip(), comment)
        return None

    def _prefixed(self, line: str, comment: str | None) -> Made | tuple[()] | None:
        """A line with what objdump or the verifier write before an instruction, or with a numbered label."""
        if _BETWEEN_SECTIONS.fullmatch(line):
            return ()
        number = _NUMBERED.match(line)
        if number and self._numbered is not None:
            while number:
                self._number(number[1])
                line = line[number.end() :]
                number = _NUMBERED.match(line)
            self._more(self._line_of(line))
            return None
        if number:
            line = line[number.end() :].lstrip()
        found = _BYTES.match(line)
        if found:
            self._from_bytes(found[1], line[found.end() :].strip(), comment)
            return None
        opcode = _OPCODE.match(line)
        if opcode is None:
            if not number or line[:1].isdigit():
                raise AssembleError(f"no instruction: {line}")
            return self._line_of(line)
        line, _, rest = line[opcode.end() :].partition(";")
        return self._one(line.strip(), rest.strip() or comment, int(opcode[1], 16))

    def _statement(self, statement: str, comment: str | None) -> None:
        while label := _LABEL.match(statement):
            name = _unquoted(label[1])
            self._labels.add(name)
            self._items.append(Label(name, loc=(self._file, self._line)))
            statement = statement[label.end() :].strip()
        if number := self._numbered is not None and _NUMBERED.match(statement):
            self._number(number[1])
            statement = statement[number.end() :].strip()
        if not statement:
            return
        if statement[0] == "." and not statement.startswith(".insn"):
            self._directive(statement)
            return
        self._more(self._one(statement, comment))

    def _more(self, made: Made | tuple[()] | None) -> None:
        if made:
            self._append(made)

    def _append(self, made: Made) -> None:
        opcode, dst, src, off, imm, target, symbol, raw, comment = made
        loc = (self._file, self._line)
        self._items.append(checked(opcode, dst, src, off, imm, target, symbol, raw, loc, comment))

    def _one(self, text: str, comment: str | None, opcode: int | None = None) -> Made | None:
        """One instruction without prefix; None when it had to be added here, since its names decide."""
        if text.endswith(">"):
            text = _AFTER_TARGET.sub("", text)
        fields = read(text, opcode)
        if fields is not None:
            return (*fields, None, None, False, comment)
        made = self._with_name(text, comment)
        if made is None:
            words = f"opcode {opcode:#04x} is not: " if opcode is not None and read(text) else "no instruction: "
            raise AssembleError(words + text)
        if opcode is not None and made[0] != opcode:
            raise AssembleError(f"opcode {opcode:#04x} is not: {text}")
        kind, name = made[0] == opcodes.CALL and made[5], made[0] == opcodes.LD_IMM64 and made[6]
        if kind or (name and not text.split("=", 1)[1].lstrip().startswith("map")):
            (self._calls if kind else self._names).append(len(self._items))
            self._append(made)
            return None
        return made

    def _with_name(self, text: str, comment: str | None) -> Made | None:
        """An instruction with a name in it, as if it were a label's after call, a map's before ll."""
        if found := _JUMP.fullmatch(text):
            name = found[2]
            target = self._numbered_target(name) if name[0].isdigit() else _unquoted(name)
            before = "call pc" if found[1] == "call" else found[1] + " "
            fields = read(before + "+0")
            return fields and (*fields, target, None, False, comment)
        if found := _CALL_NUMBERED.fullmatch(text):
            number = integer(found[2])
            # The verifier writes so what it calls by BTF id as well.
            known = found[1] == "unknown" or _helpers().get(found[1].removeprefix("bpf_")) == number
            src = opcodes.CALL_HELPER if known else opcodes.CALL_KFUNC
            return (opcodes.CALL, 0, src, 0, number, None, None, False, comment)
        if found := _KFUNC.fullmatch(text):
            off = integer(found[2] or "0")
            imm = self._kfunc(_unquoted(found[1]))
            fields = read(f"call kfunc({imm}, {off})")
            return fields and (*fields, None, None, False, comment)
        if found := _CONSTANT.fullmatch(text):
            return self._address(found, comment)
        if found := _VERBATIM.fullmatch(text):
            numbers = [integer(found[at]) for at in (1, 2, 3, 4, 5)]
            # The Insn checks them.
            opcode, dst, src, off, imm = numbers
            imm = imm if imm <= 0x7FFFFFFF or imm > 0xFFFFFFFF else imm - (1 << 32)
            Insn(opcode, dst=dst, src=src, off=off, imm=imm, raw=True, loc=(self._file, self._line))
            return (opcode, dst, src, off, imm, None, None, True, comment)
        return None

    def _address(self, found: re.Match[str], comment: str | None) -> Made:
        dst = int(found[1])
        offset = found[6] or found[7]
        if found[2]:
            if offset:
                raise AssembleError(f"a subprogram's address has no offset: {found[0]}")
            target = _unquoted(found[3])
            return (opcodes.LD_IMM64, dst, opcodes.FUNC, 0, 0, target, None, False, comment)
        name = _unquoted(found[4] or found[5])
        source, imm = opcodes.MAP_FD, 0
        if offset:
            source, imm = opcodes.MAP_VALUE, integer(offset)
            if imm > 0xFFFFFFFF:
                raise AssembleError(f"offset into the value {imm} is outside 0..{0xFFFFFFFF}")
            imm = imm << 32 if imm <= 0x7FFFFFFF else (imm << 32) - (1 << 64)
        return (opcodes.LD_IMM64, dst, source, 0, imm, None, name, False, comment)

    def _from_bytes(self, pairs: str, text: str, comment: str | None) -> None:
        """An instruction that objdump prints with its bytes."""
        from rawkm.asm.disassemble import decode

        insns = decode(bytes.fromhex(pairs), byteorder="little")
        if text and text != "<unknown>":
            made = read(_AFTER_TARGET.sub("", text))
            if made is None or made[0] != insns[0].opcode or made[1] != insns[0].dst:
                raise AssembleError(f"the bytes {pairs} are not: {text}")
        for insn in insns:
            fields = (insn.opcode, insn.dst, insn.src, insn.off, insn.imm)
            self._append((*fields, None, None, insn.raw, comment))

    def _number(self, number: str) -> None:
        assert self._numbered is not None
        self._numbered[number] = self._numbered.get(number, 0) + 1
        name = f".{number}.{self._numbered[number]}"
        self._items.append(Label(name, loc=(self._file, self._line)))

    def _numbered_target(self, use: str) -> str:
        number, direction = use[:-1], use[-1]
        times = self._numbered.get(number, 0) if self._numbered else 0
        if direction == "b" and not times:
            raise AssembleError(f"there is no label {number} before this")
        return f".{number}.{times + (direction == 'f')}"

    def _kfunc(self, name: str) -> int:
        if self._kfuncs is None:
            raise AssembleError(f"{name!r} is neither a label nor a helper, and there is no BTF to look it up in")
        return self._kfuncs(name)

    def _resolve(self) -> None:
        """Names that mean one thing or another, now that all labels and maps are known."""
        for at in self._calls:
            insn = self._items[at]
            assert isinstance(insn, Insn) and insn.target is not None
            if insn.target in self._labels or insn.target.startswith("."):
                continue
            number = _helpers().get(insn.target.removeprefix("bpf_"))
            src = opcodes.CALL_KFUNC if number is None else opcodes.CALL_HELPER
            if number is None:
                try:
                    number = self._kfunc(insn.target)
                except AssembleError as error:
                    raise AssembleError(str(error), src_loc=insn.loc) from None
            self._items[at] = checked(opcodes.CALL, 0, src, 0, number, loc=insn.loc, comment=insn.comment)
        for at in self._names:
            insn = self._items[at]
            assert isinstance(insn, Insn)
            name = insn.symbol_name
            if insn.src == opcodes.MAP_FD and name in self._labels and name not in self._maps:
                self._items[at] = checked(insn.opcode, insn.dst, opcodes.FUNC, 0, 0, name, loc=insn.loc, comment=insn.comment)

    def _directive(self, statement: str) -> None:
        words = _WORD.findall(statement)
        name, words = words[0], words[1:]
        if name in _SKIPPED or (name == ".type" and words[-1:] and words[-1][0] in "@%"):
            return
        if name not in _TEXTS and name != ".map":
            raise AssembleError(f"no directive: {name}")
        if not self._directives:
            raise AssembleError(f"{name} belongs into a file that is a whole program")
        if name == ".map":
            self._map(words)
            return
        if not words or (len(words) > 1 and name != ".section"):
            raise AssembleError(f"{name} takes one word: {statement}")
        field, value = _TEXTS[name], _unquoted(words[0])
        if self._texts.setdefault(field, value) != value:
            raise AssembleError(f"a second {name}: {value!r} after {self._texts[field]!r}")

    def _map(self, words: list[str]) -> None:
        if not words or "=" in words[0]:
            raise AssembleError(".map takes a name first")
        name = _unquoted(words[0])
        if name in self._maps:
            raise AssembleError(f"map {name!r} is declared twice")
        numbers: dict[str, int] = {}
        type: str | int = ""
        for word in words[1:]:
            key, _, value = word.partition("=")
            if key == "type" and value:
                type = integer(value) if value[0].isdigit() else value
            elif key in _MAP_NUMBERS and value:
                numbers[key] = integer(value)
                if not 0 <= numbers[key] <= 0xFFFFFFFF:
                    raise AssembleError(f"{key} {numbers[key]} is outside 0..{0xFFFFFFFF}")
            else:
                known = ", ".join(("type", *_MAP_NUMBERS))
                raise AssembleError(f".map knows {known}, each with a value, not {word}")
        if type == "":
            raise AssembleError(f"map {name!r} needs a type")
        self._maps[name] = MapDecl(name, type, loc=(self._file, self._line), **numbers)


def _without_comment(line: str) -> tuple[str, str | None]:
    if "#" not in line and "//" not in line:
        return line, None
    start = 0
    if number := _HELPER_NUMBER.search(line):
        start = number.end()
    for found in _QUOTED_OR_COMMENT.finditer(line, start):
        if found[1]:
            return line[: found.start()], line[found.end() :].strip() or None
    return line, None


def _unquoted(name: str) -> str:
    if name[:1] != '"':
        return name
    if name == '""' or len(name) < 2:
        raise AssembleError("a name in quotes that is empty")
    escapes = {"n": "\n", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), name[1:-1], flags=re.DOTALL)


def _helpers() -> dict[str, int]:
    if not _numbers:
        from rawkm.uapi.constants import Helper

        for name, number in vars(Helper).items():
            if isinstance(number, int) and not name.startswith("_") and number:
                _numbers[name] = number
    return _numbers


_numbers: dict[str, int] = {}
