"""The DSL: operations as values and functions that make one instruction each.

Operands come in the order of an assignment, destination first. Jumps take a label's name or a distance in
slots, counted from the next slot. Registers are ``R0`` to ``R10`` (R10: the frame pointer, read-only), and
for the arguments of a call from the sixth on ``R11`` (Linux 7.2): ``store(R11, -8, R1, DW)`` passes the first
of them on, ``load(R1, R11, 8, DW)`` reads the function's own. Sizes are ``B H W DW`` (1, 2, 4, 8 bytes).
Names that end in 32 work on the low halves and clear the upper half of the destination; their jumps compare
the low halves. A register, size, offset or immediate out of range raises AssembleError.
"""

from __future__ import annotations

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label, Reg, caller, map_name, number
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm.insn import Symbol

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11 = map(Reg, range(12))


class Size(int):
    """A width in bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return opcodes.WIDTH_NAMES.get(self, f"Size({int(self)})")


B, H, W, DW = map(Size, (1, 2, 4, 8))


class Alu:
    """An arithmetic operation of two operands: ``dst = dst op (imm | src)``."""

    __slots__ = ("_code", "_off", "name")

    def __init__(self, name: str, code: int, cls: int, *, off: int = 0) -> None:
        self.name = name
        self._code = code | cls
        self._off = off

    def __repr__(self) -> str:
        return self.name

    def imm(self, dst: int, imm: int) -> Insn:
        """With a constant, sign-extended where the operation is 64 bits wide."""
        opcode = self._code | opcodes.K
        return Insn(opcode, dst=dst, off=self._off, imm=_immediate(opcode, imm))

    def reg(self, dst: int, src: int) -> Insn:
        """With a register."""
        return Insn(self._code | opcodes.X, dst=dst, src=src, off=self._off)


class Move(Alu):
    """``dst = (imm | src)``."""

    __slots__ = ()

    def signed(self, dst: int, src: int, bits: int) -> Insn:
        """``dst`` = the low 8, 16 or (64-bit form only) 32 bits of ``src``, sign-extended. Linux 6.6."""
        opcode = self._code | opcodes.X
        bits = _one_of(bits, opcodes.MOV_SIGNED_BITS[opcode & 7], "width in bits")
        return Insn(opcode, dst=dst, src=src, off=bits)


class Negate:
    """``dst = -dst``."""

    __slots__ = ("_opcode", "name")

    def __init__(self, name: str, cls: int) -> None:
        self.name = name
        self._opcode = cls | opcodes.NEG

    def __repr__(self) -> str:
        return self.name

    def __call__(self, dst: int) -> Insn:
        return Insn(self._opcode, dst=dst)


class JumpIf:
    """A conditional jump: to ``target`` when ``dst op (imm | src)``, else on to the next instruction."""

    __slots__ = ("_code", "name")

    def __init__(self, name: str, code: int, cls: int) -> None:
        self.name = name
        self._code = code | cls

    def __repr__(self) -> str:
        return self.name

    def imm(self, dst: int, imm: int, target: str | int) -> Insn:
        """Compare with a constant, sign-extended where the comparison is 64 bits wide."""
        opcode = self._code | opcodes.K
        return _jump(opcode, target, dst=dst, imm=_immediate(opcode, imm))

    def reg(self, dst: int, src: int, target: str | int) -> Insn:
        """Compare with a register."""
        return _jump(self._code | opcodes.X, target, dst=dst, src=src)


class Jump:
    """A jump without a condition of its own."""

    __slots__ = ("_opcode", "name")

    def __init__(self, name: str, opcode: int) -> None:
        self.name = name
        self._opcode = opcode

    def __repr__(self) -> str:
        return self.name

    def __call__(self, target: str | int) -> Insn:
        return _jump(self._opcode, target)


def _alu(name: str, cls: int) -> Alu:
    return Alu(name, opcodes.ALU_OPS[name.removesuffix("32")], cls)


def _signed_alu(name: str, cls: int) -> Alu:
    return Alu(name, opcodes.SIGNED_OPS[name.removesuffix("32")], cls, off=opcodes.SIGNED_OFF)


def _jump_if(name: str, cls: int) -> JumpIf:
    return JumpIf(name, opcodes.JUMP_OPS[name.removesuffix("32")], cls)


Mov = Move("Mov", opcodes.ALU_OPS["Mov"], opcodes.ALU64)
Add = _alu("Add", opcodes.ALU64)
Sub = _alu("Sub", opcodes.ALU64)
Mul = _alu("Mul", opcodes.ALU64)
Div = _alu("Div", opcodes.ALU64)  # unsigned; by zero gives 0
Mod = _alu("Mod", opcodes.ALU64)  # unsigned; by zero leaves dst
SDiv = _signed_alu("SDiv", opcodes.ALU64)  # Linux 6.6
SMod = _signed_alu("SMod", opcodes.ALU64)  # Linux 6.6
Or = _alu("Or", opcodes.ALU64)
And = _alu("And", opcodes.ALU64)
Xor = _alu("Xor", opcodes.ALU64)
Lsh = _alu("Lsh", opcodes.ALU64)
Rsh = _alu("Rsh", opcodes.ALU64)
Arsh = _alu("Arsh", opcodes.ALU64)  # keeps the sign
Neg = Negate("Neg", opcodes.ALU64)

Mov32 = Move("Mov32", opcodes.ALU_OPS["Mov"], opcodes.ALU)
Add32 = _alu("Add32", opcodes.ALU)
Sub32 = _alu("Sub32", opcodes.ALU)
Mul32 = _alu("Mul32", opcodes.ALU)
Div32 = _alu("Div32", opcodes.ALU)
Mod32 = _alu("Mod32", opcodes.ALU)
SDiv32 = _signed_alu("SDiv32", opcodes.ALU)
SMod32 = _signed_alu("SMod32", opcodes.ALU)
Or32 = _alu("Or32", opcodes.ALU)
And32 = _alu("And32", opcodes.ALU)
Xor32 = _alu("Xor32", opcodes.ALU)
Lsh32 = _alu("Lsh32", opcodes.ALU)
Rsh32 = _alu("Rsh32", opcodes.ALU)
Arsh32 = _alu("Arsh32", opcodes.ALU)
Neg32 = Negate("Neg32", opcodes.ALU)

JEq = _jump_if("JEq", opcodes.JMP)
JNe = _jump_if("JNe", opcodes.JMP)
JGt = _jump_if("JGt", opcodes.JMP)
JGe = _jump_if("JGe", opcodes.JMP)
JLt = _jump_if("JLt", opcodes.JMP)
JLe = _jump_if("JLe", opcodes.JMP)
JSGt = _jump_if("JSGt", opcodes.JMP)  # S: signed
JSGe = _jump_if("JSGe", opcodes.JMP)
JSLt = _jump_if("JSLt", opcodes.JMP)
JSLe = _jump_if("JSLe", opcodes.JMP)
JSet = _jump_if("JSet", opcodes.JMP)  # any common bit

JEq32 = _jump_if("JEq32", opcodes.JMP32)
JNe32 = _jump_if("JNe32", opcodes.JMP32)
JGt32 = _jump_if("JGt32", opcodes.JMP32)
JGe32 = _jump_if("JGe32", opcodes.JMP32)
JLt32 = _jump_if("JLt32", opcodes.JMP32)
JLe32 = _jump_if("JLe32", opcodes.JMP32)
JSGt32 = _jump_if("JSGt32", opcodes.JMP32)
JSGe32 = _jump_if("JSGe32", opcodes.JMP32)
JSLt32 = _jump_if("JSLt32", opcodes.JMP32)
JSLe32 = _jump_if("JSLe32", opcodes.JMP32)
JSet32 = _jump_if("JSet32", opcodes.JMP32)

Ja = Jump("Ja", opcodes.JA)
Gotol = Jump("Gotol", opcodes.GOTOL)  # reaches 2**31 slots; Linux 6.6
MayGoto = Jump("MayGoto", opcodes.MAY_GOTO)  # jumps once the loop has used up its turns; Linux 6.9


def label(name: str) -> Label:
    """The place that jumps to ``name`` go to."""
    return Label(name)


def to_le(dst: int, bits: int) -> Insn:
    """``dst`` = its low 16, 32 or 64 bits in little-endian order."""
    return _swap("to_le", dst, bits)


def to_be(dst: int, bits: int) -> Insn:
    """``dst`` = its low 16, 32 or 64 bits in big-endian order."""
    return _swap("to_be", dst, bits)


def bswap(dst: int, bits: int) -> Insn:
    """``dst`` = its low 16, 32 or 64 bits with the bytes reversed. Linux 6.6."""
    return _swap("bswap", dst, bits)


def addr_space_cast(dst: int, src: int, to: int, source: int) -> Insn:
    """``dst`` = ``src`` moved from address space ``source`` ``to`` another, for pointers into an arena.

    0 is the kernel's, 1 the arena's as user space sees it; the verifier takes (1, 0) and (0, 1). Linux 6.9.
    """
    imm = opcodes.ADDR_SPACES.get((to, source))
    if imm is None:
        raise AssembleError(f"no cast from address space {source!r} to {to!r}: 0 and 1", src_loc=caller())
    return Insn(
        opcodes.ALU64 | opcodes.ALU_OPS["Mov"] | opcodes.X,
        dst=dst,
        src=src,
        off=opcodes.ADDR_SPACE_OFF,
        imm=imm,
    )


def load(dst: int, src: int, off: int, size: int) -> Insn:
    """``dst`` = ``size`` bytes at ``src + off``, zero-extended."""
    return Insn(opcodes.LDX | opcodes.MEM | _width(size), dst=dst, src=src, off=off)


def load_signed(dst: int, src: int, off: int, size: int) -> Insn:
    """``dst`` = ``size`` (1, 2, 4) bytes at ``src + off``, sign-extended. Linux 6.6."""
    return Insn(opcodes.LDX | opcodes.MEMSX | _width(size, (1, 2, 4)), dst=dst, src=src, off=off)


def store(dst: int, off: int, src: int, size: int) -> Insn:
    """The low ``size`` bytes of ``src`` to ``dst + off``."""
    return Insn(opcodes.STX | opcodes.MEM | _width(size), dst=dst, src=src, off=off)


def store_imm(dst: int, off: int, imm: int, size: int) -> Insn:
    """A constant of ``size`` bytes to ``dst + off``; one of 8 bytes is sign-extended from 32 bits."""
    opcode = opcodes.ST | opcodes.MEM | _width(size)
    return Insn(opcode, dst=dst, off=off, imm=_immediate(opcode, imm))


def atomic_add(dst: int, off: int, src: int, size: int, *, fetch: bool = False) -> Insn:
    """``size`` (4, 8) bytes at ``dst + off`` += ``src``; ``fetch`` (Linux 5.12): ``src`` = the old value."""
    return _atomic("atomic_add", dst, off, src, size, fetch)


def atomic_or(dst: int, off: int, src: int, size: int, *, fetch: bool = False) -> Insn:
    """As ``atomic_add``, with |=. Linux 5.12."""
    return _atomic("atomic_or", dst, off, src, size, fetch)


def atomic_and(dst: int, off: int, src: int, size: int, *, fetch: bool = False) -> Insn:
    """As ``atomic_add``, with &=. Linux 5.12."""
    return _atomic("atomic_and", dst, off, src, size, fetch)


def atomic_xor(dst: int, off: int, src: int, size: int, *, fetch: bool = False) -> Insn:
    """As ``atomic_add``, with ^=. Linux 5.12."""
    return _atomic("atomic_xor", dst, off, src, size, fetch)


def atomic_xchg(dst: int, off: int, src: int, size: int) -> Insn:
    """Swap ``src`` and ``size`` (4, 8) bytes at ``dst + off``. Linux 5.12."""
    return _ordered(opcodes.XCHG, dst, off, src, _width(size, (4, 8)))


def atomic_cmpxchg(dst: int, off: int, src: int, size: int) -> Insn:
    """``size`` (4, 8) bytes at ``dst + off`` = ``src`` if they equal R0; R0 = the old value. Linux 5.12."""
    return _ordered(opcodes.CMPXCHG, dst, off, src, _width(size, (4, 8)))


def load_acquire(dst: int, src: int, off: int, size: int) -> Insn:
    """As ``load``; later accesses are not seen before it. Linux 6.15."""
    return _ordered(opcodes.LOAD_ACQUIRE, dst, off, src, _width(size))


def store_release(dst: int, off: int, src: int, size: int) -> Insn:
    """As ``store``; earlier accesses are seen before it. Linux 6.15."""
    return _ordered(opcodes.STORE_RELEASE, dst, off, src, _width(size))


def load_abs(off: int, size: int) -> Insn:
    """R0 = ``size`` (1, 2, 4) bytes at ``off`` in a socket filter's packet, in the machine's byte order.

    R6 must hold the context; R1..R5 are lost. Past the packet's end the program returns 0.
    """
    imm = number(off, *opcodes.S32, "offset")
    return Insn(opcodes.LD | opcodes.ABS | _width(size, (1, 2, 4)), imm=imm)


def load_ind(src: int, off: int, size: int) -> Insn:
    """As ``load_abs``, at ``src + off``."""
    imm = number(off, *opcodes.S32, "offset")
    return Insn(opcodes.LD | opcodes.IND | _width(size, (1, 2, 4)), src=src, imm=imm)


def ld_imm64(dst: int, value: int) -> Insn:
    """``dst`` = a 64-bit constant, signed or unsigned. It takes two slots."""
    return Insn(opcodes.LD_IMM64, dst=dst, imm=number(value, *opcodes.ANY64, "constant"))


def map_ptr(dst: int, map: Symbol | int) -> Insn:
    """``dst`` = a map's address, as helpers want it. ``map``: a name, an object with a name, or an fd."""
    return _map_insn(opcodes.MAP_FD, dst, map, 0)


def map_value(dst: int, map: Symbol | int, *, offset: int = 0) -> Insn:
    """``dst`` = the address of byte ``offset`` in the value of an array map of one entry. Linux 5.2.

    ``map`` as in ``map_ptr``.
    """
    return _map_insn(opcodes.MAP_VALUE, dst, map, offset)


def map_idx(dst: int, index: int) -> Insn:
    """As ``map_ptr``, with an index into PROG_LOAD's fd_array. Linux 5.14."""
    return _wide(opcodes.MAP_IDX, dst, number(index, 0, opcodes.S32[1], "index"), 0)


def map_idx_value(dst: int, index: int, *, offset: int = 0) -> Insn:
    """As ``map_value``, with an index into PROG_LOAD's fd_array. Linux 5.14."""
    hi = number(offset, 0, (1 << 32) - 1, "offset into the value")
    return _wide(opcodes.MAP_IDX_VALUE, dst, number(index, 0, opcodes.S32[1], "index"), hi)


def ksym(dst: int, btf_id: int, *, btf_fd: int = 0) -> Insn:
    """``dst`` = the address of a kernel variable or function, by the BTF id of its VAR or FUNC. Linux 5.10.

    ``btf_fd``: the fd of a module's BTF; 0 is vmlinux.
    """
    lo = number(btf_id, 0, opcodes.S32[1], "BTF id")
    return _wide(opcodes.BTF_ID, dst, lo, number(btf_fd, 0, opcodes.S32[1], "BTF fd"))


def func_ptr(dst: int, target: str | int) -> Insn:
    """``dst`` = the address of a subprogram, for helpers with a callback. It needs BTF. Linux 5.13."""
    if isinstance(target, int):
        return _wide(opcodes.FUNC, dst, number(target, *opcodes.S32, "distance"), 0)
    return Insn(opcodes.LD_IMM64, dst=dst, src=opcodes.FUNC, target=_label(target))


def call(helper: int) -> Insn:
    """Call a helper by its number. R1..R5 are its arguments, R0 is its result; R1..R5 are lost."""
    return Insn(opcodes.CALL, src=opcodes.CALL_HELPER, imm=number(helper, 0, opcodes.S32[1], "helper"))


def call_sub(target: str | int) -> Insn:
    """Call a subprogram of this program, by label. Registers as in ``call``."""
    return _jump(opcodes.CALL, target, src=opcodes.CALL_SUB)


def callx(dst: int) -> Insn:
    """Call the subprogram whose address is in ``dst``. Compilers emit it; no kernel takes it."""
    return Insn(opcodes.CALLX, dst=dst)


def gotox(dst: int) -> Insn:
    """Jump to the instruction whose address, read from an INSN_ARRAY map, is in ``dst``. Linux 6.19."""
    return Insn(opcodes.GOTOX, dst=dst)


def kfunc(btf_id: int, *, fd_index: int = 0) -> Insn:
    """Call a kernel function by its BTF id. Linux 5.13.

    ``fd_index``: where the BTF of its module is in PROG_LOAD's fd_array; 0 is vmlinux.
    """
    imm = number(btf_id, 0, opcodes.S32[1], "BTF id")
    return Insn(opcodes.CALL, src=opcodes.CALL_KFUNC, off=fd_index, imm=imm)


def exit_() -> Insn:
    """Return R0 to the caller."""
    return Insn(opcodes.EXIT)


def _immediate(opcode: int, imm: int) -> int:
    low, high = opcodes.imm_range(opcode)
    hint = "; ld_imm64 takes 64 bits" if (low, high) == opcodes.S32 else ""
    imm = number(imm, low, high, "immediate", hint=hint)
    return imm if imm <= opcodes.S32[1] else imm - (1 << 32)


def _one_of(value: int, choice: tuple[int, ...], what: str) -> int:
    if isinstance(value, Reg) or value not in choice:
        text = f"{what} is {value!r}, but must be one of {', '.join(map(str, choice))}"
        raise AssembleError(text, src_loc=caller())
    return int(value)


def _width(size: int, choice: tuple[int, ...] = (1, 2, 4, 8)) -> int:
    return opcodes.WIDTHS[_one_of(size, choice, "size in bytes")]


def _label(target: str | int) -> str:
    if not isinstance(target, str):
        raise AssembleError(f"a target must be a label or a distance, not {target!r}", src_loc=caller())
    return target


def _jump(opcode: int, target: str | int, *, dst: int = 0, src: int = 0, imm: int = 0) -> Insn:
    if isinstance(target, int):
        if opcodes.target_field(opcode, src) == "imm":
            return Insn(opcode, dst=dst, src=src, imm=number(target, *opcodes.S32, "distance"))
        return Insn(opcode, dst=dst, src=src, off=number(target, *opcodes.S16, "distance"), imm=imm)
    return Insn(opcode, dst=dst, src=src, imm=imm, target=_label(target))


def _swap(name: str, dst: int, bits: int) -> Insn:
    return Insn(opcodes.SWAPS[name], dst=dst, imm=_one_of(bits, opcodes.SWAP_BITS, "width in bits"))


def _atomic(name: str, dst: int, off: int, src: int, size: int, fetch: bool) -> Insn:
    imm = opcodes.ATOMIC_OPS[name] | (opcodes.FETCH if fetch else 0)
    return _ordered(imm, dst, off, src, _width(size, (4, 8)))


def _ordered(imm: int, dst: int, off: int, src: int, width: int) -> Insn:
    return Insn(opcodes.STX | opcodes.ATOMIC | width, dst=dst, src=src, off=off, imm=imm)


def _map_insn(source: int, dst: int, map: Symbol | int, offset: int) -> Insn:
    offset = number(offset, 0, (1 << 32) - 1, "offset into the value")
    if isinstance(map, int):
        return _wide(source, dst, number(map, 0, opcodes.S32[1], "map"), offset)
    map_name(map, caller())  # None would be no map at all
    return Insn(opcodes.LD_IMM64, dst=dst, src=source, imm=offset << 32, symbol=map)


def _wide(source: int, dst: int, lo: int, hi: int) -> Insn:
    return Insn(opcodes.LD_IMM64, dst=dst, src=source, imm=hi << 32 | lo & 0xFFFFFFFF)
