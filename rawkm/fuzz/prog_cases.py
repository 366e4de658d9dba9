"""From an example that showed something to a case that anybody can run: the calls, the listing, what each must come to."""

from __future__ import annotations

import os
import re
import struct
from errno import EACCES, EINVAL, ENOENT

from rawkm.errors import errno_name
from rawkm.fuzz import prog_runner
from rawkm.fuzz.case import Case, Data, Step, step
from rawkm.fuzz.findings import Finding
from rawkm.fuzz.prog_builder import MAPS
from rawkm.prog import LICENSE
from rawkm.uapi import names, packed
from rawkm.uapi.constants import MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.errors import SyscallError
    from rawkm.fuzz.prog_recipes import Example
    from rawkm.fuzz.prog_runner import Refused, Runner


def different(example: Example, runner: Runner, name: str, expected: dict[str, object], seen: dict[str, object]) -> Finding:
    """What the program left behind is not what the model says."""
    steps = _load(example, runner)
    steps += _run(example, len(steps) - 1, expected, seen)
    words = f"{_title(example, runner)}: {name} differs"
    texts = _told(expected[name]), _told(seen[name])
    case = _case(example, runner, steps, words, f"{name}: expected {texts[0]}, seen {texts[1]}")
    return Finding(case, f"{_type(example)} {name}", *texts, signature=f"different {name}")


def refused(example: Example, runner: Runner, err: Refused, *, signature: str) -> Finding:
    """The verifier does not take what it should."""
    steps = _load(example, runner)
    words = f"{_title(example, runner)}: refused"
    case = _case(example, runner, steps, words, f"{errno_name(err.errno)}: {err.words}\n{err.log}")
    return Finding(case, f"{_type(example)} load", "accepted", f"{errno_name(err.errno)}: {err.words}", signature=signature)


def accepted(example: Example, runner: Runner, why: str) -> Finding:
    """The verifier takes what leaves its memory in the model."""
    steps = _load(example, runner, expect=(EACCES, EINVAL))
    case = _case(example, runner, steps, f"{_title(example, runner)}: accepted", why)
    return Finding(
        case,
        f"{_type(example)} load",
        f"refused, because of {why}",
        "accepted",
        signature="accepted: " + re.sub(r"0x[0-9a-f]+|-?\d+", "N", why.rpartition(": ")[2]),
    )


def not_run(example: Example, runner: Runner, err: SyscallError) -> Finding:
    """PROG_TEST_RUN does not run what was loaded."""
    steps = _load(example, runner)
    steps.append(_test(example, len(steps) - 1, ()))
    words = f"{_title(example, runner)}: not run"
    case = _case(example, runner, steps, words, str(err))
    return Finding(case, f"{_type(example)} run", "accepted", errno_name(err.errno), signature=f"run {err.errno}")


def _case(example: Example, runner: Runner, steps: list[Step], title: str, text: str) -> Case:
    variant = runner.variants[example.variant]
    if variant.setting is not None:
        text = f"with {variant.setting[1]} in {variant.setting[0]}\n{text}"
    listing = example.text()
    return Case(steps, title=title, text=f"{listing}\n{text}", kernel=os.uname().release, cpu=runner.cpu)


def _title(example: Example, runner: Runner) -> str:
    return f"a {example.mode} program of type {_type(example)} ({runner.variants[example.variant].name})"


def _type(example: Example) -> str:
    return names.name(ProgType, example.built.type).removeprefix("BPF_PROG_TYPE_")


def _told(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key.hex()}: {_told(contents)}" for key, contents in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_told, value)) + "]"
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _load(example: Example, runner: Runner, expect: tuple[int, ...] = (0,)) -> list[Step]:
    """The maps in the order of their names in the program, then the program: its fd is that of the last step."""
    steps = []
    for name in example.built.maps:
        spec = MAPS[name]
        values: dict[str, int | bytes] = {
            "map_type": spec.type,
            "key_size": spec.key,
            "value_size": spec.value,
            "max_entries": spec.max_entries,
            "map_name": name.encode(),
        }
        # Older kernels know less of the attr: its end is zeros, and not sent.
        steps.append(step(packed.MAP_CREATE, values, note=f"the map {name}"))
    code = example.code(dict.fromkeys(example.built.maps, 0))
    fds = {8 * slot + 4: example.built.maps.index(name) for slot, name in example.map_slots().items()}
    steps.append(
        step(
            packed.PROG_LOAD,
            {
                "prog_type": example.built.type,
                "insn_cnt": len(code) // 8,
                "prog_flags": runner.variants[example.variant].flags,
                "prog_name": b"fuzz",
            },
            pointers={"insns": Data(code, fds=fds), "license": Data(LICENSE.encode() + b"\0")},
            expect=expect,
            note="the program",
        )
    )
    return steps


def _test(example: Example, prog: int, checks: tuple[tuple[str, bytes], ...]) -> Step:
    given, _, _ = prog_runner.test_values(example.built.type, example.data)
    values: dict[str, int | bytes] = {}
    pointers = {}
    for path, value in given.items():
        if isinstance(value, bytes | bytearray):
            pointers[path] = Data(value)
        elif isinstance(value, int):
            values[path] = value
    return step(packed.PROG_TEST_RUN, values, pointers=pointers, fds={"test.prog_fd": prog}, checks=checks, note="its run")


def _run(example: Example, prog: int, expected: dict[str, object], seen: dict[str, object]) -> Iterator[Step]:
    """The run and a look at every map."""
    checks: list[tuple[str, bytes]] = []
    for name, value in expected.items():
        if name == "retval" and isinstance(value, int):
            checks.append(("test.retval", struct.pack("=I", value)))
        elif name == "packet" and isinstance(value, bytes):
            checks.append(("test.data_out", value))
    yield _test(example, prog, tuple(checks))
    for at, name in enumerate(example.built.maps):
        yield from _look(at, name, expected[f"map {name}"], seen[f"map {name}"])


def _look(at: int, name: str, expected: object, seen: object) -> Iterator[Step]:
    spec = MAPS[name]
    fds = {"map_fd": at}
    if isinstance(expected, list):
        for value in [*expected, None]:
            yield step(
                packed.MAP_LOOKUP_AND_DELETE_ELEM,
                {},
                fds=fds,
                pointers={"value": Data(bytes(spec.value))},
                checks=() if value is None else (("value", value),),
                expect=(ENOENT,) if value is None else (0,),
                note=f"what is in the map {name}",
            )
        return
    assert isinstance(expected, dict) and isinstance(seen, dict)
    room = 4096 * 8 if spec.type in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH) else spec.value
    for key in sorted({*expected, *seen}):
        value = expected.get(key)
        yield step(
            packed.MAP_LOOKUP_ELEM,
            {},
            fds=fds,
            pointers={"key": Data(key), "value": Data(bytes(room))},
            checks=() if value is None else (("value", value),),
            expect=(ENOENT,) if value is None else (0,),
            note=f"the map {name}",
        )
