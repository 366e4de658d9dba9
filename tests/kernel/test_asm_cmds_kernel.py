"""The commands check and disasm --prog, with this kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawkm import asm
from rawkm.cli.inputs import KernelFunctions
from rawkm.maps import MapSpec
from rawkm.objects import LoadedProgram
from rawkm.prog import Program, ProgramSpec
from rawkm.programs import written, xlated
from rawkm.syscall.live import LiveKernel
from rawkm.uapi import packed
from rawkm.uapi.constants import Helper, MapType, ProgType
from tests.unit.test_asm_cmds import COUNT, Rawkm

FINE = COUNT.replace("kprobe.multi/tcp_*", "kprobe.multi/none")


@pytest.fixture
def rawkm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rawkm:
    return Rawkm(monkeypatch, tmp_path)


# -- check ---------------------------------------------------------------------------------------------------


def test_what_the_kernel_takes(rawkm: Rawkm) -> None:
    path = rawkm.file("count.s", FINE)
    ran = rawkm("check", path)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{path}: this kernel takes it: 13 slots, 13 instructions walked\n"


def test_what_the_verifier_refuses_is_shown_with_the_line(rawkm: Rawkm) -> None:
    path = rawkm.file("bad.s", FINE.replace("if r0 == 0 goto out", "r0 = r0"))
    sentence = rawkm.refused("check", path)
    assert sentence.startswith(
        f"{path}:11: bpf(BPF_PROG_LOAD) was refused with EACCES at instruction 8, r1 = *(u64 *)(r0 + 0x0): "
    )
    assert sentence.endswith("R0 invalid mem access 'map_value_or_null'")
    logged = rawkm("check", path, "--log")
    assert logged.status == 1
    assert "\n7: (79) r1 = *(u64 *)(r0 +0)" in logged.out or "8: (79) r1 = *(u64 *)(r0 +0)" in logged.out


def test_lint_speaks_first(rawkm: Rawkm) -> None:
    ran = rawkm("check", "-", "--type", "kprobe", stdin=b"r0 = 1\nr0 = r5\nexit\nr0 = 2\nexit\n")
    assert ran.status == 1
    first, second = ran.out.splitlines()
    assert first.startswith("<stdin>:2: error: instruction 1: R5 is read, but not set") and first.endswith("[unset]")
    assert second.startswith("<stdin>:4: error: instruction 3: nothing leads here")
    assert "was refused with EINVAL" in ran.err
    warned = rawkm("check", "-", "--type", "xdp", stdin=b"r0 = 1\nif r0 == 1 goto out\nr0 = r5\nout: exit\n")
    assert warned.status == 0
    assert warned.out.splitlines()[0].startswith("<stdin>:3: warning: instruction 2: R5")


def test_check_closes_what_it_made(rawkm: Rawkm) -> None:
    # conftest sees every fd that stays open; maps are gone with them.
    assert rawkm("check", rawkm.file("count.s", FINE)).status == 0
    assert rawkm("check", rawkm.file("bad.s", FINE.replace("exit", "r0 = r1"))).status == 1


def test_a_map_that_the_kernel_refuses_is_named(rawkm: Rawkm) -> None:
    sentence = rawkm.refused("check", rawkm.file("x.s", FINE.replace("key=8", "key=0")))
    assert sentence.startswith("bpf(BPF_MAP_CREATE) was refused with EINVAL: the map counts: ")


# -- run -----------------------------------------------------------------------------------------------------

EXECS = """\
.section "raw_tp/sched_process_exec"
.map hits, type=array, key=4, value=8, max_entries=1
.map events, type=ringbuf, max_entries=4096
    r1 = hits[0] ll
    r2 = 1
    lock *(u64 *)(r1 + 0) += r2
    *(u64 *)(r10 - 8) = 0x64636261
    r1 = events ll
    r2 = r10
    r2 += -8
    r3 = 5
    r4 = 0
    call bpf_ringbuf_output
    r0 = 0
    exit
"""


def process(*argv: str) -> subprocess.CompletedProcess[str]:
    """One of its own: a command's fds are there until it ends."""
    return subprocess.run([sys.executable, "-m", "rawkm", *argv], capture_output=True, text=True, timeout=60)


def test_run_on_a_raw_tracepoint(rawkm: Rawkm) -> None:
    """What else runs on this machine executes commands as well: one or more."""
    path = rawkm.file("execs.s", EXECS)
    text = process("run", path, "--", "true")
    assert text.returncode == 0, text.stderr
    lines = text.stdout.splitlines()
    assert lines[:2] == ["events #1, 5 bytes", "00000000  61 62 63 64 00                                    |abcd.|"]
    assert "hits: 1 element of 1" in lines
    assert "rawkm: raw tracepoint: 1 tracepoint attached; ? missed, 0 recursion misses\n" in text.stderr
    rows = [json.loads(line) for line in process("run", path, "--json", "--", "true").stdout.splitlines()]
    assert rows[0] == {"type": "record", "map": "events", "data": "6162636400"}
    element, summary = rows[-2:]
    assert (element["type"], element["map"], element["function"]) == ("element", "hits", None)
    assert int.from_bytes(bytes.fromhex(element["value"]), sys.byteorder) == summary["records"] == len(rows) - 2


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("--attach", "no_such_tracepoint"), 1, "this kernel has no such tracepoint"),
        (("--return",), 2, "--return goes with kprobe programs"),
        (("--type", "xdp"), 2, "not xdp"),
        (("--", "/no/such/command"), 1, "/no/such/command"),
    ],
)
def test_run_ends_in_one_sentence(rawkm: Rawkm, argv: tuple[str, ...], status: int, words: str) -> None:
    assert words in rawkm.refused("run", rawkm.file("execs.s", EXECS), *argv, status=status)


# -- disasm --prog -------------------------------------------------------------------------------------------

STATE = MapSpec("state", MapType.ARRAY, key=4, value=16, max_entries=1)
TABLE = MapSpec("table", MapType.HASH, key=4, value=8, max_entries=4)

PROGRAM: list[asm.Item] = [
    asm.Mov.reg(6, 1),
    asm.store_imm(10, -4, 0, asm.W),
    asm.map_ptr(1, TABLE),
    asm.Mov.reg(2, 10),
    asm.Add.imm(2, -4),
    asm.call(Helper.map_lookup_elem),
    asm.map_value(7, STATE, offset=8),
    asm.call(Helper.ktime_get_ns),
    asm.store(7, 0, 0, asm.DW),
    asm.call_sub("sub"),
    asm.exit_(),
    asm.label("sub"),
    asm.Mov.imm(0, 7),
    asm.exit_(),
]


@pytest.fixture
def loaded(kernel: LiveKernel) -> Iterator[tuple[Program, int]]:
    with ProgramSpec("shown", ProgType.SOCKET_FILTER, insns=PROGRAM).load(kernel) as prog:
        id = prog.info()["id"]
        assert isinstance(id, int)
        yield prog, id


def test_names_of_maps_and_helpers(rawkm: Rawkm, loaded: tuple[Program, int]) -> None:
    ran = rawkm("disasm", "--prog", str(loaded[1]))
    assert (ran.status, ran.err) == (0, "")
    lines = [line.strip() for line in ran.out.splitlines()]
    assert "r1 = table ll" in lines
    assert "r7 = state[0x8] ll" in lines
    assert "call bpf_ktime_get_ns" in lines or any("ktime" in line for line in lines)
    # The look-up is inlined, as far as the hash: a function that is no helper.
    assert any("map_lookup_elem" in line for line in lines)
    called = next(line for line in lines if line.startswith("call func_"))
    at = lines.index(called.removeprefix("call ") + ":")
    assert lines[at + 1 : at + 3] == ["r0 = 0x7", "exit"]
    assert asm.parse(ran.out)


def test_the_bytes_are_those_of_the_kernel(rawkm: Rawkm, kernel: LiveKernel, loaded: tuple[Program, int]) -> None:
    ran = rawkm("disasm", "--prog", str(loaded[1]), "--bytes")
    program = LoadedProgram(kernel, loaded[1])
    assert asm.encode(asm.parse(ran.out)) == program.xlated
    ids = dict(zip(["table", "state"], (loaded[0].maps[name].info()["id"] for name in ("table", "state")), strict=True))
    for name, id in ids.items():
        assert f"# map {name} (id {id!r})" in ran.out
    assert "# the subprogram at " in ran.out


def test_kernel_functions_by_btf(rawkm: Rawkm, kernel: LiveKernel) -> None:
    kfuncs = KernelFunctions(kernel)
    text = ".type socket_filter\ncall kfunc(bpf_rcu_read_lock)\ncall bpf_rcu_read_unlock\nr0 = 0\nexit\n"
    source = asm.parse_file(text, kfuncs=kfuncs)
    with written.program(source).load(kernel) as prog:
        text = rawkm("disasm", "--prog", repr(prog.info()["id"])).out
    for name in ("bpf_rcu_read_lock", "bpf_rcu_read_unlock"):
        assert f"call kfunc({kfuncs(name):#x})  # {name}\n" in text


def test_addresses_that_are_hidden_are_said_to_be(
    kernel: LiveKernel, loaded: tuple[Program, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = LoadedProgram(kernel, loaded[1])
    hidden = b"0000000000000000 T __bpf_call_base\n"
    monkeypatch.setattr(LiveKernel, "read_chunks", lambda *_, **__: iter([hidden]))
    notes = xlated.code(kernel, program).notes.values()
    assert any("CAP_SYSLOG" in note for note in notes)


def test_programs_that_are_not_there(rawkm: Rawkm) -> None:
    assert rawkm.refused("disasm", "--prog", "4000000000") == "there is no prog with the id 4000000000"


def test_functions_have_the_names_that_btf_gives(kernel: LiveKernel) -> None:
    """Of a program that was loaded with BTF, as libbpf and systemd do."""
    from tests.kernel.test_asm_forms_kernel import Loader, callback_program

    loader = Loader()
    try:
        program = callback_program()
        fd, _ = loader.load(program, callback=len(asm.locate(program)) - 2)
        try:
            id = kernel.obj_info(fd, packed.PROG_INFO)[0]["id"]
            assert isinstance(id, int)
            found = LoadedProgram(kernel, id)
            assert [name for _, name in found.functions] == ["main", "callback"]
            text = asm.format(xlated.code(kernel, found).items(), labels=True)
            assert text.startswith("main:\n")
            assert "\tr2 = &callback ll\n" in text
        finally:
            kernel.close(fd)
    finally:
        loader.close()
