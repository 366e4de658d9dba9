"""A C struct of the kernel's ABI as one precompiled `struct` format: what the hot path packs and reads.

The instances are in packed.py, which tools/gen_packed writes from the construct definitions; nothing here
imports construct.
"""

from __future__ import annotations

import struct

from rawkm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Value = int | bytes
    #: A dotted path of the UAPI, and what the caller passes for that pointer ("in", "cstrs", "u64s", …).
    Pointer = tuple[str, str]

# Bits and signedness of the format characters in use, for the message that a value does not fit.
_RANGES = {
    "B": (0, 0xFF),
    "H": (0, 0xFFFF),
    "I": (0, 0xFFFFFFFF),
    "Q": (0, 0xFFFFFFFFFFFFFFFF),
    "i": (-0x80000000, 0x7FFFFFFF),
    "q": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF),
}
_SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8, "i": 4, "q": 8}


class Layout:
    """One variant of one command's struct in ``union bpf_attr``, or an info struct.

    ``command``, ``variant``
        UAPI names: ``"LINK_CREATE"``, ``"kprobe_multi"``; the variant is ``""`` where there is only one. An
        info struct has its C name without ``bpf_`` as its command.
    ``cmd``
        The command's number, -1 for a struct that is no attr.
    ``name``
        Unique: ``"link_create.kprobe_multi"``.
    ``size``
        Bytes up to the end of the last field (of an info struct: the whole struct), as of Linux 7.2.
    ``format``
        A ``struct`` format in native byte order and standard sizes; holes are pad bytes.
    ``fields``
        The UAPI's dotted paths from the top of the union, in the order of ``format``.
    ``pointers``
        (path, kind) of each pointer. Kinds: ``"in"`` and ``"out"`` and ``"inout"``, memory that the kernel
        reads, writes, or both; ``"cstr"``, a NUL-terminated string; ``"cstrs"``, an array of pointers to
        such; ``"u64s"``, ``"u32s"``, arrays that the kernel reads.
    ``aliases``
        (other name, path): members of a C union at the place of ``path``.
    """

    __slots__ = (
        "_chars",
        "_index",
        "_packer",
        "aliases",
        "cmd",
        "command",
        "fields",
        "format",
        "name",
        "pointers",
        "size",
        "variant",
    )

    def __init__(
        self,
        command: str,
        variant: str,
        cmd: int,
        name: str,
        size: int,
        format: str,
        fields: tuple[str, ...],
        pointers: tuple[Pointer, ...] = (),
        aliases: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.command = command
        self.variant = variant
        self.cmd = cmd
        self.name = name
        self.size = size
        self.format = format
        self.fields = fields
        self.pointers = pointers
        self.aliases = aliases
        # Compiled at the first use: a process uses few of the layouts that it imports.
        self._packer: struct.Struct | None = None
        self._index: dict[str, int] = {}
        self._chars: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Layout {self.name}: {self.size} bytes>"

    def pack(self, values: Mapping[str, Value]) -> bytearray:
        """The bytes of the struct with these fields; every other byte is zero.

        Integers for numbers, fds and pointers; bytes, NUL-padded here, for character arrays. Raises
        UsageError for an unknown field, a value of the wrong type or out of range, and two names of one place
        with unequal values.
        """
        packer = self._packer or self._compile()
        index = self._index
        slots: list[Value] = [0] * len(self.fields)
        for i in self._chars:
            slots[i] = b""
        try:
            for path, value in values.items():
                slots[index[path]] = value
            for i, size in self._chars.items():
                if len(slots[i]) > size:  # type: ignore[arg-type]
                    raise TypeError
            out = bytearray(self.size)
            packer.pack_into(out, 0, *slots)
        except (KeyError, TypeError, struct.error):
            raise self._why(values) from None
        for alias, path in self.aliases:
            if alias in values:
                # The one written last is there.
                packed = slots[index[path]]
                if values[alias] != packed or values.get(path, packed) != packed:
                    raise self._torn(values, path)
        return out

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, Value]:
        """Field → value; missing bytes of short data are read as 0. Character arrays keep their length."""
        packer = self._packer or self._compile()
        if len(data) < self.size:
            data = bytes(data) + bytes(self.size - len(data))
        return dict(zip(self.fields, packer.unpack_from(data), strict=True))

    def offset(self, path: str) -> tuple[int, int]:
        """(offset, size) of a field, by any of its names. Raises UsageError for an unknown one."""
        if not self._packer:
            self._compile()
        if path not in self._index:
            raise self._unknown(path)
        wanted, at, n = self._index[path], 0, 0
        for count, code in parse_format(self.format):
            size = count if code in "xs" else _SIZES[code]
            if code == "x":
                at += size
                continue
            if n == wanted:
                return at, size
            at += size
            n += 1
        raise AssertionError(path)

    def _compile(self) -> struct.Struct:
        index = {path: i for i, path in enumerate(self.fields)}
        for alias, path in self.aliases:
            index[alias] = index[path]
        codes = [(count, code) for count, code in parse_format(self.format) if code != "x"]
        self._chars = {i: count for i, (count, code) in enumerate(codes) if code == "s"}
        self._index = index
        self._packer = packer = struct.Struct(self.format)
        return packer

    def _unknown(self, path: str) -> UsageError:
        import difflib

        # People write the last word of a path: compare that, too.
        last = {name.rpartition(".")[2]: name for name in self._index}
        near = [name for name in self._index if name.rpartition(".")[2] == path.rpartition(".")[2]]
        near += difflib.get_close_matches(path, self._index, cutoff=0.75)
        near += [last[n] for n in difflib.get_close_matches(path.rpartition(".")[2], last, cutoff=0.75)]
        found = list(dict.fromkeys(near))[:3]
        hint = f"; did you mean {' or '.join(found)}?" if found else f"; it has {', '.join(self.fields)}"
        return UsageError(f"{self.name} has no field {path!r}{hint}")

    def _torn(self, values: Mapping[str, Value], path: str) -> UsageError:
        """The error for unequal values of one place."""
        given = [name for name in (*(alias for alias, to in self.aliases if to == path), path) if name in values]
        texts = " and ".join(repr(values[name]) for name in given)
        return UsageError(f"{self.name}: {' and '.join(given)} are one place; they cannot be {texts}")

    def _why(self, values: Mapping[str, Value]) -> UsageError:
        """The error for values that pack() could not pack."""
        codes = [(count, code) for count, code in parse_format(self.format) if code != "x"]
        for path, value in values.items():
            if path not in self._index:
                return self._unknown(path)
            count, code = codes[self._index[path]]
            if code == "s":
                if not isinstance(value, bytes | bytearray):
                    return UsageError(f"{self.name}: {path} takes bytes, not {type(value).__name__}")
                if len(value) > count:
                    return UsageError(f"{self.name}: {path} takes at most {count} bytes, not {len(value)}")
                continue
            low, high = _RANGES[code]
            if not isinstance(value, int):
                return UsageError(f"{self.name}: {path} takes an int, not {type(value).__name__}")
            if not low <= value <= high:
                return UsageError(f"{self.name}: {path} takes {low} to {high}, not {value}")
        return UsageError(f"{self.name}: cannot pack {values!r}")


def parse_format(format: str) -> Iterable[tuple[int, str]]:
    """(count, code) of each item: one for pad bytes and for a character array, otherwise one per field."""
    count = ""
    for char in format.lstrip("=<>"):
        if char.isdigit():
            count += char
            continue
        n = int(count or 1)
        count = ""
        if char in "xs":
            yield n, char
        else:
            for _ in range(n):
                yield 1, char
