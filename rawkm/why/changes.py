"""What may be tried: small changes to the fields of a call, and to those of the calls that made what it takes."""

from __future__ import annotations

from rawkm.uapi import names
from rawkm.uapi.constants import AttachType, Cmd
from rawkm.why.scenario import Change, Step, info_definition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rawkm.rules import Facts
    from rawkm.uapi.fields import Member
    from rawkm.why.scenario import Scenario

# Plain numbers that are right more often than others, by field.
_NUMBERS: dict[str, tuple[int, ...]] = {
    "key_size": (4, 8, 0),
    "value_size": (8, 4, 0),
    "max_entries": (1, 4096),
    "log_level": (1,),
    "test.data_size_in": (64,),
    "expected_attach_type": (0,),
}
_NOT_TRIED = frozenset(("link_create.attach_type", "attach_btf_id", "prog_ifindex", "map_ifindex", "keyring_id", "numa_node"))
# 0 stands for none there.
_OPTIONAL_FDS = frozenset(
    (
        "target_fd",
        "inner_map_fd",
        "btf_fd",
        "prog_btf_fd",
        "attach_prog_fd",
        "map_token_fd",
        "prog_token_fd",
        "btf_token_fd",
        "fd_by_id_token_fd",
        "value_type_btf_obj_fd",
        "replace_bpf_fd",
        "relative_fd",
        "old_prog_fd",
        "path_fd",
        "bpf_fd",
    )
)


def shown(member: Member, value: int) -> str:
    """A number as people read it."""
    role = member.role
    if role.kind == "enum" and role.names is not None:
        return f"{value} ({names.name(role.names, value)})"
    if role.kind == "flags" and role.names is not None and value:
        return names.flags(role.names, value)
    return hex(value) if role.kind in ("hex", "pointer") and value > 9 else str(value)


def candidates(scenario: Scenario) -> Iterator[Change]:
    """Changes of one field each: of the call itself first, then of what made its programs and maps."""
    last = len(scenario.steps) - 1
    yield from _attach_types(scenario, last)
    yield from _of_call(scenario.last, last, scenario.facts)
    for n, step in enumerate(scenario.steps[:-1]):
        yield from _of_maker(step, n, scenario.last)


def _attach_types(scenario: Scenario, n: int) -> Iterator[Change]:
    """The type that the program was loaded for, else those that fit most programs."""
    step = scenario.last
    member = step.member("link_create.attach_type")
    if member is None:
        return
    value = step.number(member.path)
    expected = [s.number("expected_attach_type") for s in scenario.steps[:-1] if s.command == Cmd.PROG_LOAD]
    for wanted in dict.fromkeys((*expected, AttachType.PERF_EVENT, AttachType.TRACE_KPROBE_MULTI)):
        if wanted != value:
            yield _set(n, member, wanted, was=shown(member, value), now=shown(member, wanted))


def _of_call(step: Step, n: int, facts: Facts) -> Iterator[Change]:
    yield from _beyond(step, n, facts)
    for member in step.members():
        if member.role.kind == "hole" or member.path in _NOT_TRIED:
            continue
        kind = member.role.kind
        value = step.number(member.path)
        if kind == "pointer":
            yield from _of_pointer(step, n, member)
        elif kind in ("name", "bytes"):
            raw = bytes(step.attr[member.offset : member.offset + member.size])
            if any(raw):
                good = bytes(c for c in raw.partition(b"\0")[0] if chr(c).isascii() and (chr(c).isalnum() or c in b"_."))[:15]
                yield _set(n, member, good, was=repr(raw.rstrip(b"\0"))[1:], now=repr(good)[1:])
        else:
            for wanted in _numbers(step, member, value):
                if wanted != value:
                    yield _set(n, member, wanted, was=shown(member, value), now=shown(member, wanted))
    yield from _of_info(step, n)


def _numbers(step: Step, member: Member, value: int) -> Iterator[int]:
    """The numbers to try in the place of ``value``, the likeliest first."""
    role, seen = member.role, {value}
    if role.kind in ("size", "count"):
        content = step.memory.get(role.of)
        if content is not None:
            each = {"u64s": 8, "u32s": 4, "insns": 8}.get(_target(step, role.of), 1)
            seen_of = len(content) if isinstance(content, list) else len(content) // (each if role.kind == "count" else 1)
            yield seen_of
        elif step.number(role.of):
            yield from (1, 256)
    if role.kind == "flags":
        bits = [1 << i for i in range(64) if value >> i & 1]
        if len(bits) > 1:
            yield from (value & ~bit for bit in bits)
        yield 0
        return
    if role.kind == "fd":
        # What must be given has to be found elsewhere.
        if member.path.rpartition(".")[2] in _OPTIONAL_FDS and step.command != Cmd.OBJ_GET_INFO_BY_FD:
            yield 0
        return
    for wanted in (*_NUMBERS.get(member.path, ()), 0, 1):
        if wanted not in seen:
            seen.add(wanted)
            yield wanted


def _target(step: Step, path: str) -> str:
    member = step.member(path)
    return "" if member is None else member.role.target


def _set(n: int, member: Member, value: int | bytes, *, was: str, now: str) -> Change:
    path = member.path

    def apply(draft: Step) -> None:
        draft.put(path, value)

    return Change(n, path, was, now, apply)


def _of_pointer(step: Step, n: int, member: Member) -> Iterator[Change]:
    path, value = member.path, step.number(member.path)
    content = step.memory.get(path)
    if value:
        yield _set(n, member, 0, was=_content(content, value), now="NULL")
    if isinstance(content, list):
        return
    if path == "key" and isinstance(content, bytes) and any(content):
        yield _patched(n, path, path, 0, content, bytes(len(content)))
    if value == 0 or content is None:
        size = max(step.number(member.role.of) if member.role.of else 0, 256)

        def apply(draft: Step) -> None:
            draft.put(path, 1)
            draft.memory[path] = bytes(min(size, 1 << 20))

        yield Change(n, path, "NULL" if value == 0 else hex(value), "readable memory of zeros", apply)


def _content(content: bytes | list[bytes] | None, value: int) -> str:
    if content is None:
        return f"{value:#x}, where nothing can be read"
    if isinstance(content, list):
        return f"{len(content)} names"
    return f"{len(content)} bytes"


def _beyond(step: Step, n: int, facts: Facts) -> Iterator[Change]:
    """Bytes that no field of the command covers, and a size that is too much."""
    definition = step.definition
    end = definition.reads if definition is not None else 0
    sent = bytes(step.attr[: step.size])
    dirty = [at for at in range(end, len(sent)) if sent[at]]
    if dirty:
        first, last = dirty[0], dirty[-1]
        text = f"byte {first}" if first == last else f"bytes {first} to {last}"

        def clean(draft: Step) -> None:
            draft.attr[end:] = bytes(len(draft.attr) - end)

        yield Change(n, text, "0x" + sent[first : last + 1].hex(), "0", clean)
    if step.size > facts.page_size:

        def cut(draft: Step) -> None:
            draft.size = end
            del draft.attr[end:]

        yield Change(n, "size", str(step.size), str(end), cut)


def _of_info(step: Step, n: int) -> Iterator[Change]:
    """The members of an info struct that goes in with the call."""
    path = "info.info"
    content = step.memory.get(path)
    definition = info_definition(step) if step.command == Cmd.OBJ_GET_INFO_BY_FD else None
    if definition is None or not isinstance(content, bytes):
        return
    for member in definition.members:
        raw = content[member.offset : member.offset + member.size]
        if any(raw):
            yield _patched(n, f"{path}.{member.path}", path, member.offset, raw, bytes(len(raw)))
    tail = content[definition.size :]
    if any(tail):
        first = next(i for i, byte in enumerate(tail) if byte)
        tail = tail[first:].rstrip(b"\0")
        first += definition.size
        last = first + len(tail) - 1
        place = f"byte {first}" if last == first else f"bytes {first} to {last}"
        yield _patched(n, f"{place} of {path}", path, first, tail, bytes(len(tail)))


def _patched(n: int, field: str, path: str, offset: int, was: bytes, now: bytes) -> Change:
    def apply(draft: Step) -> None:
        data = draft.memory[path]
        assert isinstance(data, bytes)
        draft.memory[path] = data[:offset] + now + data[offset + len(now) :]

    value = int.from_bytes(was, "little") if len(was) <= 8 else 0
    return Change(n, field, hex(value) if value else f"0x{was[:16].hex()}", "0", apply)


# -- what made the programs and maps ---------------------------------------------------------------------------------------


def _of_maker(step: Step, n: int, last: Step) -> Iterator[Change]:
    wanted: dict[str, Callable[[int], list[int]]] = {}
    if step.command == Cmd.PROG_LOAD:
        attach = last.number("link_create.attach_type") if last.command == Cmd.LINK_CREATE else 0
        wanted = {
            "expected_attach_type": lambda value: [v for v in (attach, 0) if v != value],
            "prog_flags": lambda value: [0] if value else [],
        }
    elif step.command == Cmd.MAP_CREATE:
        wanted = {"map_flags": lambda value: [value & ~(1 << i) for i in range(32) if value >> i & 1]}
    for path, values in wanted.items():
        member = step.member(path)
        if member is None:
            continue
        value = step.number(path)
        for other in values(value):
            yield _set(n, member, other, was=shown(member, value), now=shown(member, other))
