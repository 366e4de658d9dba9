"""What is wrong with a program, found before a kernel sees it.

A finding is an *error* when every kernel refuses the program, and a *warning* when a kernel refuses it once
its verifier gets there. It need not: it walks only one side of a branch whose outcome it can tell, and takes
whatever stands on the other. So a warning is no reason not to try, and a program that some kernel takes has
no error.

What the verifier checks of all instructions, walked or not (``check_subprogs`` and ``check_cfg`` in
kernel/bpf/verifier.c), gives errors: jumps, ends of subprograms, unreachable code. What it finds when it
executes an instruction gives errors only where every path from the start leads to one.
"""

from __future__ import annotations

from rawkm.asm import opcodes
from rawkm.asm.insn import Insn, Label, checked
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rawkm.asm.insn import Item
    from rawkm.errors import SrcLoc

MAX_SLOTS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS
MAX_STACK = 512  # MAX_BPF_STACK

# Program types whose R0 need not be set at the end (void hooks) or that have arguments in R1..R5.
_UNUSUAL = {"ext", "lsm", "struct_ops"}

_ALL = (1 << 10) - 1  # a bit for each of R0..R9
_ARGUMENTS = 0b111110  # R1..R5
_SAVED = 0b1111000000  # R6..R9

_WIDTHS = {bits: width for width, bits in opcodes.WIDTHS.items()}
_LAST_OPCODES = (opcodes.EXIT, opcodes.JA, opcodes.GOTOL, opcodes.GOTOX)


class Finding:
    """One thing that is wrong.

    ``level``: "error" or "warning". ``code``: a short name of the kind. ``index``: the slot, counted as the
    verifier does. ``loc``: the (file, line) that made the instruction. ``text``: a sentence.
    """

    __slots__ = ("code", "index", "level", "loc", "text")

    def __init__(self, level: str, code: str, index: int, loc: SrcLoc | None, text: str) -> None:
        self.level = level
        self.code = code
        self.index = index
        self.loc = loc
        self.text = text

    @property
    def line(self) -> int | None:
        """The line in its file, None for what was decoded."""
        return None if self.loc is None else self.loc[1]

    def __repr__(self) -> str:
        return f"Finding({self.level!r}, {self.code!r}, {self.index}, {self.loc!r}, {self.text!r})"

    def __str__(self) -> str:
        where = "" if self.loc is None else f"{self.loc[0]}:{self.loc[1]}: "
        return f"{where}{self.level}: instruction {self.index}: {self.text} [{self.code}]"


def lint(items: Iterable[Item], *, type: str = "") -> list[Finding]:
    """What is wrong with a program, in the order of its instructions.

    ``type``: the program's, as in ``.type`` ("kprobe"). Without it, R0 that is not set at the end and R2 to
    R5 that are read without having been set give warnings only, since some types allow them.

    The codes: ``label`` (unknown or defined twice), ``empty``, ``too-long``, ``opcode``, ``jump-range``,
    ``jump-middle``, ``fall-through``, ``unreachable``, ``reserved`` (a field that must be 0, a register that
    does not exist), ``operand`` (a shift by the width, a division by 0), ``unset`` (a register), ``r10``
    (written), ``stack`` (out of range).

    An exception callback is named by BTF alone; code of its own is no error where kernel functions are
    called, since ``bpf_throw`` is one.
    """
    return _Linter(type).lint(tuple(items))


class _Linter:
    def __init__(self, type: str) -> None:
        self._type = type
        self._findings: list[Finding] = []
        self._slots: list[Insn | None] = []  # None: the second half of ld_imm64
        self._starts: list[int] = []  # of the subprograms
        self._starts_set: set[int] = set()
        self._called: set[int] = set()
        self._kfuncs = False
        self._gotox = False

    def lint(self, program: tuple[Item, ...]) -> list[Finding]:
        self._resolve(program)
        if not self._findings:
            self._split()
            self._check_jumps()
        if not self._findings:
            # A walk needs targets that exist.
            self._check_reach()
            self._walk()
        return sorted(self._findings, key=lambda one: one.index)

    def _add(self, level: str, code: str, index: int, text: str) -> None:
        insn = self._slots[index] if index < len(self._slots) else None
        loc = None if insn is None else insn.loc
        self._findings.append(Finding(level, code, index, loc, text))

    def _resolve(self, program: tuple[Item, ...]) -> None:
        """Slots with distances instead of labels."""
        slots = self._slots
        labels: dict[str, int] = {}
        for index, item in enumerate(program):
            if isinstance(item, Label):
                if item.name in labels:
                    text = f"the label {item.name!r} is defined twice"
                    self._findings.append(Finding("error", "label", len(slots), item.loc, text))
                labels.setdefault(item.name, len(slots))
            elif isinstance(item, Insn):
                if index and _is_damaged_pair(program, index - 1):
                    slots.append(None)
                    continue
                slots.append(item)
                if item.slots == 2:
                    slots.append(None)
            else:
                raise AssembleError(f"item {index} is neither an instruction nor a label: {item!r}")
        if not slots:
            self._add("error", "empty", 0, "there is no instruction")
        if len(slots) > MAX_SLOTS:
            text = f"the program has {len(slots)} slots, at most {MAX_SLOTS} are taken"
            self._add("error", "too-long", MAX_SLOTS, text)
        for at, insn in enumerate(slots):
            if insn is None or insn.target is None:
                continue
            if insn.target not in labels:
                self._add("error", "label", at, f"there is no label {insn.target!r}")
                continue
            distance = labels[insn.target] - at - 1
            off, imm = insn.off, insn.imm
            if opcodes.target_field(insn.opcode, insn.src) == "off":
                off = distance
            else:
                imm = distance
            slots[at] = checked(insn.opcode, insn.dst, insn.src, off, imm, loc=insn.loc)

    def _insns(self) -> Iterator[tuple[int, Insn]]:
        return ((at, insn) for at, insn in enumerate(self._slots) if insn is not None)

    def _at(self, slot: int) -> Insn:
        insn = self._slots[slot]
        assert insn is not None
        return insn

    def _split(self) -> None:
        """Where subprograms start: where something calls or points to."""
        starts = {0}
        for at, insn in self._insns():
            if insn.opcode == opcodes.GOTOX:
                self._gotox = True
            elif insn.opcode == opcodes.CALL and insn.src == opcodes.CALL_KFUNC:
                self._kfuncs = True
            to = _subprogram(insn, at)
            if to is None:
                continue
            if not 0 <= to < len(self._slots):
                self._add("error", "jump-range", at, f"slot {to}, where this subprogram is, is not in the program")
            elif self._slots[to] is None:
                self._add("error", "jump-middle", at, f"slot {to}, where this subprogram is, is half a ld_imm64")
            else:
                starts.add(to)
                if insn.opcode == opcodes.CALL:
                    self._called.add(to)
        self._starts = sorted(starts)
        self._starts_set = starts

    def _check_jumps(self) -> None:
        ends = [*self._starts[1:], len(self._slots)]
        for start, end in zip(self._starts, ends, strict=True):
            for at in range(start, end):
                insn = self._slots[at]
                if insn is None:
                    continue
                to = _target(insn, at)
                if to is not None and not start <= to < end:
                    inside = 0 <= to < len(self._slots)
                    what = "in another subprogram" if inside else "outside the program"
                    self._add("error", "jump-range", at, f"the jump goes to slot {to}, {what}")
                elif to is not None and self._slots[to] is None:
                    self._add("error", "jump-middle", at, f"the jump goes into the second half of ld_imm64, slot {to}")
            last = self._slots[end - 1]
            if last is None or not (
                last.opcode in _LAST_OPCODES or (last.opcode == opcodes.CALL and last.src == opcodes.CALL_KFUNC)
            ):
                at = end - 1 if last is not None else end - 2
                where = "the program" if end == len(self._slots) else "a subprogram"
                text = f"{where} ends here without exit or goto: execution would go on behind it"
                self._add("error", "fall-through", at, text)

    def _check_reach(self) -> None:
        for at, insn in self._insns():
            if insn.opcode not in _known_opcodes():
                self._add("error", "opcode", at, f"there is no opcode {insn.opcode:#04x}")
        if self._gotox:
            return  # anything may be in its table
        todo = [0]
        seen = bytearray(len(self._slots) + 2)
        while todo:
            at = todo.pop()
            if seen[at]:
                continue
            seen[at] = 1
            insn = self._at(at)
            todo += [to for to in self._next(insn, at) if not seen[to]]
            to = _subprogram(insn, at)
            if to is not None:
                todo.append(to)
        level = "warning" if self._kfuncs else "error"
        dead = False
        for at, _ in self._insns():
            if not seen[at] and not dead:
                self._add(level, "unreachable", at, "nothing leads here")
            dead = not seen[at]

    def _next(self, insn: Insn, at: int) -> list[int]:
        """The slots that may come after this one in its subprogram."""
        opcode = insn.opcode
        if opcode in (opcodes.EXIT, opcodes.GOTOX):
            return []
        to = _target(insn, at)
        if opcode in (opcodes.JA, opcodes.GOTOL):
            return [] if to is None else [to]
        after = at + 1 if at + 1 >= len(self._slots) or self._slots[at + 1] is not None else at + 2
        following = [after] if after < len(self._slots) else []
        return following if to is None or to == after else [*following, to]

    def _walk(self) -> None:
        """What the verifier finds where it gets."""
        usual = bool(self._type) and self._type not in _UNUSUAL
        events = self._events(strict=True)
        certain = events if usual else self._events(strict=False)
        sure = self._inevitable(certain)
        told = {events[at] for at in sure if at in events}
        for at, (code, text) in events.items():
            if at in sure:
                self._add("error", code, at, text)
            elif code != "unset" or (code, text) not in told:
                # A register that is not set is told once; what follows from it, not at all.
                self._add("warning", code, at, text)

    def _events(self, *, strict: bool) -> dict[int, tuple[str, str]]:
        """What an instruction is refused for when the verifier gets to it, whichever way it came.

        ``strict``: as for program types that set R1 alone and return something.
        """
        unset: dict[int, int] = {0: (_ALL & ~0b10) if strict else _ALL & ~_ARGUMENTS}
        events: dict[int, tuple[str, str]] = {}
        todo = [0]
        main_end = self._starts[1] if len(self._starts) > 1 else len(self._slots)

        def reach(to: int, mask: int) -> None:
            # Not set on every way here.
            known = unset.get(to)
            both = mask if known is None else known & mask
            if both != known:
                unset[to] = both
                todo.append(to)

        while todo:
            at = todo.pop()
            insn = self._at(at)
            mask = unset[at]
            event = _event(insn, mask)
            if event is None and insn.opcode == opcodes.EXIT and strict and mask & 1 and at < main_end:
                event = ("unset", "R0, the result, is not set")
            if event is not None:
                events[at] = event
            else:
                events.pop(at, None)
            to = _subprogram(insn, at)
            if to is not None:
                callback = insn.opcode != opcodes.CALL
                reach(to, 1 | _SAVED | (0 if callback else mask & _ARGUMENTS))
            after = _after(insn, mask)
            for following in self._next(insn, at):
                reach(following, after)
        return events

    def _inevitable(self, events: dict[int, tuple[str, str]]) -> set[int]:
        """Of the events the first ones on the ways from the start, if no way leads past them."""
        before: dict[int, list[int]] = {}
        for at, insn in self._insns():
            for to in self._next(insn, at):
                before.setdefault(to, []).append(at)
            if insn.opcode == opcodes.CALL and (start := _subprogram(insn, at)) is not None:
                before.setdefault(start, []).append(at)
        doomed = set(events)
        todo = list(events)
        while todo:
            for at in before.get(todo.pop(), ()):
                if at not in doomed and self._is_doomed(at, doomed):
                    doomed.add(at)
                    todo.append(at)
        if 0 not in doomed:
            return set()
        first: set[int] = set()
        seen: set[int] = set()
        todo = [0]
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            if at in events:
                first.add(at)
                continue
            insn = self._at(at)
            todo += self._next(insn, at)
            start = _subprogram(insn, at)
            if start is not None:
                todo.append(start)
        return first

    def _is_doomed(self, at: int, doomed: set[int]) -> bool:
        insn = self._at(at)
        following = self._next(insn, at)
        onward = bool(following) and all(to in doomed for to in following)
        if insn.opcode == opcodes.CALL and insn.src != opcodes.CALL_HELPER:
            # bpf_throw, here or in the subprogram, does not come back.
            to = _subprogram(insn, at)
            return (onward and not self._kfuncs) or (to is not None and to in doomed)
        return onward


def _is_damaged_pair(program: tuple[Item, ...], index: int) -> bool:
    """Whether two raw slots are an ld_imm64 with a bad first half, which counts as one."""
    first = program[index]
    second = program[index + 1] if index + 1 < len(program) else None
    return (
        isinstance(first, Insn)
        and isinstance(second, Insn)
        and first.raw
        and second.raw
        and first.opcode == opcodes.LD_IMM64
        and (second.opcode, second.dst, second.src, second.off) == (0, 0, 0, 0)
    )


def _subprogram(insn: Insn, at: int) -> int | None:
    """The slot of the subprogram that is called or pointed to."""
    if insn.raw or (insn.opcode, insn.src) not in (
        (opcodes.CALL, opcodes.CALL_SUB),
        (opcodes.LD_IMM64, opcodes.FUNC),
    ):
        return None
    return at + 1 + _signed32(insn.imm)


def _target(insn: Insn, at: int) -> int | None:
    """The slot that a jump goes to; the kernel looks for no more than the opcode."""
    opcode = insn.opcode
    if opcode & 7 not in (opcodes.JMP, opcodes.JMP32) or opcode == opcodes.GOTOX:
        return None
    if opcode & 0xF0 in (opcodes.EXIT & 0xF0, opcodes.CALL & 0xF0):
        return None
    return at + 1 + (_signed32(insn.imm) if opcode == opcodes.GOTOL else insn.off)


def _event(insn: Insn, unset: int) -> tuple[str, str] | None:
    """Why the verifier refuses an instruction, given the registers that are not set."""
    opcode, dst, src, off, imm = insn.opcode, insn.dst, insn.src, insn.off, insn.imm
    cls = opcode & 7
    if insn.raw or opcodes.find_form(opcode, dst, src, off, imm) is None:
        if opcode == opcodes.EXIT and not (dst or src or imm):
            return None  # the one reserved field that the verifier does not look at
        return "reserved", "a reserved field is not 0, or a register does not exist"
    if opcode == opcodes.CALLX:
        return "opcode", "no kernel takes callx"
    reads, writes = _registers(insn)
    for register in range(10):
        if unset >> register & reads >> register & 1:
            return "unset", f"R{register} is read, but not set on any way here{_lost(register)}"
    if writes >> 10 & 1:
        return "r10", "R10, the frame pointer, cannot be written"
    if cls in (opcodes.ALU, opcodes.ALU64) and not opcode & opcodes.X:
        operation = opcode & 0xF0
        low, high = opcodes.imm_range(opcode)
        if operation in opcodes.SHIFTS and not low <= imm <= high:
            return "operand", f"the shift by {imm} is outside {low}..{high}"
        if operation in opcodes.SIGNED_OPS.values() and imm == 0:
            return "operand", "a division by 0"
    base = _base(insn)
    if base == 10:
        width = _WIDTHS[opcode & 0x18]
        if off < -MAX_STACK or off + width > 0:
            return "stack", f"{width} bytes at R10{off:+d} are outside the stack, R10-{MAX_STACK} to R10-1"
    return None


def _lost(register: int) -> str:
    return "; calls lose R1 to R5" if 1 <= register <= 5 else ""


def _base(insn: Insn) -> int | None:
    """The register whose memory is accessed."""
    cls = insn.opcode & 7
    if cls == opcodes.LDX:
        return insn.src
    if cls not in (opcodes.ST, opcodes.STX):
        return None
    acquire = insn.opcode & 0xE0 == opcodes.ATOMIC and insn.imm == opcodes.LOAD_ACQUIRE
    return insn.src if acquire else insn.dst


def _registers(insn: Insn) -> tuple[int, int]:
    """(read, written) registers, a bit each, of an instruction that has a form."""
    opcode, imm = insn.opcode, insn.imm
    cls, mode = opcode & 7, opcode & 0xE0
    dst, src = 1 << insn.dst, 1 << insn.src
    if cls in (opcodes.ALU, opcodes.ALU64):
        operation = opcode & 0xF0
        second = src if opcode & opcodes.X and operation != opcodes.END else 0
        return second if operation == opcodes.ALU_OPS["Mov"] else second | dst, dst
    if cls in (opcodes.JMP, opcodes.JMP32):
        if opcode == opcodes.GOTOX:
            return dst, 0
        if opcode & 0xF0 not in opcodes.JUMP_OPS.values():
            return 0, 0
        return dst | (src if opcode & opcodes.X else 0), 0
    if cls == opcodes.LDX:
        return src, dst
    if cls == opcodes.ST:
        return dst, 0
    if cls == opcodes.LD:
        if opcode == opcodes.LD_IMM64:
            return 0, dst
        return 1 << 6 | (src if mode == opcodes.IND else 0), 1
    if mode == opcodes.MEM or imm == opcodes.STORE_RELEASE:
        return dst | src, 0
    if imm == opcodes.LOAD_ACQUIRE:
        return src, dst
    if imm == opcodes.CMPXCHG:
        return dst | src | 1, 1
    return dst | src, src if imm & opcodes.FETCH else 0


def _after(insn: Insn, unset: int) -> int:
    """The registers that are not set after an instruction."""
    opcode = insn.opcode
    if insn.raw:
        return 0
    if opcode == opcodes.CALL or (opcode & 7 == opcodes.LD and opcode != opcodes.LD_IMM64):
        return unset & _SAVED | _ARGUMENTS
    return unset & ~_registers(insn)[1]


def _known_opcodes() -> frozenset[int]:
    global _opcodes  # noqa: PLW0603
    if not _opcodes:
        _opcodes = frozenset(form.opcode for form in opcodes.forms())
    return _opcodes


_opcodes: frozenset[int] = frozenset()


def _signed32(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
