"""The commands asm, disasm and check, as far as they need no kernel: what they print, and what they say of bad input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from rawkm import asm
from rawkm.cli import main
from rawkm.syscall.live import LiveKernel

COUNT = """\
.license "GPL"
.section "kprobe.multi/tcp_*"
.map counts, type=percpu_hash, key=8, value=8, max_entries=64
    call bpf_get_func_ip      # r1 is the context
    *(u64 *)(r10 - 8) = r0
    r1 = counts ll
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
out:
    r0 = 0
    exit
"""


class Ran:
    def __init__(self, status: int, out: bytes, err: str) -> None:
        self.status = status
        self.raw = out
        self.out = out.decode("utf-8", "replace")
        self.err = err


class Rawkm:
    """Runs commands; what is written to ``stdin`` is their standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self.folder = folder

    def __call__(self, *argv: str, stdin: bytes = b"") -> Ran:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
        self._monkeypatch.setattr(LiveKernel, "read_stdin", lambda _: stdin)
        self._monkeypatch.setattr(sys, "stdout", out)
        self._monkeypatch.setattr(sys, "stderr", err)
        self._monkeypatch.setattr("gc.disable", lambda: None)
        status = main.run(argv)
        assert isinstance(out.buffer, io.BytesIO)
        return Ran(status, out.buffer.getvalue(), err.getvalue())

    def file(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def refused(self, *argv: str, stdin: bytes = b"", status: int = 1) -> str:
        """The one sentence of a run that fails."""
        ran = self(*argv, stdin=stdin)
        assert ran.status == status, ran.err
        assert ran.out == ""
        assert ran.err.startswith("rawkm: ") and ran.err.count("\n") == 1, ran.err
        return ran.err.removeprefix("rawkm: ").rstrip()


@pytest.fixture
def rawkm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rawkm:
    return Rawkm(monkeypatch, tmp_path)


# -- asm -----------------------------------------------------------------------------------------------------


def test_asm_to_all_forms(rawkm: Rawkm) -> None:
    source = rawkm.file("count.s", COUNT)
    expected = asm.encode(asm.parse_file(COUNT).insns, maps={"counts": 0})
    assert rawkm("asm", source, "--format", "raw").raw == expected
    assert rawkm("asm", source, "-o", str(rawkm.folder / "x")).raw == b""
    assert (rawkm.folder / "x").read_bytes() == expected
    text = rawkm("asm", source)
    assert bytes.fromhex(text.out) == expected
    assert len(text.out.splitlines()) == 12
    assert text.err == "rawkm: the fd of the map counts belongs into the imm of slot 2\n"
    rows = rawkm("asm", source, "--format", "c").out.splitlines()
    assert rows[2] == "\t{ .code = 0x85, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 173 }, /* call bpf_get_func_ip */"
    assert len(rows) == 3 + len(expected) // 8
    assert all(row.count("/*") == row.count("*/") <= 1 for row in rows)


def test_asm_to_python_is_the_same_program(rawkm: Rawkm) -> None:
    made: dict[str, object] = {}
    whole = rawkm("asm", rawkm.file("count.s", COUNT), "--format", "python")
    exec(whole.out, made)
    spec = made["spec"]
    assert repr(spec) == "ProgramSpec('', 2, attach_type=42, 13 items)"
    assert asm.encode(spec.insns, maps={"counts": 0}) == asm.encode(asm.parse_file(COUNT).insns, maps={"counts": 0})  # type: ignore[attr-defined]
    assert repr(asm.map_refs(spec.insns)[0]).startswith("MapSpec('counts', 5, key=8, value=8, max_entries=64")  # type: ignore[attr-defined]
    assert spec.license == "GPL"  # type: ignore[attr-defined]
    bare = rawkm("asm", "-", "--format", "python", stdin=b"r0 = 7; exit").out
    exec(bare, made)
    assert made["program"] == [asm.Mov.imm(0, 7), asm.exit_()]


@pytest.mark.parametrize("name", ["map1", "class", "R0", "rawkm", "spec", "a.b", "Mov", "_"])
def test_maps_of_any_name_in_python(rawkm: Rawkm, name: str) -> None:
    text = f'.type kprobe\n.map "{name}", type=hash, key=8, value=8, max_entries=1\nr1 = map("{name}") ll\nr0 = 0\nexit\n'
    made: dict[str, object] = {}
    exec(rawkm("asm", "-", "--format", "python", stdin=text.encode()).out, made)
    assert [getattr(ref, "name", None) for ref in asm.map_refs(made["spec"].insns)] == [name]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"r0 = 0\nexi\n", "<stdin>:2: no instruction: exi"),
        (b"r0 = 0\n\ngoto out\nexit", "<stdin>:3: no label 'out' in this program"),
        (b"a: r0 = 0\na: exit", "<stdin>:2: label 'a' is defined twice, first at <stdin>:1"),
        (b"r0 = 0\n# \xff\n", "<stdin>:2: this is no text in UTF-8"),
        (b"\x7fELF\x00\x01\xfe", "<stdin>:1: this is no text in UTF-8"),
        (b"r0 = 0x1ffffffff\nexit", "<stdin>:1: immediate 8589934591 is outside -2147483648..4294967295"),
        (
            b".map a, type=hash, nope=1",
            "<stdin>:1: .map knows type, key, value, max_entries, flags, each with a value, not nope=1",
        ),
        (b"\x1b[31m", "<stdin>:1: no instruction: \\x1b[31m"),
    ],
)
def test_what_asm_cannot_read(rawkm: Rawkm, text: bytes, sentence: str) -> None:
    assert rawkm.refused("asm", "-", stdin=text) == sentence


def test_files_that_cannot_be_read_or_written(rawkm: Rawkm) -> None:
    folder = str(rawkm.folder)
    assert rawkm.refused("asm", f"{folder}/none.s") == f"{folder}/none.s cannot be read: No such file or directory"
    assert rawkm.refused("asm", folder) == f"{folder} cannot be read: Is a directory"
    assert rawkm.refused("disasm", f"{folder}/none") == f"{folder}/none cannot be read: No such file or directory"
    assert rawkm.refused("check", f"{folder}/none") == f"{folder}/none cannot be read: No such file or directory"
    fine = rawkm.file("fine.s", "r0 = 0\nexit\n")
    assert rawkm.refused("asm", fine, "-o", f"{folder}/no/x") == f"{folder}/no/x cannot be written: No such file or directory"


# -- disasm --------------------------------------------------------------------------------------------------

BYTES = asm.encode(asm.parse("r1 = 5 ll; if r1 == 0 goto +1; call 14; exit"), byteorder="little")


def test_disasm(rawkm: Rawkm) -> None:
    path = rawkm.file("x", BYTES)
    assert rawkm("disasm", path).out == "\tr1 = 0x5 ll\n\tif r1 == 0x0 goto l_4\n\tcall bpf_get_current_pid_tgid\nl_4:\n\texit\n"
    assert rawkm("disasm", path, "--bytes").out.splitlines() == [
        "       0:\t18 01 00 00 05 00 00 00 00 00 00 00 00 00 00 00\tr1 = 0x5 ll",
        "       2:\t15 01 01 00 00 00 00 00\tif r1 == 0x0 goto +0x1 <4>",
        "       3:\t85 00 00 00 0e 00 00 00\tcall 0xe  # bpf_get_current_pid_tgid",
        "       4:\t95 00 00 00 00 00 00 00\texit",
    ]
    assert rawkm("disasm", "-", stdin=BYTES).out == rawkm("disasm", path).out
    hexadecimal = BYTES.hex(" ").encode()
    assert rawkm("disasm", "-", "--hex", stdin=hexadecimal).out == rawkm("disasm", path).out
    assert rawkm("disasm", "-", stdin=b"").out == ""


@pytest.mark.parametrize("raw", [BYTES, bytes(range(256)), BYTES + b"\x18" + bytes(7), b"\xff" * 64])
def test_all_that_disasm_prints_is_taken_back(rawkm: Rawkm, raw: bytes) -> None:
    for how in ((), ("--bytes",)):
        text = rawkm("disasm", "-", *how, stdin=raw).raw
        assert rawkm("asm", "-", "--format", "raw", stdin=text).raw == raw
    made: dict[str, object] = {}
    exec(rawkm("disasm", "-", "--python", stdin=raw).out, made)
    assert asm.encode(made["program"]) == raw  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argv", "stdin", "sentence"),
    [
        (("-",), b"x" * 13, "<stdin>: 13 bytes are not a whole number of 8-byte instructions"),
        (("-",), b"9500", "<stdin>: 4 bytes are no instructions; hexadecimal text takes --hex"),
        (("-", "--hex"), b"95 0", "<stdin>: this is no hexadecimal text"),
        (("-", "--hex"), b"\xff", "<stdin>: this is no hexadecimal text"),
        (("-",), b"\x7fELF", "<stdin>: this is no ELF object"),
        (("-",), b"\x7fELF\x01\x01".ljust(64, b"\0"), "<stdin>: this ELF object is not one of 64 bits"),
        (("-",), b"\x7fELF\x02\x01".ljust(64, b"\0"), "<stdin>: this ELF object is for machine 0, not for BPF (247)"),
    ],
)
def test_what_disasm_cannot_read(rawkm: Rawkm, argv: tuple[str, ...], stdin: bytes, sentence: str) -> None:
    assert rawkm.refused("disasm", *argv, stdin=stdin) == sentence


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "either a FILE or --prog ID"),
        (("-", "--prog", "1"), "either a FILE or --prog ID"),
        (("-", "--bytes", "--python"), "exclude each other"),
        (("-", "--section", "x"), "goes with an ELF object"),
        (("a", "b"), "unrecognized arguments: b"),
        (("--prog", "0"), "no whole number above 0"),
    ],
)
def test_wrong_usage_of_disasm(rawkm: Rawkm, argv: tuple[str, ...], words: str) -> None:
    assert words in rawkm.refused("disasm", *argv, stdin=BYTES, status=2)


# -- check ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (b"r0 = 0\nexit", 2, "the program's type is not known"),
        (b".type kprob\nr0 = 0\nexit", 2, "there is no program type 'kprob' (.type or --type); near names: kprobe"),
        (b".type xdp\n.map a, type=hsh\nr0 = 0\nexit", 1, "<stdin>:2: there is no map type 'hsh' (.map); near names: hash"),
        (b".type xdp\n.map 1234567890123456, type=hash\nexit", 1, "<stdin>:2: a map cannot be named"),
        (b".type xdp\nr0 = 0\nr1 = a ll\nexit", 1, "<stdin>:3: no .map declares 'a'"),
        (b".type xdp\n.name 1234567890123456\nexit", 2, "a program cannot be named"),
    ],
)
def test_what_is_wrong_before_a_kernel_is_asked(rawkm: Rawkm, text: bytes, status: int, words: str) -> None:
    assert words in rawkm.refused("check", "-", stdin=text, status=status)
