"""The interpreter by itself. That it does as kernels do is shown in tests/kernel/test_asm_kernel.py and by `rawkm fuzz prog`."""

from __future__ import annotations

from errno import E2BIG, EEXIST, EFAULT, EINVAL, ENOENT

import pytest

from rawkm import asm
from rawkm.asm import interp, interp_maps
from rawkm.asm.interp import Machine, Memory
from rawkm.errors import InterpreterError, NotModelled

U64 = (1 << 64) - 1


def run(text: str, **how: object) -> int:
    machine = Machine(asm.parse(text), helpers=interp_maps.HELPERS, **how)  # type: ignore[arg-type]
    return machine.run()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("r0 = -1\nexit", U64),
        ("w0 = -1\nexit", 0xFFFFFFFF),
        ("r0 = -7\nr0 s/= 2\nexit", -3 & U64),
        ("r0 = -7\nr0 s%= 2\nexit", -1 & U64),
        ("r0 = 5\nr1 = 0\nr0 /= r1\nexit", 0),
        ("r0 = 5\nr1 = 0\nr0 %= r1\nexit", 5),
        ("r0 = 0x8000000000000000 ll\nr1 = -1\nr0 s/= r1\nexit", 1 << 63),
        ("r0 = 1\nr1 = 65\nr0 <<= r1\nexit", 2),
        ("r1 = 0x80\nr0 = (s8)r1\nexit", -128 & U64),
        ("r0 = 0x1122 ll\nr0 = bswap16 r0\nexit", 0x2211),
        ("r0 = 1\ngotol a\nr0 = 2\na: exit", 1),
        ("r0 = 0\nr1 = 5\nt: r0 += r1\nr1 -= 1\nif r1 != 0 goto t\nexit", 15),
        ("r1 = 4\ncall f\nr0 += 1\nexit\nf: r0 = r1\nr0 *= 2\nexit", 9),
        ("*(u64 *)(r10 - 8) = 5\nr1 = 3\nr1 = atomic_fetch_add((u64 *)(r10 - 8), r1)\nr0 = *(u64 *)(r10 - 8)\nr0 <<= 8\nr0 |= r1\nexit", 0x805),
    ],
)  # fmt: skip
def test_values(text: str, value: int) -> None:
    assert run(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("r0 = r3\nexit", "R3|R2"),
        ("exit", "R0 is not set"),
        ("r0 = 0\n*(u64 *)(r10 + 0) = 1\nexit", "a store of 8 bytes"),
        ("r0 = *(u64 *)(r10 - 520)\nexit", "before what it may reach"),
        ("r1 = 0\nr0 = *(u8 *)(r1 + 0)\nexit", "where nothing is"),
        ("f: call f\nexit", "more than 8 frames"),
        ("r0 = 1\ngoto +5\nexit", "does not have"),
        ("r6 = 1\ncall f\nexit\nf: r0 = r6\nexit", "read before it is written"),
        ("r1 = 1\nr0 = 0\ncall f\nr0 = r1\nexit\nf: r0 = 1\nexit", "read before it is written"),
    ],
)
def test_what_the_kernel_must_not_let_it_do(text: str, words: str) -> None:
    with pytest.raises(InterpreterError, match=words):
        run(text)


@pytest.mark.parametrize("text", ["r0 = *(u64 *)(r10 - 8)\nexit", "call 9999\nexit", "t: goto t", "r0 = 0\ncall kfunc(5)\nexit"])
def test_what_it_knows_nothing_of(text: str) -> None:
    with pytest.raises(NotModelled):
        run(text, steps=1000)


def test_what_is_never_reached_does_not_matter() -> None:
    assert run("r0 = 1\nexit\n.insn 0xff, r0, r0, 0, 0\ncall 9999") == 1
    # Kernels do not look at the off of an exit.
    assert run("r0 = 1\n.insn 0x95, r0, r0, 7, 0") == 1
    with pytest.raises(InterpreterError, match="no instruction"):
        run("r0 = 1\n.insn 0x95, r1, r0, 7, 0")


def test_may_goto_counts_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interp, "MAX_LOOPS", 10)
    assert run("r0 = 0\nt: may_goto o\nr0 += 1\ngoto t\no: exit") == 10


def test_arguments_on_the_stack() -> None:
    text = "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 7\ncall f\nexit\nf: r0 = *(u64 *)(r11 + 8)\nr1 = *(u64 *)(r11 + 16)\nr0 -= r1\nexit"
    assert run(text) == -1 & U64


def test_addresses_are_elsewhere_with_another_salt() -> None:
    items = asm.parse("r0 = r10\nexit")
    assert Machine(items, memory=Memory(0)).run() != Machine(items, memory=Memory(1)).run()


def test_maps() -> None:
    memory = Memory()
    hash, array = interp_maps.HashModel(4, 8, 2), interp_maps.ArrayModel(8, 2)
    key, one, two = b"k\0\0\0", b"1" * 8, b"2" * 8
    assert hash.lookup(memory, key) == 0 and hash.delete(key) == -ENOENT
    assert hash.update(memory, key, one, interp_maps.BPF_EXIST) == -ENOENT
    assert hash.update(memory, key, one, 0) == 0
    assert hash.update(memory, key, two, interp_maps.BPF_NOEXIST) == -EEXIST
    assert hash.update(memory, key, two, 3) == -EINVAL
    assert hash.update(memory, b"l\0\0\0", one, 0) == 0 and hash.update(memory, b"m\0\0\0", one, 0) == -E2BIG
    assert memory.load(hash.lookup(memory, key), 8) == int.from_bytes(one, "little")
    assert array.update(memory, b"\2\0\0\0", one, 0) == -E2BIG and array.update(memory, bytes(4), one, 1) == -EEXIST
    assert array.delete(bytes(4)) == -EINVAL and array.lookup(memory, b"\2\0\0\0") == 0
    queue, stack = interp_maps.QueueModel(8, 2), interp_maps.QueueModel(8, 2, last=True)
    for model in (queue, stack):
        assert [model.push(value, 0) for value in (one, two, one)] == [0, 0, -E2BIG]
    assert queue.take(True) == one and stack.take(True) == two and queue.push(one, 2) == 0
    assert [queue.take(False), queue.take(True), queue.take(True), queue.take(True)] == [two, two, one, None]


def test_a_packet_ends() -> None:
    machine = Machine(asm.parse("r6 = r1\nr0 = *(u16 *)skb[3]\nexit"))
    machine.packet = machine.memory.room(bytearray(b"\1\2\3\4\5"))
    assert machine.run(1) == 0x0405
    machine.packet = machine.memory.room(bytearray(b"\1\2\3\4"))
    assert machine.run(1) == 0
    machine = Machine(asm.parse("r2 = 1\nr3 = r10\nr3 += -8\nr4 = 8\ncall 26\nexit"), helpers=interp_maps.HELPERS)
    machine.packet = machine.memory.room(bytearray(b"\1\2\3\4"))
    assert machine.run(1) == -EFAULT & U64
