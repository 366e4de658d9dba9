"""rawkm's own readers on whatever there is: nothing but what their documentation says, and an end in time.

Assembler, BTF, codec, audit, recordings and buffers have theirs beside their other properties; here are the rest, and the proof
that such tests find what they are for.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from rawkm.asm import decode, interp, interp_maps
from rawkm.buffers import ringbuf
from rawkm.cli import main
from rawkm.errors import InterpreterError, RecordingError, UsageError
from rawkm.fuzz import recorded
from rawkm.fuzz.case import Case, Check, Data, Step
from rawkm.host import kallsyms
from rawkm.targets import Pattern, listing
from tests.property.test_asm import almost_programs
from tests.property.test_ringbuf import RingMachine

_TOKENS = b"ffffffff81000000 0000000000000000 T t U tcp_sendmsg [nf] [ ] [bpf] \0 \xff 0x10 _ -1 fffffffffffffffff ( *".split()
TOKENS = st.sampled_from([*_TOKENS, b" ", b"  ", b"\t", b"\n", b"\n\n"])
TEXTS = st.lists(TOKENS, max_size=40).map(b"".join) | st.binary(max_size=100)
CHUNKS = st.lists(TEXTS, max_size=4)


@given(chunks=CHUNKS, prefixes=st.lists(st.sampled_from([b"", b"tcp_", b"t", b"[", b"\xff"]), max_size=3))
def test_symbols(chunks: list[bytes], prefixes: list[bytes]) -> None:
    for address, name, module in kallsyms.parse(iter(chunks), prefixes):
        assert type(address) is int and name and b"\n" not in name and b"\n" not in module
        assert not prefixes or name.startswith(tuple(prefixes))


@given(chunks=CHUNKS, wanted=st.lists(st.tuples(TEXTS.filter(bool), st.sampled_from([b"", b"nf"])), max_size=4))
def test_chosen_symbols(chunks: list[bytes], wanted: list[tuple[bytes, bytes]]) -> None:
    found = kallsyms.find(iter(chunks), wanted)
    for name, module in wanted:
        assert all(type(address) is int for address in found.of(name, module))
    assert found.hidden in (True, False)


@given(
    chunks=CHUNKS, sites=st.booleans(), patterns=st.lists(st.sampled_from(["*", "tcp_*", "nf:*", "/t/"]), min_size=1, max_size=3)
)
def test_function_lists(chunks: list[bytes], sites: bool, patterns: list[str]) -> None:
    entries, gave = listing.match(iter(chunks), [Pattern(text) for text in patterns], sites=sites)
    assert len(gave) == len(patterns)
    assert all(entry.name and b"\n" not in entry.name for entry in entries)


_WORDS = (
    "show check diff decode attr prog replay stateful --json --cmd LINK_CREATE --examples 5 -1 --seed --seconds inf nan --out --last "
    "--i-own-this-kernel -d --duration -p --pid --by -- --explain --record x.rkm --help -h - é \udcff tcp_* a=b --json=1 99999999999999"
)
WORDS = st.sampled_from(["", *_WORDS.split()])


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(main.COMMANDS)), line=st.lists(WORDS | st.text(max_size=4), max_size=6))
def test_command_lines(name: str, line: list[str]) -> None:
    """They are read, or refused in a sentence, or print the help."""
    module = main.module(name)
    assert module is not None
    with redirect_stdout(io.StringIO()):
        try:
            main._parse(name, module, line)
        except UsageError as err:
            assert str(err)
        except SystemExit as err:
            assert err.code == 0 and {"-h", "--help"} & set(line)


@settings(deadline=None)
@given(raw=st.binary(max_size=80).map(lambda raw: raw[: len(raw) // 8 * 8]) | almost_programs())
def test_programs_in_the_interpreter(raw: bytes) -> None:
    maps: dict[str | int, interp_maps.MapModel] = {0: interp_maps.ArrayModel(8, 1), 1: interp_maps.HashModel(4, 8, 2)}
    machine = interp.Machine(decode(raw), maps=maps, helpers=interp_maps.HELPERS, steps=500)
    try:
        assert 0 <= machine.run(7) < 1 << 64
    except InterpreterError as err:
        assert str(err)


GOOD = Case(
    [Step(0, bytes(16)), Step(2, bytes(32), fds={0: 0}, pointers={8: Data(bytes(4))}, checks=[Check("x", 0, b"a", pointer=8)])]
)


@given(data=st.data())
def test_cases_in_recordings(data: st.DataObject) -> None:
    import json

    line = bytearray(json.dumps({"t": "case", **recorded.to_json(GOOD)}, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.sampled_from(list(b'0159aff-{}[]",:.tnx\xff')))
    cut = data.draw(st.integers(0, len(line)) | st.just(len(line)))
    try:
        case = recorded.read(io.BytesIO(bytes(line[:cut]) + b"\n"))
    except RecordingError as err:
        assert str(err)
    else:
        assert recorded.to_json(recorded.from_json(recorded.to_json(case))) == recorded.to_json(case)


def test_a_reader_that_ignores_busy_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A planted fault: the machine that the ring's reader is tested with finds it, and says it in the fewest steps."""
    monkeypatch.setattr(ringbuf, "BUSY", 0)
    monkeypatch.setattr(ringbuf, "FLAGS", ringbuf.DISCARD)
    with pytest.raises(Exception) as caught:
        run_state_machine_as_test(
            RingMachine,
            settings=settings(max_examples=200, stateful_step_count=20, deadline=None, database=None, print_blob=False),
        )
    told = "\n".join([*getattr(caught.value, "__notes__", ()), capsys.readouterr().out])
    steps = [line.strip() for line in told.splitlines() if "state." in line and "memory_is" not in line]
    assert [step.partition("(")[0] for step in steps] == ["state.make", "state.reserve", "state.read", "state.teardown"], told
    assert "count=1" in steps[1]
