"""Every form of the instruction table, loaded by the running kernel, and read back from the verifier's log."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence

import pytest

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R9,
    R10,
    Add,
    Insn,
    Item,
    JNe,
    Lsh,
    Mov,
    Or,
    call,
    exit_,
    func_ptr,
    kfunc,
    label,
    ld_imm64,
    load,
    load_abs,
    load_ind,
    map_idx_value,
    map_ptr,
    store,
    store_imm,
)
from rawkm.asm.opcodes import JMP, JMP32, JUMP_OPS, LD_IMM64, Form, forms, target_field
from rawkm.btf import Btf
from rawkm.btf.build import Builder
from rawkm.btf.kinds import FUNC
from tests.kernel.test_asm_kernel import (
    ARRAY,
    MAP_CREATE,
    PROG_LOAD,
    PROG_TEST_RUN,
    SOCKET_FILTER,
    VALUE_SIZE,
    Rejected,
    bpf,
    needs,
)

BTF_LOAD = 18
ARENA, MMAPABLE = 33, 1 << 10
LOOP = 181

# What a kernel has to be for a form; the rest is in the first ones. A release that no kernel has: never.
RELEASES = {
    "SDiv": "6.6", "SMod": "6.6", ".signed": "6.6", "load_signed": "6.6", "bswap": "6.6", "Gotol": "6.6",
    "MayGoto": "6.9", "addr_space_cast": "6.9", "load_acquire": "6.15", "store_release": "6.15",
    "atomic_": "5.12", "kfunc": "5.13", "func_ptr": "5.13", "map_idx": "5.14", "ksym": "5.10", "32": "5.1",
}  # fmt: skip

# Not loaded here: why, and what the verifier says instead. tests/vm/asm loads the second and the third.
EXCEPTIONS = {
    "callx({dst})": ("no kernel takes it from user space", "unknown opcode 8d"),
    "gotox({dst})": (
        "Linux 6.19, and it needs a map made for the program",
        "unknown opcode 0d|R3 has type scalar, expected PTR_TO_INSN|no jump tables found",
    ),
    "kfunc({imm}, fd_index={off})": ("needs a module that has BTF", "invalid module BTF fd|not a module|non.?module"),
}


class Loader:
    """PROG_LOAD with maps, BTF and an fd_array."""

    def __init__(self) -> None:
        self.state = bpf(MAP_CREATE, struct.pack("=IIII", ARRAY, 4, VALUE_SIZE, 1))[0]
        # Two functions, int (struct __sk_buff *) and long (u32, void *), for the program and its callback.
        types = Builder()
        integer = types.integer("int", 4, signed=True)
        pointer = types.ref(2, 0)
        main = types.func("main", types.proto(integer, [("context", pointer)]), linkage=0)
        callback = types.func("callback", types.proto(integer, [("index", integer), ("context", pointer)]), linkage=0)
        self._functions = (main, callback)
        blob = types.build()
        held = ctypes.create_string_buffer(blob, len(blob))
        self.btf = bpf(BTF_LOAD, struct.pack("=QQII", ctypes.addressof(held), 0, len(blob), 0))[0]
        self._fds = [self.state, self.btf]

    def arena(self) -> int:
        """One page. It needs an address in user space, here as map_extra, since nobody maps it."""
        attr = struct.pack("=IIIII", ARENA, 0, 0, 1, MMAPABLE).ljust(64, b"\0") + struct.pack("=Q", 1 << 44)
        return bpf(MAP_CREATE, attr)[0]

    def load(
        self,
        program: Sequence[Item],
        *,
        callback: int | None = None,
        arena: int = 0,
        maps: Mapping[str, int] | None = None,
        type: int = SOCKET_FILTER,
        module: int | None = None,
    ) -> tuple[int, str]:
        """(fd, log). ``callback``: the slot where the second function starts; ``module``: a BTF fd, index 1 for kfuncs."""
        raw = asm.encode(program, maps={"state": self.state, "arena": arena, **(maps or {})})
        insns = ctypes.create_string_buffer(raw, len(raw))
        license = ctypes.create_string_buffer(b"GPL")
        log = ctypes.create_string_buffer(1 << 20)
        array = (ctypes.c_int * 2)(self.state, self.state if module is None else module)
        starts = [] if callback is None else [0, callback]
        info = b"".join(struct.pack("=II", start, type) for start, type in zip(starts, self._functions, strict=False))
        infos = ctypes.create_string_buffer(info, max(len(info), 1))
        attr = struct.pack(
            "=IIQQIIQ", type, len(raw) // 8, ctypes.addressof(insns), ctypes.addressof(license), 2, len(log),
            ctypes.addressof(log),
        ).ljust(72, b"\0")  # fmt: skip
        attr += struct.pack(
            "=IIQI", self.btf if starts else 0, 8 if starts else 0, ctypes.addressof(infos) if starts else 0, len(starts)
        )
        attr = attr.ljust(120, b"\0") + struct.pack("=Q", ctypes.addressof(array))
        try:
            return bpf(PROG_LOAD, attr)[0], log.value.decode()
        except OSError as error:
            raise Rejected(f"{error}\n{log.value.decode()}") from None

    def run(
        self,
        program: Sequence[Item],
        packet: bytes = bytes(64),
        *,
        callback: int | None = None,
        maps: Mapping[str, int] | None = None,
    ) -> int:
        """R0 after one run."""
        fd, _ = self.load(program, callback=callback, maps=maps)
        try:
            held = ctypes.create_string_buffer(packet, len(packet))
            attr = struct.pack("=IIIIQQI", fd, 0, len(packet), 0, ctypes.addressof(held), 0, 1)
            returned: int = struct.unpack_from("=I", bpf(PROG_TEST_RUN, attr)[1], 4)[0]
            return returned
        finally:
            os.close(fd)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


@pytest.fixture(scope="module")
def vmlinux() -> Btf:
    with open("/sys/kernel/btf/vmlinux", "rb") as file:
        return Btf(file.read())


def instruction(form: Form) -> Insn:
    """One of the form that fits into ``around``."""
    dst, src = 3, 4
    memory = "{off}" in form.dsl
    if memory:
        # The base is the stack, where 8 bytes are set.
        dst, src = (3, 10) if form.dsl.startswith("load") else (10, 4)
    imm = form.imm
    if imm is None:
        imm = 5
        if form.opcode == LD_IMM64 and form.hi is None and form.src:
            imm |= 8 << 32
    distance = 1 if conditional(form.opcode) else 0
    return Insn(
        form.opcode,
        dst=dst if form.dst is None else form.dst,
        src=src if form.src is None else form.src,
        off=(-8 if memory else distance) if form.off is None else form.off,
        imm=0 if target_field(form.opcode, form.src or 0) == "imm" and form.opcode != LD_IMM64 else imm,
    )


def conditional(opcode: int) -> bool:
    return opcode & 7 in (JMP, JMP32) and opcode & 0xF0 in JUMP_OPS.values()


def around(insn: Insn) -> list[Item]:
    """A program in which it makes sense."""
    # Linux 7.2 makes a plain goto of a jump whose outcome it knows, before it prints anything; it cannot know this one.
    third = load(R3, R1, 0, asm.W) if conditional(insn.opcode) else Mov.imm(R3, 7)
    return [
        Mov.reg(R6, R1),
        Mov.imm(R0, 0), third, Mov.imm(4, 9), store_imm(R10, -8, 0, DW), Mov.imm(R1, 0),
        insn, Mov.imm(R0, 0), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip


def special(form: Form, loader: Loader, vmlinux: Btf) -> tuple[list[Item], int | None, int] | None:
    """(program, slot of a callback, fd of an arena) of a form that needs more than ``around``."""
    name = form.dsl.split("(")[0]
    if name == "kfunc":
        if form.off is None:
            return [kfunc(1, fd_index=1), Mov.imm(R0, 0), exit_()], None, 0
        lock, unlock = (vmlinux.find(f"bpf_rcu_read_{which}", FUNC) for which in ("lock", "unlock"))
        return [kfunc(lock), kfunc(unlock), Mov.imm(R0, 0), exit_()], None, 0
    if name == "call_sub":
        return [asm.call_sub("f"), exit_(), label("f"), Mov.imm(R0, 0), exit_()], None, 0
    if name == "exit_":
        return [Mov.imm(R0, 0), exit_()], None, 0
    if name == "func_ptr":
        return callback_program(), len(asm.locate(callback_program())) - 2, 0
    if name == "addr_space_cast":
        arena = loader.arena()
        cast = Insn(form.opcode, dst=2, src=2, off=form.off or 0, imm=form.imm or 0)
        return [map_ptr(R1, "arena"), Mov.imm(R2, 0), cast, Mov.imm(R0, 0), exit_()], None, arena
    if name in ("map_ptr", "map_value"):
        hi = 0 if form.hi == 0 else 8 << 32
        return around(Insn(LD_IMM64, dst=3, src=form.src or 0, imm=hi, symbol="state")), None, 0
    if name in ("map_idx", "map_idx_value"):
        return around(Insn(LD_IMM64, dst=3, src=form.src or 0, imm=1 | (0 if form.hi == 0 else 8 << 32))), None, 0
    if name == "ksym":
        return around(asm.ksym(R3, vmlinux.find("schedule", FUNC))), None, 0
    if name in ("load_abs", "load_ind"):
        return around(Insn(form.opcode, src=3 if form.src is None else 0, imm=5 if form.imm is None else 0)), None, 0
    return None


def callback_program() -> list[Item]:
    return [
        store_imm(R10, -8, 0, DW), Mov.imm(R1, 10), func_ptr(R2, "each"), Mov.reg(R3, R10), Add.imm(R3, -8), Mov.imm(4, 0),
        call(LOOP), load(R0, R10, -8, DW), exit_(),
        label("each"), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.dsl)
def test_every_form_is_loaded(form: Form, loader: Loader, vmlinux: Btf) -> None:
    for name, release in RELEASES.items():
        if name in form.dsl:
            needs(release)
    found = special(form, loader, vmlinux) or (around(instruction(form)), None, 0)
    program, callback, arena = found
    if form.dsl in EXCEPTIONS:
        with pytest.raises(Rejected, match=EXCEPTIONS[form.dsl][1]):
            loader.load(program)
        return
    try:
        fd, log = loader.load(program, callback=callback, arena=arena)
        os.close(fd)
    finally:
        if arena:
            os.close(arena)
    check_log(log, program)
    assert not [finding for finding in asm.lint(program, type="socket_filter") if finding.level == "error"]


def check_log(log: str, program: Sequence[Item]) -> None:
    """What the verifier prints of the program is read as the program, but for addresses it has put in."""
    slots = asm.decode(asm.encode(program, maps={"state": 0, "arena": 0}))
    by_slot = asm.locate(slots)
    lines = re.findall(r"^([0-9]+): (\([0-9a-f]{2}\) .*)$", log, re.MULTILINE)
    assert lines
    for number, line in lines:
        insn = by_slot[int(number)]
        (read,) = asm.parse(line)
        assert isinstance(read, Insn)
        if insn.opcode == LD_IMM64 and insn.src:
            assert (read.opcode, read.dst) == (insn.opcode, insn.dst)
        else:
            assert read == insn, line


def test_arguments_on_the_stack_are_newer(loader: Loader) -> None:
    """Linux 7.2 takes them."""
    program = around(store(asm.R11, -8, R3, DW))
    try:
        os.close(loader.load(program)[0])
    except Rejected as refused:
        assert re.search(r"R11|r11|stack arg", str(refused))


def test_bytes_of_the_packet(loader: Loader) -> None:
    packet = bytes(range(100, 164))
    # A socket filter sees what follows the Ethernet header.
    data = packet[14:]
    for size in (1, 2, 4):
        expected = int.from_bytes(data[3 : 3 + size], "big")
        assert loader.run([Mov.reg(R6, R1), load_abs(3, size), exit_()], packet) == expected
        ind = [Mov.reg(R6, R1), Mov.imm(R7, 1), load_ind(R7, 2, size), exit_()]
        assert loader.run(ind, packet) == expected
    past = [Mov.reg(R6, R1), load_abs(60, 4), Mov.imm(R0, 7), exit_()]
    assert loader.run(past, packet) == 0


def test_callbacks_and_map_indexes_run(loader: Loader) -> None:
    needs("5.17")
    counting: list[Item] = [
        store_imm(R10, -8, 0, DW), Mov.imm(R1, 10), func_ptr(R2, "each"), Mov.reg(R3, R10), Add.imm(R3, -8), Mov.imm(4, 0),
        call(LOOP), load(R0, R10, -8, DW), exit_(),
        label("each"), load(R0, R2, 0, DW), Add.reg(R0, R1), store(R2, 0, R0, DW), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip
    slot = len(asm.locate(counting[:9]))
    assert loader.run(counting, callback=slot) == sum(range(10))
    values: list[Item] = [
        map_idx_value(R1, 0), map_idx_value(R9, 1, offset=16), ld_imm64(R2, 0x1234), store(R9, 0, R2, DW),
        load(R0, R1, 16, DW), JNe.reg(R0, R2, "no"), Lsh.imm(R0, 4), Or.imm(R0, 5), label("no"), exit_(),
    ]  # fmt: skip
    assert loader.run(values) == 0x12345


def test_the_reserved_field_that_is_not_looked_at(loader: Loader) -> None:
    """Linux 6.18 takes exit with an offset, so lint says nothing."""
    program: list[Item] = [Mov.imm(R0, 0), Insn(0x95, off=5, raw=True)]
    assert asm.lint(program, type="socket_filter") == []
    try:
        os.close(loader.load(program)[0])
    except Rejected as refused:
        assert "reserved" in str(refused)
