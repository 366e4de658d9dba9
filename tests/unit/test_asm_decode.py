"""Bytes that are no instruction are kept as they are, or refused."""

from __future__ import annotations

import pytest

from rawkm.asm import R0, R1, Insn, Mov, decode, encode, exit_, ld_imm64, map_ptr
from rawkm.errors import DisassembleError

BAD = {
    "opcode 0": "00 00 00 00 00 00 00 00",
    "opcode ff": "ff 00 00 00 00 00 00 00",
    "register 11": "b7 0b 00 00 00 00 00 00",
    "source register 11": "bf b1 00 00 00 00 00 00",
    "mov imm with a source": "b7 11 00 00 00 00 00 00",
    "mov reg with an imm": "bf 21 00 00 01 00 00 00",
    "mov imm with an off": "b7 01 01 00 00 00 00 00",
    "mov that extends 64 bits": "bf 21 40 00 00 00 00 00",
    "32-bit mov that extends 32 bits": "bc 21 20 00 00 00 00 00",
    "add with off 1": "07 01 01 00 00 00 00 00",
    "div with off 2": "37 01 02 00 05 00 00 00",
    "neg of a register": "8f 21 00 00 00 00 00 00",
    "neg with an imm": "87 01 00 00 01 00 00 00",
    "swap of 8 bits": "d4 01 00 00 08 00 00 00",
    "64-bit swap to big endian": "df 01 00 00 10 00 00 00",
    "jump with an imm": "05 00 01 00 01 00 00 00",
    "gotol with an off": "06 00 01 00 01 00 00 00",
    "jeq imm with a source": "15 11 01 00 00 00 00 00",
    "jeq reg with an imm": "1d 21 01 00 01 00 00 00",
    "may_goto with a register": "e5 01 00 00 00 00 00 00",
    "32-bit may_goto": "e6 00 00 00 00 00 00 00",
    "32-bit call": "86 00 00 00 01 00 00 00",
    "32-bit exit": "96 00 00 00 00 00 00 00",
    "call of kind 3": "85 30 00 00 01 00 00 00",
    "helper with an off": "85 00 01 00 01 00 00 00",
    "call with a dst": "85 01 00 00 01 00 00 00",
    "exit with an imm": "95 00 00 00 01 00 00 00",
    "load with an imm": "79 21 00 00 01 00 00 00",
    "signed load of 8 bytes": "99 21 00 00 00 00 00 00",
    "store with an imm": "7b 1a f8 ff 01 00 00 00",
    "store imm with a source": "7a 1a f8 ff 01 00 00 00",
    "unknown atomic": "db 1a f8 ff 02 00 00 00",
    "xchg without fetch": "db 1a f8 ff e0 00 00 00",
    "atomic add of 2 bytes": "cb 1a f8 ff 00 00 00 00",
    "half an ld_imm64": "18 01 00 00 01 00 00 00",
}

# Eight bytes that are fine, before and after.
FINE = "b7 00 00 00 00 00 00 00"

BAD_WIDE = {
    "off": "18 01 01 00 01 00 00 00  00 00 00 00 00 00 00 00",
    "register 11": "18 0b 00 00 01 00 00 00  00 00 00 00 00 00 00 00",
    "source 7": "18 71 00 00 01 00 00 00  00 00 00 00 00 00 00 00",
    "second opcode": "18 01 00 00 01 00 00 00  07 00 00 00 00 00 00 00",
    "second registers": "18 01 00 00 01 00 00 00  00 01 00 00 00 00 00 00",
    "second off": "18 01 00 00 01 00 00 00  00 00 01 00 00 00 00 00",
    "map with an upper half": "18 11 00 00 01 00 00 00  00 00 00 00 01 00 00 00",
    "function with an upper half": "18 41 00 00 ff ff ff ff  00 00 00 00 ff ff ff ff",
    "map index with an upper half": "18 51 00 00 01 00 00 00  00 00 00 00 01 00 00 00",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_kept_as_it_is(text: str) -> None:
    raw = bytes.fromhex(FINE + text + FINE)
    before, bad, after = decode(raw, byteorder="little")
    assert before == after == Mov.imm(R0, 0)
    assert bad.raw
    assert bad.loc is None
    assert encode([before, bad, after], byteorder="little") == raw


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_refused_when_strict(text: str) -> None:
    raw = bytes.fromhex(FINE + text + FINE)
    with pytest.raises(DisassembleError, match=f"slot 1 is no instruction: opcode 0x{text[:2]}, dst "):
        decode(raw, strict=True, byteorder="little")


@pytest.mark.parametrize("text", BAD_WIDE.values(), ids=BAD_WIDE)
def test_bad_ld_imm64(text: str) -> None:
    raw = bytes.fromhex(FINE + text)
    insns = decode(raw, byteorder="little")
    assert [insn.slots for insn in insns] == [1, 1, 1]
    assert insns[1].raw
    assert insns[1].opcode == 0x18
    assert encode(insns, byteorder="little") == raw
    with pytest.raises(DisassembleError, match="slot 1 is no instruction"):
        decode(raw, strict=True, byteorder="little")


def test_half_an_ld_imm64_at_the_very_end() -> None:
    raw = encode([exit_(), ld_imm64(R1, 1)])[:-8]
    assert decode(raw) == [exit_(), Insn(0x18, dst=1, imm=1, raw=True)]


def test_the_second_slot_is_not_read_as_a_first() -> None:
    # The upper half of the constant has bytes that would be an instruction of their own.
    insns = [ld_imm64(R1, 0x18), ld_imm64(R1, 0x18 << 32), map_ptr(R1, 3), exit_()]
    assert decode(encode(insns), strict=True) == insns


@pytest.mark.parametrize("length", [1, 7, 9, 15])
@pytest.mark.parametrize("strict", [False, True])
def test_length(length: int, strict: bool) -> None:
    with pytest.raises(DisassembleError, match=f"{length} bytes are not a whole number of 8-byte instructions"):
        decode(bytes(length), strict=strict)


def test_nothing() -> None:
    assert decode(b"") == []
    assert decode(b"", strict=True) == []


def test_the_same_half_can_be_whole_elsewhere() -> None:
    half = "18 01 00 00 01 00 00 00"
    raw = bytes.fromhex(half + FINE + half + "00 00 00 00 00 00 00 00")
    bad, fine, whole = decode(raw, byteorder="little")
    assert (bad.raw, fine.raw, whole.raw) == (True, False, False)
    assert whole == ld_imm64(R1, 1)
