"""kallsyms and the searching of files by pieces."""

from __future__ import annotations

from errno import EACCES

import pytest

from rawkm.errors import SyscallError
from rawkm.host import kallsyms
from rawkm.host.lines import lines_holding, whole_lines
from tests.unit.files import KALLSYMS, FileKernel

# As a kernel prints it: data and absolute symbols between the functions, padding, a module, a BPF program, a
# trampoline.
TEXT = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000010 t __pfx_tcp_ack
ffffffff81000020 t tcp_ack
ffffffff81000040 W tcp_weak
ffffffff81000060 w tcp_weaker
ffffffff81000080 t twin
ffffffff81000100 t twin
ffffffff82000000 d tcp_data
ffffffff82000010 D tcp_prot
ffffffff82000020 r tcp_table
ffffffffc0000000 t twin\t[nf_conntrack]
ffffffffc0000100 T nf_conntrack_in\t[nf_conntrack]
ffffffffc0000200 t bpf_prog_6deef7357e7b4530_count\t[bpf]
ffffffffc0000300 t ftrace_trampoline\t[__builtin__ftrace]
ffffffffc0000400 t kprobe_insn_page\t[__builtin__kprobes]
"""

FUNCTIONS = [
    (0xFFFFFFFF81000000, b"_stext", b""),
    (0xFFFFFFFF81000010, b"__pfx_tcp_ack", b""),
    (0xFFFFFFFF81000020, b"tcp_ack", b""),
    (0xFFFFFFFF81000040, b"tcp_weak", b""),
    (0xFFFFFFFF81000060, b"tcp_weaker", b""),
    (0xFFFFFFFF81000080, b"twin", b""),
    (0xFFFFFFFF81000100, b"twin", b""),
    (0xFFFFFFFFC0000000, b"twin", b"nf_conntrack"),
    (0xFFFFFFFFC0000100, b"nf_conntrack_in", b"nf_conntrack"),
]


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 7, 41, 1000])
def test_functions(size: int) -> None:
    assert list(kallsyms.parse(pieces(TEXT, size))) == FUNCTIONS
    assert list(kallsyms.parse(pieces(TEXT.rstrip(), size))) == FUNCTIONS
    prefixes: tuple[bytes, ...]
    for prefixes in ((b"tcp_",), (b"t",), (b"nothing",), (b"nf", b"tcp_", b"tcp_ack"), (b"nf", b"")):
        expected = [f for f in FUNCTIONS if f[1].startswith(prefixes)]
        assert list(kallsyms.parse(pieces(TEXT, size), prefixes)) == expected


@pytest.mark.parametrize("size", [1, 41, 1000])
@pytest.mark.parametrize(
    "wanted",
    [
        [(b"tcp_ack", b""), (b"tcp_weaker", b""), (b"tcp_data", b"")],
        [
            (b"twin", b""),
            (b"twin", b"nf_conntrack"),
            (b"nf_conntrack_in", b"nf_conntrack"),
            (b"nf_conntrack_in", b""),
        ],
        [(b"bpf_prog_6deef7357e7b4530_count", b"")],
        [],
    ],
)
def test_addresses(size: int, wanted: list[tuple[bytes, bytes]]) -> None:
    found = kallsyms.find(pieces(TEXT, size), wanted)
    assert not found.hidden
    for name, module in wanted:
        assert found.of(name, module) == [a for a, n, m in FUNCTIONS if (n, m) == (name, module)]


def hide(text: bytes) -> bytes:
    return b"".join(b"0" * 16 + line[16:] for line in text.splitlines(keepends=True))


def test_hidden_addresses() -> None:
    hidden = hide(TEXT)
    found = kallsyms.find([hidden], [(b"twin", b""), (b"tcp_ack", b"")])
    assert found.hidden
    assert found.of(b"twin", b"") == [0, 0]
    # What is not there is not hidden.
    assert not kallsyms.find([hidden], [(b"tcp_nack", b"")]).hidden
    assert not kallsyms.visible(FileKernel({KALLSYMS: hidden}).kernel)
    assert kallsyms.visible(FileKernel({KALLSYMS: TEXT}).kernel)
    assert not kallsyms.visible(FileKernel({KALLSYMS: b""}).kernel)


def test_an_unreadable_file_is_an_error() -> None:
    fake = FileKernel({KALLSYMS: EACCES})
    with pytest.raises(SyscallError):
        list(kallsyms.functions(fake.kernel))
    with pytest.raises(SyscallError):
        kallsyms.visible(fake.kernel)


def test_nonsense_is_passed_over() -> None:
    """A module can have a name with anything in it, line ends too."""
    text = (
        b"\n"
        b"ffffffff81000000\n"
        b"ffffffff81000000 t\n"
        b"not-an-address t tcp_first\n"
        b"ffffffff81000020 tt tcp_second\n"
        b"ffffffff81000030 t tcp_\xff\xfe\t[evil]\n"
        b"ffffffff81000040 t tcp_split\n name\t[evil]\n"
        b" t tcp_no_address\n"
        b"ffffffff81000050 t tcp_good\n"
    )
    good = [
        (0xFFFFFFFF81000030, b"tcp_\xff\xfe", b"evil"),
        (0xFFFFFFFF81000040, b"tcp_split", b""),
        (0xFFFFFFFF81000050, b"tcp_good", b""),
    ]
    assert list(kallsyms.parse([text])) == good
    assert list(kallsyms.parse([text], [b"tcp_"])) == good
    found = kallsyms.find([TEXT + text], [(name, module) for _, name, module in good] + [(b"tcp_first", b"")])
    assert [found.of(name, module) for _, name, module in good] == [[address] for address, _, _ in good]
    assert found.of(b"tcp_first", b"") == []


# -- pieces --------------------------------------------------------------------------------------------------


def test_whole_lines() -> None:
    text = b"one\ntwo\n\nthree"
    for size in range(1, 20):
        got = list(whole_lines(pieces(text, size)))
        assert all(piece.startswith(b"\n") and piece.endswith(b"\n") for piece in got)
        assert b"".join(piece[1:] for piece in got) == text + b"\n"
    assert list(whole_lines([])) == []
    assert list(whole_lines([b""])) == []


def test_lines_holding() -> None:
    text = b"\none two\ntwo two\nthree\n"
    assert list(lines_holding(text, b"two")) == [(0, b"one two"), (8, b"two two")]
    assert list(lines_holding(text, b"\ntwo")) == [(8, b"two two")]
    assert [line for _, line in lines_holding(text, b"\n")] == [b"one two", b"two two", b"three"]
    assert list(lines_holding(text, b"four")) == []
    assert [line for _, line in lines_holding(text, b"ee")] == [b"three"]
