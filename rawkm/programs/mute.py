"""Muting single functions of a running trace: a word per function, tested before anything else is done about a hit."""

from __future__ import annotations

from rawkm.asm import DW, R1, R2, R7, Add, JNe, Lsh, Mov, load, map_value
from rawkm.maps import MapSpec
from rawkm.uapi.constants import MapFlag, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item


class Mute:
    """``spec``: the map, to be mmapped and written to: 0 is heard, everything else is not."""

    __slots__ = ("spec",)

    def __init__(self, functions: int) -> None:
        self.spec = MapSpec("muted", MapType.ARRAY, key=4, value=8 * functions, max_entries=1, flags=MapFlag.MMAPABLE)

    def check(self, out: str) -> list[Item]:
        """Jumps to ``out`` when the function with the index R7 is muted. Clobbers R1 and R2."""
        return [
            Mov.reg(R2, R7),
            Lsh.imm(R2, 3),
            map_value(R1, self.spec),
            Add.reg(R1, R2),
            load(R1, R1, 0, DW),
            JNe.imm(R1, 0, out),
        ]
