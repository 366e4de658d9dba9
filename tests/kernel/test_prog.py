"""Loading programs into the running kernel: what the verifier says and where, logs of any length, maps that come along."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

import pytest

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R6,
    R10,
    Add,
    Insn,
    Item,
    Ja,
    JEq,
    Mov,
    call,
    call_sub,
    exit_,
    label,
    ld_imm64,
    load,
    map_ptr,
    map_value,
    parse,
    store,
    store_imm,
)
from rawkm.errors import AssembleError, SyscallError, UsageError, VerifierError
from rawkm.maps import MapSpec
from rawkm.prog import LICENSE, Program, ProgramSpec
from rawkm.syscall.kernel import Reply
from rawkm.syscall.live import LiveKernel
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType, Helper, MapFlag, MapType, ProgType
from rawkm.uapi.layout import Layout
from tests.kernel.conftest import open_fds
from tests.kernel.fillers import PACKET
from tests.kernel.watching import watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Value

STATE = MapSpec("state", MapType.ARRAY, key=4, value=8, max_entries=1)
FINE = [Mov.imm(R0, 42), exit_()]


def here() -> int:
    frame: FrameType | None = sys._getframe(1)
    assert frame is not None
    return frame.f_lineno


def socket_filter(insns: Sequence[Item], *, license: str = LICENSE) -> ProgramSpec:
    return ProgramSpec("test", ProgType.SOCKET_FILTER, insns=insns, license=license)


def refused(kernel: LiveKernel, insns: Sequence[Item], *, license: str = LICENSE) -> VerifierError:
    with pytest.raises(VerifierError) as caught:
        socket_filter(insns, license=license).load(kernel)
    return caught.value


def test_load_and_run(kernel: LiveKernel) -> None:
    spec = ProgramSpec("fine", ProgType.SOCKET_FILTER, insns=FINE)
    with spec.load(kernel) as prog:
        assert prog.test_run(data=PACKET) == 42
        assert prog.test_run(data=PACKET, repeat=1000) == 42
        info = prog.info()
        assert info["type"] == ProgType.SOCKET_FILTER
        assert bytes(info["name"]).rstrip(b"\0") == b"fine"
        assert info["xlated_prog_len"] == 16
        assert repr(prog) == f"<Program fd {prog.fd}>"
        assert prog.spec is spec
        assert prog.maps == {}
    assert repr(prog) == "<Program closed>"
    assert repr(spec) == "ProgramSpec('fine', 1, attach_type=0, 2 items)"


def test_types_that_cannot_be_test_run_say_enotsupp(kernel: LiveKernel) -> None:
    with ProgramSpec("kprobe", ProgType.KPROBE, insns=FINE).load(kernel) as prog:
        with pytest.raises(SyscallError, match="ENOTSUPP") as caught:
            prog.test_run()
        assert caught.value.errno == 524


# -- the log -------------------------------------------------------------------------------------------------


def test_the_line_that_made_the_bad_instruction(kernel: LiveKernel) -> None:
    start = here()
    insns = [
        ld_imm64(R0, 1),  # two slots
        label("again"),
        Mov.imm(R0, 0),
        load(R1, R2, 0, DW),
        exit_(),
    ]
    err = refused(kernel, insns)
    assert err.errno == errno.EACCES
    assert err.insn_index == 3
    assert err.src_loc == (__file__, start + 5)
    assert "R2 !read_ok" in err.log
    assert err.insn == "r1 = *(u64 *)(r2 + 0x0)"
    assert str(err) == (
        f"{__file__}:{start + 5}: bpf(BPF_PROG_LOAD) was refused with EACCES at instruction 3, {err.insn}: R2 !read_ok"
    )


def test_the_line_of_a_file(kernel: LiveKernel) -> None:
    text = "# one\nr0 = 1 ll\n\nr0 = 0; r1 = *(u64 *)(r2 + 0)  # bad\nexit\n"
    err = refused(kernel, parse(text, file="bad.s"))
    assert (err.insn_index, err.src_loc) == (3, ("bad.s", 4))
    assert (
        str(err) == "bad.s:4: bpf(BPF_PROG_LOAD) was refused with EACCES at instruction 3, r1 = *(u64 *)(r2 + 0x0): R2 !read_ok"
    )


def test_names_in_the_instruction_are_those_of_the_user(kernel: LiveKernel) -> None:
    err = refused(kernel, [map_ptr(R1, STATE), Mov.imm(R2, 0), call(Helper.map_lookup_elem), exit_()])
    assert err.insn == "call bpf_map_lookup_elem"
    err = refused(kernel, [map_ptr(R10, STATE), Mov.imm(R0, 0), exit_()])
    assert err.insn == "r10 = state ll"
    err = refused(kernel, [Mov.imm(R0, 0), JEq.imm(R2, 0, "out"), label("out"), exit_()])
    assert err.insn == "if r2 == 0x0 goto out"


def bad_exit() -> list[Insn]:
    return [exit_()]


def test_the_line_is_that_of_the_code_that_was_called(kernel: LiveKernel) -> None:
    err = refused(kernel, [Mov.reg(R6, R1), *bad_exit()])
    assert err.insn_index == 1
    assert err.src_loc == (__file__, bad_exit.__code__.co_firstlineno + 1)
    assert "R0 !read_ok" in str(err)


def test_in_a_subprogram(kernel: LiveKernel) -> None:
    start = here()
    insns = [
        Mov.imm(R1, 1),
        call_sub("sub"),
        exit_(),
        label("sub"),
        Mov.imm(R0, 0),
        store(R1, 0, R0, DW),
        exit_(),
    ]
    err = refused(kernel, insns)
    assert (err.insn_index, err.src_loc) == (4, (__file__, start + 7))


@pytest.mark.parametrize(
    ("insns", "index", "words"),
    [
        ([Mov.imm(R0, 0), JEq.imm(R0, 0, 100), exit_()], 1, "jump out of range from insn 1 to 102"),
        ([Mov.imm(R0, 0), Ja(1), Mov.imm(R0, 1), exit_()], 2, "unreachable insn 2"),
    ],
)
def test_refused_before_anything_is_walked(kernel: LiveKernel, insns: list[Item], index: int, words: str) -> None:
    """No line of the log shows an instruction, but its complaint names one."""
    err = refused(kernel, insns)
    assert (err.insn_index, err.src_loc) == (index, insns[index].loc)
    assert words in err.log
    assert words in str(err)


def test_the_whole_of_a_long_log(kernel: LiveKernel) -> None:
    """More than the 64 KiB that are offered at first."""
    many = 4000
    insns: list[Item] = [Mov.imm(R0, 0), *(Add.imm(R0, 1) for _ in range(many)), store_imm(R10, 8, 0, DW), exit_()]
    kernel, watcher = watched()
    err = refused(kernel, insns)
    assert len(err.log) > 1 << 17
    assert err.insn_index == many + 1
    lines = err.log.splitlines()
    assert [line for line in lines if line.startswith("0: (")]
    assert [line for line in lines if line.startswith(f"{many + 1}: (")]
    assert "invalid write to stack" in str(err)
    sizes = [attr["log_size"] for attr in watcher.attrs("PROG_LOAD")]
    assert sizes[:2] == [0, 1 << 16]
    assert len(err.log) < int(sizes[-1])
    # Linux 6.4 says how much it takes.
    assert len(sizes) == 3


def test_a_program_that_loads_is_loaded_once_and_without_a_log() -> None:
    kernel, watcher = watched()
    socket_filter(FINE).load(kernel).close()
    [attr] = watcher.attrs("PROG_LOAD")
    assert (attr["log_level"], attr["log_size"], attr["log_buf"]) == (0, 0, 0)
    refusals = len(watcher.attrs("PROG_LOAD"))
    refused(kernel, [exit_()])
    first, second = watcher.attrs("PROG_LOAD")[refusals:]
    assert (first["log_level"], first["log_size"], first["log_buf"]) == (0, 0, 0)
    assert (second["log_level"], second["log_size"]) == (1, 1 << 16)


def test_what_is_refused_without_a_word(kernel: LiveKernel) -> None:
    """No VerifierError, as the verifier never ran."""
    with pytest.raises(SyscallError) as caught:
        ProgramSpec("test", 9999, insns=FINE).load(kernel)
    assert type(caught.value) is SyscallError
    assert caught.value.errno == errno.EINVAL
    assert packed.PROG_LOAD.unpack(caught.value.attr)["prog_type"] == 9999


def test_the_licence_reaches_the_kernel(kernel: LiveKernel) -> None:
    insns = [Mov.imm(R1, 0), Mov.imm(R2, 0), call(Helper.trace_printk), Mov.imm(R0, 0), exit_()]
    err = refused(kernel, insns, license="Proprietary")
    assert "GPL" in err.log
    assert "GPL" not in refused(kernel, insns).log
    assert LICENSE == "Dual MIT/GPL"
    with pytest.raises(UsageError, match="license"):
        socket_filter(FINE, license="GPL\0but not").load(kernel)


def test_attach_type_and_flags_reach_the_kernel() -> None:
    kernel, watcher = watched()
    spec = ProgramSpec("multi", ProgType.KPROBE, insns=FINE, attach_type=AttachType.TRACE_KPROBE_MULTI, flags=1 << 1)
    spec.load(kernel).close()
    [attr] = watcher.attrs("PROG_LOAD")
    assert (attr["prog_type"], attr["expected_attach_type"], attr["prog_flags"]) == (2, AttachType.TRACE_KPROBE_MULTI, 2)
    assert attr["insn_cnt"] == 2


class Shaky(LiveKernel):
    """Refuses the first PROG_LOADs by ``refusals``: errno and, for the log, how much it claims to need."""

    def __init__(self, refusals: list[int], *, log: bytes = b"", needed: int = 0) -> None:
        super().__init__()
        self.refusals = list(refusals)
        self.log_sizes: list[Value] = []
        self._log, self._needed = log, needed

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        if layout.command != "PROG_LOAD":
            return super().bpf(layout, values)
        buffer = values.get("log_buf")
        self.log_sizes.append(values.get("log_size", 0))
        if not self.refusals:
            return super().bpf(layout, values)
        after = layout.pack({"log_true_size": self._needed if buffer is not None else 0})
        number = self.refusals.pop(0)
        if isinstance(buffer, bytearray):
            buffer[: len(self._log)] = self._log[: len(buffer)]
            if len(buffer) <= len(self._log):
                number = errno.ENOSPC
                self.refusals.insert(0, errno.EACCES)
        raise SyscallError("bpf(BPF_PROG_LOAD)", number, attr=bytes(layout.size), attr_after=bytes(after))


def test_a_signal_makes_the_verifier_give_up_and_it_is_asked_again() -> None:
    kernel = Shaky([errno.EAGAIN] * 4)
    socket_filter(FINE).load(kernel).close()
    assert kernel.log_sizes == [0] * 5


def test_a_program_that_loads_at_the_second_look_is_loaded() -> None:
    """It must not become an error with a log that says that all is well."""
    with socket_filter(FINE).load(Shaky([errno.ENOMEM])) as prog:
        assert prog.test_run(data=PACKET) == 42


@pytest.mark.parametrize("tells", [False, True])
def test_logs_of_kernels_that_do_not_tell_their_size(tells: bool) -> None:
    log = b"0: (b7) r0 = 42\n" + b"x" * 3_000_000 + b"\nno!\n"
    kernel = Shaky([errno.EACCES] * 2, log=log, needed=len(log) + 1 if tells else 0)
    err = refused(kernel, FINE)
    assert err.log.encode() == log
    assert (err.errno, err.insn_index) == (errno.EACCES, 0)
    assert kernel.log_sizes == ([0, 1 << 16, len(log) + 1] if tells else [0, 1 << 16, 1 << 19, 1 << 22])


def test_enospc_that_is_not_about_the_log() -> None:
    kernel = Shaky([errno.ENOSPC] * 2, log=b"", needed=10)
    with pytest.raises(SyscallError) as caught:
        socket_filter(FINE).load(kernel)
    assert caught.value.errno == errno.ENOSPC
    assert kernel.log_sizes == [0, 1 << 16]


# -- maps that come along ------------------------------------------------------------------------------------

USES_STATE: list[Item] = [map_value(R1, STATE), load(R0, R1, 0, DW), Add.imm(R0, 1), store(R1, 0, R0, DW), exit_()]


def is_open(fd: int) -> bool:
    return fd in open_fds()


def test_maps_are_created_and_closed_with_the_program(kernel: LiveKernel) -> None:
    with socket_filter(USES_STATE).load(kernel) as prog:
        assert prog.test_run(data=PACKET, repeat=5) == 5
        assert prog.maps["state"].lookup(0) == (5).to_bytes(8, sys.byteorder)
        fds = [prog.fd, prog.maps["state"].fd]
        assert all(map(is_open, fds))
    assert not any(map(is_open, fds))
    prog.close()


def test_maps_that_are_given_are_not_the_programs(kernel: LiveKernel) -> None:
    with STATE.create(kernel) as state:
        with socket_filter(USES_STATE).load(kernel, {"state": state}) as one:
            assert one.maps["state"] is state
            assert one.test_run(data=PACKET) == 1
        assert is_open(state.fd)
        with socket_filter([map_value(R1, "state"), *USES_STATE[1:]]).load(kernel, {"state": state}) as two:
            assert two.test_run(data=PACKET) == 2


@pytest.mark.parametrize(
    "insns",
    [
        [map_ptr(R1, STATE), exit_()],  # the verifier's
        [map_ptr(R1, STATE), map_ptr(R2, "missing"), Mov.imm(R0, 0), exit_()],  # the assembler's
        [map_ptr(R1, STATE), map_ptr(R2, MapSpec("bad", 9999)), Mov.imm(R0, 0), exit_()],  # MAP_CREATE's
    ],
)
def test_a_failed_load_closes_the_maps_it_created(kernel: LiveKernel, insns: list[Item]) -> None:
    before = open_fds()
    with pytest.raises((SyscallError, AssembleError)):
        socket_filter(insns).load(kernel)
    assert open_fds() == before


def test_many_loads_leave_nothing(kernel: LiveKernel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    spec = socket_filter([*USES_STATE[:-1], map_value(R2, mappable := _mappable()), Mov.imm(R0, 0), exit_()])
    for _ in range(50):
        with spec.load(kernel) as prog, prog.maps[mappable.name].mmap() as memory:
            prog.test_run(data=PACKET)
            assert memory.load_u64(0) == 0
    assert len(os.listdir("/proc/self/fd")) == before


def _mappable() -> MapSpec:
    return MapSpec("mappable", MapType.ARRAY, key=4, value=8, max_entries=1, flags=MapFlag.MMAPABLE)


def test_info_after_close_is_an_error(kernel: LiveKernel) -> None:
    prog: Program = socket_filter(FINE).load(kernel)
    prog.close()
    with pytest.raises(UsageError):
        prog.info()
