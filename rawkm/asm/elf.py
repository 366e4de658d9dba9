"""BPF code in ELF objects, as compilers make them: its sections, its functions, and the names at its relocations.

The format is in elf(5); what BPF's relocations mean, in the kernel's Documentation/bpf/llvm_reloc.rst. What a
loader would do with them is not done here: the code is as it is in the file.
"""

from __future__ import annotations

import struct

from rawkm.asm import opcodes
from rawkm.asm.code import Code
from rawkm.asm.insn import checked
from rawkm.errors import DisassembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.asm.assemble import ByteOrder

MAGIC = b"\x7fELF"
_CLASS_64 = 2
_BYTEORDERS: dict[int, ByteOrder] = {1: "little", 2: "big"}
_EM_BPF = 247
_PROGBITS, _SYMTAB, _REL, _NOBITS = 1, 2, 9, 8
_EXECINSTR = 4
_STT_FUNC, _STT_SECTION = 2, 3
# More of a name is not shown.
_LONGEST_NAME = 512
_R_64_64, _R_64_32 = 1, 10  # at ld_imm64 and at a call

_SECTION, _SYMBOL, _RELOCATION = "IIQQQQIIQQ", "IBBHQQ", "QQ"


class _Symbol:
    __slots__ = ("kind", "name", "section", "value")

    def __init__(self, name: str, info: int, section: int, value: int) -> None:
        self.name = name
        self.kind = info & 15
        self.section = section
        self.value = value


class Object:
    """What an object says of its programs. ``code``: the sections with instructions, in the order of the file.

    ``license``: as in the section of that name, "" without one. Raises DisassembleError for what is no BPF
    object, and for a damaged one.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        if not data.startswith(MAGIC) or len(data) < 64:
            raise DisassembleError("this is no ELF object")
        byteorder = _BYTEORDERS.get(data[5])
        if data[4] != _CLASS_64 or byteorder is None:
            raise DisassembleError("this ELF object is not one of 64 bits")
        self._order = "<" if byteorder == "little" else ">"
        (machine,) = self._read("H", 18)
        if machine != _EM_BPF:
            raise DisassembleError(f"this ELF object is for machine {machine}, not for BPF ({_EM_BPF})")
        self._headers = self._section_headers()
        self.names = [self._string(self._strings, header[0]) for header in self._headers]
        self.code: list[Code] = []
        by_index: dict[int, Code] = {}
        for index, header in enumerate(self._headers):
            if header[1] == _PROGBITS and header[2] & _EXECINSTR and header[5]:
                by_index[index] = Code(self.names[index], self._content(index), byteorder)
                self.code.append(by_index[index])
        self._symbols = self._read_symbols()
        self._functions: dict[tuple[int, int], str] = {}
        for symbol in self._symbols:
            if symbol.kind == _STT_FUNC and symbol.section in by_index and symbol.value % 8 == 0 and symbol.name:
                by_index[symbol.section].functions.append((symbol.value // 8, symbol.name))
                self._functions[symbol.section, symbol.value] = symbol.name
        for header in self._headers:
            if header[1] == _REL and header[7] in by_index:
                self._relocate(by_index[header[7]], header[7], header)
        self.license = self.content("license").partition(b"\0")[0].decode("ascii", "replace")

    def content(self, name: str) -> bytes:
        """The bytes of the first section of this name, b"" without one."""
        return self._content(self.names.index(name)) if name in self.names else b""

    # -- the file ------------------------------------------------------------------------------------------------

    def _read(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, self._data, at)
        except struct.error:
            raise DisassembleError(f"the ELF object is damaged: {len(self._data)} bytes, but something at {at}") from None

    def _table(self, form: str, start: int, size: int, each: int) -> Iterator[tuple[int, ...]]:
        if each != struct.calcsize(self._order + form):
            raise DisassembleError(f"the ELF object is damaged: a table with entries of {each} bytes")
        # At once, before there are too many of them.
        if start + size > len(self._data):
            raise DisassembleError(f"the ELF object is damaged: a table at {start} ends behind the file")
        return struct.iter_unpack(self._order + form, self._data[start : start + size // each * each])

    def _section_headers(self) -> list[tuple[int, ...]]:
        (start,) = self._read("Q", 40)
        each, count, strings = self._read("HHH", 58)
        if not start or not count:
            raise DisassembleError("this ELF object has no sections")
        headers = list(self._table(_SECTION, start, each * count, each))
        self._strings = headers[strings] if strings < len(headers) else (0,) * 10
        return headers

    def _content(self, index: int) -> bytes:
        kind, start, size = self._headers[index][1], self._headers[index][4], self._headers[index][5]
        if kind == _NOBITS:
            return b""
        if start + size > len(self._data):
            raise DisassembleError(f"the ELF object is damaged: section {index} ends behind the file")
        return self._data[start : start + size]

    def _string(self, table: tuple[int, ...], at: int) -> str:
        """A name, fit to be shown."""
        start, end = table[4] + at, table[4] + table[5]
        if at >= table[5] or end > len(self._data):
            return ""
        text = self._data[start : min(end, start + _LONGEST_NAME)].partition(b"\0")[0].decode("utf-8", "backslashreplace")
        return text if text.isprintable() else ascii(text)[1:-1]

    def _read_symbols(self) -> list[_Symbol]:
        for header in self._headers:
            if header[1] == _SYMTAB:
                strings = self._headers[header[6]] if header[6] < len(self._headers) else (0,) * 10
                rows = self._table(_SYMBOL, header[4], header[5], header[9])
                return [_Symbol(self._string(strings, row[0]), row[1], row[3], row[4]) for row in rows]
        return []

    # -- relocations -----------------------------------------------------------------------------------------------

    def _relocate(self, code: Code, index: int, header: tuple[int, ...]) -> None:
        for at, info in self._table(_RELOCATION, header[4], header[5], header[9]):
            number, kind = info >> 32, info & 0xFFFFFFFF
            if at % 8 or at + 8 > len(code.raw) or number >= len(self._symbols):
                raise DisassembleError(f"the ELF object is damaged: a relocation of {code.name} at {at}")
            symbol = self._symbols[number]
            (imm,) = struct.unpack_from(self._order + "i", code.raw, at + 4)
            if kind == _R_64_32:
                self._call(code, index, at // 8, symbol, imm)
            elif kind == _R_64_64:
                self._address(code, at // 8, symbol, imm)

    def _call(self, code: Code, index: int, slot: int, symbol: _Symbol, imm: int) -> None:
        """A call of a function: where it begins, or of its section and the place in imm."""
        target = symbol.value // 8 + imm + 1
        note = code.notes[slot] = self._place(symbol, 8 * target)
        if code.raw[8 * slot] != opcodes.CALL or not symbol.section:
            return
        if symbol.section == index and 0 <= target < len(code.raw) // 8:
            code.meant[slot] = checked(opcodes.CALL, 0, opcodes.CALL_SUB, 0, target - slot - 1)
        else:
            # Its distance leads nowhere in this section; it would be mistaken for a call in here.
            code.meant[slot] = checked(opcodes.CALL, 0, opcodes.CALL_SUB, 0, imm, raw=True, comment=note)

    def _address(self, code: Code, slot: int, symbol: _Symbol, imm: int) -> None:
        place = symbol.value + imm
        code.notes[slot] = self._place(symbol, place)
        if code.raw[8 * slot] != opcodes.LD_IMM64 or not 0 < symbol.section < len(self.names):
            return
        registers, section = code.raw[8 * slot + 1], self.names[symbol.section]
        dst = registers & 15 if code.byteorder == "little" else registers >> 4
        if section in (".maps", "maps") and symbol.kind != _STT_SECTION:
            code.meant[slot] = checked(opcodes.LD_IMM64, dst, opcodes.MAP_FD, 0, 0, None, symbol.name)
        elif section.startswith((".data", ".rodata", ".bss")) and 0 <= place <= opcodes.S32[1]:
            # A loader makes each of these sections the value of a map.
            code.meant[slot] = checked(opcodes.LD_IMM64, dst, opcodes.MAP_VALUE, 0, place << 32, None, section)

    def _place(self, symbol: _Symbol, value: int) -> str:
        """What is at ``value`` in the symbol's section, in words."""
        if symbol.kind != _STT_SECTION:
            return symbol.name
        section = self.names[symbol.section] if symbol.section < len(self.names) else "?"
        function = self._functions.get((symbol.section, value))
        return f"{section}+{value:#x}" if function is None else f"{function} in {section}"
