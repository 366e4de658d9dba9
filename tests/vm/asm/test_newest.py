"""Instructions that only the newest kernels take, or that need a module: loaded, and run where that is possible."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawkm import asm
from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R6,
    R10,
    R11,
    Add,
    Item,
    JEq,
    Mov,
    call_sub,
    exit_,
    gotox,
    kfunc,
    label,
    load,
    map_value,
    store_imm,
)
from rawkm.btf import FUNC, Btf
from rawkm.btf.build import Builder
from tests.kernel.test_asm_forms_kernel import BTF_LOAD, Loader
from tests.kernel.test_asm_kernel import MAP_CREATE, bpf

MAP_UPDATE_ELEM, MAP_FREEZE, BTF_GET_NEXT_ID, BTF_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 2, 22, 23, 19, 15
INSN_ARRAY, SCHED_CLS = 34, 3


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


def jump_table(targets: list[int]) -> int:
    """An INSN_ARRAY map: its values are {u32 orig_off, xlated_off, jitted_off, pad}, of which the loader sets the first."""
    fd = bpf(MAP_CREATE, struct.pack("=IIII", INSN_ARRAY, 4, 16, len(targets)))[0]
    for index, slot in enumerate(targets):
        key = ctypes.create_string_buffer(struct.pack("=I", index), 4)
        value = ctypes.create_string_buffer(struct.pack("=4I", slot, 0, 0, 0), 16)
        bpf(MAP_UPDATE_ELEM, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
    bpf(MAP_FREEZE, struct.pack("=I", fd))
    return fd


@pytest.mark.parametrize("entry", [0, 1])
def test_gotox(loader: Loader, entry: int) -> None:
    program: list[Item] = [
        map_value(R3, "jumps", offset=8 * entry), load(R3, R3, 0, DW), gotox(R3),
        Mov.imm(R0, 7), exit_(),
        Mov.imm(R0, 9), exit_(),
    ]  # fmt: skip
    table = jump_table([4, 6])
    try:
        assert loader.run(program, maps={"jumps": table}) == (7, 9)[entry]
        assert not [finding for finding in asm.lint(program, type="socket_filter") if finding.level == "error"]
    finally:
        os.close(table)


def test_arguments_on_the_stack(loader: Loader) -> None:
    """The sixth and the seventh. BTF says how many a function has."""
    program: list[Item] = [
        *(Mov.imm(register, register) for register in range(1, 6)),
        store_imm(R11, -8, 60, DW), store_imm(R11, -16, 7, DW), call_sub("f"), exit_(),
        label("f"), load(R0, R11, 8, DW), load(R1, R11, 16, DW), Add.reg(R0, R1), exit_(),
    ]  # fmt: skip
    types = Builder()
    long = types.integer("long", 8, signed=True)
    main = types.func("main", types.proto(long, [("context", types.ref(2, 0))]), linkage=0)
    f = types.func("f", types.proto(long, [(name, long) for name in "abcdefg"]), linkage=0)
    blob = types.build()
    held = ctypes.create_string_buffer(blob, len(blob))
    os.close(loader.btf)
    loader.btf = loader._fds[1] = bpf(BTF_LOAD, struct.pack("=QQII", ctypes.addressof(held), 0, len(blob), 0))[0]
    loader._functions = (main, f)
    assert loader.run(program, callback=9) == 67
    assert asm.lint(program, type="socket_filter") == []


def module_btf(name: str) -> int:
    """An fd of the BTF of a module."""
    id = 0
    while True:
        id = struct.unpack_from("=II", bpf(BTF_GET_NEXT_ID, struct.pack("=I", id))[1])[1]
        fd = bpf(BTF_GET_FD_BY_ID, struct.pack("=I", id))[0]
        text = ctypes.create_string_buffer(64)
        # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf.
        info = ctypes.create_string_buffer(struct.pack("=QIIQII", 0, 0, 0, ctypes.addressof(text), 64, 0), 32)
        bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 32, ctypes.addressof(info)))
        if text.value.decode() == name:
            return fd
        os.close(fd)


def test_a_function_of_a_module(loader: Loader) -> None:
    """nf_conntrack's bpf_skb_ct_lookup(skb, tuple, 12, opts, 12), which gives a reference, and bpf_ct_release."""
    subprocess.run(["modprobe", "nf_conntrack"], check=True)
    vmlinux = Btf(Path("/sys/kernel/btf/vmlinux").read_bytes())
    types = Btf(Path("/sys/kernel/btf/nf_conntrack").read_bytes(), vmlinux)
    look_up, release = (types.find(name, FUNC) for name in ("bpf_skb_ct_lookup", "bpf_ct_release"))
    program: list[Item] = [
        Mov.reg(R6, R1),
        *(store_imm(R10, -off, 0, DW) for off in (8, 16, 24, 32)),
        Mov.reg(R2, R10), Add.imm(R2, -16), Mov.imm(R3, 12), Mov.reg(4, R10), Add.imm(4, -32), Mov.imm(5, 12),
        kfunc(look_up, fd_index=1), JEq.imm(R0, 0, "out"), Mov.reg(R1, R0), kfunc(release, fd_index=1),
        label("out"), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip
    module = module_btf("nf_conntrack")
    try:
        fd, log = loader.load(program, type=SCHED_CLS, module=module)
        os.close(fd)
        assert "bpf_skb_ct_lookup#" in log
    finally:
        os.close(module)
