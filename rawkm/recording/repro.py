"""From a recording to a Python script that makes the same system calls, with nothing but the standard library."""

from __future__ import annotations

import re
import struct
import textwrap
import zlib
from base64 import b64encode

from rawkm.errors import RecordingError
from rawkm.recording import show
from rawkm.recording.compare import called
from rawkm.recording.repro_runtime import RUNTIME
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rawkm.recording.call import Call, Pointee
    from rawkm.recording.header import Header
    from rawkm.uapi.fields import Definition

# What the script does again …
_AGAIN = ("bpf", "perf_event_open", "ioctl", "mmap", "munmap", "prlimit64", "write")
# … and its functions for it with their arguments. Files are opened only where another call needs their fd.
_FUNCTIONS = {
    "bpf": ("bpf", ()),
    "perf_event_open": ("perf_event_open", ("pid", "cpu", "group_fd", "flags")),
    "ioctl": ("ioctl", ("fd", "request", "arg")),
    "mmap": ("map_memory", ("addr", "length", "prot", "flags", "fd", "offset")),
    "munmap": ("munmap", ("mem",)),
    "close": ("close_fd", ("fd",)),
    "prlimit64": ("prlimit64", ("pid", "resource", "limits")),
    "openat": ("open_file", ("dir_fd", "path", "flags")),
    "write": ("write", ("fd", "data", "count")),
    "fsopen": ("fsopen", ("filesystem", "flags")),
    "fsconfig": ("fsconfig", ("fd", "cmd", "key", "value", "aux")),
    "fsmount": ("fsmount", ("fd", "flags", "attr_flags")),
    "pidfd_open": ("pidfd_open", ("pid", "flags")),
    "epoll_create1": ("epoll_create1", ("flags",)),
    "store": ("store", ("mem", "offset", "value")),
    "fill": ("fill", ("mem",)),
}
_MEMORY = ("store", "fill")
# What they find is what others have made.
_OTHERS = (
    *(Cmd.PROG_GET_NEXT_ID, Cmd.MAP_GET_NEXT_ID, Cmd.BTF_GET_NEXT_ID, Cmd.LINK_GET_NEXT_ID),
    *(Cmd.PROG_GET_FD_BY_ID, Cmd.MAP_GET_FD_BY_ID, Cmd.BTF_GET_FD_BY_ID, Cmd.LINK_GET_FD_BY_ID),
)
_INFO = "info.info"
_LD_IMM64 = 0x18
_LOWEST, _HIGHEST = 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_0000
_WIDTH = 110
_COMMENT = 220


def script(header: Header, calls: Iterable[Call]) -> str:
    """The script for these calls (seams included), in their order."""
    made = list(calls)
    chosen = _chosen(made)
    body = "\n".join(text for call in chosen for text in (*_comments(call), _statement(call)))
    command = " ".join(["rawkm", *header.argv]) if header.kind == "run" else " ".join(header.argv)
    left_out = sum(call.kind == "call" for call in made) - sum(call.kind == "call" for call in chosen)
    intro = (
        f"The system calls of a recording of {command!r} on Linux {header.kernel}, made again "
        f"({left_out} that read files or wait are left out)."
    )
    symbol = _reference(made)
    return RUNTIME.format(
        intro="\n".join(textwrap.wrap(intro.replace("\\", "\\\\").replace('"""', "'''"), _WIDTH)),
        kernel=header.kernel,
        order=header.order,
        redacted=header.redacted,
        symbol=symbol,
        body=body,
    )


def _chosen(calls: Sequence[Call]) -> list[Call]:
    """The calls to make: those that do something, and those that made the fds that they take."""
    needed: set[str] = set()
    chosen: list[Call] = []
    for call in reversed(calls):
        names = {fd.name for fd in call.fds.values()}
        if call.kind == "seam":
            wanted = call.name in _MEMORY
        elif call.name == "close":
            # Of what was made for others' sake is decided by who needs it: add it, and drop it below when nobody does.
            wanted = True
        elif call.makes is not None and call.makes.name in needed:
            wanted = True
        else:
            # A file that is written is the run's own; where one is written through a fd, the kernel made it.
            wanted = call.name in _AGAIN and "path" not in call.args
        if wanted:
            chosen.append(call)
            if call.name != "close":
                needed |= names
    made = {call.makes.name for call in chosen if call.makes is not None}
    chosen = [call for call in chosen if call.name != "close" or any(fd.name in made for fd in call.fds.values())]
    return chosen[::-1]


def _comments(call: Call) -> Iterator[str]:
    """What a reader wants to know of the call, and its instructions."""
    if call.kind == "seam":
        return
    line = show.line(call, names=True).rpartition(" <")[0]
    # Whatever a recording holds must not end the comment.
    line = "".join(char if char.isprintable() else "?" for char in line)
    yield f"\n# {call.number} {line if len(line) <= _COMMENT else f'{line[:_COMMENT]} ...'}"
    insns = call.memory.get("insns")
    if call.name == "bpf" and insns is not None and insns.data and call.command & ~Cmd.COMMON_ATTRS == Cmd.PROG_LOAD:
        yield from (f"#     {text}" for text in show.instructions(call, insns.data))


# -- statements ----------------------------------------------------------------------------------------------------------------


def _statement(call: Call) -> str:
    """The call as the script makes it. Raises RecordingError for one that has other arguments than such a call has."""
    function, names = _FUNCTIONS.get(call.name, ("", ()))
    if not function or tuple(call.args) != names:
        raise RecordingError(f"call {call.number}: there is no {call.name} with the arguments {', '.join(call.args)}")
    if call.kind == "seam":
        return _memory_statement(call)
    arguments = [str(call.number), repr(called(call))]
    if call.name in ("bpf", "perf_event_open"):
        arguments += _attr_arguments(call)
    else:
        arguments += [_argument(call, name, value) for name, value in call.args.items()]
        if call.name == "mmap":
            arguments.append(f"name={call.value!r}")
    if call.name == "bpf" and call.command & ~Cmd.COMMON_ATTRS in _OTHERS:
        arguments.append("others=True")
    if call.makes is not None:
        arguments.append(f"makes={call.makes.name!r}")
    elif call.result and call.name not in ("mmap", "openat"):
        arguments.append(f"result={call.result}")
    if call.errno:
        arguments.append(f"error={call.errno}")
    return _call_text(function, arguments)


def _call_text(function: str, arguments: Sequence[str]) -> str:
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    return f"{function}(\n" + "".join(textwrap.indent(f"{argument},\n", "    ") for argument in arguments) + ")"


def _memory_statement(call: Call) -> str:
    if call.name == "store":
        return f"store({call.args['mem']!r}, {call.args['offset']!r}, {call.args['value']!r})"
    data = call.value if isinstance(call.value, bytes) else b""
    return _call_text("fill", [repr(call.args["mem"]), _bytes(data)])


def _argument(call: Call, name: str, value: object) -> str:
    fd = call.fds.get(f"args.{name}")
    return f"{name}={value!r}" if fd is None or fd.made_by is None else f"{name}=fd({fd.name!r})"


def _attr_arguments(call: Call) -> Iterator[str]:
    definition = call.definition
    attr = bytearray(call.attr)
    pointers = _pointers(definition)
    for offset in pointers.values():
        attr[offset : offset + 8] = bytes(len(attr[offset : offset + 8]))
    fds = _fds_of_attr(call, definition, attr)
    if call.name == "bpf":
        yield str(call.command)
        yield str(call.size)
    yield _attr_text(bytes(attr))
    if call.name == "perf_event_open":
        yield from (_argument(call, name, value) for name, value in call.args.items())
    if fds:
        yield f"fds={fds}"
    held = {offset: _held(call, path, call.memory[path]) for path, offset in pointers.items() if path in call.memory}
    if held:
        yield "pointers={" + ", ".join(f"{offset}: {text}" for offset, text in held.items()) + "}"
    if call.common or call.common_size:
        # struct bpf_common_attr {u64 log_buf; u32 log_size, log_level, log_true_size}
        yield f"common={call.common.hex()!r}"
    changed = list(_written_back(call, definition))
    if changed:
        yield f"after={changed}"


def _pointers(definition: Definition | None) -> dict[str, int]:
    if definition is None:
        return {}
    return {member.path: member.offset for member in definition.members if member.role.kind == "pointer"}


def _fds_of_attr(call: Call, definition: Definition | None, attr: bytearray) -> dict[int, str]:
    found: dict[int, str] = {}
    for member in definition.members if definition is not None else ():
        fd = call.fds.get(member.path)
        if fd is not None and fd.made_by is not None and member.offset + 4 <= len(attr):
            found[member.offset] = fd.name
            attr[member.offset : member.offset + 4] = bytes(4)
    return found


def _held(call: Call, path: str, pointee: Pointee) -> str:
    """What a pointer points to, as the script makes it."""
    if pointee.items is not None:
        joined = b"\0".join([*pointee.items, b""])
        return f"strings({_bytes(joined)})"
    data = pointee.data
    if data is None:
        return f"unknown({pointee.error!r})"
    inside: dict[str, int] = {}
    if path == _INFO:
        inside = _pointers(show.info_definition(call, data.ljust(pointee.size, b"\0")))
    copy = bytearray(data)
    for offset in inside.values():
        copy[offset : offset + 8] = bytes(len(copy[offset : offset + 8]))
    arguments = [_bytes(bytes(copy))]
    if pointee.size != len(data):
        arguments.append(f"size={pointee.size}")
    fds = {
        int(place.rpartition("@")[2]): fd.name for place, fd in call.fds.items() if place.startswith(f"{path}@") and fd.made_by
    }
    if fds:
        arguments.append(f"fds={fds}")
    held = {
        offset: _held(call, f"{_INFO}.{p}", call.memory[f"{_INFO}.{p}"])
        for p, offset in inside.items()
        if f"{_INFO}.{p}" in call.memory
    }
    if held:
        arguments.append("pointers={" + ", ".join(f"{offset}: {text}" for offset, text in held.items()) + "}")
    addresses = list(_kernel_addresses(path, data))
    if addresses:
        arguments.append(f"addresses={addresses}")
    output = call.outputs.get(path)
    if output is not None and output.data is not None and path != _INFO and not path.startswith(f"{_INFO}."):
        arguments.append(f"after={_bytes(output.data)}")
    return f"memory({', '.join(arguments)})"


def _written_back(call: Call, definition: Definition | None) -> Iterator[tuple[str, int, str]]:
    """(path, offset, bytes) of each field that the kernel changed."""
    for member in definition.members if definition is not None else ():
        raw = call.attr_after[member.offset : member.offset + member.size]
        if member.role.kind != "pointer" and raw != call.attr[member.offset : member.offset + member.size]:
            yield member.path, member.offset, raw.hex()


# -- addresses -----------------------------------------------------------------------------------------------------------------


def _kernel_addresses(path: str, data: bytes) -> Iterator[int]:
    """Where kernel addresses stand: the offsets of u64s, or of ld_imm64 (their halves are 8 bytes apart)."""
    if path == "insns":
        at = 0
        while at + 16 <= len(data):
            wide = data[at] == _LD_IMM64
            low, high = struct.unpack_from("=I", data, at + 4)[0], struct.unpack_from("=I", data, at + 12)[0]
            if wide and not data[at + 1] >> 4 and _LOWEST <= high << 32 | low < _HIGHEST:
                yield -at - 1
            at += 16 if wide else 8
    elif path.endswith(".addrs"):
        for at in range(0, len(data) - 7, 8):
            if _LOWEST <= struct.unpack_from("=Q", data, at)[0] < _HIGHEST:
                yield at


def _reference(calls: Sequence[Call]) -> tuple[str, int] | None:
    """A symbol and its address when it was recorded: from it the script learns where this boot has the kernel."""
    wanted: set[bytes] = set()
    for call in calls:
        for path, pointee in call.memory.items():
            if pointee.data is not None and path.endswith(".addrs"):
                wanted |= {
                    b"%016x" % struct.unpack_from("=Q", pointee.data, at)[0] for at in _kernel_addresses(path, pointee.data)
                }
    if not wanted:
        return None
    line = re.compile(rb"^([0-9a-f]{16}) (?:[tTwW] )?(\w+)$", re.MULTILINE)
    for call in calls:
        if call.name == "read" and isinstance(call.value, bytes):
            for found in line.finditer(call.value):
                if found[1] in wanted:
                    return found[2].decode(), int(found[1], 16)
    return None


# -- literals ------------------------------------------------------------------------------------------------------------------


def _attr_text(data: bytes) -> str:
    """Hexadecimal, eight bytes to a group."""
    return repr(data.hex(" ", -8))


def _bytes(data: bytes) -> str:
    if data and all(32 <= byte < 127 for byte in data[:-1]) and (data[-1] == 0 or 32 <= data[-1] < 127):
        return repr(data)
    if len(data) <= 64:
        return f"hexa({data.hex()!r})"
    lines = textwrap.wrap(b64encode(zlib.compress(data, 9)).decode(), _WIDTH)
    if len(lines) == 1:
        return f"packed({lines[0]!r})"
    return "packed(\n" + "".join(f"    {line!r}\n" for line in lines) + ")"
