"""A case as a recording (``.rkm``): its calls as they were made, and the case itself in a line of its own.

``{"t":"case", …}``: the steps with what each must come to, which the recording of the calls alone does not say; other readers
pass over it. Keys as in the classes of ``rawkm.fuzz.case``: bytes are hexadecimal, offsets are keys; a pointer leads to
{"data", …}, {"part": [pointer, offset]}, {"pin": name} or {"address": number}; a fd's source is the index of a step or a path.
"""

from __future__ import annotations

import json
from time import perf_counter

from rawkm.errors import RecordingError
from rawkm.fuzz.case import CLOSE, UNLINK, Case, Check, Data, Part, Pin, Step, run
from rawkm.recording import Call, Header, Pointee, Reader, Writer
from rawkm.recording.header import CALLS
from rawkm.syscall.raw import Address, Block
from rawkm.uapi import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, BinaryIO

    from rawkm.fuzz.case import Target
    from rawkm.syscall.kernel import Kernel
    from rawkm.syscall.raw import At, RawBpf

# Seconds that a step may ask to be waited for.
_MOST_PATIENCE = 60


def record(case: Case, kernel: Kernel, raw: RawBpf) -> bytes:
    """The recording of a run of the case, made now."""
    parts: list[bytes] = []
    writer = Writer(parts.append, Header(CALLS, ["fuzz", "replay"]))
    parts.append(json.dumps({"t": "case", **to_json(case)}, separators=(",", ":")).encode() + b"\n")
    start = perf_counter()

    def observe(step: Step, result: int, attr: bytes, blocks: Mapping[int, Block | At | Address]) -> None:
        nonlocal start
        now = perf_counter()
        writer.call(_call(step, result, attr, blocks, now - start))
        start = now

    run(case, kernel, raw, observe)
    return b"".join(parts)


def read(file: BinaryIO) -> Case:
    """The case in a recording. Raises RecordingError for one that has none, or that is damaged."""
    for line in file:
        if line.startswith(b'{"t":"case"'):
            try:
                return from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as err:
                raise RecordingError(f"the case in this recording is damaged: {err!r}") from None
    file.seek(0)
    Reader(file)  # its own words for what is no recording at all
    raise RecordingError("this recording is none of a failure: rawkm replay and rawkm repro take it")


def _call(step: Step, result: int, attr: bytes, blocks: Mapping[int, Block | At | Address], seconds: float) -> Call:
    sent = bytearray(step.attr)
    for offset in {*step.pointers, *step.fds, *step.ids}:
        sent[offset : offset + 8] = attr[offset : offset + 8]
    memory, outputs = {}, {}
    try:
        definition = layouts.for_attr(step.cmd, bytes(sent))
        paths = {definition.offset(path)[0]: path for path, _ in definition.pointers}
    except ValueError:
        paths = {}
    for offset, target in step.pointers.items():
        block = blocks[offset]
        if offset not in paths or not isinstance(target, Data | Pin) or not isinstance(block, Block):
            continue
        address = int.from_bytes(sent[offset : offset + 8], "little")
        if isinstance(target, Pin):
            memory[paths[offset]] = Pointee(bytes(block.data.rstrip(b"\0")), address=address)
            continue
        if target.pointers:
            names = [inner.data.partition(b"\0")[0] for inner in target.pointers.values() if isinstance(inner, Data)]
            memory[paths[offset]] = Pointee(items=names, address=address)
            continue
        before = bytearray(target.data)
        for at in target.fds:
            before[at : at + 4] = block.data[at : at + 4]
        memory[paths[offset]] = Pointee(bytes(before), address=address)
        if block.data != before:
            outputs[paths[offset]] = Pointee(bytes(block.data), address=address)
    return Call(
        "bpf",
        command=step.cmd,
        size=step.size,
        attr=bytes(sent),
        attr_after=attr,
        memory=memory,
        outputs=outputs,
        result=max(result, -1),
        errno=-result if result < 0 else 0,
        seconds=seconds,
        note=step.note,
    )


# -- JSON ----------------------------------------------------------------------------------------------------------------------


def to_json(case: Case) -> dict[str, Any]:
    """All of a case."""
    return {
        "title": case.title,
        "text": case.text,
        "kernel": case.kernel,
        "cpu": case.cpu,
        "steps": [_step_to(step) for step in case.steps],
    }


def from_json(values: Mapping[str, Any]) -> Case:
    """Back again. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
    cpu = values["cpu"]
    if cpu is not None and type(cpu) is not int:
        raise ValueError("cpu is no number")
    texts = {name: str(values[name]) for name in ("title", "text", "kernel")}
    return Case([_step_from(step) for step in values["steps"]], cpu=cpu, **texts)


def _step_to(step: Step) -> dict[str, Any]:
    return {
        "cmd": step.cmd,
        "attr": step.attr.hex(),
        "size": step.size,
        "room": step.room,
        "address": step.address,
        "pointers": {str(offset): _target_to(target) for offset, target in step.pointers.items()},
        "fds": {str(offset): source for offset, source in step.fds.items()},
        "ids": {str(offset): list(source) for offset, source in step.ids.items()},
        "expect": list(step.expect),
        "within": step.within,
        "checks": [[check.name, check.offset, check.want.hex(), check.pointer, check.inner, check.id] for check in step.checks],
        "note": step.note,
    }


def _step_from(values: Mapping[str, Any]) -> Step:
    address = values["address"]
    pointers = {int(offset): _target_from(target) for offset, target in values["pointers"].items()}
    for target in pointers.values():
        if isinstance(target, Part) and not isinstance(pointers.get(target.pointer), Data):
            raise ValueError("a part of nothing")
    if (values["cmd"] == CLOSE and "0" not in values["fds"]) or (
        values["cmd"] == UNLINK and not isinstance(pointers.get(0), Pin)
    ):
        raise ValueError("a step without what it is about")
    checks = [_check_from(*check) for check in values["checks"]]
    if any(not _is_there(check, pointers) for check in checks):
        raise ValueError("a check of nothing")
    within = values.get("within", 0)
    if not isinstance(within, int | float) or not 0 <= within <= _MOST_PATIENCE:
        raise ValueError(f"{within!r} is no number of seconds to wait")
    return Step(
        _number(values["cmd"]),
        bytes.fromhex(values["attr"]),
        size=_number(values["size"]),
        room=None if values["room"] is None else _number(values["room"]),
        address=None if address is None else Address(_number(address)),
        pointers=pointers,
        fds=_fds_from(values["fds"]),
        ids={int(offset): (_number(made), _number(more)) for offset, (made, more) in values.get("ids", {}).items()},
        within=within,
        expect=[_number(code) for code in values["expect"]],
        checks=checks,
        note=str(values["note"]),
    )


def _check_from(name: str, offset: int, want: str, pointer: Any, inner: Any = None, id: Any = None) -> Check:
    for place in (pointer, inner, id):
        if place is not None:
            _number(place)
    return Check(str(name), _number(offset), bytes.fromhex(want), pointer=pointer, inner=inner, id=id)


def _is_there(check: Check, pointers: Mapping[int, Target]) -> bool:
    """Whether the step has the memory that is looked at."""
    if check.pointer is None:
        return check.inner is None
    target = pointers.get(check.pointer)
    return target is not None and (check.inner is None or (isinstance(target, Data) and check.inner in target.pointers))


def _target_to(target: Target) -> dict[str, Any]:
    if isinstance(target, Part):
        return {"part": [target.pointer, target.offset]}
    if isinstance(target, Address):
        return {"address": int(target)}
    if isinstance(target, Pin):
        return {"pin": target.name}
    return {
        "data": target.data.hex(),
        "pointers": {str(offset): _target_to(inner) for offset, inner in target.pointers.items()},
        "fds": {str(offset): source for offset, source in target.fds.items()},
    }


def _target_from(values: Mapping[str, Any]) -> Target:
    if "part" in values:
        pointer, offset = values["part"]
        return Part(_number(pointer), _number(offset))
    if "address" in values:
        return Address(_number(values["address"]))
    if "pin" in values:
        return Pin(_file_name(values["pin"]))
    inner = {int(offset): _target_from(target) for offset, target in values["pointers"].items()}
    if any(isinstance(target, Part | Pin) for target in inner.values()):
        raise ValueError("a part or a pin inside of memory")
    pointers = {offset: target for offset, target in inner.items() if not isinstance(target, Part | Pin)}
    return Data(bytes.fromhex(values["data"]), pointers=pointers, fds=_fds_from(values["fds"]))


def _fds_from(values: Mapping[str, Any]) -> dict[int, int | str]:
    return {int(offset): source if isinstance(source, str) else _number(source) for offset, source in values.items()}


def _file_name(value: object) -> str:
    """What stays in the bpffs that it is meant for."""
    if not isinstance(value, str) or not value.isalnum():
        raise ValueError(f"{value!r} is no name of a pin")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no number")
    return value
