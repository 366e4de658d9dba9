"""A whole program as a `.s` file says it: instructions, and what directives say of the rest."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm.insn import Item
    from rawkm.errors import SrcLoc


class MapDecl:
    """A map that a file declares. ``type``: as in the file, a name ("percpu_hash") or a number.

    ``key`` and ``value``: sizes in bytes. What the file does not say is 0.
    """

    __slots__ = ("flags", "key", "loc", "max_entries", "name", "type", "value")

    def __init__(
        self,
        name: str,
        type: str | int,
        *,
        key: int = 0,
        value: int = 0,
        max_entries: int = 0,
        flags: int = 0,
        loc: SrcLoc | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.key = key
        self.value = value
        self.max_entries = max_entries
        self.flags = flags
        self.loc = loc

    def _fields(self) -> tuple[object, ...]:
        return self.name, self.type, self.key, self.value, self.max_entries, self.flags

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, MapDecl) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        sizes = f"key={self.key}, value={self.value}, max_entries={self.max_entries}, flags={self.flags:#x}"
        return f"MapDecl({self.name!r}, {self.type!r}, {sizes})"


class Source:
    """What ``parse_file`` makes of a file.

    ``insns``: instructions and labels, as ``encode`` takes them. ``maps``: those declared, in their order.
    ``license``, ``type`` (of the program), ``attach`` (its type), ``name``, ``section``: as the file says
    them, "" where it does not.
    """

    __slots__ = ("attach", "insns", "license", "maps", "name", "section", "type")

    def __init__(
        self,
        insns: list[Item],
        *,
        maps: tuple[MapDecl, ...] = (),
        license: str = "",
        type: str = "",
        attach: str = "",
        name: str = "",
        section: str = "",
    ) -> None:
        self.insns = insns
        self.maps = maps
        self.license = license
        self.type = type
        self.attach = attach
        self.name = name
        self.section = section

    def __repr__(self) -> str:
        names = ("maps", "license", "type", "attach", "name", "section")
        shown = [f"{name}={value!r}" for name in names if (value := getattr(self, name))]
        return f"Source({', '.join([f'<{len(self.insns)} items>', *shown])})"
