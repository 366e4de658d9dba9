"""A case: calls of bpf(2) with what each must come to. What a failure is once it has been shrunk.

It is data, so that it can be run, kept as a recording, and written as a pytest and as C (``rawkm.fuzz.reproducers``).
"""

from __future__ import annotations

import os
import sys
from time import monotonic, sleep

from rawkm.errors import errno_name
from rawkm.fuzz import bpffs
from rawkm.syscall.raw import Address, At, Block
from rawkm.uapi import names
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from rawkm.syscall.kernel import Kernel
    from rawkm.syscall.raw import RawBpf
    from rawkm.uapi.layout import Layout

    Target: TypeAlias = "Data | Part | Pin | Address"
    Observe: TypeAlias = "Callable[[Step, int, bytes, Mapping[int, Block | At | Address]], None]"
    #: Index of the step that made it, or the path of a file to open for reading.
    FdSource: TypeAlias = "int | str"

#: Steps that are no bpf(2): the fd at offset 0 is closed, the path at offset 0 is unlinked.
CLOSE, UNLINK = -1, -2
_NO_CALLS = {CLOSE: "close", UNLINK: "unlink"}
# What a Pin takes: a path like the others that steps have fds from.
BPFFS = "bpffs:"
NO_IDS: Mapping[int, int] = {}

# Commands whose result is a new fd.
NEW_FD = frozenset(
    {
        Cmd.MAP_CREATE,
        Cmd.PROG_LOAD,
        Cmd.OBJ_GET,
        Cmd.PROG_GET_FD_BY_ID,
        Cmd.MAP_GET_FD_BY_ID,
        Cmd.RAW_TRACEPOINT_OPEN,
        Cmd.BTF_LOAD,
        Cmd.BTF_GET_FD_BY_ID,
        Cmd.LINK_CREATE,
        Cmd.LINK_GET_FD_BY_ID,
        Cmd.ENABLE_STATS,
        Cmd.ITER_CREATE,
        Cmd.TOKEN_CREATE,
    }
)


class Data:
    """Memory that a call points to; nothing is mapped behind it.

    ``pointers``: offset → Data whose address stands there, or an Address; ``fds``: offset → index of the step whose new fd stands
    there, as 32 bits, or the path of a file that is opened for it.
    """

    __slots__ = ("data", "fds", "pointers")

    def __init__(
        self,
        data: bytes | bytearray,
        *,
        pointers: Mapping[int, Data | Address] | None = None,
        fds: Mapping[int, FdSource] | None = None,
    ) -> None:
        self.data = bytes(data)
        self.pointers = dict(pointers or {})
        self.fds = dict(fds or {})

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name in ("pointers", "fds") if (value := getattr(self, name)))
        return f"Data(bytes.fromhex({self.data.hex()!r}){more})"


class Part:
    """Memory that another pointer of the same attr points to: that of the one at ``pointer``, from ``offset`` on."""

    __slots__ = ("offset", "pointer")

    def __init__(self, pointer: int, offset: int) -> None:
        self.pointer = pointer
        self.offset = offset

    def __repr__(self) -> str:
        return f"Part({self.pointer}, {self.offset})"


class Pin:
    """The path of a file in a bpffs that the case has for itself."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Pin({self.name!r})"


class Check:
    """Bytes that must be there after the call: ``want`` at ``offset`` of the attr, or of what its pointer field at ``pointer``
    points to, or of what the pointer at ``inner`` in there does. ``name`` says what they are. ``id``: index of the step of whose
    object the id must be there, as 32 bits, instead of ``want``."""

    __slots__ = ("id", "inner", "name", "offset", "pointer", "want")

    def __init__(
        self,
        name: str,
        offset: int,
        want: bytes = b"",
        *,
        pointer: int | None = None,
        inner: int | None = None,
        id: int | None = None,
    ) -> None:
        self.name = name
        self.offset = offset
        self.want = bytes(want)
        self.pointer = pointer
        self.inner = inner
        self.id = id

    def __repr__(self) -> str:
        where = "".join(f", {name}={value}" for name in ("pointer", "inner", "id") if (value := getattr(self, name)) is not None)
        return f"Check({self.name!r}, {self.offset}, bytes.fromhex({self.want.hex()!r}){where})"


class Step:
    """One call. ``attr``: as sent, 0 where a pointer or a fd comes; ``size``: what the kernel is told; ``room``: how much memory
    there is for the attr (default: as much as the kernel is told). ``address``: where it is said to be instead.

    ``pointers`` (a Part or a Pin may be among them) and ``fds`` as in Data. ``ids``: offset → (index of the step that made an
    object, what is added to its id), for 32 bits. ``expect``: the errnos that are right, 0 among them for success; empty for
    whatever comes; within ``within`` seconds, for what the kernel does later. ``checks`` hold after a success.
    """

    __slots__ = ("address", "attr", "checks", "cmd", "expect", "fds", "ids", "note", "pointers", "room", "size", "within")

    def __init__(
        self,
        cmd: int,
        attr: bytes | bytearray,
        *,
        size: int | None = None,
        room: int | None = None,
        address: Address | None = None,
        pointers: Mapping[int, Target] | None = None,
        fds: Mapping[int, FdSource] | None = None,
        ids: Mapping[int, tuple[int, int]] | None = None,
        expect: Sequence[int] = (0,),
        within: float = 0,
        checks: Sequence[Check] = (),
        note: str = "",
    ) -> None:
        self.cmd = cmd
        self.attr = bytes(attr)
        self.size = len(self.attr) if size is None else size
        self.room = room
        self.address = address
        self.pointers = dict(pointers or {})
        self.fds = dict(fds or {})
        self.ids = dict(ids or {})
        self.expect = tuple(expect)
        self.within = within
        self.checks = tuple(checks)
        self.note = note

    def __repr__(self) -> str:
        size = f", size={self.size}" if self.size != len(self.attr) else ""
        names = ("pointers", "fds", "ids", "within", "checks", "note")
        more = "".join(f", {name}={value!r}" for name in names if (value := getattr(self, name)))
        more += "".join(f", {name}={value!r}" for name in ("room", "address") if (value := getattr(self, name)) is not None)
        expect = f", expect={self.expect!r}" if self.expect != (0,) else ""
        return f"Step({self.cmd}, bytes.fromhex({self.attr.hex()!r}){size}{more}{expect})"

    @property
    def name(self) -> str:
        """The command's name in UAPI's spelling, or its number."""
        return _NO_CALLS.get(self.cmd) or names.name(Cmd, self.cmd)


def step(
    layout: Layout,
    values: Mapping[str, int | bytes],
    *,
    pointers: Mapping[str, Data] | None = None,
    fds: Mapping[str, int] | None = None,
    checks: Sequence[tuple[str, bytes]] = (),
    expect: Sequence[int] = (0,),
    note: str = "",
) -> Step:
    """A Step of an attr by its fields. ``pointers``: path → memory; ``fds``: path → index of the step whose fd it is;
    ``checks``: (path, what the field must hold afterwards, or for a pointer field, what it points to must begin with)."""
    kinds = dict(layout.pointers)
    found = []
    for path, want in checks:
        offset = layout.offset(path)[0]
        name = path.rpartition(".")[2]
        found.append(Check(name, 0, want, pointer=offset) if path in kinds else Check(name, offset, want))
    return Step(
        layout.cmd,
        layout.pack(values),
        pointers={layout.offset(path)[0]: data for path, data in (pointers or {}).items()},
        fds={layout.offset(path)[0]: source for path, source in (fds or {}).items()},
        checks=found,
        expect=expect,
        note=note,
    )


class Case:
    """Steps in their order. ``title``: one line; ``text``: more lines, such as the program's listing; ``kernel``: where it was
    found; ``cpu``: where it must run, None for anywhere."""

    __slots__ = ("cpu", "kernel", "steps", "text", "title")

    def __init__(
        self, steps: Sequence[Step], *, title: str = "", text: str = "", kernel: str = "", cpu: int | None = None
    ) -> None:
        self.cpu = cpu
        self.steps = tuple(steps)
        self.title = title
        self.text = text
        self.kernel = kernel


class Difference:
    """What was expected of a step and what was seen, in words."""

    __slots__ = ("expected", "seen", "step", "what")

    def __init__(self, step: int, what: str, expected: str, seen: str) -> None:
        self.step = step
        self.what = what
        self.expected = expected
        self.seen = seen

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, seen {self.seen}"

    def __repr__(self) -> str:
        return f"<step {self.step}: {self}>"


def run(case: Case, kernel: Kernel, raw: RawBpf, observe: Observe | None = None) -> list[Difference]:
    """Makes the calls, closes what they opened, and tells what was not as expected. A step whose fd is missing ends it.

    ``observe`` is told of each call: the step, the result, the attr as it is then, the memory by pointer.
    """
    fds: dict[FdSource, int] = {}
    ids: dict[int, int] = {}
    wanted = ids_wanted(case)
    found: list[Difference] = []
    allowed = os.sched_getaffinity(0)
    try:
        if case.cpu is not None:
            os.sched_setaffinity(0, {case.cpu})
        for index, step in enumerate(case.steps):
            for source in sources(step):
                if isinstance(source, str) and source not in fds:
                    fds[source] = bpffs.mount(kernel) if source == BPFFS else kernel.open(source)
            if not set(sources(step)) <= fds.keys() or not {made for made, _ in step.ids.values()} <= ids.keys():
                break
            if step.cmd == CLOSE:
                kernel.close(fds.pop(step.fds[0]))
                continue
            if step.cmd == UNLINK:
                pin = step.pointers[0]
                assert isinstance(pin, Pin)
                kernel.unlink(bpffs.path(fds[BPFFS], pin.name))
                continue
            blocks = blocks_of(step, fds)
            attr, result = _sent(step, blocks, fds, ids, kernel, raw)
            if result >= 0 and step.cmd in NEW_FD:
                fds[index] = result
                if index in wanted:
                    ids[index] = _id_of(result, raw)
            if observe is not None:
                observe(step, result, bytes(attr), blocks)
            found += judge(index, step, result, attr, blocks, ids)
    finally:
        os.sched_setaffinity(0, allowed)
        for fd in fds.values():
            kernel.close(fd)
    return found


def _sent(
    step: Step,
    blocks: Mapping[int, Block | At | Address],
    fds: Mapping[FdSource, int],
    ids: Mapping[int, int],
    kernel: Kernel,
    raw: RawBpf,
) -> tuple[bytearray, int]:
    """(the attr afterwards, the result), of the last call where it takes several until it is as expected."""
    deadline = monotonic() + step.within
    while True:
        attr = bytearray(step.attr)
        for offset, source in step.fds.items():
            _put(attr, offset, fds[source])
        for offset, (made, more) in step.ids.items():
            _put(attr, offset, ids[made] + more)
        result = raw.call(step.cmd, attr if step.address is None else step.address, step.size, blocks, room=step.room)
        if not step.expect or max(-result, 0) in step.expect or monotonic() >= deadline:
            return attr, result
        if result >= 0 and step.cmd in NEW_FD:
            kernel.close(result)
        sleep(0.001)


def _id_of(fd: int, raw: RawBpf) -> int:
    """The id of a program, map or link; 0 where it has none. It is the second number of what the kernel tells of each."""
    info = Block(bytes(8))
    raw.call(
        Cmd.OBJ_GET_INFO_BY_FD,
        bytearray(fd.to_bytes(4, sys.byteorder) + (8).to_bytes(4, sys.byteorder) + bytes(8)),
        None,
        {8: info},
    )
    return int.from_bytes(info.data[4:8], sys.byteorder)


def ids_wanted(case: Case) -> set[int]:
    """The steps of whose objects the ids stand in others, or are looked for."""
    found = {made for step in case.steps for made, _ in step.ids.values()}
    return found | {check.id for step in case.steps for check in step.checks if check.id is not None}


def judge(
    index: int,
    step: Step,
    result: int,
    attr: bytes | bytearray,
    blocks: Mapping[int, Block | At | Address],
    ids: Mapping[int, int] = NO_IDS,
) -> list[Difference]:
    """The differences of one call that has been made."""
    code = -result if result < 0 else 0
    if step.expect and code not in step.expect:
        return [Difference(index, step.name, " or ".join(map(outcome, step.expect)), outcome(code))]
    found = []
    for check in step.checks if code == 0 else ():
        block = None if check.pointer is None else blocks[check.pointer]
        if check.inner is not None and isinstance(block, Block):
            block = block.pointers[check.inner]
        memory = block.data if isinstance(block, Block) else attr
        want = check.want if check.id is None else ids.get(check.id, 0).to_bytes(4, sys.byteorder)
        seen = bytes(memory[check.offset : check.offset + len(want)])
        if seen != want:
            found.append(Difference(index, f"{step.name} {check.name}", want.hex(), seen.hex()))
    return found


def outcome(code: int) -> str:
    """ "accepted", or the errno's name."""
    return errno_name(code) if code else "accepted"


def sources(step: Step) -> Iterator[FdSource]:
    """Where the fds come from that the step needs."""
    yield from step.fds.values()
    for target in step.pointers.values():
        yield from _sources(target)


def _sources(target: Target) -> Iterator[FdSource]:
    if isinstance(target, Pin):
        yield BPFFS
    elif isinstance(target, Data):
        yield from target.fds.values()
        for inner in target.pointers.values():
            yield from _sources(inner)


def blocks_of(step: Step, fds: Mapping[FdSource, int]) -> dict[int, Block | At | Address]:
    """The memory of a step's pointers."""
    found: dict[int, Block | At | Address] = {
        offset: _block(target, fds) for offset, target in step.pointers.items() if not isinstance(target, Part)
    }
    for offset, target in step.pointers.items():
        if isinstance(target, Part):
            of = found[target.pointer]
            assert isinstance(of, Block)
            found[offset] = At(of, target.offset)
    return found


def _block(target: Data | Pin | Address, fds: Mapping[FdSource, int]) -> Block | Address:
    if isinstance(target, Address):
        return target
    if isinstance(target, Pin):
        return Block(f"{bpffs.path(fds[BPFFS], target.name)}\0".encode())
    block = Block(target.data, {offset: _block(inner, fds) for offset, inner in target.pointers.items()})
    for offset, source in target.fds.items():
        _put(block.data, offset, fds[source])
    return block


def _put(memory: bytearray, offset: int, fd: int) -> None:
    memory[offset : offset + 4] = fd.to_bytes(4, sys.byteorder)[: max(0, len(memory) - offset)]
