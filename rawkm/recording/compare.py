"""Where a call differs from the one that was recorded: the field, and both values as texts."""

from __future__ import annotations

from rawkm.recording import show
from rawkm.uapi import annotate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.recording.call import Call, Pointee
    from rawkm.uapi.fields import Definition

    Difference = tuple[str, str, str]

NOTHING = "nothing"
_INFO = "info.info"


def difference(recorded: Call, made: Call) -> Difference | None:
    """(field, what is recorded, what was found) of the first difference between two calls as they are sent, or None.

    Addresses may differ, as long as they are recorded consistently: what they point to may not.
    """
    return next(_differences(recorded, made), None)


def called(call: Call) -> str:
    """The call's name as messages have it: "bpf(BPF_LINK_CREATE)"."""
    return f"bpf({show.command(call.command)})" if call.name == "bpf" else call.name


def _differences(recorded: Call, made: Call) -> Iterator[Difference]:
    if (recorded.kind, recorded.name) != (made.kind, made.name):
        yield "the call", called(recorded), called(made)
        return
    if recorded.command != made.command:
        yield "the command", show.command(recorded.command), show.command(made.command)
    if recorded.size != made.size:
        yield "size", str(recorded.size), str(made.size)
    for name in (*recorded.args, *(name for name in made.args if name not in recorded.args)):
        ours, theirs = made.args.get(name), recorded.args.get(name)
        if ours != theirs:
            yield name, str(theirs), str(ours)
    yield from _attr(recorded, made)
    for path in (*recorded.memory, *(path for path in made.memory if path not in recorded.memory)):
        yield from _memory(recorded, made, path)
    for place in (*recorded.fds, *(place for place in made.fds if place not in recorded.fds)):
        before, now = recorded.fds.get(place), made.fds.get(place)
        texts = [NOTHING if fd is None else fd.name for fd in (before, now)]
        if texts[0] != texts[1]:
            yield place.removeprefix("args."), texts[0], texts[1]


def _attr(recorded: Call, made: Call) -> Iterator[Difference]:
    definition = made.definition
    if len(recorded.attr) != len(made.attr):
        yield "the attr's size", str(len(recorded.attr)), str(len(made.attr))
        return
    if definition is None:
        if recorded.attr != made.attr:
            yield "attr", recorded.attr.hex(), made.attr.hex()
        return
    for old, new in zip(_rows(definition, recorded.attr), _rows(definition, made.attr), strict=True):
        if old.kind == "pointer":
            yield from _pointer(recorded, old, new)
        elif old.raw != new.raw:
            yield old.path, old.text, new.text


def _pointer(recorded: Call, old: annotate.Row, new: annotate.Row) -> Iterator[Difference]:
    if bool(old.value) != bool(new.value):
        yield old.path, old.text, new.text
        return
    pointee = recorded.memory.get(old.path)
    if pointee is not None and pointee.address is not None and pointee.address != old.value:
        yield old.path, old.text, f"{pointee.address:#x}, where its memory was"


def _rows(definition: Definition, attr: bytes) -> list[annotate.Row]:
    return annotate.annotate_struct(definition, attr)


def _memory(recorded: Call, made: Call, path: str) -> Iterator[Difference]:
    old, new = recorded.memory.get(path), made.memory.get(path)
    if old is None or new is None:
        yield path, _kind(old), _kind(new)
        return
    if (old.items is None) != (new.items is None) or old.size != new.size:
        yield path, _kind(old), _kind(new)
    elif old.items is not None and new.items is not None:
        if len(old.items) != len(new.items):
            yield path, f"{len(old.items)} strings", f"{len(new.items)} strings"
        for number, (before, now) in enumerate(zip(old.items, new.items, strict=False)):
            if before != now:
                yield f"{path}[{number}]", annotate.quote(before), annotate.quote(now)
    elif old.data != new.data:
        yield from _data(made, path, old.data or b"", new.data or b"")


def _data(made: Call, path: str, old: bytes, new: bytes) -> Iterator[Difference]:
    if len(old) != len(new):
        yield path, f"{len(old)} bytes", f"{len(new)} bytes"
        return
    info = show.info_definition(made, new) if path == _INFO else None
    if info is not None:
        for before, now in zip(_rows(info, old), _rows(info, new), strict=True):
            if before.raw != now.raw and not (before.kind == "pointer" and before.value and now.value):
                yield f"{path}.{before.path}", before.text, now.text
        return
    at = next(i for i in range(len(old)) if old[i] != new[i])
    start = at & ~7
    yield f"{path}, byte {at}", old[start : start + 8].hex(" "), new[start : start + 8].hex(" ")


def _kind(pointee: Pointee | None) -> str:
    if pointee is None:
        return NOTHING
    if pointee.error:
        return pointee.error
    return f"{len(pointee.items)} strings" if pointee.items is not None else f"{pointee.size} bytes"
