"""One call of bpf(2) as a value: a valid attr, and what was changed in it.

Nothing here is an address or an fd: fields hold the name of the object whose fd they want (Fd) and the memory that they point to
(Mem). A pool of live objects makes bytes of it (``Attr.lower``).
"""

from __future__ import annotations

from sys import byteorder

from rawkm.syscall.raw import Address, At, Block
from rawkm.uapi import layouts
from rawkm.uapi.constants import Cmd
from rawkm.uapi.layout import parse_format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from rawkm.syscall.raw import Prepared, RawBpf
    from rawkm.uapi.fields import Definition, Member

    Pointee: TypeAlias = "Mem | Within | Address"
    Value: TypeAlias = "int | bytes | Fd | Mem | Within | Address | None"

_ZERO: dict[str, Value] = {"pointer": None, "name": b"", "bytes": b""}
#: Memory behind a short attr: as much as any command reads or writes.
ATTR_ROOM = 168
#: Places of changes that are no field's name.
SIZE, COMMAND, WHOLE, ROOM = "size", "cmd", "attr", "memory"
_HOLE = "byte "


class Fd:
    """The fd of a live object, by its name in the pool ("map/hash")."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Fd({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fd) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Number(Fd):
    """Another number that only the running kernel knows, by a name of the pool: "btf_id:bpf_fentry_test1", "map_id:map/hash",
    "address:bpf_fentry_test1". ``size``: its bytes in memory."""

    __slots__ = ("size",)

    def __init__(self, name: str, size: int = 4) -> None:
        super().__init__(name)
        self.size = size

    def __repr__(self) -> str:
        return f"Number({self.name!r})"


class Mem:
    """Memory: ``data``, in which ``pointers`` (offset → Mem or Address) and ``fds`` (offset → Fd, 32 bits, or Number) stand.

    Nothing is mapped behind it.
    """

    __slots__ = ("data", "fds", "pointers")

    def __init__(
        self,
        data: bytes,
        pointers: Mapping[int, Mem | Address] | None = None,
        fds: Mapping[int, Fd] | None = None,
    ) -> None:
        self.data = data
        self.pointers = dict(pointers or {})
        self.fds = dict(fds or {})

    def __repr__(self) -> str:
        data = f"bytes({len(self.data)})" if self.data and not any(self.data) else repr(self.data)
        more = "".join(f", {name}={value!r}" for name in ("pointers", "fds") if (value := getattr(self, name)))
        return f"Mem({data}{more})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mem) and (other.data, other.pointers, other.fds) == (self.data, self.pointers, self.fds)

    def __hash__(self) -> int:
        return hash(self.data)


class Within:
    """A place in the memory of another pointer field of the same attr."""

    __slots__ = ("offset", "path")

    def __init__(self, path: str, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def __repr__(self) -> str:
        return f"Within({self.path!r}, {self.offset})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Within) and (other.path, other.offset) == (self.path, self.offset)

    def __hash__(self) -> int:
        return hash((self.path, self.offset))


class Change:
    """``value`` instead of the valid one at ``place``: a field's path (also another name of it), ``"byte N"``, ``"size"`` (what
    the kernel is told), ``"memory"`` (how much there is), ``"cmd"``, or ``"attr"`` (other bytes, or an Address)."""

    __slots__ = ("place", "value")

    def __init__(self, place: str, value: Value) -> None:
        self.place = place
        self.value = value

    def __repr__(self) -> str:
        return f"Change({self.place!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Change) and (other.place, other.value) == (self.place, self.value)

    def __hash__(self) -> int:
        return hash(self.place)

    def __str__(self) -> str:
        return f"{self.place} = {show(self.value)}"


def byte_at(offset: int) -> str:
    """The place of a change of one byte of a hole, or behind the last field."""
    return f"{_HOLE}{offset}"


class Lowered:
    """What a call is made of. ``cmd``, ``attr`` (bytes, or Address), ``size`` and ``room`` as RawBpf.call takes them.

    ``blocks``: offset → Block, At or Address; ``paths``: pointer field → the same. ``refused``: why the call is not made, "".
    """

    __slots__ = ("attr", "blocks", "cmd", "paths", "room", "sent", "size")

    def __init__(self, cmd: int, attr: bytearray | Address, size: int, room: int | None) -> None:
        self.cmd = cmd
        self.attr = attr
        self.size = size
        self.room = room
        self.blocks: dict[int, Block | At | Address] = {}
        self.paths: dict[str, Block | At | Address] = {}
        self.sent = b"" if isinstance(attr, Address) else bytes(attr)

    def prepare(self, raw: RawBpf) -> Prepared:
        """The call, its memory in place."""
        return raw.prepare(self.cmd, self.attr, self.size, self.blocks, room=self.room)

    def send(self, raw: RawBpf) -> int:
        """bpf(2): the result, or minus the errno."""
        return self.prepare(raw).send()


class Attr:
    """A call: ``layout`` (of one command and variant), the ``valid`` values, and ``changes``, mostly none or one.

    ``values``: field → int, bytes, Fd, Mem, Within, Address or None (NULL), with the changes.
    """

    __slots__ = ("_values", "changes", "layout", "valid")

    def __init__(self, layout: Definition, valid: Mapping[str, Value], changes: tuple[Change, ...] = ()) -> None:
        self.layout = layout
        self.valid = dict(valid)
        self.changes = changes
        self._values: dict[str, Value] | None = None

    @property
    def name(self) -> str:
        """The layout's name: "link_create.kprobe_multi"."""
        return self.layout.name

    @property
    def values(self) -> dict[str, Value]:
        zero: dict[str, Value] = {path: _ZERO.get(m.role.kind, 0) for path, m in members(self.layout).items()}
        return {**zero, **self.given}

    @property
    def given(self) -> dict[str, Value]:
        """``values`` without the fields that nobody gave a value."""
        if self._values is None:
            self._values = dict(self.valid)
            canonical = dict(self.layout.aliases)
            for change in self.changes:
                path = canonical.get(change.place, change.place)
                if path in self.layout.fields:
                    self._values[path] = change.value
        return self._values

    @property
    def cmd(self) -> int:
        for change in self.changes:
            if change.place == COMMAND and isinstance(change.value, int):
                return change.value
        return self.layout.cmd

    def fds(self) -> set[str]:
        """The names of all objects that the call needs."""
        found = {value.name for value in self.given.values() if isinstance(value, Fd)}
        for value in self.given.values():
            if isinstance(value, Mem):
                found.update(_fds_of(value))
        return found

    def with_changes(self, *changes: Change) -> Attr:
        """The same valid attr with these changes and no others."""
        return Attr(self.layout, self.valid, changes)

    def lower(self, fd_of: Callable[[str], int]) -> Lowered:
        """The bytes and memory of the call. ``fd_of``: name of an object → its fd."""
        layout = self.layout
        ints: dict[str, int | bytes] = {}
        pointing: dict[str, Mem | Within] = {}
        for path, value in self.given.items():
            if isinstance(value, int | bytes):
                ints[path] = value
            elif isinstance(value, Fd):
                ints[path] = fit(layout, path, fd_of(value.name))
            elif value is not None:
                pointing[path] = value
        data = layout.pack(ints)
        size, room = len(data), None
        for change in self.changes:
            place, new = change.place, change.value
            if place.startswith(_HOLE) and isinstance(new, int):
                at = int(place[len(_HOLE) :])
                if at >= len(data):
                    data.extend(bytes(at + 1 - len(data)))
                    size = max(size, len(data))
                data[at] = new & 0xFF
            elif place == SIZE and isinstance(new, int):
                size = new
            elif place == ROOM and isinstance(new, int):
                room = new
        whole = next((c.value for c in self.changes if c.place == WHOLE), None)
        if isinstance(whole, Address):
            return Lowered(self.cmd, whole, size, None)
        if isinstance(whole, bytes):
            return Lowered(self.cmd, bytearray(whole), len(whole), ATTR_ROOM)
        if size < len(data):
            del data[size:]
        # Some commands write behind what they have read: there is memory for that, but where a change says how much there is.
        lowered = Lowered(self.cmd, data, size, max(size, ATTR_ROOM) if room is None and size <= ATTR_ROOM else room)
        blocks = lowered.paths
        for path, target in pointing.items():
            if isinstance(target, Mem):
                blocks[path] = _block(target, fd_of)
        for path, target in pointing.items():
            if isinstance(target, Within):
                other = blocks.get(target.path)
                if isinstance(other, Block):
                    blocks[path] = At(other, target.offset)
        places = _pointer_offsets(layout)
        lowered.blocks = {places[path]: block for path, block in blocks.items()}
        return lowered

    def __repr__(self) -> str:
        return f"<{self.layout.name}: {self.describe()}>"

    def describe(self) -> str:
        """The valid values and each change, in one line."""
        text = ", ".join(f"{path}={show(value)}" for path, value in self.valid.items() if value not in (0, b"", None))
        if not self.changes:
            return f"{text or 'all zero'}; nothing changed"
        return f"{text or 'all zero'}; but {', '.join(map(str, self.changes))}"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Attr)
            and (other.layout, other.changes) == (self.layout, self.changes)
            and list(other.valid.items()) == list(self.valid.items())
        )

    def __hash__(self) -> int:
        return hash((self.layout.name, self.changes))


def layout_of(command: str, variant: str = "") -> Definition:
    """The layout of a command of bpf(2), or of one of its variants. Raises UsageError when there is none."""
    from rawkm.uapi import codec

    cmd = codec.number(command)
    name = next(d.name for d in layouts.DEFINITIONS if d.cmd == cmd and not d.variant)
    return layouts.named(f"{name}.{variant}" if variant else name)


def all_layouts() -> Iterator[Definition]:
    """Those of all commands and variants."""
    return (d for d in layouts.DEFINITIONS if d.cmd >= 0 and d.cmd != Cmd.COMMON_ATTRS)


_MEMBERS: dict[str, dict[str, Member]] = {}


def members(layout: Definition) -> dict[str, Member]:
    """Path → member, of the fields."""
    found = _MEMBERS.get(layout.name)
    if found is None:
        found = _MEMBERS[layout.name] = {m.path: m for m in layout.members if m.role.kind != "hole"}
    return found


_POINTERS: dict[str, dict[str, int]] = {}


def _pointer_offsets(layout: Definition) -> dict[str, int]:
    found = _POINTERS.get(layout.name)
    if found is None:
        found = _POINTERS[layout.name] = {path: m.offset for path, m in members(layout).items() if m.role.kind == "pointer"}
    return found


_CODES: dict[str, dict[str, str]] = {}


def fit(layout: Definition, path: str, value: int) -> int:
    """``value`` cut to the field's width, negative where its sign bit is set and the field is signed."""
    codes = _CODES.get(layout.name)
    if codes is None:
        letters = [code for _, code in parse_format(layout.format) if code != "x"]
        codes = _CODES[layout.name] = dict(zip(layout.fields, letters, strict=True))
    bits = 8 * _SIZES[codes[path].lower()]
    value &= (1 << bits) - 1
    return value - (1 << bits) if codes[path].islower() and value >> bits - 1 else value


_SIZES = {"b": 1, "h": 2, "i": 4, "q": 8}


def _fds_of(mem: Mem) -> set[str]:
    found = {fd.name for fd in mem.fds.values()}
    for inner in mem.pointers.values():
        if isinstance(inner, Mem):
            found |= _fds_of(inner)
    return found


def _block(mem: Mem, fd_of: Callable[[str], int]) -> Block:
    data: bytes | bytearray = mem.data
    if mem.fds:
        data = bytearray(data)
        for offset, fd in mem.fds.items():
            size = fd.size if isinstance(fd, Number) else 4
            word = (fd_of(fd.name) & (1 << 8 * size) - 1).to_bytes(size, byteorder)
            data[offset : offset + size] = word[: max(0, len(data) - offset)]
    if not mem.pointers:
        return Block(data)
    pointers: dict[int, Block | At | Address] = {
        offset: _block(inner, fd_of) if isinstance(inner, Mem) else inner for offset, inner in mem.pointers.items()
    }
    return Block(data, pointers)


def show(value: Value) -> str:
    """A value, short."""
    if isinstance(value, Address):
        return f"address {int(value):#x}"
    if isinstance(value, bool) or value is None:
        return "NULL" if value is None else str(int(value))
    if isinstance(value, int):
        return str(value) if -4096 <= value <= 4096 else hex(value)
    if isinstance(value, Fd):
        return f"<{value.name}>"
    if isinstance(value, bytes):
        return repr(value) if len(value) <= 24 else f"{len(value)} bytes {value[:12]!r}..."
    if isinstance(value, Mem):
        if value.pointers:
            return "[" + ", ".join(show(v.data if isinstance(v, Mem) else v) for v in value.pointers.values()) + "]"
        if not any(value.data):
            return f"<{len(value.data)} zero bytes>"
        return show(value.data)
    return f"<{value.path} + {value.offset}>"
