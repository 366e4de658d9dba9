"""The BPF instruction set as data: RFC 9669 and what Linux added to it (release given where it is after 5.1).

An instruction is eight bytes: ``u8 opcode``, two 4-bit registers, ``s16 off``, ``s32 imm``. The low three
bits of the opcode are its class. ALU and jump classes split the rest into a source bit (K: the immediate,
X: a register) and a 4-bit operation; load and store classes into a width and a mode.

The dictionaries here name every operation as the DSL spells it (``Add``, ``JEq``); the op objects are made
from them, and so is ``forms()``, the table of every instruction, from which the decoder, the DSL source of
an instruction, its text in both directions and the tests come. It is built on first use, since assembling
does not need it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Classes, bits 0-2.
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)

# Source of the second operand, bit 3 of ALU and jump opcodes.
K, X = 0x00, 0x08

# Widths in bytes → bits 3-4 of load and store opcodes.
WIDTHS = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
WIDTH_NAMES = {1: "B", 2: "H", 4: "W", 8: "DW"}

# Modes, bits 5-7 of load and store opcodes. ABS and IND read the packet of a socket filter.
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0

# Operations of both ALU classes, with an immediate or a register as the second operand.
ALU_OPS = {
    "Add": 0x00,
    "Sub": 0x10,
    "Mul": 0x20,
    "Div": 0x30,
    "Or": 0x40,
    "And": 0x50,
    "Lsh": 0x60,
    "Rsh": 0x70,
    "Mod": 0x90,
    "Xor": 0xA0,
    "Mov": 0xB0,
    "Arsh": 0xC0,
}
NEG, END = 0x80, 0xD0
SHIFTS = (0x60, 0x70, 0xC0)

ALU_SIGNS = {
    "Add": "+=",
    "Sub": "-=",
    "Mul": "*=",
    "Div": "/=",
    "Or": "|=",
    "And": "&=",
    "Lsh": "<<=",
    "Rsh": ">>=",
    "Mod": "%=",
    "Xor": "^=",
    "Mov": "=",
    "Arsh": "s>>=",
    "SDiv": "s/=",
    "SMod": "s%=",
}

# The same opcode with off = 1 (Linux 6.6).
SIGNED_OPS = {"SDiv": 0x30, "SMod": 0x90}
SIGNED_OFF = 1

# Sign-extending moves (Linux 6.6): off is the width in bits of what is extended.
MOV_SIGNED_BITS = {ALU: (8, 16), ALU64: (8, 16, 32)}

# A move between the address spaces of an arena and the kernel (Linux 6.9): off is 1, imm is the one moved to
# << 16 | the one moved from, 0 is the kernel's.
ADDR_SPACE_OFF = 1
ADDR_SPACES = {(0, 1): 1, (1, 0): 1 << 16}

# Byte swaps: what to_le and to_be do depends on the machine's byte order, bswap (Linux 6.6) always swaps.
# imm is the width in bits.
SWAPS = {"to_le": ALU | END | K, "to_be": ALU | END | X, "bswap": ALU64 | END | K}
SWAP_BITS = (16, 32, 64)

# Conditional jumps of both jump classes.
JUMP_OPS = {
    "JEq": 0x10,
    "JGt": 0x20,
    "JGe": 0x30,
    "JSet": 0x40,
    "JNe": 0x50,
    "JSGt": 0x60,
    "JSGe": 0x70,
    "JLt": 0xA0,
    "JLe": 0xB0,
    "JSLt": 0xC0,
    "JSLe": 0xD0,
}
JUMP_SIGNS = {
    "JEq": "==",
    "JGt": ">",
    "JGe": ">=",
    "JSet": "&",
    "JNe": "!=",
    "JSGt": "s>",
    "JSGe": "s>=",
    "JLt": "<",
    "JLe": "<=",
    "JSLt": "s<",
    "JSLe": "s<=",
}
JA = JMP | 0x00
GOTOL = JMP32 | 0x00  # Linux 6.6: a 32-bit distance in imm
GOTOX = JMP | 0x00 | X  # Linux 6.19: to the instruction whose address is in dst
CALL = JMP | 0x80
CALLX = CALL | X  # no kernel takes it; compilers emit it for a call through a pointer
EXIT = JMP | 0x90
MAY_GOTO = JMP | 0xE0  # Linux 6.9

# What a call's src field says about its imm.
CALL_HELPER, CALL_SUB, CALL_KFUNC = range(3)

# imm of an atomic read-modify-write, on 4 or 8 bytes. FETCH brings the old value into src. Linux 5.12 has
# them all, before it there is only a plain add.
ATOMIC_WIDTHS = (4, 8)
ATOMIC_OPS = {"atomic_add": 0x00, "atomic_or": 0x40, "atomic_and": 0x50, "atomic_xor": 0xA0}
ATOMIC_SIGNS = {"atomic_add": "+=", "atomic_or": "|=", "atomic_and": "&=", "atomic_xor": "^="}
FETCH = 0x01
XCHG, CMPXCHG = 0xE0 | FETCH, 0xF0 | FETCH
# Ordered load and store of 1, 2, 4 or 8 bytes (Linux 6.15).
LOAD_ACQUIRE, STORE_RELEASE = 0x100, 0x110

# The one instruction of two slots. Its 64-bit imm lies in both; src says what the value is.
LD_IMM64 = LD | IMM | 0x18
(
    VALUE,  # the constant itself
    MAP_FD,  # low half: a map's fd → the map's address
    MAP_VALUE,  # low half: a map's fd, high half: offset into its value → that address
    BTF_ID,  # low half: id of a VAR or FUNC, high half: fd of its module's BTF, or 0 for vmlinux
    FUNC,  # low half: distance to a subprogram, as in a call → its address, for callbacks
    MAP_IDX,  # as MAP_FD and MAP_VALUE with an index into PROG_LOAD's fd_array (Linux 5.14)
    MAP_IDX_VALUE,
) = range(7)
MAP_SOURCES = (MAP_FD, MAP_VALUE)  # those that a map's name can stand in

LAST_REGISTER = 10
REGISTERS = range(LAST_REGISTER + 1)
# Base of the arguments of a call from the sixth on (Linux 7.2): those that are passed on are stored below it,
# those of the function itself are loaded from above it.
STACK_ARGS = 11
STACK_ARG_STORES = (STX | MEM | WIDTHS[8], ST | MEM | WIDTHS[8])
STACK_ARG_LOAD = LDX | MEM | WIDTHS[8]

S16 = (-(1 << 15), (1 << 15) - 1)
S32 = (-(1 << 31), (1 << 31) - 1)
ANY32 = (-(1 << 31), (1 << 32) - 1)
ANY64 = (-(1 << 63), (1 << 64) - 1)


def imm_range(opcode: int) -> tuple[int, int]:
    """(lowest, highest) immediate that makes sense for an opcode with source K.

    Where the operation works on 32 bits, signed and unsigned spellings mean the same and both are taken;
    where it works on 64, the immediate is sign-extended and only a signed one says what it does. The kernel
    refuses shifts by the width and more.
    """
    cls = opcode & 0x07
    if cls in (ALU, ALU64) and opcode & 0xF0 in SHIFTS:
        return (0, 31) if cls == ALU else (0, 63)
    if cls in (ALU, JMP32):
        return ANY32
    if cls == ST and opcode & 0x18 != WIDTHS[8]:
        bits = {WIDTHS[1]: 8, WIDTHS[2]: 16, WIDTHS[4]: 32}[opcode & 0x18]
        return -(1 << bits - 1), (1 << bits) - 1
    return S32


def target_field(opcode: int, src: int) -> str:
    """The field that a label's distance goes into: "off", "imm", or "" for what has no target."""
    if opcode == GOTOL or (opcode == CALL and src == CALL_SUB) or (opcode == LD_IMM64 and src == FUNC):
        return "imm"
    if opcode in (JA, MAY_GOTO):
        return "off"
    return "off" if opcode & 0x07 in (JMP, JMP32) and opcode & 0xF0 in JUMP_OPS.values() else ""


def stack_argument(opcode: int, dst: int, src: int, off: int) -> bool:
    """Whether STACK_ARGS stands where it may: below it is stored to, above it is loaded from, 8 bytes each."""
    if off < 0:
        return dst == STACK_ARGS and src in REGISTERS and opcode in STACK_ARG_STORES
    return off > 0 and src == STACK_ARGS and dst in REGISTERS and opcode == STACK_ARG_LOAD


class Form:
    """One shape of instruction: an opcode and, for each field, its only value, or None for an operand.

    ``dsl`` is a format string of the code that makes the instruction. What it names is an operand: dst,
    src, off, imm, jump (a label or a distance), symbol (a map), lo and hi (the halves of a 64-bit imm);
    other fields have the value given, or 0. ``hi`` is the one value that the upper half of a 64-bit imm may
    have, or None.
    ``text`` is the same in LLVM's syntax, where it has one: ``{off}`` with its sign, all numbers in hex.
    ``named`` is the text where a label or a map's name, ``{name}``, stands in for a number, "" where none can.
    """

    __slots__ = ("dsl", "dst", "hi", "imm", "named", "off", "opcode", "src", "text")

    def __init__(
        self,
        opcode: int,
        dsl: str,
        text: str,
        *,
        named: str = "",
        dst: int = 0,
        src: int = 0,
        off: int = 0,
        imm: int = 0,
        hi: int | None = None,
    ) -> None:
        jump = target_field(opcode, src) if "{jump}" in dsl else ""
        self.opcode = opcode
        self.dsl = dsl
        self.text = text
        self.named = named or (text.replace("{jump}", "{name}") if "{jump}" in text else "")
        self.dst = None if "{dst}" in dsl and not dst else dst
        self.src = None if "{src}" in dsl and not src else src
        self.off = None if "{off}" in dsl or jump == "off" else off
        self.imm = None if "{imm}" in dsl or jump == "imm" or opcode == LD_IMM64 else imm
        self.hi = hi

    def __repr__(self) -> str:
        return f"Form({self.opcode:#04x}, {self.dsl!r})"

    def matches(self, dst: int, src: int, off: int, imm: int) -> bool:
        """Whether these fields, of an instruction with this opcode, are of this form."""
        return (
            (self.dst is None or self.dst == dst)
            and (self.src is None or self.src == src)
            and (self.off is None or self.off == off)
            and (self.imm is None or self.imm == imm)
            and (self.hi is None or self.hi == imm >> 32)
        )


def forms() -> tuple[Form, ...]:
    """Every form of every instruction."""
    return (*_alu(), *_jumps(), *_memory(), *_atomics(), *_packet(), *_ld_imm64())


def find_form(opcode: int, dst: int, src: int, off: int, imm: int) -> Form | None:
    """The form of the instruction with these fields, None when there is none.

    The kernel refuses what has no form: an unknown opcode, a reserved field that is not 0, no such register.
    But one field it does not look at: it takes an exit whatever its off, which has no form because RFC 9669 wants a 0 there.
    ``imm`` is signed; for ld_imm64 it is the 64-bit value of both slots.
    """
    if not _by_opcode:
        for form in forms():
            _by_opcode.setdefault(form.opcode, []).append(form)
    if (dst > LAST_REGISTER or src > LAST_REGISTER) and not stack_argument(opcode, dst, src, off):
        return None
    for form in _by_opcode.get(opcode, ()):
        if form.matches(dst, src, off, imm):
            return form
    return None


_by_opcode: dict[int, list[Form]] = {}


def _alu() -> Iterator[Form]:
    for cls, suffix, r in ((ALU64, "", "r"), (ALU, "32", "w")):
        for table, off in ((ALU_OPS, 0), (SIGNED_OPS, SIGNED_OFF)):
            for name, code in table.items():
                text = f"{r}{{dst}} {ALU_SIGNS[name]} "
                yield Form(cls | code | K, name + suffix + ".imm({dst}, {imm})", text + "{imm}", off=off)
                yield Form(cls | code | X, name + suffix + ".reg({dst}, {src})", text + r + "{src}", off=off)
        for bits in MOV_SIGNED_BITS[cls]:
            dsl = "Mov" + suffix + ".signed({dst}, {src}, " + f"{bits})"
            yield Form(cls | ALU_OPS["Mov"] | X, dsl, f"{r}{{dst}} = (s{bits}){r}{{src}}", off=bits)
        yield Form(cls | NEG | K, "Neg" + suffix + "({dst})", f"{r}{{dst}} = -{r}{{dst}}")
    for name, code in SWAPS.items():
        for bits in SWAP_BITS:
            text = "r{dst} = " + f"{name.removeprefix('to_')}{bits} r{{dst}}"
            yield Form(code, name + "({dst}, " + f"{bits})", text, imm=bits)
    for (to, source), imm in ADDR_SPACES.items():
        operands = "({dst}, {src}, " + f"{to}, {source})"
        text = "r{dst} = addr_space_cast(r{src}, " + f"{to:#x}, {source:#x})"
        opcode = ALU64 | ALU_OPS["Mov"] | X
        yield Form(opcode, "addr_space_cast" + operands, text, off=ADDR_SPACE_OFF, imm=imm)


def _jumps() -> Iterator[Form]:
    for cls, suffix, r in ((JMP, "", "r"), (JMP32, "32", "w")):
        for name, code in JUMP_OPS.items():
            text, goto = f"if {r}{{dst}} {JUMP_SIGNS[name]} ", " goto {jump}"
            yield Form(cls | code | K, name + suffix + ".imm({dst}, {imm}, {jump})", text + "{imm}" + goto)
            yield Form(cls | code | X, name + suffix + ".reg({dst}, {src}, {jump})", text + r + "{src}" + goto)
    yield Form(JA, "Ja({jump})", "goto {jump}")
    yield Form(GOTOL, "Gotol({jump})", "gotol {jump}")
    yield Form(GOTOX, "gotox({dst})", "gotox r{dst}")
    yield Form(MAY_GOTO, "MayGoto({jump})", "may_goto {jump}")
    yield Form(CALL, "call({imm})", "call {imm}", src=CALL_HELPER)
    yield Form(CALL, "call_sub({jump})", "call pc{jump}", named="call {name}", src=CALL_SUB)
    yield Form(CALL, "kfunc({imm})", "call kfunc({imm})", src=CALL_KFUNC)
    yield Form(CALL, "kfunc({imm}, fd_index={off})", "call kfunc({imm}, {index})", src=CALL_KFUNC)
    yield Form(CALLX, "callx({dst})", "callx r{dst}")
    yield Form(EXIT, "exit_()", "exit")


def _memory() -> Iterator[Form]:
    for width, bits in WIDTHS.items():
        size = f"{WIDTH_NAMES[width]})"
        # The verifier says r for all of them, and so does LLVM where it knows no 32-bit registers.
        r = "r" if width == 8 else "w"
        at = f"(u{8 * width} *)(r{{dst}} {{off}})"
        source = f"(u{8 * width} *)(r{{src}} {{off}})"
        yield Form(LDX | MEM | bits, "load({dst}, {src}, {off}, " + size, f"{r}{{dst}} = *{source}")
        if width < 8:
            text = "r{dst} = *" + source.replace("u", "s", 1)
            yield Form(LDX | MEMSX | bits, "load_signed({dst}, {src}, {off}, " + size, text)
        yield Form(STX | MEM | bits, "store({dst}, {off}, {src}, " + size, f"*{at} = {r}{{src}}")
        yield Form(ST | MEM | bits, "store_imm({dst}, {off}, {imm}, " + size, f"*{at} = {{imm}}")


def _atomics() -> Iterator[Form]:
    for width, bits in WIDTHS.items():
        opcode, size = STX | ATOMIC | bits, WIDTH_NAMES[width]
        operands = "({dst}, {off}, {src}, " + size
        r, kind = ("r", "_64") if width == 8 else ("w", "32_32")
        at = f"(u{8 * width} *)(r{{dst}} {{off}})"
        if width in ATOMIC_WIDTHS:
            for name, imm in ATOMIC_OPS.items():
                text = f"lock *{at} {ATOMIC_SIGNS[name]} {r}{{src}}"
                yield Form(opcode, name + operands + ")", text, imm=imm)
                text = f"{r}{{src}} = {name.replace('_', '_fetch_')}({at}, {r}{{src}})"
                yield Form(opcode, name + operands + ", fetch=True)", text, imm=imm | FETCH)
            text = f"{r}{{src}} = xchg{kind}(r{{dst}} {{off}}, {r}{{src}})"
            yield Form(opcode, "atomic_xchg" + operands + ")", text, imm=XCHG)
            text = f"{r}0 = cmpxchg{kind}(r{{dst}} {{off}}, {r}0, {r}{{src}})"
            yield Form(opcode, "atomic_cmpxchg" + operands + ")", text, imm=CMPXCHG)
        text = f"{r}{{dst}} = load_acquire({at.replace('dst', 'src')})"
        yield Form(opcode, "load_acquire({dst}, {src}, {off}, " + size + ")", text, imm=LOAD_ACQUIRE)
        text = f"store_release({at}, {r}{{src}})"
        yield Form(opcode, "store_release" + operands + ")", text, imm=STORE_RELEASE)


def _packet() -> Iterator[Form]:
    for width in (1, 2, 4):
        opcode, size, text = LD | WIDTHS[width], WIDTH_NAMES[width], f"r0 = *(u{8 * width} *)skb["
        yield Form(opcode | ABS, "load_abs({imm}, " + size + ")", text + "{imm}]")
        # In LLVM's, with an off of its own, there is only the form that comes first.
        yield Form(opcode | IND, "load_ind({src}, 0, " + size + ")", text + "r{src}]")
        yield Form(opcode | IND, "load_ind({src}, {imm}, " + size + ")", text + "r{src} {sum}]")


def _ld_imm64() -> Iterator[Form]:
    # The first match is the one that is shown: the form without the optional argument comes first.
    yield Form(LD_IMM64, "ld_imm64({dst}, {imm})", "r{dst} = {imm} ll", src=VALUE)
    for src, dsl, named in (
        (MAP_FD, "map_ptr({dst}, {symbol})", "r{dst} = {name} ll"),
        (MAP_VALUE, "map_value({dst}, {symbol})", "r{dst} = {name}[0x0] ll"),
        (BTF_ID, "ksym({dst}, {lo})", ""),
        (FUNC, "func_ptr({dst}, {jump})", "r{dst} = &{name} ll"),
        (MAP_IDX, "map_idx({dst}, {lo})", ""),
        (MAP_IDX_VALUE, "map_idx_value({dst}, {lo})", ""),
    ):
        yield Form(LD_IMM64, dsl, f"ld_pseudo r{{dst}}, {src:#x}, {{lo}}", named=named, src=src, hi=0)
    # LLVM has no way to say the upper half.
    for src, dsl, named in (
        (MAP_VALUE, "map_value({dst}, {symbol}, offset={hi})", "r{dst} = {name}[{hi}] ll"),
        (BTF_ID, "ksym({dst}, {lo}, btf_fd={hi})", ""),
        (MAP_IDX_VALUE, "map_idx_value({dst}, {lo}, offset={hi})", ""),
    ):
        yield Form(LD_IMM64, dsl, f"ld_pseudo r{{dst}}, {src:#x}, {{lo}}, {{hi}}", named=named, src=src)
