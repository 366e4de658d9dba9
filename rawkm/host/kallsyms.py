"""/proc/kallsyms: every symbol with its address, type and module.

A line is ``address type name [\\t[module]]`` (kernel/kallsyms.c, s_show). Addresses are all zero for readers that may not see
them (kptr_restrict, CAP_SYSLOG, perf_event_paranoid).
"""

from __future__ import annotations

from rawkm.host.lines import whole_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from rawkm.syscall.kernel import Kernel

PATH = "/proc/kallsyms"

_LINE = rb"\n([0-9a-f]+) ([tTwW]) (%s)(?:[ \t]\[(\S+)\])?(?=\n)"

# Not functions of the kernel: BPF programs' own symbols and generated trampolines.
_PSEUDO_MODULES = (b"bpf", b"__builtin__ftrace", b"__builtin__kprobes")


def functions(kernel: Kernel, name_regex: bytes = rb"\S+") -> Iterator[tuple[int, bytes, bytes]]:
    """(address, name, module or b"") of every text symbol whose whole name matches ``name_regex``. Address 0 = hidden."""
    return parse(kernel.read_chunks(PATH), name_regex)


def parse(chunks: Iterable[bytes], name_regex: bytes = rb"\S+") -> Iterator[tuple[int, bytes, bytes]]:
    """As ``functions``, over the file's pieces."""
    import re

    find = re.compile(_LINE % name_regex).finditer
    for text in whole_lines(chunks):
        for match in find(text):
            address, _, name, module = match.groups()
            if module is None:
                yield int(address, 16), name, b""
            elif module not in _PSEUDO_MODULES:
                yield int(address, 16), name, module


def named(kernel: Kernel, names: Container[bytes]) -> dict[bytes, list[tuple[int, bytes]]]:
    """name → [(address, module)] in the file's order, for the text symbols in ``names``."""
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for address, name, module in functions(kernel):
        if name in names:
            found.setdefault(name, []).append((address, module))
    return found


def visible(kernel: Kernel) -> bool:
    """Whether this process is shown addresses."""
    for text in whole_lines(kernel.read_chunks(PATH)):
        import re

        # One symbol at address 0 proves nothing (per-CPU symbols start there); a whole piece of zeros does.
        return re.search(rb"\n0*[1-9a-f]", text) is not None
    return False
