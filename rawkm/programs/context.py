"""How a mechanism runs a program: what R1 is, when it runs, and what it can tell of the call.

A job (count, trace) describes what it does once, with R6 as the context; a Context makes of it a program for one mechanism.
"""

from __future__ import annotations

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R6,
    R10,
    Add,
    JEq,
    JNe,
    Mov,
    atomic_add,
    call,
    exit_,
    kfunc,
    label,
    load,
    map_value,
    store,
)
from rawkm.asm import store_imm as store_constant
from rawkm.errors import NotSupportedError
from rawkm.prog import ProgramSpec
from rawkm.programs.common import OUT, SWITCH
from rawkm.uapi.constants import AttachType, Helper, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.asm import Item
    from rawkm.programs.follow import Follow
    from rawkm.syscall.kernel import Kernel

# Arguments that a record has room for: those that x86-64 passes in registers.
MOST_ARGUMENTS = 6

# machine: where struct pt_regs has the arguments in registers, and what a function returns. arch/*/include/uapi/asm/ptrace.h
_REGISTERS = {
    "x86_64": ((112, 104, 96, 88, 72, 64), 80),
    "aarch64": ((0, 8, 16, 24, 32, 40), 0),
}

# Where a helper puts what it is asked for; below what the filter uses of the stack.
_SLOT = -40


class Context:
    """``type``, ``attach_type``: of the program. ``at_return``: it runs when the function returns.

    ``alone``: the kernel runs one such program at a time on a CPU (bpf_prog_active), so that counters need no atomic addition.
    """

    __slots__ = ("alone", "at_return", "attach_type", "type")

    def __init__(self, type: int, attach_type: int, *, at_return: bool, alone: bool) -> None:
        self.type = type
        self.attach_type = attach_type
        self.at_return = at_return
        self.alone = alone

    # -- what differs ----------------------------------------------------------------------------------------------------------

    def argument(self, number: int) -> list[Item]:
        """R0 = the ``number``-th argument, as the calling convention widened it: only its type's bytes mean anything.

        Clobbers R0 to R5.
        """
        raise NotImplementedError

    def returned(self) -> list[Item]:
        """R0 = what the function returned, widened alike. Clobbers R0 to R5."""
        raise NotImplementedError

    def _begin(self, follow: Follow | None, unfiltered: Sequence[Item]) -> list[Item]:
        return [*unfiltered, *([] if follow is None else follow.check(OUT))]

    def _end(self) -> list[Item]:
        return [label(OUT), Mov.imm(R0, 0), exit_()]

    _btf_id = 0

    # -- what does not ---------------------------------------------------------------------------------------------------------

    def program(
        self,
        name: str,
        body: Sequence[Item],
        follow: Follow | None = None,
        *,
        first: Sequence[Item] = (),
        unfiltered: Sequence[Item] = (),
    ) -> ProgramSpec:
        """``body`` for this mechanism: it runs with the context in R6 while the switch is on, for followed tasks.

        ``body`` owns R7 to R9 and the stack below -64; it ends by falling through, or by jumping to OUT. ``first`` comes before
        anything else, ``unfiltered`` next, once per call of the function, whoever calls it.
        """
        insns: list[Item] = [
            Mov.reg(R6, R1),
            map_value(R1, SWITCH),
            load(R1, R1, 0, DW),
            JEq.imm(R1, 0, OUT),
            *first,
            *self._begin(follow, unfiltered),
            *body,
            *self._end(),
        ]
        return ProgramSpec(name, self.type, attach_type=self.attach_type, attach_btf_id=self._btf_id, insns=insns)

    def increment(self, base: int, offset: int) -> list[Item]:
        """Adds 1 to the u64 at ``base + offset``, in this CPU's row. Clobbers R2."""
        if self.alone:
            return [load(R2, base, offset, DW), Add.imm(R2, 1), store(base, offset, R2, DW)]
        return [Mov.imm(R2, 1), atomic_add(base, offset, R2, DW)]


class Registers(Context):
    """R1 is a struct pt_regs: kprobes of any kind."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: Kernel, attach_type: int, *, at_return: bool) -> None:
        super().__init__(ProgType.KPROBE, attach_type, at_return=at_return, alone=True)
        self._kernel = kernel

    def argument(self, number: int) -> list[Item]:
        return [load(R0, R6, registers(self._kernel)[0][number], DW)]

    def returned(self) -> list[Item]:
        return [load(R0, R6, registers(self._kernel)[1], DW)]


def registers(kernel: Kernel) -> tuple[tuple[int, ...], int]:
    """(offsets of the arguments, offset of what is returned) in struct pt_regs. Raises NotSupportedError elsewhere."""
    machine = kernel.uname()[1]
    if machine not in _REGISTERS:
        raise NotSupportedError(f"arguments on {machine}", "where they are is known to rawkm for x86_64 and aarch64 only")
    return _REGISTERS[machine]


class Session(Registers):
    """As Registers, for kprobe session programs: the run at entry says whether there shall be one at return."""

    __slots__ = ("_is_return",)

    def __init__(self, kernel: Kernel, *, at_return: bool, is_return: int) -> None:
        super().__init__(kernel, AttachType.TRACE_KPROBE_SESSION, at_return=at_return)
        self._is_return = is_return

    def _begin(self, follow: Follow | None, unfiltered: Sequence[Item]) -> list[Item]:
        if not self.at_return:
            return super()._begin(follow, unfiltered)
        # Who is not followed at entry is not asked again: OUT answers 1 there.
        return [
            Mov.reg(R1, R6),
            kfunc(self._is_return),
            JNe.imm(R0, 0, "returns"),
            *super()._begin(follow, unfiltered),
            Mov.imm(R0, 0),
            exit_(),
            label("returns"),
        ]

    def _end(self) -> list[Item]:
        """1: no run at return (which has happened, where this is it)."""
        return [label(OUT), Mov.imm(R0, 1), exit_()]


class Trampoline(Context):
    """R1 is an array of u64: the arguments of the one function that the program is for and, at return, what it returned.

    ``btf_id``: the function's; ``slots``: how many u64 its arguments take; ``returns``: whether it is no void function.
    """

    __slots__ = ("_btf_id", "_returns", "_slots")

    def __init__(self, btf_id: int, slots: int, *, at_return: bool, returns: bool) -> None:
        kind = AttachType.TRACE_FEXIT if at_return else AttachType.TRACE_FENTRY
        super().__init__(ProgType.TRACING, kind, at_return=at_return, alone=False)
        self._btf_id = btf_id
        self._slots = slots
        self._returns = returns

    def argument(self, number: int) -> list[Item]:
        # The verifier knows how many there are.
        return [load(R0, R6, 8 * number, DW) if number < self._slots else Mov.imm(R0, 0)]

    def returned(self) -> list[Item]:
        return [load(R0, R6, 8 * self._slots, DW) if self._returns else Mov.imm(R0, 0)]


class TrampolineMulti(Context):
    """As Trampoline, for functions of any signature: helpers read the array."""

    __slots__ = ()

    def __init__(self, *, at_return: bool) -> None:
        kind = AttachType.TRACE_FEXIT_MULTI if at_return else AttachType.TRACE_FENTRY_MULTI
        super().__init__(ProgType.TRACING, kind, at_return=at_return, alone=False)

    def argument(self, number: int) -> list[Item]:
        """0 where the function has fewer."""
        return [
            store_constant(R10, _SLOT, 0, DW),
            Mov.reg(R1, R6),
            Mov.imm(R2, number),
            Mov.reg(R3, R10),
            Add.imm(R3, _SLOT),
            call(Helper.get_func_arg),
            load(R0, R10, _SLOT, DW),
        ]

    def returned(self) -> list[Item]:
        return [
            store_constant(R10, _SLOT, 0, DW),
            Mov.reg(R1, R6),
            Mov.reg(R2, R10),
            Add.imm(R2, _SLOT),
            call(Helper.get_func_ret),
            load(R0, R10, _SLOT, DW),
        ]
