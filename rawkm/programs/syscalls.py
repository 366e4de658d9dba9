"""Two programs on the raw tracepoints of system calls: each bpf(2) call of the machine, with what its pointers point to.

They see every system call of the machine, and leave at once unless it is bpf(2). A call arrives in pieces of one size
(``PIECE``) through one ring: ENTER with the attr, DATA with what it points to, DATA with what the kernel has written, LEAVE with
the attr after the call and the result. A program cannot wait for a page: what is not in memory at that moment cannot be read,
and its piece has the errno instead.
"""

from __future__ import annotations

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R9,
    R10,
    Add,
    And,
    Insn,
    Ja,
    JEq,
    JGe,
    JLe,
    JLt,
    JNe,
    JSet,
    JSLt,
    Mov,
    Mul,
    Neg,
    Rsh,
    Sub,
    W,
    atomic_add,
    call,
    call_sub,
    exit_,
    label,
    load,
    map_ptr,
    map_value,
    store,
    store_imm,
)
from rawkm.buffers.schema import Schema
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import Cmd, Helper, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawkm.asm import Item

DATA_SIZE = 208
#: ``wanted``: of ENTER the attr's size, of DATA the pointee's, of LEAVE the result; ``index``: the command, of DATA the pointer's
#: number; ``length``: bytes that were read, or minus an errno; ``offset``: of DATA where its bytes belong in the pointee.
PIECE = Schema(
    "Piece",
    pid_tgid="u64",
    ts="u64",
    address="u64",
    wanted="u64",
    kind="u32",
    index="u32",
    length="i32",
    offset="u32",
    data=f"char[{DATA_SIZE}]",
)
ENTER, DATA, LEAVE = 1, 2, 3
#: Within the data of ENTER and LEAVE: the task's name, the fourth and fifth argument, the attr as far as Linux 7.2 knows it.
COMM, COMMON_AT, COMMON_SIZE, ATTR = 0, 16, 24, 32
ATTR_SIZE = 168

#: The most that is copied of one pointee (624 instructions), and the most strings of an array. The verifier goes through every
#: copy of every pointer: three times as much would take it three times as long.
MOST_DATA = 24 * DATA_SIZE
MOST_STRINGS = 64

#: In the ledger: calls and pieces that found no room, calls of the auditor itself.
DROPPED_CALLS, DROPPED_PIECES, OWN_CALLS = 0, 8, 16

# Where struct pt_regs (its part in the UAPI, arch/*/include/uapi/asm/ptrace.h) has the five arguments.
REGISTERS = {"x86_64": (112, 104, 96, 56, 72), "aarch64": (0, 8, 16, 24, 32)}

_HEADER = PIECE.offset("data")
# The stack of the main functions: the piece, the key, the inflight value, the registers.
_PIECE = -PIECE.size
_ATTR = _PIECE + _HEADER + ATTR
_KEY = _PIECE - 8
_VALUE = _KEY - 16
_REGS = _VALUE - 64
# The stack of the functions that copy.
_SIZE, _INDEX, _LENGTH = -8, -16, -24

_EVENTS = MapSpec("events", MapType.RINGBUF)
_INFLIGHT = MapSpec("inflight", MapType.LRU_HASH, key=8, value=16, max_entries=8192)
_LEDGER = MapSpec("ledger", MapType.ARRAY, key=4, value=24, max_entries=1)
# The auditor's own process id as the kernel has it.
_OWN = MapSpec("own", MapType.ARRAY, key=4, value=8, max_entries=1)
MAPS = (_EVENTS, _INFLIGHT, _LEDGER, _OWN)


def events(size: int) -> MapSpec:
    return MapSpec("events", MapType.RINGBUF, max_entries=size)


class Pointee:
    """A pointer of an attr. ``index``: its number; ``offset``: in the attr; ``strings``: how many strings, None of anything else.

    ``factors``: (offset, bytes) of the fields whose product, times ``width``, is the size; of none the size is unknown, and what
    is there up to the page's end is copied, one piece at most. ``string``: up to a NUL. ``always``: even of a call that failed.
    """

    __slots__ = ("always", "factors", "index", "offset", "string", "strings", "width")

    def __init__(
        self,
        index: int,
        offset: int,
        *,
        factors: Sequence[tuple[int, int]] = (),
        width: int = 1,
        string: bool = False,
        strings: bool = False,
        always: bool = False,
    ) -> None:
        self.index = index
        self.offset = offset
        self.factors = tuple(factors)
        self.width = width
        self.string = string
        self.strings = strings
        self.always = always


class Command:
    """The pointers of a command's attr; ``attach_types``: of LINK_CREATE, for these only."""

    __slots__ = ("attach_types", "cmd", "pointees")

    def __init__(self, cmd: int, pointees: Sequence[Pointee], attach_types: Sequence[int] = ()) -> None:
        self.cmd = cmd
        self.pointees = tuple(pointees)
        self.attach_types = tuple(attach_types)


class Compat:
    """How to tell the task's 32-bit system calls, whose numbers mean others: ``mask`` of the u32 at ``offset`` in task_struct."""

    __slots__ = ("mask", "offset")

    def __init__(self, offset: int, mask: int) -> None:
        self.offset = offset
        self.mask = mask


def seed() -> ProgramSpec:
    """Keeps the id of the process that runs it (BPF_PROG_TEST_RUN): its calls are left out."""
    insns = [
        call(Helper.get_current_pid_tgid),
        Rsh.imm(R0, 32),
        map_value(R1, _OWN),
        store(R1, 0, R0, DW),
        Mov.imm(R0, 0),
        exit_(),
    ]
    return ProgramSpec("rawkm_own", ProgType.RAW_TRACEPOINT, insns=insns)


def on_enter(number: int, machine: str, commands: Iterable[Command], compat: Compat | None) -> ProgramSpec:
    """raw_tp/sys_enter (registers, number). ``number``: of bpf(2)."""
    registers = REGISTERS[machine]
    base = min(registers)
    cmd, attr, size, common_at, common_size = (_REGS + offset - base for offset in registers)
    insns: list[Item] = [
        Mov.reg(R6, R1),
        load(R1, R6, 8, DW),
        JNe.imm(R1, number, "out"),
    ]
    if compat is not None:
        insns += [
            call(Helper.get_current_task),
            store_imm(R10, _KEY, 0, DW),
            *_read_kernel(_KEY, 4, R0, compat.offset),
            load(R1, R10, _KEY, W),
            JSet.imm(R1, compat.mask, "out"),
        ]
    insns += [
        call(Helper.get_current_pid_tgid),
        Mov.reg(R8, R0),
        store(R10, _KEY, R8, DW),
        Mov.reg(R1, R8),
        Rsh.imm(R1, 32),
        map_value(R2, _OWN),
        load(R2, R2, 0, DW),
        JNe.reg(R1, R2, "others"),
        *_count(OWN_CALLS),
        Ja("out"),
        label("others"),
        load(R3, R6, 0, DW),
        *_read_kernel(_REGS, max(registers) + 8 - base, R3, base),
        JNe.imm(R0, 0, "out"),
        load(R7, R10, cmd, W),
        load(R9, R10, attr, DW),
        load(R6, R10, size, W),
        *_start(ENTER),
        store(R10, _PIECE + PIECE.offset("wanted"), R6, DW),
        load(R1, R10, common_at, DW),
        store(R10, _PIECE + _HEADER + COMMON_AT, R1, DW),
        load(R1, R10, common_size, DW),
        store(R10, _PIECE + _HEADER + COMMON_SIZE, R1, DW),
        *_read_attr(),
        *_output("dropped"),
        store(R10, _VALUE, R9, DW),
        store(R10, _VALUE + 8, R6, W),
        store(R10, _VALUE + 12, R7, W),
        map_ptr(R1, _INFLIGHT),
        *_address(R2, _KEY),
        *_address(R3, _VALUE),
        Mov.imm(R4, 0),
        call(Helper.map_update_elem),
        *_dispatch(commands),
        label("done"),
        label("out"),
        Mov.imm(R0, 0),
        exit_(),
        label("dropped"),
        *_count(DROPPED_CALLS),
        Mov.imm(R0, 0),
        exit_(),
    ]
    insns += _copies(insns)
    return ProgramSpec("rawkm_bpf_enter", ProgType.RAW_TRACEPOINT, insns=insns)


def on_exit(commands: Iterable[Command]) -> ProgramSpec:
    """raw_tp/sys_exit (registers, result) of a call whose entry was seen."""
    insns: list[Item] = [
        Mov.reg(R6, R1),
        call(Helper.get_current_pid_tgid),
        Mov.reg(R8, R0),
        store(R10, _KEY, R8, DW),
        map_ptr(R1, _INFLIGHT),
        *_address(R2, _KEY),
        call(Helper.map_lookup_elem),
        JEq.imm(R0, 0, "out"),
        load(R9, R0, 0, DW),
        load(R7, R0, 12, W),
        load(R1, R6, 8, DW),
        load(R6, R0, 8, W),
        store(R10, _VALUE, R1, DW),
        map_ptr(R1, _INFLIGHT),
        *_address(R2, _KEY),
        call(Helper.map_delete_elem),
        *_start(LEAVE),
        load(R1, R10, _VALUE, DW),
        store(R10, _PIECE + PIECE.offset("wanted"), R1, DW),
        *_read_attr(),
        *_dispatch(commands, result=_PIECE + PIECE.offset("wanted")),
        label("done"),
        *_output("dropped"),
        label("out"),
        Mov.imm(R0, 0),
        exit_(),
        label("dropped"),
        *_count(DROPPED_PIECES),
        Mov.imm(R0, 0),
        exit_(),
    ]
    insns += _copies(insns)
    return ProgramSpec("rawkm_bpf_exit", ProgType.RAW_TRACEPOINT, insns=insns)


# -- parts of the main functions. R6: the attr's size, R7: the command, R8: pid and tgid, R9: the attr's address -----------------


def _address(register: int, offset: int) -> list[Item]:
    return [Mov.reg(register, R10), Add.imm(register, offset)]


def _read_kernel(to: int, size: int, base: int, offset: int) -> list[Item]:
    return [Mov.reg(R3, base), Add.imm(R3, offset), *_address(R1, to), Mov.imm(R2, size), call(Helper.probe_read_kernel)]


def _count(field: int) -> list[Item]:
    return [map_value(R1, _LEDGER), Mov.imm(R2, 1), atomic_add(R1, field, R2, DW)]


def _start(kind: int) -> list[Item]:
    """A piece on the stack, all 0 but for what every call has."""
    return [
        *(store_imm(R10, at, 0, DW) for at in range(_PIECE, 0, 8)),
        PIECE.store(R10, "pid_tgid", R8, at=_PIECE),
        PIECE.store(R10, "address", R9, at=_PIECE),
        store_imm(R10, _PIECE + PIECE.offset("kind"), kind, W),
        PIECE.store(R10, "index", R7, at=_PIECE),
        call(Helper.ktime_get_ns),
        PIECE.store(R10, "ts", R0, at=_PIECE),
        *_address(R1, _PIECE + _HEADER + COMM),
        Mov.imm(R2, 16),
        call(Helper.get_current_comm),
    ]


def _read_attr() -> list[Item]:
    """Of the attr, what the kernel knows of it."""
    length = _PIECE + PIECE.offset("length")
    return [
        Mov.reg(R2, R6),
        JLe.imm(R2, ATTR_SIZE, "fits"),
        Mov.imm(R2, ATTR_SIZE),
        label("fits"),
        store(R10, length, R2, W),
        *_address(R1, _ATTR),
        Mov.reg(R3, R9),
        call(Helper.probe_read_user),
        JEq.imm(R0, 0, "read"),
        store(R10, length, R0, W),
        label("read"),
    ]


def _output(dropped: str) -> list[Item]:
    return [
        map_ptr(R1, _EVENTS),
        *_address(R2, _PIECE),
        Mov.imm(R3, PIECE.size),
        Mov.imm(R4, 0),
        call(Helper.ringbuf_output),
        JNe.imm(R0, 0, dropped),
    ]


def _dispatch(commands: Iterable[Command], *, result: int | None = None) -> list[Item]:
    """Copies the pointees of the command in R7. ``result``: where on the stack; those of a failed call are not worth it."""
    insns: list[Item] = [And.imm(R7, ~Cmd.COMMON_ATTRS)]
    for number, command in enumerate(commands):
        after = f"not_{number}"
        insns.append(JNe.imm(R7, command.cmd, after))
        if command.attach_types:
            insns.append(load(R1, R10, _ATTR + 8, W))
            insns += [JEq.imm(R1, kind, f"is_{number}") for kind in command.attach_types]
            insns += [Ja(after), label(f"is_{number}")]
        for pointee in command.pointees:
            skip = f"skip_{number}_{pointee.index}"
            if result is not None and not pointee.always:
                insns += [load(R1, R10, result, DW), JSLt.imm(R1, 0, skip)]
            insns += [load(R1, R10, _ATTR + pointee.offset, DW), JEq.imm(R1, 0, skip), *_copy(pointee), label(skip)]
        insns += [Ja("done"), label(after)]
    return insns


def _copy(pointee: Pointee) -> list[Item]:
    """Copies from the address in R1."""
    if pointee.string:
        return [Mov.imm(R2, 0), Mov.imm(R3, pointee.index), call_sub("copy_string")]
    if not pointee.factors:
        # Up to the end of the page, as the size is not known.
        return [
            Mov.reg(R2, R1),
            And.imm(R2, 4095),
            Neg(R2),
            Add.imm(R2, 4096),
            JLe.imm(R2, DATA_SIZE, f"short_{pointee.index}"),
            Mov.imm(R2, DATA_SIZE),
            label(f"short_{pointee.index}"),
            Mov.imm(R3, pointee.index),
            call_sub("copy"),
        ]
    (first, size), *more = pointee.factors
    insns: list[Item] = [load(R2, R10, _ATTR + first, size)]
    for offset, size in more:
        insns += [load(R3, R10, _ATTR + offset, size), Mul.reg(R2, R3)]
    if pointee.width != 1:
        insns.append(Mul.imm(R2, pointee.width))
    return [*insns, Mov.imm(R3, pointee.index), call_sub("copy_strings" if pointee.strings else "copy")]


# -- functions that copy: R1 the address, R2 the size (the number of strings), R3 the pointer's number ---------------------------


def _copies(insns: list[Item]) -> list[Item]:
    """Those that are called: the verifier wants no others."""
    called = {item.target for item in insns if isinstance(item, Insn)}
    functions = {"copy": _copy_bytes, "copy_string": _copy_string, "copy_strings": _copy_strings}
    return [item for name, make in functions.items() if name in called for item in make()]


def _enter(name: str) -> list[Item]:
    return [
        label(name),
        Mov.reg(R6, R1),
        Mov.reg(R7, R2),
        store(R10, _SIZE, R2, DW),
        store(R10, _INDEX, R3, DW),
        Mov.imm(R9, 0),
    ]


def _reserve(name: str) -> list[Item]:
    """R8 = a piece for what is at R6 + R9."""
    return [
        map_ptr(R1, _EVENTS),
        Mov.imm(R2, PIECE.size),
        Mov.imm(R3, 0),
        call(Helper.ringbuf_reserve),
        JEq.imm(R0, 0, f"{name}_full"),
        Mov.reg(R8, R0),
        call(Helper.get_current_pid_tgid),
        PIECE.store(R8, "pid_tgid", R0),
        store_imm(R8, PIECE.offset("ts"), 0, DW),
        PIECE.store(R8, "address", R6),
        load(R1, R10, _SIZE, DW),
        PIECE.store(R8, "wanted", R1),
        store_imm(R8, PIECE.offset("kind"), DATA, W),
        load(R1, R10, _INDEX, DW),
        PIECE.store(R8, "index", R1),
        PIECE.store(R8, "offset", R9),
    ]


def _submit() -> list[Item]:
    return [Mov.reg(R1, R8), Mov.imm(R2, 0), call(Helper.ringbuf_submit)]


def _leave(name: str) -> list[Item]:
    return [
        label(f"{name}_end"),
        Mov.imm(R0, 0),
        exit_(),
        label(f"{name}_full"),
        *_count(DROPPED_PIECES),
        Mov.imm(R0, 0),
        exit_(),
    ]


def _copy_bytes() -> list[Item]:
    return [
        *_enter("copy"),
        label("copy_next"),
        JGe.imm(R9, MOST_DATA, "copy_end"),
        JGe.reg(R9, R7, "copy_end"),
        *_reserve("copy"),
        Mov.reg(R2, R7),
        Sub.reg(R2, R9),
        JLe.imm(R2, DATA_SIZE, "copy_last"),
        Mov.imm(R2, DATA_SIZE),
        label("copy_last"),
        PIECE.store(R8, "length", R2),
        Mov.reg(R1, R8),
        Add.imm(R1, _HEADER),
        Mov.reg(R3, R6),
        Add.reg(R3, R9),
        call(Helper.probe_read_user),
        JEq.imm(R0, 0, "copy_read"),
        PIECE.store(R8, "length", R0),
        # Nothing behind it is worth a try.
        Mov.reg(R7, R9),
        label("copy_read"),
        *_submit(),
        Add.imm(R9, DATA_SIZE),
        Ja("copy_next"),
        *_leave("copy"),
    ]


def _read_string(source: int) -> list[Item]:
    return [
        Mov.reg(R1, R8),
        Add.imm(R1, _HEADER),
        Mov.imm(R2, DATA_SIZE),
        Mov.reg(R3, source),
        call(Helper.probe_read_user_str),
        PIECE.store(R8, "length", R0),
        *_submit(),
    ]


def _copy_string() -> list[Item]:
    return [*_enter("copy_string"), *_reserve("copy_string"), *_read_string(R6), *_leave("copy_string")]


def _copy_strings() -> list[Item]:
    """A piece for each string; ``offset`` has its place in the array."""
    return [
        *_enter("copy_strings"),
        label("copy_strings_next"),
        JGe.imm(R9, MOST_STRINGS, "copy_strings_end"),
        JGe.reg(R9, R7, "copy_strings_end"),
        *_reserve("copy_strings"),
        store_imm(R10, _LENGTH, 0, DW),
        Mov.reg(R3, R9),
        Mul.imm(R3, 8),
        Add.reg(R3, R6),
        *_address(R1, _LENGTH),
        Mov.imm(R2, 8),
        call(Helper.probe_read_user),
        load(R3, R10, _LENGTH, DW),
        *_read_string(R3),
        Add.imm(R9, 1),
        JLt.imm(R9, MOST_STRINGS, "copy_strings_next"),
        *_leave("copy_strings"),
    ]
