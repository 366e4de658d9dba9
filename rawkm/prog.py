"""BPF programs: the specification, an inert value, and the loaded program, which owns an fd."""

from __future__ import annotations

from errno import EAGAIN, ENOSPC

from rawkm.asm import encode, locate, map_refs
from rawkm.errors import SyscallError, UsageError, VerifierError
from rawkm.handle import Handle
from rawkm.host import memlock
from rawkm.maps import Map, MapSpec
from rawkm.uapi import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rawkm.asm import Item
    from rawkm.syscall.kernel import Kernel, Value

LICENSE = "Dual MIT/GPL"

# The verifier gives up with EAGAIN when a signal is pending; libbpf and cilium/ebpf try five times, too.
_TRIES = 5
_RECURSION_MISSES_END = 216
_LOG_FIRST = 1 << 16
_LOG_LAST = (1 << 32) - 1 >> 2  # kernel/bpf/log.c, bpf_verifier_log_attr_valid


class ProgramSpec:
    """A program to be. ``type``: a ProgType; ``attach_type``: the AttachType it will have, which many types fix at load.

    ``insns``: instructions and labels; the maps they name by MapSpec are created at load. ``license``: as the kernel reads it;
    most tracing helpers want one that is GPL-compatible. ``attach_btf_id``: the function that a TRACING program is for (Linux
    5.5), in the BTF of the kernel, or in that of the module whose fd is ``attach_btf_fd`` (Linux 5.11).
    """

    __slots__ = ("attach_btf_fd", "attach_btf_id", "attach_type", "flags", "insns", "license", "name", "type")

    def __init__(
        self,
        name: str,
        type: int,
        *,
        insns: Sequence[Item],
        attach_type: int = 0,
        attach_btf_id: int = 0,
        attach_btf_fd: int = 0,
        license: str = LICENSE,
        flags: int = 0,
    ) -> None:
        if len(name) > 15 or not all(c.isascii() and (c.isalnum() or c in "_.") for c in name):
            raise UsageError(f"a program cannot be named {name!r}: at most 15 of A-Z a-z 0-9 _ .")
        self.name = name
        self.type = type
        self.attach_type = attach_type
        self.attach_btf_id = attach_btf_id
        self.attach_btf_fd = attach_btf_fd
        self.insns = tuple(insns)
        self.license = license
        self.flags = flags

    def __repr__(self) -> str:
        return f"ProgramSpec({self.name!r}, {self.type}, attach_type={self.attach_type}, {len(self.insns)} items)"

    def load(self, kernel: Kernel, maps: Mapping[str, Map] | None = None) -> Program:
        """BPF_PROG_LOAD. ``maps``: live maps by name; the others that the program names are created and owned by the program.

        Raises VerifierError with the whole log when the verifier refuses, SyscallError for everything else (EPERM without CAP_BPF
        and CAP_PERFMON), AssembleError for a program that cannot be encoded.
        """
        maps = dict(maps or {})
        owned: list[Map] = []
        try:
            for ref in map_refs(self.insns):
                if isinstance(ref, MapSpec) and ref.name not in maps:
                    maps[ref.name] = ref.create(kernel)
                    owned.append(maps[ref.name])
            code = encode(self.insns, maps={name: m.fd for name, m in maps.items()})
            fd = self._load(kernel, code)
        except BaseException:
            for m in owned:
                m.close()
            raise
        return Program(kernel, fd, self, maps, owned)

    def _load(self, kernel: Kernel, code: bytes) -> int:
        values: dict[str, Value] = {
            "prog_type": self.type,
            "insn_cnt": len(code) // 8,
            "insns": code,
            "license": self.license,
            "prog_flags": self.flags,
            "prog_name": self.name.encode(),
            "expected_attach_type": self.attach_type,
            "attach_btf_id": self.attach_btf_id,
            "attach_btf_obj_fd": self.attach_btf_fd,
        }
        # A log buffer that is too small turns success into ENOSPC: none at first, one when the kernel has refused.
        try:
            return _persistent(kernel, values)
        except SyscallError as err:
            fd, log = _logged(kernel, values)
            if fd is not None:
                return fd
            if not log:
                raise
            raise self._blamed(err, log) from None

    def _blamed(self, err: SyscallError, log: str) -> VerifierError:
        """The error, with the instruction that the log's end is about."""
        from rawkm.asm import format_insn

        slots = locate(self.insns)
        at = _blame(log, len(slots))
        if at is None:
            return VerifierError(err.errno, log=log, attr=err.attr)
        insn = slots[at]
        text = format_insn(insn, helpers=True)
        return VerifierError(err.errno, log=log, attr=err.attr, insn_index=at, insn=text, src_loc=insn.loc)


def _blame(log: str, slots: int) -> int | None:
    """The slot of the instruction that the end of the log of a program of so many slots is about.

    That is the last one shown ("12: (85) call …"), or what is named where none is ("jump out of range from insn 3 to 9").
    """
    for line in reversed(log.splitlines()):
        number, colon, rest = line.partition(": ")
        shown = number if colon and rest.startswith("(") else line.partition(" insn ")[2].partition(" ")[0]
        if shown.isdecimal() and int(shown) < slots:
            return int(shown)
        if line.startswith("last insn "):
            return slots - 1
    return None


def _persistent(kernel: Kernel, values: Mapping[str, Value]) -> int:
    for attempt in range(_TRIES):
        try:
            return memlock.with_room(kernel, lambda: kernel.bpf(packed.PROG_LOAD, values)).ret
        except SyscallError as err:
            if err.errno != EAGAIN or attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _logged(kernel: Kernel, values: Mapping[str, Value]) -> tuple[int | None, str]:
    """The refused program once more, with a log: (fd if it loads after all, the whole log).

    The log is "" when the kernel refuses before the verifier runs.
    """
    size = _LOG_FIRST
    while True:
        buffer = bytearray(size)
        again: dict[str, Value] = {**values, "log_level": 1, "log_size": size, "log_buf": buffer}
        try:
            return _persistent(kernel, again), ""
        except SyscallError as err:
            # Linux 6.4 says how much the log takes; before, it is 0.
            needed = packed.PROG_LOAD.unpack(err.attr_after)["log_true_size"]
            assert isinstance(needed, int)
            if err.errno == ENOSPC and size < _LOG_LAST and not 0 < needed <= size:
                size = min(needed or size * 8, _LOG_LAST)
                continue
        return None, buffer.partition(b"\0")[0].decode("utf-8", "replace")


class Program(Handle):
    """A loaded program. ``maps``: every map it uses, by name."""

    __slots__ = ("_owned", "maps", "spec")

    def __init__(self, kernel: Kernel, fd: int, spec: ProgramSpec, maps: Mapping[str, Map], owned: Sequence[Map] = ()) -> None:
        super().__init__(kernel, fd)
        self.spec = spec
        self.maps = dict(maps)
        self._owned = tuple(owned)

    def close(self) -> None:
        """Closes the program and the maps that its load created."""
        super().close()
        for m in self._owned:
            m.close()

    def info(self) -> dict[str, int | bytes]:
        """The fields of bpf_prog_info that this kernel fills in; ``recursion_misses`` since 5.12."""
        return self.kernel.obj_info(self.fd, packed.PROG_INFO)[0]

    def recursion_misses(self) -> int | None:
        """Hits for which the kernel did not run it, as a program ran on that CPU already; None where the kernel does not tell.

        Linux 5.12 counts them, those of a single kprobe only since 6.7 (see PerfEventLink.missed).
        """
        info, filled = self.kernel.obj_info(self.fd, packed.PROG_INFO)
        misses = info["recursion_misses"]
        assert isinstance(misses, int)
        return misses if filled >= _RECURSION_MISSES_END else None

    def test_run(self, *, data: bytes | None = None, repeat: int = 0) -> int:
        """BPF_PROG_TEST_RUN in this task's context; the program's return value. Raises SyscallError 524 where the type cannot."""
        values: dict[str, Value] = {"test.prog_fd": self.fd}
        if data is not None:
            values.update({"test.data_in": data, "test.data_size_in": len(data), "test.repeat": repeat})
        return self.kernel.bpf(packed.PROG_TEST_RUN, values)["test.retval"]


__all__ = ["LICENSE", "Program", "ProgramSpec"]
