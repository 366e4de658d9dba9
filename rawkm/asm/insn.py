"""One instruction as an immutable value that knows which line of the user's code made it."""

from __future__ import annotations

import sys

from rawkm.asm import opcodes
from rawkm.errors import AssembleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Protocol, TypeAlias

    from rawkm.errors import SrcLoc

    class Named(Protocol):
        """Anything with a name that a map can be looked up by."""

        @property
        def name(self) -> str: ...

    Symbol: TypeAlias = Named | str


class Reg(int):
    """A register. It is its number, but it is not taken where a plain number is meant."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"R{int(self)}"


class Item:
    """What a program is a list of: an Insn or a Label."""

    __slots__ = ("loc",)

    loc: SrcLoc | None


class Insn(Item):
    """One BPF instruction; ld_imm64, two slots of eight bytes, is one too.

    ``opcode``, ``dst``, ``src``, ``off``: as in ``struct bpf_insn``. ``imm``: signed, 32 bits, or 64 for
    ld_imm64.
    ``target``: a label; ``encode`` puts the distance to it into ``off`` or ``imm``.
    ``symbol``: a map, by name or as an object with a name; ``encode`` puts its fd into the low half of
    ld_imm64's imm.
    ``src`` (MAP_FD or MAP_VALUE) says whether the map's address is meant or its value's; the high half of
    imm is the offset into the value.
    ``raw``: one verbatim slot that is no instruction; its fields mean nothing.
    ``loc``: the (file, line) that made it, None for what was decoded. ``comment``: free text.

    Two are equal when they mean the same, whatever their ``loc`` and ``comment``; maps are compared by name.
    ``repr()`` is the DSL code that makes it. A field out of range raises AssembleError.
    """

    __slots__ = ("comment", "dst", "imm", "off", "opcode", "raw", "src", "symbol", "target")

    opcode: int
    dst: int
    src: int
    off: int
    imm: int
    target: str | None
    symbol: Symbol | None
    raw: bool
    comment: str | None

    def __init__(
        self,
        opcode: int,
        *,
        dst: int = 0,
        src: int = 0,
        off: int = 0,
        imm: int = 0,
        target: str | None = None,
        symbol: Symbol | None = None,
        raw: bool = False,
        loc: SrcLoc | None = None,
        comment: str | None = None,
    ) -> None:
        if loc is None:
            loc = caller()
        wide = opcode == opcodes.LD_IMM64 and not raw
        opcode = number(opcode, 0, 255, "opcode", loc)
        last = 15 if raw else opcodes.LAST_REGISTER
        if (dst == opcodes.STACK_ARGS or src == opcodes.STACK_ARGS) and opcodes.stack_argument(
            opcode, dst, src, number(off, *opcodes.S16, "offset", loc)
        ):
            last = opcodes.STACK_ARGS
        dst = register(dst, last, "destination", loc)
        src = register(src, last, "source", loc)
        off = number(off, *opcodes.S16, "offset", loc)
        imm = number(imm, *(opcodes.ANY64 if wide else opcodes.S32), "immediate", loc)
        if imm > opcodes.ANY64[1] >> 1:
            imm -= 1 << 64
        if target is not None:
            _check_target(target, opcode, src, off, imm, raw, loc)
        if symbol is not None:
            _check_symbol(symbol, opcode, src, imm, raw, loc)
        _fill(self, opcode, dst, src, off, imm, target, symbol, raw, loc, comment)

    @property
    def slots(self) -> int:
        """How many eight-byte slots it takes: 2 for ld_imm64, else 1."""
        return 2 if self.opcode == opcodes.LD_IMM64 and not self.raw else 1

    @property
    def symbol_name(self) -> str | None:
        """The name of the map it refers to."""
        symbol = self.symbol
        return symbol if symbol is None or isinstance(symbol, str) else symbol.name

    def __eq__(self, other: object) -> bool:
        return _meaning(self) == _meaning(other) if isinstance(other, Insn) else NotImplemented

    def __hash__(self) -> int:
        return hash(_meaning(self))

    def __repr__(self) -> str:
        from rawkm.asm.source import dsl

        return dsl(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Insn cannot be changed ({name})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Insn cannot be changed ({name})")

    def __reduce__(self) -> tuple[object, ...]:
        # Copying and pickling would set the slots one by one, which __setattr__ refuses.
        return _remake, (*_fields(self), self.loc, self.comment)


class Label(Item):
    """A name for the place in a program where it stands; it takes no slot."""

    __slots__ = ("name",)

    def __init__(self, name: str, *, loc: SrcLoc | None = None) -> None:
        self.loc = loc or caller()
        self.name = label_name(name, self.loc)

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Label) else NotImplemented

    def __hash__(self) -> int:
        return hash((Label, self.name))

    def __repr__(self) -> str:
        return f"label({self.name!r})"


class _Draft(Item):
    """What an Insn is while it is filled: its slots without its guard, which would make it five times slower."""

    __slots__ = Insn.__slots__

    opcode: int
    dst: int
    src: int
    off: int
    imm: int
    target: str | None
    symbol: Symbol | None
    raw: bool
    comment: str | None


def checked(
    opcode: int,
    dst: int,
    src: int,
    off: int,
    imm: int,
    target: str | None = None,
    symbol: Symbol | None = None,
    raw: bool = False,
    loc: SrcLoc | None = None,
    comment: str | None = None,
) -> Insn:
    """An Insn from fields that are known to be in range and to fit each other."""
    draft = _Draft()
    draft.opcode = opcode
    draft.dst = dst
    draft.src = src
    draft.off = off
    draft.imm = imm
    draft.target = target
    draft.symbol = symbol
    draft.raw = raw
    draft.loc = loc
    draft.comment = comment
    draft.__class__ = Insn  # type: ignore[assignment]
    return draft  # type: ignore[return-value]


def caller() -> SrcLoc | None:
    """(file, line) of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__package__") == __package__:
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def number(value: object, low: int, high: int, what: str, loc: SrcLoc | None = None, hint: str = "") -> int:
    """``value`` as a plain int if it is one in low..high, else AssembleError."""
    if type(value) is not int:
        if isinstance(value, Reg):
            raise AssembleError(f"{what} must be a number, not the register {value!r}", src_loc=loc or caller())
        if not isinstance(value, int):
            raise AssembleError(f"{what} must be a number, not {value!r}", src_loc=loc or caller())
        value = int(value)
    if not low <= value <= high:
        raise AssembleError(f"{what} {value} is outside {low}..{high}{hint}", src_loc=loc or caller())
    return value


def register(value: object, last: int, what: str, loc: SrcLoc | None) -> int:
    """``value`` as a plain int if it is a register, else AssembleError."""
    if not isinstance(value, int):
        raise AssembleError(f"{what} must be a register, not {value!r}", src_loc=loc)
    if not 0 <= value <= last:
        raise AssembleError(f"{what} {int(value)} is not a register: R0..R{last}", src_loc=loc)
    return int(value)


def label_name(name: object, loc: SrcLoc | None) -> str:
    """``name`` if it can name a label, else AssembleError."""
    if not isinstance(name, str) or not name:
        raise AssembleError(f"a label must have a name, not {name!r}", src_loc=loc)
    return name


def map_name(symbol: object, loc: SrcLoc | None) -> str:
    """The name of ``symbol``, a name itself or an object that has one, else AssembleError."""
    name = symbol if isinstance(symbol, str) else getattr(symbol, "name", None)
    if not isinstance(name, str) or not name:
        raise AssembleError(f"a map must be a name or an object that has one, not {symbol!r}", src_loc=loc)
    return name


def _check_target(target: str, opcode: int, src: int, off: int, imm: int, raw: bool, loc: SrcLoc | None) -> None:
    label_name(target, loc)
    field = "" if raw else opcodes.target_field(opcode, src)
    if not field:
        raise AssembleError(f"opcode {opcode:#04x} takes no label, but has {target!r}", src_loc=loc)
    if off if field == "off" else imm:
        raise AssembleError(f"both the label {target!r} and a distance", src_loc=loc)


def _check_symbol(symbol: object, opcode: int, src: int, imm: int, raw: bool, loc: SrcLoc | None) -> None:
    name = map_name(symbol, loc)
    if raw or opcode != opcodes.LD_IMM64 or src not in opcodes.MAP_SOURCES:
        text = f"opcode {opcode:#04x} with source {src} takes no map, but has {name!r}"
        raise AssembleError(text, src_loc=loc)
    if imm & 0xFFFFFFFF:
        raise AssembleError(f"both the map {name!r} and an fd", src_loc=loc)


_set = object.__setattr__


def _fill(
    insn: Insn,
    opcode: int,
    dst: int,
    src: int,
    off: int,
    imm: int,
    target: str | None,
    symbol: Symbol | None,
    raw: bool,
    loc: SrcLoc | None,
    comment: str | None,
) -> None:
    _set(insn, "opcode", opcode)
    _set(insn, "dst", dst)
    _set(insn, "src", src)
    _set(insn, "off", off)
    _set(insn, "imm", imm)
    _set(insn, "target", target)
    _set(insn, "symbol", symbol)
    _set(insn, "raw", raw)
    _set(insn, "loc", loc)
    _set(insn, "comment", comment)


def _fields(insn: Insn) -> tuple[object, ...]:
    return insn.opcode, insn.dst, insn.src, insn.off, insn.imm, insn.target, insn.symbol, insn.raw


def _meaning(insn: Insn) -> tuple[object, ...]:
    return (*_fields(insn)[:6], insn.symbol_name, insn.raw)


def _remake(*fields: object) -> Insn:
    return checked(*fields)  # type: ignore[arg-type]
