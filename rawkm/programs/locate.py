"""How a program at a hit learns which of the targets was hit: the target's index.

The cookie always works, but the kernel finds it by a binary search over all functions of the link, with cache misses all the way:
with 40,000 functions that is most of a program's run, and hits from interrupts that arrive meanwhile are refused. Where the
addresses are known, a table indexed by address takes one load.
"""

from __future__ import annotations

from rawkm.asm import R0, R1, R6, R7, Add, Ja, JEq, JGe, Lsh, Mov, Rsh, Sub, W, call, label, ld_imm64, load, map_value
from rawkm.maps import MapSpec
from rawkm.uapi.constants import Helper, MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from rawkm.asm import Item

    class Locator(Protocol):
        def code(self, out: str) -> list[Item]: ...


# The table is vmalloc'ed whole: more than this is too much for what it saves.
_MOST_BYTES = 64 << 20
# Below this, the binary search is short, and a table does not pay.
_FEW = 64


class Constant:
    """R7 = the index: of a program that is for one function only."""

    __slots__ = ("_index",)

    def __init__(self, index: int) -> None:
        self._index = index

    def code(self, _out: str) -> list[Item]:
        """As ``Cookie.code``."""
        return [Mov.imm(R7, self._index)]


class Cookie:
    """R7 = bpf_get_attach_cookie(ctx), which the attach has set to the target's index."""

    __slots__ = ("_functions",)

    def __init__(self, functions: int) -> None:
        self._functions = functions

    def code(self, out: str) -> list[Item]:
        """Leaves the index in R7, proved to be in range; jumps to ``out`` otherwise. R6 holds the context; clobbers R0 to R5."""
        return [
            Mov.reg(R1, R6),
            call(Helper.get_attach_cookie),
            JGe.imm(R0, self._functions, out),
            Mov.reg(R7, R0),
        ]


class AddressTable:
    """R7 = table[(bpf_get_func_ip(ctx) - base) >> shift], with a base for the kernel image and one for the modules.

    A u32 per possible function start: 0 for none, else the target's index + 1.
    """

    __slots__ = ("_addresses", "_regions", "_shift", "spec")

    def __init__(self, addresses: Sequence[int], regions: Sequence[tuple[int, int]], shift: int) -> None:
        self._addresses = addresses
        self._regions = regions  # (base, slots), ascending
        self._shift = shift
        slots = sum(count for _, count in regions)
        self.spec = MapSpec("index", MapType.ARRAY, key=4, value=4 * slots, max_entries=1, flags=MapFlag.MMAPABLE)

    @classmethod
    def plan(cls, addresses: Sequence[int], modules: Sequence[int]) -> AddressTable | None:
        """A table for these symbol addresses, of which ``modules`` are in modules; None where it would not pay."""
        if len(addresses) < _FEW:
            return None
        from functools import reduce
        from operator import or_

        # Functions are aligned (to 16 bytes on x86): bits that are zero in all addresses need no slots.
        common = reduce(or_, addresses)
        shift = (common & -common).bit_length() - 1
        image = addresses
        if modules:
            inside = frozenset(modules)
            image = [address for address in addresses if address not in inside]
        parts = sorted((min(part), max(part)) for part in (image, modules) if part)
        regions = [(first, (last - first >> shift) + 1) for first, last in parts]
        if len(parts) == 2 and parts[0][1] >= parts[1][0]:
            return None
        if 4 * sum(count for _, count in regions) > _MOST_BYTES:
            return None
        return cls(addresses, regions, shift)

    def code(self, out: str) -> list[Item]:
        """As ``Cookie.code``; an address without an entry goes to ``out``, too."""
        items: list[Item] = [Mov.reg(R1, R6), call(Helper.get_func_ip)]
        before = 0
        for number, (base, slots) in enumerate(self._regions):
            last = number == len(self._regions) - 1
            items += [
                label(f"region{number}"),
                Mov.reg(R7, R0),
                ld_imm64(R1, base),
                Sub.reg(R7, R1),
                Rsh.imm(R7, self._shift),
                JGe.imm(R7, slots, out if last else f"region{number + 1}"),
                Lsh.imm(R7, 2),
                map_value(R1, self.spec, offset=4 * before),
                Add.reg(R1, R7),
                load(R7, R1, 0, W),
                Ja("located"),
            ]
            before += slots
        return [
            *items,
            label("located"),
            JEq.imm(R7, 0, out),
            Sub.imm(R7, 1),
            JGe.imm(R7, len(self._addresses), out),
        ]

    def fill(self, view: memoryview) -> None:
        """Writes the table into the mapped value."""
        words = view[: self.spec.value].cast("I")
        shift = self._shift
        (low, slots), (high, _) = self._regions[0], self._regions[-1]
        if high == low:
            for index, address in enumerate(self._addresses, 1):
                words[address - low >> shift] = index
            return
        for index, address in enumerate(self._addresses, 1):
            words[address - low >> shift if address < high else slots + (address - high >> shift)] = index
