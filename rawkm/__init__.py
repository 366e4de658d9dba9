"""A pure-syscall kernel tracer: BPF assembled in Python, attached by kprobe_multi, with no BPF toolchain.

The public API is what ``__all__`` names. Each name is imported when it is first used: a program pays for what it needs.

>>> import rawkm
>>> from rawkm.asm import R0, Mov, exit_
>>> rawkm.ProgramSpec("empty", rawkm.ProgType.KPROBE, insns=[Mov.imm(R0, 0), exit_()])
ProgramSpec('empty', 2, attach_type=0, 2 items)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.buffers import Batch as Batch
    from rawkm.buffers import PerfBuf as PerfBuf
    from rawkm.buffers import RingBuf as RingBuf
    from rawkm.buffers import Schema as Schema
    from rawkm.errors import AssembleError as AssembleError
    from rawkm.errors import AttachError as AttachError
    from rawkm.errors import BTFError as BTFError
    from rawkm.errors import DisassembleError as DisassembleError
    from rawkm.errors import NotSupportedError as NotSupportedError
    from rawkm.errors import RawkmError as RawkmError
    from rawkm.errors import RingCorrupt as RingCorrupt
    from rawkm.errors import SchemaError as SchemaError
    from rawkm.errors import SymbolError as SymbolError
    from rawkm.errors import SyscallError as SyscallError
    from rawkm.errors import UsageError as UsageError
    from rawkm.errors import VerifierError as VerifierError
    from rawkm.link.kprobe_multi import KprobeMultiLink as KprobeMultiLink
    from rawkm.link.kprobe_multi import attach as attach_kprobe_multi
    from rawkm.link.kprobe_session import attach as attach_kprobe_session
    from rawkm.link.perf_kprobe import attach as attach_kprobe
    from rawkm.link.raw_tracepoint import attach as attach_raw_tracepoint
    from rawkm.link.tracepoint import attach as attach_tracepoint
    from rawkm.link.tracing import attach as attach_tracing
    from rawkm.link.tracing_multi import attach as attach_tracing_multi
    from rawkm.maps import Map as Map
    from rawkm.maps import MapSpec as MapSpec
    from rawkm.prog import Program as Program
    from rawkm.prog import ProgramSpec as ProgramSpec
    from rawkm.syscall import open_kernel as open_kernel
    from rawkm.syscall.kernel import Kernel as Kernel
    from rawkm.targets import Target as Target
    from rawkm.targets import Targets as Targets
    from rawkm.uapi.constants import AttachType as AttachType
    from rawkm.uapi.constants import Helper as Helper
    from rawkm.uapi.constants import MapFlag as MapFlag
    from rawkm.uapi.constants import MapType as MapType
    from rawkm.uapi.constants import ProgType as ProgType

__version__ = "0.1.0"

# name: (module, name there)
_WHERE = {
    "AssembleError": ("errors", "AssembleError"),
    "AttachError": ("errors", "AttachError"),
    "AttachType": ("uapi.constants", "AttachType"),
    "BTFError": ("errors", "BTFError"),
    "Batch": ("buffers", "Batch"),
    "DisassembleError": ("errors", "DisassembleError"),
    "Helper": ("uapi.constants", "Helper"),
    "Kernel": ("syscall.kernel", "Kernel"),
    "KprobeMultiLink": ("link.kprobe_multi", "KprobeMultiLink"),
    "Map": ("maps", "Map"),
    "MapFlag": ("uapi.constants", "MapFlag"),
    "MapSpec": ("maps", "MapSpec"),
    "MapType": ("uapi.constants", "MapType"),
    "NotSupportedError": ("errors", "NotSupportedError"),
    "PerfBuf": ("buffers", "PerfBuf"),
    "ProgType": ("uapi.constants", "ProgType"),
    "Program": ("prog", "Program"),
    "ProgramSpec": ("prog", "ProgramSpec"),
    "RawkmError": ("errors", "RawkmError"),
    "RingBuf": ("buffers", "RingBuf"),
    "RingCorrupt": ("errors", "RingCorrupt"),
    "Schema": ("buffers", "Schema"),
    "SchemaError": ("errors", "SchemaError"),
    "SymbolError": ("errors", "SymbolError"),
    "SyscallError": ("errors", "SyscallError"),
    "Target": ("targets", "Target"),
    "Targets": ("targets", "Targets"),
    "UsageError": ("errors", "UsageError"),
    "VerifierError": ("errors", "VerifierError"),
    "attach_kprobe": ("link.perf_kprobe", "attach"),
    "attach_kprobe_multi": ("link.kprobe_multi", "attach"),
    "attach_kprobe_session": ("link.kprobe_session", "attach"),
    "attach_raw_tracepoint": ("link.raw_tracepoint", "attach"),
    "attach_tracepoint": ("link.tracepoint", "attach"),
    "attach_tracing": ("link.tracing", "attach"),
    "attach_tracing_multi": ("link.tracing_multi", "attach"),
    "open_kernel": ("syscall", "open_kernel"),
}

__all__ = [
    "AssembleError",
    "AttachError",
    "AttachType",
    "BTFError",
    "Batch",
    "DisassembleError",
    "Helper",
    "Kernel",
    "KprobeMultiLink",
    "Map",
    "MapFlag",
    "MapSpec",
    "MapType",
    "NotSupportedError",
    "PerfBuf",
    "ProgType",
    "Program",
    "ProgramSpec",
    "RawkmError",
    "RingBuf",
    "RingCorrupt",
    "Schema",
    "SchemaError",
    "SymbolError",
    "SyscallError",
    "Target",
    "Targets",
    "UsageError",
    "VerifierError",
    "attach_kprobe",
    "attach_kprobe_multi",
    "attach_kprobe_session",
    "attach_raw_tracepoint",
    "attach_tracepoint",
    "attach_tracing",
    "attach_tracing_multi",
    "find_targets",
    "open_kernel",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'rawkm' has no attribute {name!r}")
    from importlib import import_module

    module, there = _WHERE[name]
    return getattr(import_module(f"rawkm.{module}"), there)


def find_targets(
    *patterns: str, kernel: Kernel, deny: Sequence[str] = (), unsafe: bool = False, addresses: bool = True
) -> Targets:
    """The functions that ``patterns`` choose on the running kernel: ``.ok`` and ``.rejected``, each with its reason.

    A pattern is a name, a glob ("tcp_*"), a regular expression between slashes, each optionally as "module:pattern".
    ``deny``: globs to leave out, too; ``unsafe``: without the built-in deny list; ``addresses``: look symbol addresses up
    (slower).
    Raises UsageError for a bad pattern, SymbolError when no list of functions can be read.
    """
    from rawkm.host.deny import DenyList
    from rawkm.targets import Pattern, resolve

    return resolve(
        kernel,
        [Pattern(text) for text in patterns],
        deny=DenyList(deny, builtin=not unsafe),
        addresses=addresses,
    )
