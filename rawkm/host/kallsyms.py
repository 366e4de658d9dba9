"""/proc/kallsyms: every symbol with its address, type and module.

A line is ``address type name[\\t[module]]`` (kernel/kallsyms.c, s_show), the kernel's own symbols first and
by address. Addresses are all zero for readers that may not see them (kptr_restrict, CAP_SYSLOG,
perf_event_paranoid).
"""

from __future__ import annotations

from rawkm.host.lines import lines_holding_any, whole_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rawkm.syscall.kernel import Kernel

PATH = "/proc/kallsyms"

# Code, global or local or weak (nm(1)).
_TEXT = b"tTwW"

# Not functions of the kernel: BPF programs' own symbols and generated trampolines.
_PSEUDO_MODULES = (b"bpf", b"__builtin__ftrace", b"__builtin__kprobes")


def functions(kernel: Kernel, prefixes: Sequence[bytes] = ()) -> Iterator[tuple[int, bytes, bytes]]:
    """(address, name, module or b"") of every text symbol, or of those that begin with one of ``prefixes``.

    Address 0 = hidden.
    """
    return parse(kernel.read_chunks(PATH), prefixes)


def parse(chunks: Iterable[bytes], prefixes: Sequence[bytes] = ()) -> Iterator[tuple[int, bytes, bytes]]:
    """As ``functions``, over the file's pieces. Lines that are none of kallsyms are passed over."""
    wanted = tuple(prefixes) or b""
    for text in whole_lines(chunks):
        for found in _parsed(_lines(text, prefixes)):
            if found[1].startswith(wanted):
                yield found


def holding(kernel: Kernel, needles: Sequence[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """As ``functions``, of those whose lines hold one of ``needles``; a newline stands in front of each line and behind it."""
    for text in whole_lines(kernel.read_chunks(PATH)):
        yield from _parsed(lines_holding_any(text, needles))


def _parsed(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    for line in lines:
        address, _, rest = line.partition(b" ")
        kind, _, symbol = rest.partition(b" ")
        name, tab, module = symbol.partition(b"\t")
        if len(kind) != 1 or kind not in _TEXT or not name:
            continue
        module = module[1:-1] if tab else b""
        if module in _PSEUDO_MODULES:
            continue
        try:
            yield int(address, 16), name, module
        except ValueError:
            pass


class Addresses:
    """The addresses of chosen functions, by name and module.

    ``hidden``: some were found, but without their addresses.
    """

    __slots__ = ("_by_symbol",)

    def __init__(self, by_symbol: dict[bytes, list[int]]) -> None:
        self._by_symbol = by_symbol

    def of(self, name: bytes, module: bytes) -> list[int]:
        """In the file's order; none when there is no such symbol."""
        return self._by_symbol[_symbol(name, module)]

    @property
    def hidden(self) -> bool:
        found = [addresses for addresses in self._by_symbol.values() if addresses]
        return bool(found) and not any(address for addresses in found for address in addresses)


def addresses(kernel: Kernel, wanted: Iterable[tuple[bytes, bytes]]) -> Addresses:
    """The addresses of the functions ``wanted``, each a (name, module)."""
    return find(kernel.read_chunks(PATH), wanted)


def find(chunks: Iterable[bytes], wanted: Iterable[tuple[bytes, bytes]]) -> Addresses:
    """As ``addresses``, over the file's pieces.

    A whole kernel's symbols are a hundred thousand: a line costs one slice and one look-up, and is taken
    apart only when it is wanted.
    """
    found: dict[bytes, list[int]] = {_symbol(name, module): [] for name, module in wanted}
    prefix = _common_prefix(found)
    prefixes = [prefix] if prefix else []
    get = found.get
    cut = 0
    for text in whole_lines(chunks):
        # "address type name": the addresses all have the width of the first.
        cut = cut or text.find(b" ") + 2
        for line in _lines(text, prefixes):
            known = get(line[cut:])
            if known is not None and line[cut - 2] in _TEXT:
                try:
                    known.append(int(line[: cut - 3], 16))
                except ValueError:
                    pass
    return Addresses(found)


def visible(kernel: Kernel) -> bool:
    """Whether this process is shown addresses."""
    for text in whole_lines(kernel.read_chunks(PATH)):
        # One symbol at address 0 proves nothing (per-CPU symbols start there); a whole piece of zeros does.
        return any(line.partition(b" ")[0].strip(b"0") for line in text.split(b"\n"))
    return False


def _symbol(name: bytes, module: bytes) -> bytes:
    """How a line ends."""
    return name + b"\t[" + module + b"]" if module else name


def _lines(text: bytes, prefixes: Sequence[bytes]) -> list[bytes]:
    """The lines with a symbol that begins with one of ``prefixes``, and perhaps others."""
    if not all(prefixes) or not prefixes:
        return text.split(b"\n")
    return lines_holding_any(text, [b" " + prefix for prefix in prefixes])


def _common_prefix(names: Iterable[bytes]) -> bytes:
    first, last = min(names, default=b""), max(names, default=b"")
    end = 0
    while end < len(first) and first[end : end + 1] == last[end : end + 1]:
        end += 1
    return first[:end]
