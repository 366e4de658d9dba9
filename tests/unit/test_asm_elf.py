"""ELF objects as compilers make them, written here by hand: names at relocations, and damage of every kind."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawkm import asm
from rawkm.asm.elf import Object
from rawkm.errors import DisassembleError

FUNC, SECTION, OBJECT = 2, 3, 1
R_64_64, R_64_32 = 1, 10

MAIN = asm.parse(
    """
    r1 = 0 ll
    r2 = 0 ll
    call pc-1
    call pc-1
    call kfunc(0xffffffff)
    exit
    r0 = 1
    exit
    """
)
OTHER = asm.parse("r0 = 2\nexit")


def build(order: str = "<") -> bytes:
    """An object with two sections of code, a map, data, and a license."""
    names = b"\0"
    strings: dict[str, int] = {}
    words = ["kprobe/x", ".text", ".maps", ".rodata", "license", ".symtab", ".strtab", ".relkprobe/x"]
    for name in [*words, "main", "helper", "far", "counts", "bpf_kfunc"]:
        strings[name] = len(names)
        names += name.encode() + b"\0"
    byteorder = "little" if order == "<" else "big"
    code = asm.encode(MAIN, byteorder=byteorder)  # type: ignore[arg-type]
    text = asm.encode(OTHER, byteorder=byteorder)  # type: ignore[arg-type]
    # name, kind, section, value
    symbols = [
        ("", 0, 0, 0),
        ("", SECTION, 2, 0),
        ("", SECTION, 4, 0),
        ("main", FUNC, 1, 0),
        ("helper", FUNC, 1, 8 * 8),
        ("far", FUNC, 2, 0),
        ("counts", OBJECT, 3, 0),
        ("bpf_kfunc", 0, 0, 0),
    ]
    table = b"".join(
        struct.pack(order + "IBBHQQ", strings.get(name, 0), kind, 0, at, value, 0) for name, kind, at, value in symbols
    )
    relocations = [(0, 6, R_64_64), (16, 2, R_64_64), (32, 4, R_64_32), (40, 1, R_64_32), (48, 7, R_64_32)]
    rels = b"".join(struct.pack(order + "QQ", at, symbol << 32 | kind) for at, symbol, kind in relocations)
    sections = [
        ("", 0, 0, b"", 0, 0, 0),
        ("kprobe/x", 1, 6, code, 0, 0, 0),
        (".text", 1, 6, text, 0, 0, 0),
        (".maps", 1, 3, bytes(32), 0, 0, 0),
        (".rodata", 1, 2, bytes(16), 0, 0, 0),
        ("license", 1, 3, b"GPL\0", 0, 0, 0),
        (".symtab", 2, 0, table, 7, 0, 24),
        (".strtab", 3, 0, names, 0, 0, 0),
        (".relkprobe/x", 9, 0, rels, 6, 1, 16),
    ]
    at, headers, contents = 64, b"", b""
    for name, kind, flags, content, link, info, each in sections:
        headers += struct.pack(
            order + "IIQQQQIIQQ", strings.get(name, 0), kind, flags, 0, at, len(content), link, info, 8, each
        )  # fmt: skip
        contents += content
        at += len(content)
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01".ljust(10, b"\0")
    return (
        ident + struct.pack(order + "HHIQQQIHHHHHH", 1, 247, 1, 0, 0, at, 0, 64, 0, 0, 64, len(sections), 7) + contents + headers
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_names(order: str) -> None:
    found = Object(build(order))
    assert [code.name for code in found.code] == ["kprobe/x", ".text"]
    assert found.license == "GPL"
    code = found.code[0]
    assert code.functions == [(0, "main"), (8, "helper")]
    assert code.insns() == MAIN
    assert asm.format(code.items(), labels=True).splitlines() == [
        "main:",
        "\tr1 = counts ll",
        "\tr2 = .rodata[0x0] ll",
        "\tcall helper",
        "\t.insn 0x85, r0, r1, 0x0, -0x1  # far in .text",
        "\tcall kfunc(-0x1)  # bpf_kfunc",
        "\texit",
        "helper:",
        "\tr0 = 0x1",
        "\texit",
    ]


def test_listing() -> None:
    code = Object(build()).code[0]
    listing = code.listing()
    assert asm.encode(asm.parse(listing), byteorder="little") == code.raw
    lines = listing.splitlines()
    assert lines[0] == "0000000000000000 <main>:"
    assert lines[1].endswith("\tr1 = 0x0 ll  # counts")
    assert lines[3] == "       4:\t85 10 00 00 ff ff ff ff\tcall pc-0x1 <4>  # helper"
    assert lines[7] == "0000000000000040 <helper>:"


@pytest.mark.parametrize("size", [3, 63, 64, 100, 200, 500])
def test_cut_off(size: int) -> None:
    with pytest.raises(DisassembleError):
        Object(build()[:size])


@settings(max_examples=500)
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6), cut=st.integers(0, 2000))
def test_damaged(changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever was changed: an answer, or DisassembleError and nothing else. Names stay fit to be shown."""
    data = bytearray(build())
    for at, value in changes:
        data[at % len(data)] = value
    if cut < len(data) // 2:
        del data[-cut - 1 :]
    try:
        for code in Object(bytes(data)).code:
            assert asm.encode(asm.parse(code.listing()), byteorder="little") == code.raw
            assert all(name.isprintable() for _, name in code.functions)
            asm.format(code.items(), labels=True, helpers=True)
    except DisassembleError:
        pass


@given(data=st.binary(max_size=200).map(lambda rest: b"\x7fELF\x02\x01" + rest) | st.binary(max_size=100))
def test_anything(data: bytes) -> None:
    try:
        Object(data)
    except DisassembleError:
        pass
