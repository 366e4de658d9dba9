"""Maps, programs and links as a state machine: an object lives for as long as an fd, a pin or another object refers to it.

Every step is made on the kernel and on a model of references; what the kernel tells of an object must be what the model says, and
when a run is over nothing may be left.
"""

from __future__ import annotations

import struct
from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from time import monotonic, sleep

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rawkm import objects
from rawkm.asm import R0, R1, Mov, encode, exit_, map_ptr
from rawkm.errors import SyscallError, errno_name
from rawkm.fuzz import bpffs
from rawkm.fuzz.objects import TRACEPOINT
from rawkm.fuzz.pool import MissingError, Pool
from rawkm.fuzz.script import Script
from rawkm.host.facts import release
from rawkm.syscall.raw import RawBpf
from rawkm.uapi import layouts
from rawkm.uapi.constants import MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar

    from rawkm.fuzz.case import Step
    from rawkm.fuzz.script import Object
    from rawkm.syscall.kernel import Kernel, Reply, Value

# What one run may hold.
_MAX_OBJECTS, _MAX_FDS = 12, 40
_KEYS = 3
_FROZEN_IS_READ_ONLY = (6, 3)
# A tracepoint tells its probes apart by what they are called with: the program, and since then the link.
_ATTACHED_AGAIN = (6, 10)


class DifferenceError(AssertionError):
    """The kernel does not do what the model says. ``steps``: the run up to there, in words; ``calls``: the same as a case's."""

    def __init__(self, what: str, expected: str, seen: str, steps: list[str], calls: Sequence[Step] = ()) -> None:
        super().__init__(f"{what}: expected {expected}, seen {seen}")
        self.what = what
        self.expected = expected
        self.seen = seen
        self.steps = steps
        self.calls = tuple(calls)


class Node:
    """An object. ``fds`` and ``pins`` (names) refer to it; ``refers`` are the objects that it keeps alive.

    ``elements``: of a map, key → value. ``type``: the MapType or ProgType, of a link "raw_tracepoint", "iter" or "netns".
    """

    __slots__ = ("attached", "elements", "fds", "frozen", "id", "kind", "pins", "refers", "type")

    def __init__(self, kind: str, type: int | str, fd: int, id: int) -> None:
        self.kind = kind
        self.type = type
        self.id = id
        self.fds = [fd]
        self.pins: list[str] = []
        self.refers: list[Node] = []
        self.elements: dict[int, int] = {}
        self.frozen = False
        self.attached = True

    @property
    def name(self) -> str:
        return f"{self.kind} {self.id}"


class BpfMachine(RuleBasedStateMachine):
    """``kernel``: the running one. ``links``: whether links may be made.

    ``run_begins`` and ``call_made`` are for who counts.
    """

    kernel: ClassVar[Kernel]
    links: ClassVar[bool] = False
    #: Has the file system that all runs pin in; to be closed when there are no more.
    pool: ClassVar[Pool]
    #: Seconds: the kernel frees objects after a grace period and from work queues.
    patience: ClassVar[float] = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.run_begins()
        self._nodes: list[Node] = []
        self._steps: list[str] = []
        self._script = Script()
        self._pins = 0

    def run_begins(self) -> None:
        """Before anything else."""

    def call_made(self, accepted: bool) -> None:
        """After each bpf(2)."""

    # -- making ------------------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Everything is pinned in a bpffs of our own, which nobody else sees."""
        try:
            self._bpffs = self.pool.fd("file/bpffs")
        except MissingError:
            self._bpffs = -1
        self.create_map(MapType.HASH)

    @rule(type=st.sampled_from((MapType.HASH, MapType.ARRAY)))
    def create_map(self, type: int) -> None:
        if not self._room():
            return
        values = {"map_type": type, "key_size": 4, "value_size": 4, "max_entries": _KEYS}
        fd = self._call("map_create", values).ret
        node = self._new("map", type, fd)
        if type == MapType.ARRAY:
            node.elements = dict.fromkeys(range(_KEYS), 0)

    @rule(type=st.sampled_from((ProgType.SOCKET_FILTER, ProgType.RAW_TRACEPOINT)), which=st.integers(0, 63), uses=st.booleans())
    def load_prog(self, type: int, which: int, uses: bool) -> None:
        """A program that does nothing, and refers to a map or not."""
        if not self._room():
            return
        target = self._pick("map", which) if uses else None
        insns = [] if target is None else [map_ptr(R1, target.fds[0])]
        code = encode([*insns, Mov.imm(R0, 0), exit_()])
        values: dict[str, Value] = {"prog_type": type, "insn_cnt": len(code) // 8, "insns": code, "license": "GPL"}
        # A map's fd is the immediate of the first instruction.
        inside = {} if target is None else {"insns": {4: target.fds[0]}}
        fd = self._call("prog_load", values, inside=inside).ret
        node = self._new("prog", type, fd)
        if target is not None:
            node.refers.append(target)

    @precondition(lambda self: self.links)
    @rule(which=st.integers(0, 63))
    def attach(self, which: int) -> None:
        """Loads a program where there is none: or links would be few."""
        if self._pick("prog", which, ProgType.RAW_TRACEPOINT) is None:
            self.load_prog(ProgType.RAW_TRACEPOINT, 0, False)
        prog = self._pick("prog", which, ProgType.RAW_TRACEPOINT)
        if prog is None or not self._room():
            return
        values: dict[str, Value] = {"raw_tracepoint.name": TRACEPOINT, "raw_tracepoint.prog_fd": prog.fds[0]}
        there = any(node.kind == "link" and prog in node.refers for node in self._alive())
        if there and release() < _ATTACHED_AGAIN:
            self._call("raw_tracepoint_open", values, EEXIST)
            return
        node = self._new("link", "raw_tracepoint", self._call("raw_tracepoint_open", values).ret)
        node.refers.append(prog)

    # -- references --------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._alive())
    @rule(which=st.integers(0, 63))
    def get_by_id(self, which: int) -> None:
        node = self._any(which)
        if sum(len(n.fds) for n in self._nodes) < _MAX_FDS:
            node.fds.append(self._call(f"{node.kind}_get_fd_by_id", {f"{node.kind}_id": node.id}).ret)
            self._steps[-1] += f" ({node.name})"

    @precondition(lambda self: self._bpffs >= 0 and self._with_fds())
    @rule(which=st.integers(0, 63))
    def pin(self, which: int) -> None:
        node = self._with_fds()[which % len(self._with_fds())]
        self._pins += 1
        name = f"pin{self._pins}"
        self._call("obj_pin", {"pathname": self._path(name), "bpf_fd": node.fds[0]})
        self._steps[-1] += f" ({node.name} as {name})"
        node.pins.append(name)

    @precondition(lambda self: any(node.pins for node in self._nodes))
    @rule(which=st.integers(0, 63))
    def get_pinned(self, which: int) -> None:
        pins = self._pinned()
        node, name = pins[which % len(pins)]
        node.fds.append(self._call("obj_get", {"pathname": self._path(name)}).ret)
        self._same(node, node.fds[-1])

    @precondition(lambda self: any(node.pins for node in self._nodes))
    @rule(which=st.integers(0, 63))
    def unpin(self, which: int) -> None:
        pins = self._pinned()
        node, name = pins[which % len(pins)]
        self._steps.append(f"unlink {name} ({node.name})")
        self._script.unlink(name)
        self.kernel.unlink(self._path(name))
        node.pins.remove(name)
        self._settle()

    @precondition(lambda self: self._with_fds())
    @rule(which=st.integers(0, 255))
    def close(self, which: int) -> None:
        fds = [(node, fd) for node in self._nodes for fd in node.fds]
        node, fd = fds[which % len(fds)]
        self._steps.append(f"close fd {fd} ({node.name})")
        self._script.close(fd)
        self.kernel.close(fd)
        node.fds.remove(fd)
        self._settle()

    # -- what objects do ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._pick("map", 0) is not None)
    @rule(which=st.integers(0, 63), key=st.integers(0, _KEYS), value=st.integers(0, 3), flags=st.sampled_from((0, 1, 2)))
    def update(self, which: int, key: int, value: int, flags: int) -> None:
        node = self._map(which)
        elem = {"key": struct.pack("=I", key), "value": struct.pack("=I", value)}
        data: dict[str, Value] = {"map_fd": node.fds[0], **elem, "flags": flags}
        wanted = self._update_errno(node, key, flags)
        self._call("map_update_elem", data, wanted)
        if not wanted:
            node.elements[key] = value

    @precondition(lambda self: self._pick("map", 0) is not None)
    @rule(which=st.integers(0, 63), key=st.integers(0, _KEYS))
    def lookup(self, which: int, key: int) -> None:
        node = self._map(which)
        value = bytearray(4)
        wanted = 0 if self._holds(node, key) else ENOENT
        checks = {} if wanted else {"value": struct.pack("=I", node.elements[key])}
        self._call(
            "map_lookup_elem", {"map_fd": node.fds[0], "key": struct.pack("=I", key), "value": value}, wanted, checks=checks
        )
        if not wanted:
            self._expect(f"the value of key {key} of {node.name}", node.elements[key], struct.unpack("=I", value)[0])

    @precondition(lambda self: self._pick("map", 0) is not None)
    @rule(which=st.integers(0, 63), key=st.integers(0, _KEYS))
    def delete(self, which: int, key: int) -> None:
        node = self._map(which)
        wanted = EPERM if node.frozen else EINVAL if node.type == MapType.ARRAY else 0 if key in node.elements else ENOENT
        self._call("map_delete_elem", {"map_fd": node.fds[0], "key": struct.pack("=I", key)}, wanted)
        if not wanted:
            del node.elements[key]

    @precondition(lambda self: self._pick("map", 0) is not None)
    @rule(which=st.integers(0, 63))
    def freeze(self, which: int) -> None:
        node = self._map(which)
        twice = EBUSY if release() < _FROZEN_IS_READ_ONLY else EPERM
        self._call("map_freeze", {"map_fd": node.fds[0]}, twice if node.frozen else 0)
        node.frozen = True

    @precondition(lambda self: self._pick("link", 0) is not None)
    @rule(which=st.integers(0, 63))
    def detach(self, which: int) -> None:
        """A link to a raw tracepoint goes by its last reference only."""
        node = self._pick("link", which)
        assert node is not None
        self._call("link_detach", {"link_detach.link_fd": node.fds[0]}, EOPNOTSUPP)

    @precondition(lambda self: self._pick("link", 0) is not None)
    @rule(which=st.integers(0, 63), prog=st.integers(0, 63))
    def exchange(self, which: int, prog: int) -> None:
        """Nor can its program be exchanged."""
        node, other = self._pick("link", which), self._pick("prog", prog)
        if node is None or other is None:
            return
        self._call("link_update", {"link_update.link_fd": node.fds[0], "link_update.new_prog_fd": other.fds[0]}, EINVAL)

    # -- asking ------------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._with_fds())
    @rule(which=st.integers(0, 255))
    def query(self, which: int) -> None:
        fds = [(node, fd) for node in self._nodes for fd in node.fds]
        self._same(*fds[which % len(fds)])

    @rule()
    def enumerate(self) -> None:
        """Every object that is referred to is in the kernel's list."""
        for kind in ("map", "prog", "link"):
            listed = set(objects.ids(self.kernel, kind))
            alive = [node for node in self._alive() if node.kind == kind]
            missing = [node.name for node in alive if node.id not in listed]
            for node in alive:
                self._script.listed(kind, node.id)
            self._expect(f"what is missing in the list of {kind}s", [], missing)

    def teardown(self) -> None:
        """Gives everything back; nothing may be left."""
        for node in self._nodes:
            for fd in node.fds:
                self._script.close(fd)
                self.kernel.close(fd)
            for name in node.pins:
                self._script.unlink(name)
                self.kernel.unlink(self._path(name))
        ids = [(node.kind, node.id) for node in self._nodes]
        for node in self._nodes:
            node.fds, node.pins = [], []
        self._steps.append("all is closed and unlinked")
        for kind, id in ids:
            self._gone(kind, id)

    # -- plumbing ----------------------------------------------------------------------------------------------------------------

    def _call(
        self,
        name: str,
        values: Mapping[str, Value],
        wanted: int = 0,
        *,
        checks: Mapping[str, bytes] | None = None,
        inside: Mapping[str, Mapping[int, int]] | None = None,
    ) -> Reply:
        """bpf(2), which must give ``wanted``: 0 or an errno. ``checks`` and ``inside`` as the script has them."""
        from rawkm.syscall.kernel import Reply

        layout = layouts.named(name)
        shown = ", ".join(f"{path.rpartition('.')[2]}={value!r}" for path, value in values.items())
        sent = {path: bytearray(value) if isinstance(value, bytearray) else value for path, value in values.items()}
        reply = None
        try:
            reply = self.kernel.bpf(layout, values)
            errno = 0
        except SyscallError as err:
            errno = err.errno
        said = errno_name(errno) if errno else str(reply.ret if reply else 0)
        self._steps.append(f"{layout.command}({shown}) = {said}")
        self.call_made(errno == 0)
        self._script.call(layout, sent, wanted, reply.ret if reply else -errno, checks=checks, inside=inside)
        self._expect(layout.command, errno_name(wanted) if wanted else "accepted", errno_name(errno) if errno else "accepted")
        return reply or Reply(-errno, layout, b"")

    def _expect(self, what: str, expected: object, seen: object) -> None:
        if expected != seen:
            raise DifferenceError(what, str(expected), str(seen), list(self._steps), self._script.steps)

    def _new(self, kind: str, type: int | str, fd: int) -> Node:
        info, _ = self.kernel.obj_info(fd, layouts.named(f"{kind}_info"))
        id = info["id"]
        assert isinstance(id, int)
        node = Node(kind, type, fd, id)
        self._script.made(fd, kind, id)
        self._steps[-1] += f" ({node.name})"
        self._nodes.append(node)
        return node

    def _same(self, node: Node, fd: int) -> None:
        """What the kernel tells of an fd is what the model says of its object."""
        numbers = (
            {"type": int(node.type)} if node.kind == "map" else {"nr_map_ids": len(node.refers)} if node.kind == "prog" else {}
        )
        others: dict[str, Object] = {"id": (node.kind, node.id)}
        if node.kind == "link":
            others["prog_id"] = ("prog", node.refers[0].id)
        self._script.info(fd, node.kind, numbers, others, [one.id for one in node.refers if one.kind == "map"])
        if node.kind == "prog":
            count = len({map.id for map in node.refers})
            ids = bytearray(4 * 4)
            info, _ = self.kernel.obj_info(fd, layouts.named("prog_info"), {"nr_map_ids": 4, "map_ids": ids})
            self._expect(f"the number of maps of {node.name}", count, info["nr_map_ids"])
            self._expect(f"the maps of {node.name}", [map.id for map in node.refers], list(struct.unpack("=4I", ids)[:count]))
        elif node.kind == "link":
            info, _ = self.kernel.obj_info(fd, layouts.named("link_info"))
            self._expect(f"the program of {node.name}", node.refers[0].id, info["prog_id"])
        else:
            info, _ = self.kernel.obj_info(fd, layouts.named("map_info"))
            self._expect(f"the type of {node.name}", node.type, info["type"])
        self._expect(f"the id of fd {fd}", node.id, info["id"])

    def _holds(self, node: Node, key: int) -> bool:
        return key in node.elements

    def _update_errno(self, node: Node, key: int, flags: int) -> int:
        if node.frozen:
            return EPERM
        if node.type == MapType.ARRAY:
            return E2BIG if key >= _KEYS else EEXIST if flags == 1 else 0
        if flags == 1 and key in node.elements:
            return EEXIST
        if flags == 2 and key not in node.elements:
            return ENOENT
        return E2BIG if key not in node.elements and len(node.elements) >= _KEYS else 0

    def _alive(self) -> list[Node]:
        """The objects that something refers to."""
        reached: list[Node] = []
        waiting = [node for node in self._nodes if node.fds or node.pins]
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.append(node)
                waiting += node.refers
        return [node for node in self._nodes if node in reached]

    def _settle(self) -> None:
        """After a reference went: what nothing refers to any more must go from the kernel."""
        alive = self._alive()
        for node in [node for node in self._nodes if node not in alive]:
            self._gone(node.kind, node.id)
            self._nodes.remove(node)

    def _gone(self, kind: str, id: int) -> None:
        self._script.gone(kind, id, self.patience)
        deadline = monotonic() + self.patience
        while self._is_there(kind, id):
            if monotonic() > deadline:
                self._expect(f"{kind} {id}, to which nothing refers", "gone", "still there")
            sleep(0.001)

    def _is_there(self, kind: str, id: int) -> bool:
        try:
            fd = self.kernel.bpf(layouts.named(f"{kind}_get_fd_by_id"), {f"{kind}_id": id}).ret
        except SyscallError as err:
            if err.errno == ENOENT:
                return False
            raise
        self.kernel.close(fd)
        return True

    def _pick(self, kind: str, which: int, type: int | None = None) -> Node | None:
        """One of the objects of a kind that have an fd."""
        found = [n for n in self._nodes if n.kind == kind and n.fds and type in (None, n.type)]
        return found[which % len(found)] if found else None

    def _map(self, which: int) -> Node:
        node = self._pick("map", which)
        assert node is not None
        return node

    def _any(self, which: int) -> Node:
        alive = self._alive()
        return alive[which % len(alive)]

    def _with_fds(self) -> list[Node]:
        return [node for node in self._nodes if node.fds]

    def _pinned(self) -> list[tuple[Node, str]]:
        return [(node, name) for node in self._nodes for name in node.pins]

    def _path(self, name: str) -> str:
        return bpffs.path(self._bpffs, name)

    def _room(self) -> bool:
        return len(self._nodes) < _MAX_OBJECTS


def machine(kernel: Kernel | None = None, *, links: bool = False) -> type[BpfMachine]:
    """A state machine for hypothesis: ``TestBpf = machine().TestCase`` runs it under pytest.

    Maps, programs and links are created, attached, pinned, looked up by id and path, updated, frozen, queried, detached and
    closed, against a model of references. ``links``: also links, which attach a program that does nothing to a tracepoint.
    """
    if kernel is None:
        from rawkm.syscall import open_kernel

        kernel = open_kernel()
    pool = Pool(kernel, RawBpf(), links=False)
    return type("BpfMachine", (BpfMachine,), {"kernel": kernel, "links": links, "pool": pool})
