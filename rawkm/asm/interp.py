"""An interpreter of BPF: what a program does, in Python, after RFC 9669 and what Linux added to it.

It is the model that the kernel's verifier and JIT are compared with, so it is written apart from both: values are Python's ints,
memory is bytes in regions that know their ends, and what the kernel would not let a program do (read beyond a region, use a
register before it is written) raises InterpreterError.

Not modelled, and refused when met: kernel functions and symbols, callbacks, indirect jumps and calls, arenas.
"""

from __future__ import annotations

import sys

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label
from rawkm.errors import InterpreterError, NotModelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal

    from rawkm.asm.insn import Item

    # An operation: takes the registers, gives the slot to go on with.
    Op = Callable[[list[Any]], int]
    Order = Literal["little", "big"]

U64 = (1 << 64) - 1
STACK_SIZE = 512  # include/linux/filter.h, MAX_BPF_STACK
MAX_FRAMES = 8  # include/linux/bpf_verifier.h, MAX_CALL_FRAMES
MAX_LOOPS = 8 << 20  # include/linux/bpf.h, BPF_MAX_LOOPS: the turns that may_goto allows
STEPS = 1 << 20

_END = -1
_ORDER: Order = sys.byteorder


# -- arithmetic ----------------------------------------------------------------------------------------------------------------


def signed(value: int, bits: int) -> int:
    """The two's complement that the low bits stand for."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _quotient(a: int, b: int) -> int:
    """C's, which is rounded towards zero."""
    return -(-a // b) if (a < 0) != (b < 0) else a // b


def _sdiv(a: int, b: int, bits: int) -> int:
    return _quotient(signed(a, bits), signed(b, bits)) if b else 0


def _smod(a: int, b: int, bits: int) -> int:
    if not b:
        return a
    x, y = signed(a, bits), signed(b, bits)
    return x - y * _quotient(x, y)


# Of unsigned operands of the operation's width; the result is cut to it afterwards.
ALU: dict[str, Callable[[int, int, int], int]] = {
    "Add": lambda a, b, _: a + b,
    "Sub": lambda a, b, _: a - b,
    "Mul": lambda a, b, _: a * b,
    "Div": lambda a, b, _: a // b if b else 0,
    "Mod": lambda a, b, _: a % b if b else a,
    "SDiv": _sdiv,
    "SMod": _smod,
    "Or": lambda a, b, _: a | b,
    "And": lambda a, b, _: a & b,
    "Xor": lambda a, b, _: a ^ b,
    "Lsh": lambda a, b, bits: a << (b % bits),
    "Rsh": lambda a, b, bits: a >> (b % bits),
    "Arsh": lambda a, b, bits: signed(a, bits) >> (b % bits),
    "Mov": lambda _a, b, _: b,
}

JUMPS: dict[str, Callable[[int, int, int], bool]] = {
    "JEq": lambda a, b, _: a == b,
    "JNe": lambda a, b, _: a != b,
    "JGt": lambda a, b, _: a > b,
    "JGe": lambda a, b, _: a >= b,
    "JLt": lambda a, b, _: a < b,
    "JLe": lambda a, b, _: a <= b,
    "JSGt": lambda a, b, bits: signed(a, bits) > signed(b, bits),
    "JSGe": lambda a, b, bits: signed(a, bits) >= signed(b, bits),
    "JSLt": lambda a, b, bits: signed(a, bits) < signed(b, bits),
    "JSLe": lambda a, b, bits: signed(a, bits) <= signed(b, bits),
    "JSet": lambda a, b, _: a & b != 0,
}

# What an atomic operation leaves in memory, of (old value, operand).
ATOMICS: dict[int, Callable[[int, int], int]] = {
    opcodes.ATOMIC_OPS["atomic_add"]: lambda a, b: a + b,
    opcodes.ATOMIC_OPS["atomic_or"]: lambda a, b: a | b,
    opcodes.ATOMIC_OPS["atomic_and"]: lambda a, b: a & b,
    opcodes.ATOMIC_OPS["atomic_xor"]: lambda a, b: a ^ b,
    opcodes.XCHG & ~opcodes.FETCH: lambda _a, b: b,
}

_ALU_NAMES = {code: name for name, code in opcodes.ALU_OPS.items()}
_SIGNED_NAMES = {code: name for name, code in opcodes.SIGNED_OPS.items()}
_JUMP_NAMES = {code: name for name, code in opcodes.JUMP_OPS.items()}
_WIDTHS = {bits: width for width, bits in opcodes.WIDTHS.items()}


def swapped(value: int, bits: int) -> int:
    """The low bits with their bytes in the other order."""
    size = bits // 8
    return int.from_bytes((value & (1 << bits) - 1).to_bytes(size, "little"), "big")


# -- memory --------------------------------------------------------------------------------------------------------------------


class Region:
    """Memory from ``base`` on. ``known``: 1 for each byte that has been written, where that matters (the stack); else None."""

    __slots__ = ("base", "data", "known", "readonly")

    def __init__(self, base: int, data: bytearray, *, known: bytearray | None = None, readonly: bool = False) -> None:
        self.base = base
        self.data = data
        self.known = known
        self.readonly = readonly

    def load(self, offset: int, size: int) -> int:
        end = offset + size
        if end > len(self.data):
            raise InterpreterError(f"a load of {size} bytes at {offset} of {len(self.data)}")
        if self.known is not None and not all(self.known[offset:end]):
            raise NotModelled(f"a load of {size} bytes at {offset}, which were not written")
        return int.from_bytes(self.data[offset:end], _ORDER)

    def store(self, offset: int, size: int, value: int) -> None:
        end = offset + size
        if end > len(self.data) or self.readonly:
            raise InterpreterError(f"a store of {size} bytes at {offset} of {len(self.data)}")
        self.data[offset:end] = (value & (1 << 8 * size) - 1).to_bytes(size, _ORDER)
        if self.known is not None:
            self.known[offset:end] = b"\1" * size


class Memory:
    """All regions. An address is a region's number in the high half and, from a number on that is the same for all, the offset in
    it in the low one.

    ``salt`` moves all of them: what a program makes of addresses comes out differently then.
    """

    __slots__ = ("_bias", "_next", "regions")

    def __init__(self, salt: int = 0) -> None:
        self.regions: dict[int, Any] = {}
        self._next = 0x40000001 + 0x1002 * salt
        self._bias = 0x60000000 + 0x15A5A58 * salt

    def add(self, region_of: Callable[[int], Any]) -> Any:
        """The region that ``region_of`` makes for a base address."""
        number = self._next
        self._next += 2
        region = self.regions[number] = region_of(number << 32 | self._bias)
        return region

    def room(self, data: bytearray, *, known: bytearray | None = None, readonly: bool = False) -> Region:
        region: Region = self.add(lambda base: Region(base, data, known=known, readonly=readonly))
        return region

    def drop(self, region: Region) -> None:
        del self.regions[region.base >> 32]

    def load(self, address: int, size: int) -> int:
        region = self.regions.get(address >> 32)
        if region is None:
            raise InterpreterError(f"a load of {size} bytes at {address:#x}, where nothing is")
        value: int = region.load(self._offset(address), size)
        return value

    def store(self, address: int, size: int, value: int) -> None:
        region = self.regions.get(address >> 32)
        if region is None:
            raise InterpreterError(f"a store of {size} bytes at {address:#x}, where nothing is")
        region.store(self._offset(address), size, value)

    def _offset(self, address: int) -> int:
        offset = (address & 0xFFFFFFFF) - self._bias
        if offset < 0:
            raise InterpreterError(f"an access {-offset} bytes before what it may reach")
        return offset

    def read(self, address: int, size: int) -> bytes:
        """Bytes, as a helper takes them."""
        return self.load(address, size).to_bytes(size, _ORDER)

    def write(self, address: int, data: bytes) -> None:
        self.store(address, len(data), int.from_bytes(data, _ORDER))


# -- the machine ---------------------------------------------------------------------------------------------------------------


class Machine:
    """A program made ready to run. ``maps``: a model (``rawkm.asm.interp_maps``) for each name or fd that it refers to;
    ``fd_array``: those it refers to by index. ``helpers``: number → a function of the machine and the registers that returns R0.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        maps: Mapping[str | int, Any] | None = None,
        fd_array: Sequence[Any] = (),
        helpers: Mapping[int, Callable[[Machine, list[Any]], int]] | None = None,
        memory: Memory | None = None,
        steps: int = STEPS,
    ) -> None:
        self.memory = Memory() if memory is None else memory
        self.maps = dict(maps or {})
        self.fd_array = list(fd_array)
        self.helpers = dict(helpers or {})
        self.packet: Region | None = None
        self.steps = steps
        self.taken = 0
        self._frames: list[tuple[int, list[Any], Region, dict[int, int]]] = []
        self._passed: dict[int, int] = {}
        self._turns = 0
        self._slots: list[Insn | None] = []
        labels: dict[str, int] = {}
        for item in items:
            if isinstance(item, Label):
                labels[item.name] = len(self._slots)
            elif isinstance(item, Insn):
                self._slots += [item, *[None] * (item.slots - 1)]
        self._labels = labels
        self._ops: list[Op] = [self._compile(slot, insn) for slot, insn in enumerate(self._slots)]

    def run(self, ctx: int = 0) -> int:
        """R0 at the end, 64 bits. ``ctx``: the address that R1 holds.

        Raises InterpreterError for what the kernel must not let it do, NotModelled for what this knows nothing of and for
        more than ``steps`` instructions.
        """
        registers: list[Any] = [None] * 11
        registers[1] = ctx
        self._frames.clear()
        self._turns = 0
        self._enter(registers)
        ops, limit = self._ops, self.steps
        slot = steps = 0
        try:
            while slot != _END:
                steps += 1
                if steps > limit:
                    raise NotModelled(f"more than {limit} instructions")
                slot = ops[slot](registers)
        except InterpreterError as err:
            raise type(err)(f"slot {slot}, {self._slots[slot]!r}: {err}") from None
        except (TypeError, IndexError):
            # Registers that hold nothing are None, which no operation takes.
            raise self._unreadable(slot, registers) from None
        finally:
            self.taken = steps
            while self._frames:
                self.memory.drop(self._frames.pop()[2])
        if registers[0] is None:
            raise InterpreterError("R0 is not set at the end")
        result: int = registers[0]
        return result

    def _unreadable(self, slot: int, registers: list[Any]) -> Exception:
        if not 0 <= slot < len(self._slots):
            return InterpreterError(f"the program goes on at slot {slot}, which it does not have")
        insn = self._slots[slot]
        unset = [f"R{n}" for n, value in enumerate(registers) if value is None]
        if insn is not None and unset:
            return InterpreterError(
                f"slot {slot}, {insn!r}: a register is read before it is written (not set: {', '.join(unset)})"
            )
        raise  # noqa: PLE0704 (called while the exception is handled: it is a mistake of ours)

    # -- frames ----------------------------------------------------------------------------------------------------------------

    def _enter(self, registers: list[Any], back: int = _END, given: dict[int, int] | None = None) -> None:
        if len(self._frames) == MAX_FRAMES:
            raise InterpreterError(f"more than {MAX_FRAMES} frames")
        stack = self.memory.room(bytearray(STACK_SIZE), known=bytearray(STACK_SIZE))
        self._frames.append((back, registers[6:11], stack, {} if given is None else given))
        registers[10] = stack.base + STACK_SIZE
        registers[6:10] = [None] * 4
        registers[0] = None
        self._passed = {}

    def _leave(self, registers: list[Any]) -> int:
        back, saved, stack, _ = self._frames.pop()
        self.memory.drop(stack)
        if registers[0] is None:
            raise InterpreterError("R0 is not set at the end")
        registers[6:11] = saved
        registers[1:6] = [None] * 5
        self._passed = {}
        return back

    # -- instructions ----------------------------------------------------------------------------------------------------------

    def _compile(self, slot: int, insn: Insn | None) -> Op:
        """What cannot be made to run is refused when it is reached: kernels do not look at what never is."""
        if insn is None:
            return _refused(InterpreterError("a jump into the second half of an instruction"))
        if not _is_instruction(insn):
            return _refused(InterpreterError("no instruction"))
        try:
            return self._modelled(slot, insn)
        except InterpreterError as err:
            return _refused(err)

    def _modelled(self, slot: int, insn: Insn) -> Op:
        cls = insn.opcode & 7
        if opcodes.STACK_ARGS in (insn.dst, insn.src):
            return self._stack_argument(insn, slot + 1)
        if cls in (opcodes.ALU, opcodes.ALU64):
            return _alu(insn, slot + 1)
        if cls in (opcodes.JMP, opcodes.JMP32):
            return self._jump(insn, slot)
        if cls == opcodes.LD:
            return self._wide(insn, slot) if insn.opcode == opcodes.LD_IMM64 else self._packet(insn, slot + 1)
        return self._memory(insn, slot + 1)

    def _target(self, insn: Insn, slot: int) -> int:
        if insn.target is not None:
            if insn.target not in self._labels:
                raise InterpreterError(f"no label {insn.target!r}")
            return self._labels[insn.target]
        field = opcodes.target_field(insn.opcode, insn.src)
        return slot + 1 + (insn.imm if field == "imm" else insn.off)

    def _jump(self, insn: Insn, slot: int) -> Op:
        opcode, following = insn.opcode, slot + 1
        if opcode == opcodes.EXIT:
            return self._leave
        if opcode == opcodes.CALL and insn.src == opcodes.CALL_HELPER:
            return self._helper(insn.imm, following)
        if opcode == opcodes.CALL and insn.src == opcodes.CALL_SUB:
            return self._call(self._target(insn, slot), following)
        if opcode in (opcodes.JA, opcodes.GOTOL):
            target = self._target(insn, slot)
            return lambda _: target
        if opcode == opcodes.MAY_GOTO:
            return self._may_goto(self._target(insn, slot), following)
        name = _JUMP_NAMES.get(opcode & 0xF0)
        if name is None or opcode in (opcodes.GOTOX, opcodes.CALL, opcodes.CALLX):
            raise NotModelled(f"not modelled: {insn!r}")
        return _jump_if(insn, JUMPS[name], self._target(insn, slot), following)

    def _call(self, target: int, following: int) -> Op:
        def call(r: list[Any]) -> int:
            passed = self._passed
            self._enter(r, following, passed)
            return target

        return call

    def _may_goto(self, target: int, following: int) -> Op:
        def may_goto(_: list[Any]) -> int:
            self._turns += 1
            return target if self._turns > MAX_LOOPS else following

        return may_goto

    def _helper(self, number: int, following: int) -> Op:
        helper = self.helpers.get(number)
        if helper is None:
            raise NotModelled(f"helper {number} is not modelled")

        def call(r: list[Any]) -> int:
            r[0] = helper(self, r) & U64
            r[1:6] = [None] * 5
            return following

        return call

    def _stack_argument(self, insn: Insn, following: int) -> Op:
        dst, src, off, imm = insn.dst, insn.src, insn.off, insn.imm
        if off > 0:

            def load(r: list[Any]) -> int:
                given = self._frames[-1][3]
                if -off not in given:
                    raise InterpreterError(f"no argument at {off}")
                r[dst] = given[-off]
                return following

            return load

        def store(r: list[Any]) -> int:
            self._passed[off] = r[src] + 0 if insn.opcode & 7 == opcodes.STX else imm & U64
            return following

        return store

    def _wide(self, insn: Insn, slot: int) -> Op:
        dst, following = insn.dst, slot + 2
        low, high = insn.imm & 0xFFFFFFFF, insn.imm >> 32 & 0xFFFFFFFF
        if insn.src == opcodes.VALUE:
            value = insn.imm & U64
        else:
            by_index = insn.src in (opcodes.MAP_IDX, opcodes.MAP_IDX_VALUE)
            if by_index and low < len(self.fd_array):
                found = self.fd_array[low]
            elif insn.src in opcodes.MAP_SOURCES:
                found = self.maps.get(low if insn.symbol is None else insn.symbol_name or "")
            else:
                found = None
            if found is None:
                raise NotModelled(f"not modelled, or no such map: {insn!r}")
            direct = insn.src in (opcodes.MAP_VALUE, opcodes.MAP_IDX_VALUE)
            value = found.value_address(self.memory, high) if direct else found.address(self.memory)

        def load(r: list[Any]) -> int:
            r[dst] = value
            return following

        return load

    def _packet(self, insn: Insn, following: int) -> Op:
        """R0 = a part of the packet, in network order; beyond its end the program returns 0."""
        size, imm, src = _WIDTHS[insn.opcode & 0x18], insn.imm, insn.src
        indirect = insn.opcode & 0xE0 == opcodes.IND

        def load(r: list[Any]) -> int:
            # The kernel's offset is an int.
            offset = signed((r[src] if indirect else 0) + imm, 32)
            if self.packet is None or r[6] is None:
                raise InterpreterError("a program without a packet, or R6 is not the context")
            if offset < 0:
                raise NotModelled(f"offset {offset}: not modelled")
            if offset + size > len(self.packet.data):
                r[0] = 0
                if len(self._frames) > 1:
                    raise NotModelled("the end of the packet in a subprogram: not modelled")
                return self._leave(r)
            r[0] = int.from_bytes(self.packet.data[offset : offset + size], "big")
            r[1:6] = [None] * 5
            return following

        return load

    def _memory(self, insn: Insn, following: int) -> Op:
        mode, size = insn.opcode & 0xE0, _WIDTHS[insn.opcode & 0x18]
        if mode == opcodes.ATOMIC:
            return self._atomic(insn, size, following)
        dst, src, off, imm = insn.dst, insn.src, insn.off, insn.imm
        load, store = self.memory.load, self.memory.store
        cls = insn.opcode & 7
        if cls == opcodes.LDX:
            bits = 8 * size if mode == opcodes.MEMSX else 0

            def loads(r: list[Any]) -> int:
                value = load(r[src] + off & U64, size)
                r[dst] = signed(value, bits) & U64 if bits else value
                return following

            return loads
        if cls == opcodes.ST:

            def stores_imm(r: list[Any]) -> int:
                store(r[dst] + off & U64, size, imm)
                return following

            return stores_imm

        def stores(r: list[Any]) -> int:
            store(r[dst] + off & U64, size, r[src])
            return following

        return stores

    def _atomic(self, insn: Insn, size: int, following: int) -> Op:
        dst, src, off, imm = insn.dst, insn.src, insn.off, insn.imm
        load, store, mask = self.memory.load, self.memory.store, (1 << 8 * size) - 1
        if imm == opcodes.LOAD_ACQUIRE:

            def acquire(r: list[Any]) -> int:
                r[dst] = load(r[src] + off & U64, size)
                return following

            return acquire
        if imm == opcodes.STORE_RELEASE:

            def release(r: list[Any]) -> int:
                store(r[dst] + off & U64, size, r[src])
                return following

            return release
        if imm == opcodes.CMPXCHG:

            def cmpxchg(r: list[Any]) -> int:
                address = r[dst] + off & U64
                old = load(address, size)
                if old == r[0] & mask:
                    store(address, size, r[src])
                r[0] = old
                return following

            return cmpxchg
        function, fetch = ATOMICS[imm & ~opcodes.FETCH], imm & opcodes.FETCH

        def modify(r: list[Any]) -> int:
            address = r[dst] + off & U64
            old = load(address, size)
            store(address, size, function(old, r[src] & mask) & mask)
            if fetch:
                r[src] = old
            return following

        return modify


def _alu(insn: Insn, following: int) -> Op:
    opcode, dst, src = insn.opcode, insn.dst, insn.src
    bits = 64 if opcode & 7 == opcodes.ALU64 else 32
    mask = (1 << bits) - 1
    code = opcode & 0xF0
    if code == opcodes.NEG:

        def negate(r: list[Any]) -> int:
            r[dst] = -r[dst] & mask
            return following

        return negate
    if code == opcodes.END:
        return _swap(insn, following)
    extended = code == opcodes.ALU_OPS["Mov"] and opcode & opcodes.X and insn.off
    if extended and insn.off == opcodes.ADDR_SPACE_OFF:
        raise NotModelled(f"not modelled: {insn!r}")
    if extended:
        width = insn.off

        def extend(r: list[Any]) -> int:
            r[dst] = signed(r[src], width) & mask
            return following

        return extend
    names = _SIGNED_NAMES if insn.off == opcodes.SIGNED_OFF else _ALU_NAMES
    name = names[code]
    function = ALU[name]
    if name == "Mov":
        # What dst holds does not matter, not even whether it holds anything.
        if opcode & opcodes.X:

            def move(r: list[Any]) -> int:
                r[dst] = function(0, r[src] & mask, bits) & mask
                return following

            return move
        constant = function(0, insn.imm & mask, bits) & mask

        def set_to(r: list[Any]) -> int:
            r[dst] = constant
            return following

        return set_to
    if opcode & opcodes.X:

        def with_register(r: list[Any]) -> int:
            r[dst] = function(r[dst] & mask, r[src] & mask, bits) & mask
            return following

        return with_register
    operand = insn.imm & mask

    def with_constant(r: list[Any]) -> int:
        r[dst] = function(r[dst] & mask, operand, bits) & mask
        return following

    return with_constant


def _swap(insn: Insn, following: int) -> Op:
    dst, bits, mask = insn.dst, insn.imm, (1 << insn.imm) - 1
    kept = {opcodes.SWAPS["to_le"]: "little", opcodes.SWAPS["to_be"]: "big"}.get(insn.opcode) == _ORDER

    def swap(r: list[Any]) -> int:
        r[dst] = r[dst] & mask if kept else swapped(r[dst], bits)
        return following

    return swap


def _jump_if(insn: Insn, test: Callable[[int, int, int], bool], target: int, following: int) -> Op:
    dst, src = insn.dst, insn.src
    bits = 64 if insn.opcode & 7 == opcodes.JMP else 32
    mask = (1 << bits) - 1
    if insn.opcode & opcodes.X:

        def with_register(r: list[Any]) -> int:
            return target if test(r[dst] & mask, r[src] & mask, bits) else following

        return with_register
    operand = insn.imm & mask

    def with_constant(r: list[Any]) -> int:
        return target if test(r[dst] & mask, operand, bits) else following

    return with_constant


def _is_instruction(insn: Insn) -> bool:
    if opcodes.find_form(insn.opcode, insn.dst, insn.src, insn.off, insn.imm) is not None:
        return True
    # Kernels do not look at the off of an exit (kernel/bpf/verifier.c, do_check).
    return (insn.opcode, insn.dst, insn.src, insn.imm) == (opcodes.EXIT, 0, 0, 0)


def _refused(err: InterpreterError) -> Op:
    def op(_: list[Any]) -> int:
        raise err

    return op
