"""What a function takes and returns, by the kernel's BTF: where each argument is, and how to show it."""

from __future__ import annotations

from rawkm.btf.btf import Btf
from rawkm.btf.kernel import vmlinux
from rawkm.btf.kinds import FLOAT, PTR
from rawkm.btf.types import Composite, Enum, Float, Int, Proto
from rawkm.errors import BTFError, SyscallError
from rawkm.programs.context import MOST_ARGUMENTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.syscall.kernel import Kernel

# What a pair of registers can hold; larger structs are passed in memory.
_PAIR = 16


class Value:
    """An argument, or what is returned. ``slot``: the first u64 that holds it, ``slots`` how many do; ``size`` in bytes.

    ``kind``: "int", "uint", "bool", "pointer", "struct" or "float" (which no register here holds).
    """

    __slots__ = ("kind", "name", "size", "slot", "slots")

    def __init__(self, name: str, kind: str, size: int, slot: int) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        self.slot = slot
        self.slots = 0 if kind == "float" else max(1, size + 7 >> 3)

    def decode(self, words: Sequence[int]) -> int | None:
        """Its value, from the u64s; None for what is not there. What is above its size is garbage, and dropped."""
        if self.slots != 1 or self.slot >= len(words):
            return None
        bits = 8 * self.size
        value = words[self.slot] & (1 << bits) - 1
        if self.kind == "int" and value >> (bits - 1):
            value -= 1 << bits
        return value

    def text(self, words: Sequence[int]) -> str:
        """As C would write it: pointers in hexadecimal; "?" for what a record does not have."""
        value = self.decode(words)
        if value is None:
            return "?"
        if self.kind == "bool":
            return "true" if value else "false"
        return f"{value:#x}" if self.kind in ("pointer", "struct") else str(value)


class Signature:
    """``arguments``, in order; ``slots``: how many u64 they take; ``returned``: None for a void function.

    ``untraceable``: why no trampoline can be made for it, or "".
    """

    __slots__ = ("arguments", "returned", "slots", "untraceable")

    def __init__(self, arguments: list[Value], returned: Value | None, untraceable: str) -> None:
        self.arguments = arguments
        self.returned = returned
        self.untraceable = untraceable
        self.slots = sum(argument.slots for argument in arguments)

    @property
    def recorded(self) -> int:
        """How many u64 a record of its arguments has."""
        return min(self.slots, MOST_ARGUMENTS)


def signature(btf: Btf, function: int | str) -> Signature:
    """Of the function with this BTF id, or name. Raises BTFError when there is none.

    Slots are those of a trampoline (include/linux/bpf.h, btf_func_model), and of the registers, as long as there are registers.
    """
    proto: Proto = btf.prototype(function)
    arguments: list[Value] = []
    slot = 0
    untraceable = ""
    for name, type in proto.params:
        if not type and not name:
            untraceable = "it takes a variable number of arguments"
            continue
        value = _value(btf, name or f"arg{len(arguments)}", type, slot)
        if value.kind == "float":
            untraceable = "it takes a floating-point number"
        elif value.size > _PAIR:
            untraceable = f"its argument {value.name} is a struct of {value.size} bytes"
            # On the stack: no register is used up.
            value.slots = 0
        arguments.append(value)
        slot += value.slots
    returned = _value(btf, "return", proto.type, 0) if proto.type else None
    if returned is not None and (returned.kind in ("struct", "float") and returned.size > 8):
        untraceable = untraceable or "it returns a struct"
    return Signature(arguments, returned, untraceable)


def signatures(kernel: Kernel, functions: Sequence[tuple[str, str]]) -> list[Signature | None]:
    """Of each (name, module), module "" being the kernel image; None where BTF has no such function, or several.

    Raises SyscallError or BTFError where the kernel's BTF cannot be read.
    """
    image = vmlinux(kernel)
    known = {"": (image, image.function_ids())}
    found: list[Signature | None] = []
    for name, module in functions:
        if module not in known:
            try:
                btf = Btf(kernel.read_file(f"/sys/kernel/btf/{module}"), image)
                known[module] = btf, btf.function_ids()
            except (SyscallError, BTFError):
                known[module] = image, {}
        btf, ids = known[module]
        those = ids.get(name.encode("utf-8", "surrogateescape"), [])
        found.append(signature(btf, those[0]) if len(those) == 1 else None)
    return found


def _value(btf: Btf, name: str, type: int, slot: int) -> Value:
    found = btf.resolve(type)
    if found.kind == PTR:
        return Value(name, "pointer", 8, slot)
    if isinstance(found, Int):
        if found.name in ("_Bool", "bool"):
            return Value(name, "bool", found.size, slot)
        return Value(name, "int" if found.signed else "uint", found.size, slot)
    if isinstance(found, Enum):
        return Value(name, "int" if found.signed else "uint", found.size, slot)
    if isinstance(found, Float) or found.kind == FLOAT:
        return Value(name, "float", btf.sizeof(type), slot)
    if isinstance(found, Composite):
        return Value(name, "struct", found.size, slot)
    raise BTFError(f"{name} is a {found!r}, which no function takes by value")
