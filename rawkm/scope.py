"""Whose hits count: everybody's, or those of one process tree."""

from __future__ import annotations

from errno import EPERM

from rawkm.errors import BTFError, NotSupportedError, RawkmError, SyscallError
from rawkm.link import raw_tracepoint
from rawkm.programs.follow import MOST_FORK_PROGRAMS, Follow, Namespace, TaskOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.handle import Handle
    from rawkm.maps import Map
    from rawkm.prog import Program, ProgramSpec
    from rawkm.syscall.kernel import Child, Kernel

#: include/linux/proc_ns.h, PROC_PID_INIT_INO.
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_VMLINUX = "/sys/kernel/btf/vmlinux"


class Tree:
    """A process tree that the kernel follows: the programs that keep the set of its processes, and the set.

    Threads belong to their process. Children are followed from the moment they are forked.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        device, inode = kernel.identity("/proc/self/ns/pid")
        self._initial = inode == INITIAL_PID_NAMESPACE
        self.follow = Follow(None if self._initial else Namespace(device, inode))
        self.maps: dict[str, Map] = {}
        self._open: list[Handle] = []
        self._forks: list[Program] = []
        self._seed: Program | None = None
        try:
            self._build()
        except SyscallError as err:
            self.close()
            if err.errno != EPERM:
                raise
            from rawkm.host import caps, denied

            raise denied.error(kernel, err, "follow a process tree", caps.CAP_BPF, caps.CAP_PERFMON) from None
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        task = _task_offsets(self._kernel)
        for map_spec in (self.follow.processes, self.follow.strangers, self.follow.unfollowed):
            self.maps[map_spec.name] = map_spec.create(self._kernel)
            self._open.append(self.maps[map_spec.name])
        self._seed = self._load(self.follow.seed())
        preempted = int(self._kernel.uname()[0].partition(".")[0]) >= 7
        for number in range(MOST_FORK_PROGRAMS if preempted else 1):
            self._forks.append(self._at("sched_process_fork", self.follow.on_fork(task, number)))
        self._at("sched_process_free", self.follow.on_free(task))

    def _at(self, tracepoint: str, spec: ProgramSpec) -> Program:
        prog = self._load(spec)
        self._open.append(raw_tracepoint.attach(prog, tracepoint))
        return prog

    def _load(self, spec: ProgramSpec) -> Program:
        prog = spec.load(self._kernel, self.maps)
        self._open.append(prog)
        return prog

    def start(self, argv: Sequence[str], *, stdout_to_stderr: bool) -> Child:
        """The command, in the set and waiting for its start."""
        return self._kernel.start(argv, seed=self._seed_self, stdout_to_stderr=stdout_to_stderr)

    def _seed_self(self) -> None:
        assert self._seed is not None
        if self._seed.test_run() != 0:
            raise RawkmError("the set of followed processes is full")

    def add(self, pid: int) -> int:
        """Puts the process ``pid`` and its living descendants in; how many there are. Raises RawkmError when there is none."""
        known: set[int] = set()
        # A child forked while we read /proc by a process that is not in yet is found by the next look.
        while True:
            found = _descendants(self._kernel, pid) - known
            if not found:
                break
            for each in found:
                self.maps["processes" if self._initial else "strangers"].update(each, 1)
            known |= found
        if not known:
            raise RawkmError(f"there is no process {pid}")
        return len(known)

    @property
    def unfollowed(self) -> int:
        """Children that did not fit into the set, and at most how many the kernel has told no program of."""
        counts = memoryview(self.maps["unfollowed"].lookup(0) or bytes(8)).cast("Q")
        return max(counts) + min(prog.recursion_misses() or 0 for prog in self._forks)

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


def _task_offsets(kernel: Kernel) -> TaskOffsets:
    from rawkm.btf.kernel import vmlinux

    try:
        btf = vmlinux(kernel)
        return TaskOffsets(btf.member_offset("task_struct", "pid"), btf.member_offset("task_struct", "tgid"))
    except (SyscallError, BTFError) as err:
        raise NotSupportedError(
            "following a process tree",
            f"the layout of struct task_struct is not known, as {_VMLINUX} cannot be used ({err})",
            help="trace everything (-a) instead",
        ) from None


def _descendants(kernel: Kernel, root: int) -> set[int]:
    """``root`` (its process, if it is a thread) and the processes below it; empty when there is none."""
    parents: dict[int, int] = {}
    for name in kernel.list_dir("/proc"):
        if name.isdigit():
            parent = _status(kernel, int(name), b"PPid:")
            if parent is not None:
                parents[int(name)] = parent
    process = _status(kernel, root, b"Tgid:")
    if process is None:
        return set()
    found = {process}
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in found} - found
        grown = bool(below)
        found |= below
    return found


def _status(kernel: Kernel, pid: int, field: bytes) -> int | None:
    try:
        for line in kernel.read_file(f"/proc/{pid}/status").splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    except SyscallError:
        pass  # it has ended
    return None
