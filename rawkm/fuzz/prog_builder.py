"""From statements, which are numbers and nothing else, to a program that the verifier should take.

Whatever the numbers are, the outcome is a program: statements choose among what there is (registers that hold a number, bytes of
the stack that were written), modulo how much there is. So statements may be left out and numbers made smaller, and what is left
is still a program: that is how failures shrink.

Roles of the registers: R0-R5 and R8 hold numbers; R6 the context, R7 the address of the value of the map "state", R9 the turns of
a loop. The last 16 bytes of the stack hold keys and values for helpers, the 64 before them are the program's.
"""

# ruff: noqa: ARG002 (every statement is made of the same numbers)

from __future__ import annotations

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    Add,
    B,
    H,
    Insn,
    Item,
    Mov,
    Mov32,
    Sub,
    W,
    call,
    call_sub,
    exit_,
    ld_imm64,
    load,
    map_ptr,
    map_value,
    store,
    store_imm,
)
from rawkm.asm.opcodes import ALU_OPS, JUMP_OPS, SIGNED_OPS
from rawkm.maps import MapSpec
from rawkm.uapi.constants import MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeAlias

    # (kind, a, b, c, value, bodies)
    Statement: TypeAlias = tuple[str, int, int, int, int, tuple[Sequence["Statement"], ...]]
    Body: TypeAlias = Sequence[Statement]

NUMBERS = (R0, R1, R2, R3, R4, R5, R8)
LOST = frozenset((R1, R2, R3, R4, R5))  # by a call

STATE_SIZE = 128
DUMP_AT = 64  # where the registers go at the end
SLOTS = 64  # bytes of the stack and of the state that statements choose from
KEY, VALUE = -8, -16
STACK_TOP = -16

HASH_SIZE, ARRAY_SIZE, QUEUE_SIZE = 4, 4, 2
MAPS = {
    "state": MapSpec("state", MapType.ARRAY, key=4, value=STATE_SIZE, max_entries=1),
    "array": MapSpec("array", MapType.ARRAY, key=4, value=8, max_entries=ARRAY_SIZE),
    "hash": MapSpec("hash", MapType.HASH, key=4, value=8, max_entries=HASH_SIZE),
    "percpu": MapSpec("percpu", MapType.PERCPU_ARRAY, key=4, value=8, max_entries=ARRAY_SIZE),
    "pchash": MapSpec("pchash", MapType.PERCPU_HASH, key=4, value=8, max_entries=HASH_SIZE),
    "queue": MapSpec("queue", MapType.QUEUE, value=8, max_entries=QUEUE_SIZE),
    "stack": MapSpec("stack", MapType.STACK, value=8, max_entries=QUEUE_SIZE),
}
KEYED = ("array", "hash", "percpu", "pchash")
QUEUES = ("queue", "stack")

# What only some kernels have, by the release that brought it; ``prog_campaign`` finds out by trying.
SIGNED_DIV, MOVSX, BSWAP, LDSX, GOTOL = "sdiv", "movsx", "bswap", "ldsx", "gotol"  # 6.6
FETCH = "fetch"  # 5.12
MAY_GOTO = "may_goto"  # 6.9
ORDERED = "ordered"  # 6.15
# What map operations return is 64 bits wide (6.4); before, the JIT calls functions that return an int, and the upper half of R0
# is what the compiler left there (tests/findings/int-results.md).
LONG_RESULTS = "long_results"
ABILITIES = (SIGNED_DIV, MOVSX, BSWAP, LDSX, GOTOL, FETCH, MAY_GOTO, ORDERED, LONG_RESULTS)

PACKET_TYPES = (ProgType.SOCKET_FILTER, ProgType.SCHED_CLS, ProgType.XDP)
TYPES = (*PACKET_TYPES, ProgType.RAW_TRACEPOINT)

ETH_HLEN = 14
# Offsets in struct __sk_buff and struct xdp_md (include/uapi/linux/bpf.h).
SKB_LEN, SKB_MARK, SKB_PRIORITY, SKB_CB, SKB_DATA, SKB_DATA_END = 0, 8, 32, 48, 76, 80
XDP_DATA, XDP_DATA_END = 0, 4
RAW_ARGS = 12

_ALU = tuple(ALU_OPS)
_ALU_SIGNED = (*ALU_OPS, *SIGNED_OPS)
_JUMPS = tuple(JUMP_OPS)
_SIZES = (DW, W, H, B)
_ATOMICS = ("atomic_add", "atomic_or", "atomic_and", "atomic_xor")
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1

_SMP_ID, _LOOKUP, _UPDATE, _DELETE, _LOAD_BYTES, _PUSH, _POP, _PEEK = 8, 1, 2, 3, 26, 87, 88, 89


class Built:
    """A program and what it uses. ``insns`` as ``encode`` takes them; ``maps``: the names of those it refers to."""

    __slots__ = ("insns", "maps", "type")

    def __init__(self, type: int, insns: list[Item], maps: list[str]) -> None:
        self.type = type
        self.insns = insns
        self.maps = maps


def build(
    type: int,
    main: Body,
    subs: Sequence[Body] = (),
    *,
    dump: bool = False,
    abilities: Collection[str] = ABILITIES,
    daring: bool = False,
) -> Built:
    """The program. ``dump``: all registers go to the state at the end; ``daring``: bounds that the verifier may not see."""
    used: dict[str, None] = {}
    code = _Function(type, "main", abilities, daring, used, len(subs)).whole(main, dump)
    called = [item.target for item in code if isinstance(item, Insn) and item.opcode == 0x85 and item.src == 1]
    for number, body in enumerate(subs):
        # The verifier refuses what is never reached.
        if f"sub{number}" in called:
            code += _Function(type, f"sub{number}", abilities, daring, used, 0).whole(body, False)
    return Built(type, code, list(used))


class _Function:
    """One function while it is built. ``live``: the registers that hold a number; ``written``: bytes of the stack that were."""

    def __init__(self, type: int, name: str, abilities: Collection[str], daring: bool, used: dict[str, None], subs: int) -> None:
        self.type = type
        self.name = name
        self.abilities = abilities
        self.daring = daring
        self.used = used
        self.subs = subs
        self.code: list[Item] = []
        self.live: set[int] = set() if name == "main" else {R1, R2}
        self.written: set[int] = set()
        self.labels = 0
        self.in_loop = False
        self.needs_ctx = self.needs_state = False

    def whole(self, body: Body, dump: bool) -> list[Item]:
        self.block(body)
        if dump:
            self.state()
            for index, register in enumerate(sorted(self.live)):
                self.emit(store(R7, DUMP_AT + 8 * index, register, DW))
        self.leave()
        start: list[Item] = [] if self.name == "main" else [asm.label(self.name)]
        if self.needs_ctx:
            start.append(Mov.reg(R6, R1))
        if self.needs_state:
            start.append(map_value(R7, MAPS["state"]))
            self.used.setdefault("state")
        return start + self.code

    def emit(self, *items: Item) -> None:
        self.code += items

    def label(self) -> str:
        self.labels += 1
        return f"{self.name}.{self.labels}"

    def block(self, body: Body) -> None:
        for kind, a, b, c, value, bodies in body:
            _STATEMENTS[kind](self, a, b, c, value, bodies)

    # -- what statements choose from -------------------------------------------------------------------------------------------

    def number(self, choice: int) -> int:
        """A register that holds a number; one is made where there is none."""
        if not self.live:
            self.set(R0, choice)
        live = sorted(self.live)
        return live[choice % len(live)]

    def target(self, choice: int) -> int:
        return NUMBERS[choice % len(NUMBERS)]

    def target_with_number(self, choice: int, value: int) -> int:
        register = self.target(choice)
        if register not in self.live:
            self.set(register, value)
        return register

    def set(self, register: int, value: int) -> None:
        """A constant of 64 bits, in the shortest way."""
        value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
        self.emit(Mov.imm(register, value) if S32_MIN <= value <= S32_MAX else ld_imm64(register, value))
        self.live.add(register)

    def lose(self, *registers: int) -> None:
        self.live -= set(registers)

    def after_call(self) -> None:
        self.live -= LOST
        self.live.add(R0)

    def after_map_call(self) -> None:
        self.after_call()
        if not self.can(LONG_RESULTS):
            self.emit(Mov32.reg(R0, R0))

    def state(self) -> None:
        self.needs_state = True

    def leave(self) -> None:
        if R0 not in self.live:
            if self.live:
                self.emit(Mov.reg(R0, min(self.live)))
            else:
                self.set(R0, 0)
        self.emit(exit_())

    def can(self, ability: str) -> bool:
        return ability in self.abilities

    # -- arithmetic ------------------------------------------------------------------------------------------------------------

    def constant(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        self.set(self.target(a), value)

    def _alu(self, a: int, c: int) -> tuple[asm.ops.Alu, str, int]:
        names = _ALU_SIGNED if self.can(SIGNED_DIV) else _ALU
        name = names[a % len(names)]
        bits = 32 if c & 1 else 64
        found: asm.ops.Alu = getattr(asm, name + ("32" if bits == 32 else ""))
        return found, name, bits

    def alu_imm(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        operation, name, bits = self._alu(a, c)
        imm = (value + (1 << 31)) % (1 << 32) - (1 << 31)
        if name in ("Lsh", "Rsh", "Arsh"):
            imm = value % bits
        elif name in ("Div", "Mod", "SDiv", "SMod") and not imm:
            imm = 1
        register = self.target(b) if name == "Mov" else self.target_with_number(b, value)
        self.emit(operation.imm(register, imm))
        self.live.add(register)

    def alu_reg(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        operation, name, _ = self._alu(a, c)
        register = self.target(b) if name == "Mov" else self.target_with_number(b, value)
        self.emit(operation.reg(register, self.number(c >> 1)))
        self.live.add(register)

    def unary(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        register = self.target_with_number(b, value)
        choices: list[Insn] = [asm.Neg(register), asm.Neg32(register)]
        choices += [swap(register, bits) for swap in (asm.to_be, asm.to_le) for bits in (16, 32, 64)]
        if self.can(BSWAP):
            choices += [asm.bswap(register, bits) for bits in (16, 32, 64)]
        if self.can(MOVSX):
            source = self.number(c)
            choices += [Mov.signed(register, source, bits) for bits in (8, 16, 32)]
            choices += [Mov32.signed(register, source, bits) for bits in (8, 16)]
        self.emit(choices[a % len(choices)])

    # -- memory ----------------------------------------------------------------------------------------------------------------

    def stack_store(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        size = _SIZES[a % 4]
        at = STACK_TOP - SLOTS + b * size % SLOTS
        if c & 1:
            self.emit(store_imm(R10, at, _fitting(value, size), size))
        else:
            self.emit(store(R10, at, self.number(c >> 1), size))
        self.written |= set(range(at, at + size))

    def stack_load(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        size = _SIZES[a % 4]
        places = [at for at in range(STACK_TOP - SLOTS, STACK_TOP, size) if self.written >= set(range(at, at + size))]
        register = self.target(c)
        if not places:
            self.set(register, value)
            return
        self._load(register, R10, places[b % len(places)], size, bool(a >> 2 & 1))

    def _load(self, register: int, base: int, at: int, size: int, sign: bool) -> None:
        if sign and size != DW and self.can(LDSX):
            self.emit(asm.load_signed(register, base, at, size))
        else:
            self.emit(load(register, base, at, size))
        self.live.add(register)

    def state_store(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        self.state()
        size = _SIZES[a % 4]
        at = b % (SLOTS - size + 1)
        if c & 1:
            self.emit(store_imm(R7, at, _fitting(value, size), size))
        elif a >> 2 & 1 and self.can(ORDERED):
            self.emit(asm.store_release(R7, at - at % size, self.number(c >> 1), size))
        else:
            self.emit(store(R7, at, self.number(c >> 1), size))

    def state_load(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        self.state()
        size = _SIZES[a % 4]
        at = b % (SLOTS - size + 1)
        register = self.target(c)
        if a >> 3 & 1 and self.can(ORDERED):
            self.emit(asm.load_acquire(register, R7, at - at % size, size))
            self.live.add(register)
        else:
            self._load(register, R7, at, size, bool(a >> 2 & 1))

    def atomic(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        size = W if b & 1 else DW
        if b & 2:
            base, at = R10, STACK_TOP - SLOTS + (b >> 2) * size % SLOTS
            if not self.written >= set(range(at, at + size)):
                self.emit(store_imm(R10, at - at % 8, _fitting(value, DW), DW))
                self.written |= set(range(at - at % 8, at - at % 8 + 8))
        else:
            self.state()
            base, at = R7, (b >> 2) * size % SLOTS
        self._modify(base, at, size, a, c)

    def _modify(self, base: int, at: int, size: int, a: int, c: int) -> None:
        register = self.number(c)
        if not self.can(FETCH):
            self.emit(asm.atomic_add(base, at, register, size))
            return
        choice = a % 10
        if choice < 8:
            self.emit(getattr(asm, _ATOMICS[choice % 4])(base, at, register, size, fetch=choice >= 4))
        elif choice == 8:
            self.emit(asm.atomic_xchg(base, at, register, size))
        else:
            if R0 not in self.live:
                self.set(R0, c)
            self.emit(asm.atomic_cmpxchg(base, at, register, size))

    def indexed(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        """The state at a computed offset, which a bound has made safe: what the verifier tracks ranges for."""
        self.state()
        size = _SIZES[a % 4]
        scale = (b >> 3) % 3
        most = (SLOTS - size) >> scale
        skip = self.label()
        index, pointer = R4, R5
        source = self.number(c >> 3)
        register = (R0, R1, R2, R3, R8)[(c >> 2) % 5]
        if not c & 1 and register not in self.live:
            # The path around the load must have it, too.
            self.set(register, value)
        self._bound(b % 8, source, index, most, skip, value)
        if scale:
            self.emit(asm.Lsh.imm(index, scale))
        self.emit(Mov.reg(pointer, R7), Add.reg(pointer, index))
        self.lose(pointer)
        self.live.add(index)
        if c & 1:
            self.emit(store(pointer, 0, self.number(a >> 3), size))
        else:
            self._load(register, pointer, 0, size, bool(c & 2))
        self.emit(asm.label(skip))

    def _bound(self, how: int, source: int, index: int, most: int, skip: str, value: int) -> None:
        mask = (1 << (most + 1).bit_length() - 1) - 1  # the largest of all ones that is not above most
        limit = value % (most + 1)
        if self.daring:
            how += 8
        if how in (0, 6):
            self.emit(Mov.reg(index, source), asm.And.imm(index, mask & (limit | 1)))
        elif how == 1:
            self.emit(Mov.reg(index, source), asm.Rsh.imm(index, 64 - mask.bit_length()))
        elif how == 2:
            self.emit(Mov.reg(index, source), asm.JGt.imm(index, limit, skip))
        elif how == 3:
            self.emit(Mov.reg(index, source), asm.JSGt.imm(index, limit, skip), asm.JSLt.imm(index, 0, skip))
        elif how == 4:
            self.emit(Mov32.reg(index, source), asm.JGt32.imm(index, limit, skip))
        elif how == 5:
            self.emit(Mov32.reg(index, source), asm.And32.imm(index, mask))
        elif how == 7:
            self.emit(Mov.reg(index, source), Mov.imm(R5, limit), asm.JGt.reg(index, R5, skip))
        elif how == 8:
            self.emit(Mov.reg(index, source), asm.Mod.imm(index, limit + 1))
        elif how == 9:
            self.emit(Mov.reg(index, source), asm.JSGt.imm(index, limit, skip))
        elif how == 10:
            self.emit(Mov.reg(index, source), asm.JGt32.imm(index, limit, skip))
        elif how == 11:
            self.emit(Mov.reg(index, source), asm.JNe.imm(index, limit, skip))
        elif how == 12:
            self.emit(Mov.reg(index, source), Mov32.reg(R5, source), asm.JGt.imm(R5, limit, skip))
        elif how == 13:
            self.emit(Mov.reg(index, source), asm.Arsh.imm(index, 63 - mask.bit_length()))
        elif how == 14:
            self.emit(Mov.reg(index, source), asm.JSet.imm(index, ~mask & S32_MAX, skip))
        else:
            self.emit(Mov.reg(index, source), Sub.imm(index, limit), asm.JGe.imm(index, most, skip))

    # -- control ---------------------------------------------------------------------------------------------------------------

    def _condition(self, a: int, b: int, c: int, value: int, target: str) -> Insn:
        name = _JUMPS[a % len(_JUMPS)] + ("32" if b & 1 else "")
        jump: asm.ops.JumpIf = getattr(asm, name)
        register = self.number(c)
        if b & 2:
            return jump.reg(register, self.number(b >> 2), target)
        return jump.imm(register, (value + (1 << 31)) % (1 << 32) - (1 << 31), target)

    def branch(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        other, end = self.label(), self.label()
        self.number(c)
        self.emit(self._condition(a, b, c, value, other))
        live, written = set(self.live), set(self.written)
        self.block(bodies[0])
        first = self.live, self.written
        self.live, self.written = live, written
        if bodies[1]:
            self.emit(asm.Ja(end), asm.label(other))
            self.block(bodies[1])
            self.emit(asm.label(end))
        else:
            self.emit(asm.label(other))
        self.live &= first[0]
        self.written &= first[1]

    def over(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        """A long jump over a part that is reached another way."""
        other, end = self.label(), self.label()
        self.number(c)
        self.emit(self._condition(a, b, c, value, other))
        self.emit(asm.Gotol(end) if self.can(GOTOL) else asm.Ja(end))
        self.emit(asm.label(other))
        live, written = set(self.live), set(self.written)
        self.block(bodies[0])
        self.emit(asm.label(end))
        self.live &= live
        self.written &= written

    def early(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        skip = self.label()
        self.number(c)
        live = set(self.live)
        self.emit(self._condition(a, b, c, value, skip))
        self.set(R0, value)
        self.emit(exit_(), asm.label(skip))
        self.live = live

    def loop(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        if self.in_loop:
            self.block(bodies[0])
            return
        top, out = self.label(), self.label()
        self.in_loop = True
        self.emit(Mov.imm(R9, a % 6 + 1), asm.label(top))
        may = b & 1 and self.can(MAY_GOTO)
        if may:
            self.emit(asm.MayGoto(out))
        live, written = set(self.live), set(self.written)
        self.block(bodies[0])
        for register in sorted(live - self.live):
            self.set(register, c)
        self.emit(Sub.imm(R9, 1), asm.JNe.imm(R9, 0, top), asm.label(out))
        if may:
            # It may have been left before the first turn, as far as the verifier knows.
            self.live &= live
            self.written &= written
        self.in_loop = False

    def subprogram(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        if not self.subs:
            self.set(self.target(b), value)
            return
        for register in (R1, R2):
            if register not in self.live:
                self.set(register, value)
        self.emit(call_sub(f"sub{a % self.subs}"))
        self.after_call()

    # -- maps ------------------------------------------------------------------------------------------------------------------

    def _key(self, register: int) -> None:
        """A key out of a number, few enough that they meet."""
        self.emit(store_imm(R10, KEY, 0, DW), Mov.reg(R2, register), asm.And.imm(R2, 7), store(R10, KEY, R2, W))
        self.emit(Mov.reg(R2, R10), Add.imm(R2, KEY))

    def _map(self, name: str) -> None:
        self.used.setdefault(name)
        self.emit(map_ptr(R1, MAPS[name]))

    def lookup(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        none = self.label()
        self._key(self.number(b))
        self._map(KEYED[a % len(KEYED)])
        self.emit(call(_LOOKUP))
        self.live -= LOST
        self.lose(R0)
        self.emit(Mov.imm(R1, c & 0xFF), asm.JEq.imm(R0, 0, none))
        if c & 1:
            self.emit(load(R1, R0, 0, DW))
        elif c & 2 and self.can(FETCH):
            self.emit(asm.atomic_add(R0, 0, R1, DW, fetch=True))
        elif c & 4:
            self.emit(asm.atomic_add(R0, 0, R1, DW))
        else:
            others = sorted(self.live - {R0}) or [R1]
            self.emit(store(R0, 0, others[c % len(others)], DW))
        self.emit(asm.label(none))
        self.live.add(R1)

    def update(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        source = self.number(c)
        key = self.number(b)
        self.emit(store(R10, VALUE, source, DW))
        self._key(key)
        self._map(KEYED[a % len(KEYED)])
        self.emit(Mov.reg(R3, R10), Add.imm(R3, VALUE), Mov.imm(R4, (a >> 2) % 4), call(_UPDATE))
        self.after_map_call()

    def delete(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        self._key(self.number(b))
        self._map(KEYED[a % len(KEYED)])
        self.emit(call(_DELETE))
        self.after_map_call()

    def queue(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        what = (_PUSH, _PUSH, _POP, _PEEK)[b % 4]
        if what == _PUSH:
            self.emit(store(R10, VALUE, self.number(c), DW))
        self._map(QUEUES[a % 2])
        self.emit(Mov.reg(R2, R10), Add.imm(R2, VALUE))
        if what == _PUSH:
            self.emit(Mov.imm(R3, 2 * (b >> 2 & 1)))
        self.emit(call(what))
        self.after_map_call()
        if what != _PUSH and c & 1:
            self.emit(load(R1, R10, VALUE, DW))
            self.live.add(R1)

    # -- context and packet ----------------------------------------------------------------------------------------------------

    def context(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        register = self.target(c)
        if self.name != "main":
            self.set(register, value)
            return
        if self.type == ProgType.XDP:
            self.set(register, value)
            return
        self.needs_ctx = True
        if self.type == ProgType.RAW_TRACEPOINT:
            self.emit(load(register, R6, 8 * (b % RAW_ARGS), DW))
            self.live.add(register)
            return
        words = [SKB_LEN, SKB_MARK, SKB_PRIORITY, *range(SKB_CB, SKB_CB + 20, 4)]
        if a & 1:
            writable = words[3:] if self.type == ProgType.SOCKET_FILTER else words[1:]
            self.emit(store(R6, writable[b % len(writable)], self.number(c >> 1), W))
            return
        self.emit(load(register, R6, words[b % len(words)], W))
        self.live.add(register)

    def packet(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        """The packet by pointers, with the bounds check that the verifier wants, or by the old instructions and the helper."""
        if self.name != "main" or self.type == ProgType.RAW_TRACEPOINT:
            self.set(self.target(c), value)
            return
        self.needs_ctx = True
        if self.type == ProgType.SOCKET_FILTER or (self.type == ProgType.SCHED_CLS and a & 8):
            self._old_packet(a, b, c)
            return
        data, end = (XDP_DATA, XDP_DATA_END) if self.type == ProgType.XDP else (SKB_DATA, SKB_DATA_END)
        size = _SIZES[a % 4]
        at = b % 40
        skip = self.label()
        self.emit(Mov.reg(R5, self.number(c >> 2)), load(R2, R6, data, W), load(R3, R6, end, W))
        if a & 4:
            # A part of the offset is computed.
            self.emit(Mov.reg(R1, R5), asm.And.imm(R1, 7), Add.reg(R2, R1))
            self.live.add(R1)
        self.emit(Mov.reg(R4, R2), Add.imm(R4, at + size), asm.JGt.reg(R4, R3, skip))
        self.emit(store(R2, at, R5, size) if c & 1 else load(R5, R2, at, size), asm.label(skip))
        self.lose(R2, R3, R4)
        self.live.add(R5)

    def _old_packet(self, a: int, b: int, c: int) -> None:
        size = (W, H, B)[a % 3]
        if a & 4 or self.subs:
            # The old loads cannot be mixed with subprograms.
            self.emit(store_imm(R10, VALUE, 0, DW))
            self.emit(Mov.reg(R1, R6), Mov.imm(R2, b % 60), Mov.reg(R3, R10), Add.imm(R3, VALUE), Mov.imm(R4, size))
            self.emit(call(_LOAD_BYTES))
            self.after_call()
            self.emit(load(R1, R10, VALUE, DW))
            self.live.add(R1)
            return
        if c & 1:
            self.emit(Mov.imm(R8, b % 48))
            self.live.add(R8)
            self.emit(asm.load_ind(R8, a % 7, size))
        else:
            self.emit(asm.load_abs(b % 60, size))
        self.after_call()

    def cpu(self, a: int, b: int, c: int, value: int, bodies: Sequence[Body]) -> None:
        self.emit(call(_SMP_ID))
        self.after_call()


def _fitting(value: int, size: int) -> int:
    """``value`` as a constant for a store of ``size`` bytes."""
    bits = min(8 * size, 32)
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


_STATEMENTS: dict[str, Callable[[_Function, int, int, int, int, Sequence[Body]], None]] = {
    "constant": _Function.constant,
    "alu_imm": _Function.alu_imm,
    "alu_reg": _Function.alu_reg,
    "unary": _Function.unary,
    "stack_store": _Function.stack_store,
    "stack_load": _Function.stack_load,
    "state_store": _Function.state_store,
    "state_load": _Function.state_load,
    "atomic": _Function.atomic,
    "indexed": _Function.indexed,
    "early": _Function.early,
    "subprogram": _Function.subprogram,
    "lookup": _Function.lookup,
    "update": _Function.update,
    "delete": _Function.delete,
    "queue": _Function.queue,
    "context": _Function.context,
    "packet": _Function.packet,
    "cpu": _Function.cpu,
    "branch": _Function.branch,
    "over": _Function.over,
    "loop": _Function.loop,
}
COMPOUND = ("branch", "over", "loop")
KINDS = tuple(_STATEMENTS)
