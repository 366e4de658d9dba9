"""Programs on the running kernel: what it can do, loading in several ways, running by PROG_TEST_RUN, reading all that is left."""

from __future__ import annotations

import os
import signal
import struct
from errno import EAGAIN, ENOENT

from rawkm import asm
from rawkm.asm import R0, R1, R2, R10, Mov, exit_
from rawkm.errors import NotSupportedError, SyscallError, VerifierError
from rawkm.fuzz import prog_builder, prog_model
from rawkm.fuzz.prog_builder import MAPS, TYPES
from rawkm.host import memlock
from rawkm.prog import LICENSE, ProgramSpec
from rawkm.uapi import packed
from rawkm.uapi.constants import MapType, ProgFlag, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from rawkm.asm import Item
    from rawkm.fuzz.prog_model import Result
    from rawkm.fuzz.prog_recipes import Example
    from rawkm.maps import Map
    from rawkm.syscall.kernel import Kernel, Value

_JIT, _HARDEN = "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_harden"

_DATA_ROOM = 256

# The verifier walks through a million instructions before it says that a program is too large: where that takes minutes, a signal
# ends it earlier (kernel/bpf/verifier.c, do_check: EAGAIN).
_PATIENCE = 3.0
TOO_LONG = "the verifier took too long"

# One program for each ability: the kernel has it when it takes the program. Jumps go somewhere: 6.12
# knows may_goto, but refuses one with a distance of 0.
_PROBES: dict[str, list[Item]] = {
    prog_builder.SIGNED_DIV: [Mov.imm(R0, 1), asm.SDiv.imm(R0, 1), exit_()],
    prog_builder.MOVSX: [Mov.imm(R1, 1), Mov.signed(R0, R1, 8), exit_()],
    prog_builder.BSWAP: [Mov.imm(R0, 1), asm.bswap(R0, 16), exit_()],
    prog_builder.LDSX: [asm.store_imm(R10, -8, 1, asm.DW), asm.load_signed(R0, R10, -8, asm.B), exit_()],
    prog_builder.GOTOL: [Mov.imm(R0, 1), asm.JEq.imm(R0, 0, 1), asm.Gotol(1), Mov.imm(R0, 2), exit_()],
    prog_builder.FETCH: [
        asm.store_imm(R10, -8, 1, asm.DW),
        Mov.imm(R2, 1),
        asm.atomic_add(R10, -8, R2, asm.DW, fetch=True),
        Mov.imm(R0, 1),
        exit_(),
    ],
    prog_builder.MAY_GOTO: [Mov.imm(R0, 1), asm.MayGoto(1), Mov.imm(R0, 2), exit_()],
    prog_builder.ORDERED: [asm.store_imm(R10, -8, 1, asm.DW), asm.load_acquire(R0, R10, -8, asm.W), exit_()],
}


class Variant:
    """A way to load: ``flags`` for PROG_LOAD, ``setting``: (file, value) that must be so meanwhile."""

    __slots__ = ("flags", "name", "setting")

    def __init__(self, name: str, *, flags: int = 0, setting: tuple[str, str] | None = None) -> None:
        self.name = name
        self.flags = flags
        self.setting = setting


PLAIN = Variant("plain")
# The first three make the verifier check itself, the others change what the JIT makes.
_VARIANTS = (
    Variant("state_freq", flags=ProgFlag.TEST_STATE_FREQ),
    Variant("rnd_hi32", flags=ProgFlag.TEST_RND_HI32),
    Variant("reg_invariants", flags=ProgFlag.TEST_REG_INVARIANTS),
    Variant("jit_harden", setting=(_HARDEN, "2")),
    Variant("no_jit", setting=(_JIT, "0")),
)


class Refused(Exception):
    """The verifier, or the kernel before it, takes the program not. ``words``: the complaint."""

    def __init__(self, errno: int, words: str, log: str) -> None:
        super().__init__(words)
        self.errno = errno
        self.words = words
        self.log = log


class Runner:
    """Owns one map of each kind, and stays on one CPU. ``abilities``, ``types``, ``variants``: what this kernel lets us do;
    ``jit``: what can be said of it.

    ``owned``: settings of the whole machine may be changed for moments. Raises NotSupportedError without CAP_BPF and CAP_PERFMON.
    """

    def __init__(self, kernel: Kernel, *, owned: bool = False) -> None:
        self.kernel = kernel
        self.maps: dict[str, Map] = {}
        self.abilities: set[str] = set()
        self.types: list[int] = []
        self.variants = [PLAIN]
        self.jit = ""
        self._owned = owned
        self._allowed = os.sched_getaffinity(0)
        self._handler: Any = signal.SIG_DFL
        self.cpu = min(self._allowed)

    def __enter__(self) -> Runner:
        os.sched_setaffinity(0, {self.cpu})
        self._handler = signal.signal(signal.SIGALRM, lambda *_: None)
        try:
            self._look_around()
            for name, spec in MAPS.items():
                self.maps[name] = spec.create(self.kernel)
            if self._long_results():
                self.abilities.add(prog_builder.LONG_RESULTS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for m in self.maps.values():
            m.close()
        self.maps.clear()
        signal.signal(signal.SIGALRM, self._handler)
        os.sched_setaffinity(0, self._allowed)

    # -- what there is ---------------------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        simple: list[Item] = [Mov.imm(R0, 0), exit_()]
        for type in TYPES:
            try:
                with ProgramSpec("fuzz", type, insns=simple).load(self.kernel) as prog:
                    self._test(type, prog.fd, bytes(12) + b"\x88\xb5\0\0")
            except SyscallError as err:
                if not self.types:
                    raise NotSupportedError(
                        "running programs by PROG_TEST_RUN", str(err), help="it takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
                    ) from None
                continue
            self.types.append(type)
        for name, insns in _PROBES.items():
            if self._loads(insns):
                self.abilities.add(name)
        for variant in _VARIANTS:
            if variant.setting is None:
                if self._loads(simple, variant.flags):
                    self.variants.append(variant)
            elif self._owned and self._can_set(*variant.setting):
                self.variants.append(variant)
        value = _read(_JIT)
        names = [variant.name for variant in self.variants]
        self.jit = f"bpf_jit_enable={value}" + ("" if "no_jit" in names else ", fixed" if self._owned else ", left alone")

    def _loads(self, insns: Sequence[Item], flags: int = 0) -> bool:
        try:
            ProgramSpec("probe", ProgType.SOCKET_FILTER, insns=insns, flags=flags).load(self.kernel).close()
        except SyscallError:
            return False
        return True

    def _long_results(self) -> bool:
        """Whether the upper half of what a map operation refuses with is that of a negative number."""
        insns = [
            asm.store_imm(R10, -8, 0, asm.DW),
            asm.map_ptr(R1, "array"),
            Mov.reg(R2, R10),
            asm.Add.imm(R2, -8),
            Mov.reg(asm.R3, R2),
            Mov.imm(asm.R4, 3),
            asm.call(2),
            asm.Rsh.imm(R0, 32),
            exit_(),
        ]
        spec = ProgramSpec("probe", ProgType.SOCKET_FILTER, insns=insns)
        with spec.load(self.kernel, maps={"array": self.maps["array"]}) as prog:
            return self._test(ProgType.SOCKET_FILTER, prog.fd, bytes(12) + b"\x88\xb5\0\0")[0] == 0xFFFFFFFF

    def _can_set(self, path: str, value: str) -> bool:
        try:
            with _set(path, value):
                return _read(path) == value
        except OSError:
            return False

    # -- programs --------------------------------------------------------------------------------------------------------------

    def load(self, example: Example, variant: Variant) -> int:
        """An fd. Raises Refused."""
        code = example.code({name: m.fd for name, m in self.maps.items()})
        values: dict[str, Value] = {
            "prog_type": example.built.type,
            "insn_cnt": len(code) // 8,
            "insns": code,
            "license": LICENSE,
            "prog_flags": variant.flags,
            "prog_name": b"fuzz",
        }
        if variant.setting is None:
            return self._load(values)
        with _set(*variant.setting):
            return self._load(values)

    def _load(self, values: dict[str, Value]) -> int:
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        try:
            return memlock.with_room(self.kernel, lambda: self.kernel.bpf(packed.PROG_LOAD, values)).ret
        except SyscallError as err:
            if err.errno == EAGAIN:
                raise Refused(EAGAIN, TOO_LONG, "") from None
            log = bytearray(1 << 20)
            try:
                return self.kernel.bpf(packed.PROG_LOAD, {**values, "log_level": 1, "log_size": len(log), "log_buf": log}).ret
            except SyscallError as err:
                text = log.partition(b"\0")[0].decode("utf-8", "replace")
                told = VerifierError(err.errno, log=text)
                words = str(told).partition(": ")[2] or str(err)
                raise Refused(err.errno, TOO_LONG if err.errno == EAGAIN else words, text) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def run(self, example: Example, fd: int) -> Result:
        """Runs it once; the maps are as new afterwards. Raises SyscallError where the kernel does not run it."""
        names = example.built.maps
        try:
            retval, data, skb = self._test(example.built.type, fd, example.data)
            return prog_model.Result(retval, {name: self._contents(name) for name in names}, data, skb)
        finally:
            for name in names:
                self._clear(name)

    def _test(self, type: int, fd: int, data: bytes) -> tuple[int, bytes | None, tuple[int, ...] | None]:
        values, out, ctx = test_values(type, data)
        values["test.prog_fd"] = fd
        reply = self.kernel.bpf(packed.PROG_TEST_RUN, values)
        skb = None
        if ctx is not None:
            skb = tuple(struct.unpack_from("=I", ctx, word)[0] for word in prog_model.SKB_WORDS)
        return reply["test.retval"], None if out is None else bytes(out[: reply["test.data_size_out"]]), skb

    # -- maps ------------------------------------------------------------------------------------------------------------------

    def _contents(self, name: str) -> dict[bytes, bytes] | list[bytes]:
        m = self.maps[name]
        if m.spec.type in (MapType.QUEUE, MapType.STACK):
            return list(self._queued(m))
        found = dict(m.items())
        if m.spec.type in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH):
            return {key: self._of_this_cpu(value, m.spec.value) for key, value in found.items()}
        return found

    def _of_this_cpu(self, value: bytes, size: int) -> bytes:
        """This CPU's part; all of it when others have something, too, which is a difference."""
        slot = size + 7 & ~7
        begin = self.cpu * slot
        others = value[:begin] + value[begin + slot :]
        return value if any(others) else value[begin : begin + size]

    def _queued(self, m: Map) -> Iterator[bytes]:
        while True:
            value = bytearray(m.spec.value)
            try:
                self.kernel.bpf(packed.MAP_LOOKUP_AND_DELETE_ELEM, {"map_fd": m.fd, "value": value})
            except SyscallError as err:
                if err.errno == ENOENT:
                    return
                raise
            yield bytes(value)

    def _clear(self, name: str) -> None:
        m = self.maps[name]
        if m.spec.type in (MapType.QUEUE, MapType.STACK):
            list(self._queued(m))
        elif m.spec.type in (MapType.HASH, MapType.PERCPU_HASH):
            for key in list(m.keys()):
                m.delete(key)
        else:
            for index in range(m.spec.max_entries):
                m.update(index, bytes(m.value_size))


def test_values(type: int, data: bytes) -> tuple[dict[str, Value], bytearray | None, bytearray | None]:
    """The fields of PROG_TEST_RUN's attr without the fd, and the buffers for packet and context."""
    if type == ProgType.RAW_TRACEPOINT:
        args = prog_model.raw_in()
        return {"test.ctx_in": args, "test.ctx_size_in": len(args)}, None, None
    out = bytearray(_DATA_ROOM)
    values: dict[str, Value] = {
        "test.data_in": data,
        "test.data_size_in": len(data),
        "test.data_out": out,
        "test.data_size_out": len(out),
        "test.repeat": 1,
    }
    if type == ProgType.XDP:
        return values, out, None
    ctx = bytearray(prog_model.SKB_SIZE)
    values |= {
        "test.ctx_in": prog_model.skb_in(),
        "test.ctx_size_in": prog_model.SKB_SIZE,
        "test.ctx_out": ctx,
        "test.ctx_size_out": len(ctx),
    }
    return values, out, ctx


class _set:
    """A setting of the machine, for a moment."""

    def __init__(self, path: str, value: str) -> None:
        self.path = path
        self.value = value
        self.before = ""

    def __enter__(self) -> None:
        self.before = _read(self.path)
        _write(self.path, self.value)

    def __exit__(self, *exc: object) -> None:
        _write(self.path, self.before)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)
