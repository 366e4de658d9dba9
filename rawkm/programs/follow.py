"""Following a process tree in the kernel: a set of processes, kept by two raw tracepoints, asked at each hit.

The set holds process ids (tgids) of the initial PID namespace. Inside a container nobody knows those, so a command puts itself in
by running a program (``seed``), and a process given by number is known by its number in the own namespace (``Namespace``).
"""

from __future__ import annotations

from rawkm.asm import (
    DW,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R10,
    Add,
    Ja,
    JEq,
    JNe,
    Mov,
    Rsh,
    W,
    atomic_add,
    call,
    exit_,
    label,
    ld_imm64,
    load,
    map_ptr,
    map_value,
    store,
    store_imm,
)
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.uapi.constants import Helper, MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.asm import Item

# As many processes at a time; one more is counted as not followed.
MOST_PROCESSES = 32768
# Since Linux 7.0 a tracepoint's programs can be preempted, and the kernel does not run one on a CPU where it is under way
# already. A fork in that moment passes it by (under load, some of a thousand have been seen to), but not the next program.
MOST_FORK_PROGRAMS = 3

# Bytes below the frame pointer that the check uses.
_KEY = -4
_NS_IDS = -16
_ONE = -24


class Namespace:
    """A PID namespace that is not the initial one, as bpf_get_ns_current_pid_tgid (Linux 5.7) wants it: nsfs device and inode."""

    __slots__ = ("device", "inode")

    def __init__(self, device: int, inode: int) -> None:
        self.device = device
        self.inode = inode


class TaskOffsets:
    """Where struct task_struct keeps the thread id and the process id."""

    __slots__ = ("pid", "tgid")

    def __init__(self, pid: int, tgid: int) -> None:
        self.pid = pid
        self.tgid = tgid


class Follow:
    """The maps and the code of one followed tree. ``namespace``: set when processes are given by their numbers in it."""

    __slots__ = ("namespace", "processes", "strangers", "unfollowed")

    def __init__(self, namespace: Namespace | None = None) -> None:
        self.namespace = namespace
        self.processes = MapSpec("processes", MapType.HASH, key=4, value=8, max_entries=MOST_PROCESSES)
        # Numbers in the own namespace, of processes not yet seen.
        self.strangers = MapSpec("strangers", MapType.HASH, key=4, value=8, max_entries=MOST_PROCESSES)
        # Children that did not fit into the set, as each of the programs on fork saw it.
        self.unfollowed = MapSpec("unfollowed", MapType.ARRAY, key=4, value=8 * MOST_FORK_PROGRAMS, max_entries=1)

    def check(self, out: str) -> list[Item]:
        """Jumps to ``out`` unless the current process is in the set. Clobbers R0 to R5."""
        items: list[Item] = [
            call(Helper.get_current_pid_tgid),
            Rsh.imm(R0, 32),
            store(R10, _KEY, R0, W),
            *_lookup(self.processes, _KEY),
        ]
        if self.namespace is None:
            return [*items, JEq.imm(R0, 0, out)]
        return [
            *items,
            JNe.imm(R0, 0, "followed"),
            # struct bpf_pidns_info {u32 pid; u32 tgid;}
            ld_imm64(R1, self.namespace.device),
            ld_imm64(R2, self.namespace.inode),
            Mov.reg(R3, R10),
            Add.imm(R3, _NS_IDS),
            Mov.imm(R4, 8),
            call(Helper.get_ns_current_pid_tgid),
            JNe.imm(R0, 0, out),
            *_lookup(self.strangers, _NS_IDS + 4),
            JNe.imm(R0, 0, "adopt"),
            # Another thread of it may have been faster.
            *_lookup(self.processes, _KEY),
            JEq.imm(R0, 0, out),
            Ja("followed"),
            # Seen for the first time: from now on it is known by its real number, as the other one may be given away again.
            label("adopt"),
            *self._insert(),
            JNe.imm(R0, 0, "followed"),
            map_ptr(R1, self.strangers),
            Mov.reg(R2, R10),
            Add.imm(R2, _NS_IDS + 4),
            call(Helper.map_delete_elem),
            label("followed"),
        ]

    def seed(self) -> ProgramSpec:
        """Puts the process that runs it (BPF_PROG_TEST_RUN, Linux 5.10) into the set. Returns 0, or 1 when the set is full."""
        return ProgramSpec(
            "rawkm_seed",
            ProgType.RAW_TRACEPOINT,
            insns=[
                call(Helper.get_current_pid_tgid),
                Rsh.imm(R0, 32),
                store(R10, _KEY, R0, W),
                *self._insert(),
                JEq.imm(R0, 0, "done"),
                Mov.imm(R0, 1),
                label("done"),
                exit_(),
            ],
        )

    def on_fork(self, task: TaskOffsets, number: int) -> ProgramSpec:
        """raw_tp/sched_process_fork (parent, child), in the parent's context: a followed process's child is followed.

        ``number``: of this one among several that do the same, from 0.
        """
        return ProgramSpec(
            "rawkm_fork",
            ProgType.RAW_TRACEPOINT,
            insns=[
                Mov.reg(R6, R1),
                *self.check("out"),
                load(R7, R6, 8, DW),
                *_read_u32(R7, task.tgid, _KEY, "lost"),
                *self._insert(),
                JEq.imm(R0, 0, "out"),
                label("lost"),
                map_value(R1, self.unfollowed),
                Mov.imm(R2, 1),
                atomic_add(R1, 8 * number, R2, DW),
                label("out"),
                Mov.imm(R0, 0),
                exit_(),
            ],
        )

    def on_free(self, task: TaskOffsets) -> ProgramSpec:
        """raw_tp/sched_process_free (task): when a process's first thread is gone, all are, and its number may be used again."""
        return ProgramSpec(
            "rawkm_free",
            ProgType.RAW_TRACEPOINT,
            insns=[
                load(R6, R1, 0, DW),
                *_read_u32(R6, task.pid, _KEY, "out"),
                load(R8, R10, _KEY, W),
                *_read_u32(R6, task.tgid, _KEY, "out"),
                load(R7, R10, _KEY, W),
                JNe.reg(R7, R8, "out"),
                map_ptr(R1, self.processes),
                Mov.reg(R2, R10),
                Add.imm(R2, _KEY),
                call(Helper.map_delete_elem),
                label("out"),
                Mov.imm(R0, 0),
                exit_(),
            ],
        )

    def _insert(self) -> list[Item]:
        """processes[key] = 1; R0 = 0 when it fitted."""
        return [
            store_imm(R10, _ONE, 1, DW),
            map_ptr(R1, self.processes),
            Mov.reg(R2, R10),
            Add.imm(R2, _KEY),
            Mov.reg(R3, R10),
            Add.imm(R3, _ONE),
            Mov.imm(R4, 0),
            call(Helper.map_update_elem),
        ]


def _lookup(map: MapSpec, key: int) -> list[Item]:
    """R0 = the value's address, or 0."""
    return [
        map_ptr(R1, map),
        Mov.reg(R2, R10),
        Add.imm(R2, key),
        call(Helper.map_lookup_elem),
    ]


def _read_u32(base: int, offset: int, to: int, failed: str) -> list[Item]:
    """The u32 at ``base + offset`` in the kernel, to the stack."""
    return [
        Mov.reg(R1, R10),
        Add.imm(R1, to),
        Mov.imm(R2, 4),
        Mov.reg(R3, base),
        Add.imm(R3, offset),
        call(Helper.probe_read_kernel),
        JNe.imm(R0, 0, failed),
    ]
