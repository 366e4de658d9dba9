"""A loaded program's instructions, with the names of what the kernel has put in: maps, helpers, kernel functions.

The kernel gives a map's id where its fd was, and the distance of a helper from ``__bpf_call_base`` (kernel/bpf/syscall.c,
bpf_insn_prepare_dump). A kernel function is given in the same way where all of them are near (x86-64), else by its BTF id
(kernel/bpf/verifier.c, fixup_kfunc_call). A call of a subprogram has the distance in off once the program is compiled, and the
subprogram's number in imm (jit_subprogs).
"""

from __future__ import annotations

from rawkm.asm import opcodes
from rawkm.asm.code import Code
from rawkm.asm.insn import Insn, checked
from rawkm.errors import BTFError, RawkmError, SyscallError
from rawkm.host import kallsyms
from rawkm.objects import LoadedProgram, map_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.btf import Btf
    from rawkm.syscall.kernel import Kernel

_VMLINUX = "/sys/kernel/btf/vmlinux"
_CALL_BASE = b"__bpf_call_base"
_U64 = (1 << 64) - 1

# What only the kernel itself makes, and so has no text (include/linux/filter.h).
_NOSPEC = 0xC2
_PERCPU_OFF = -1
_PROBE_MODES = {0x20: "PROBE_MEM", 0x40: "PROBE_MEMSX", 0xA0: "PROBE_MEM32", 0xE0: "PROBE_ATOMIC"}


def code(kernel: Kernel, program: LoadedProgram) -> Code:
    """The program's instructions and what is known of them. Where something is hidden, a note says so."""
    found = Code(program.name, program.xlated)
    found.functions = program.functions
    maps = _map_names(kernel, program.map_ids)
    calls: dict[int, Insn] = {}
    slot = 0
    for insn in found.insns():
        _note(found, slot, insn, maps)
        if insn.opcode == opcodes.CALL and insn.src in (opcodes.CALL_HELPER, opcodes.CALL_KFUNC):
            calls[slot] = insn
        slot += insn.slots
    if calls:
        _name_calls(kernel, found, calls)
    return found


def _note(code: Code, slot: int, insn: Insn, maps: dict[int, str]) -> None:
    opcode, dst, src, off, imm = insn.opcode, insn.dst, insn.src, insn.off, insn.imm
    if opcode == opcodes.LD_IMM64 and src in opcodes.MAP_SOURCES:
        id = imm & 0xFFFFFFFF
        if id in maps and not insn.raw:
            code.meant[slot] = checked(opcode, dst, src, 0, imm & ~0xFFFFFFFF, None, maps[id])
        code.notes[slot] = f"map {maps.get(id, '?')} (id {id})"
    elif opcode == opcodes.LD_IMM64 and src == opcodes.FUNC and insn.raw:
        # Compiled, it has the subprogram's number in the upper half.
        code.meant[slot] = checked(opcode, dst, src, 0, imm & 0xFFFFFFFF)
        code.notes[slot] = f"the subprogram at {slot + 1 + imm}"
    elif opcode == opcodes.CALL and src == opcodes.CALL_SUB and off:
        code.meant[slot] = checked(opcode, 0, src, 0, off)
        code.notes[slot] = f"the subprogram at {slot + 1 + off}"
    elif insn.raw:
        text = _kernels_own(opcode, dst, src, off)
        if text:
            code.notes[slot] = text


def _kernels_own(opcode: int, dst: int, src: int, off: int) -> str:
    if opcode == _NOSPEC:
        return "a barrier against speculation"
    if opcode == opcodes.ALU64 | opcodes.ALU_OPS["Mov"] | opcodes.X and off == _PERCPU_OFF:
        return f"r{dst} = this CPU's address of r{src}"
    if opcode & 7 in (opcodes.LDX, opcodes.ST, opcodes.STX):
        return _PROBE_MODES.get(opcode & 0xE0, "")
    return ""


def _map_names(kernel: Kernel, ids: list[int]) -> dict[int, str]:
    """A name for each map, unlike those of the others."""
    names: dict[int, str] = {}
    for id in dict.fromkeys(ids):
        try:
            name = map_name(kernel, id)
        except RawkmError:
            name = ""
        names[id] = name if name and name not in names.values() else f"{name or 'map'}_{id}"
    return names


def _name_calls(kernel: Kernel, code: Code, calls: dict[int, Insn]) -> None:
    from rawkm.asm.text import helper_names

    numbers = {name: number for number, name in helper_names().items()}
    symbols = _symbols(kernel, {insn.imm for insn in calls.values()})
    kfuncs = _Kfuncs(kernel) if any(insn.src == opcodes.CALL_KFUNC for insn in calls.values()) else None
    for slot, insn in calls.items():
        names = symbols.get(insn.imm, [])
        if insn.src == opcodes.CALL_HELPER:
            known = [name for name in names if name in numbers]
            if known:
                code.meant[slot] = checked(opcodes.CALL, 0, opcodes.CALL_HELPER, 0, numbers[known[0]])
            names = known or names or ([] if symbols else ["a helper; CAP_SYSLOG and kernel.kptr_restrict < 2 show which"])
        elif kfuncs is not None:
            names = kfuncs.names(insn, names)
            id = kfuncs.id(names[0]) if names and not insn.off else None
            if id is not None:
                code.meant[slot] = checked(opcodes.CALL, 0, opcodes.CALL_KFUNC, 0, id, comment=names[0])
        if names:
            code.notes[slot] = names[0]


def _symbols(kernel: Kernel, distances: set[int]) -> dict[int, list[str]]:
    """The functions at distances from __bpf_call_base; empty where addresses are hidden."""
    try:
        [base] = kallsyms.addresses(kernel, [(_CALL_BASE, b"")]).of(_CALL_BASE, b"") or [0]
        wanted = {base + distance & _U64: distance for distance in distances} if base else {}
        found: dict[int, list[str]] = {}
        for address, name, _ in kallsyms.functions(kernel) if wanted else ():
            if address in wanted:
                found.setdefault(wanted[address], []).append(name.decode("utf-8", "backslashreplace"))
        return found
    except SyscallError:
        return {}


class _Kfuncs:
    """Kernel functions by this kernel's BTF."""

    def __init__(self, kernel: Kernel) -> None:
        from rawkm.btf import Btf

        self._near = kernel.uname()[1] == "x86_64"
        try:
            self._btf: Btf | None = Btf(kernel.read_file(_VMLINUX))
        except (SyscallError, BTFError):
            self._btf = None

    def names(self, insn: Insn, at_its_distance: list[str]) -> list[str]:
        """The names that a call may mean."""
        if self._near or insn.off or self._btf is None:
            return at_its_distance or (["a function of a module"] if insn.off else [])
        try:
            return [self._btf.type(insn.imm).name]
        except BTFError:
            return at_its_distance

    def id(self, name: str) -> int | None:
        """The BTF id of a function of the kernel image."""
        from rawkm.btf import FUNC

        try:
            return None if self._btf is None else self._btf.find(name, FUNC)
        except BTFError:
            return None
