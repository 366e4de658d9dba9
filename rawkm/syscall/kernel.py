"""The seam: everything that leaves the process is a method of a Kernel.

Callers pass values: ints, bytes, lists of names, fds. Only the live kernel turns them into addresses. Because there is one
seam, there is one that explains each call, one that records, one that replays, one that only pretends.

For the same reason nothing else may tell a run what to do: clocks, signals, child processes and the memory that is shared with
the kernel are asked for here, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from rawkm.uapi.layout import Layout

    Value = int | bytes | bytearray | str | memoryview | Sequence[str] | Sequence[bytes] | Sequence[int] | None
else:
    Protocol = object


class Reply:
    """What a successful bpf(2) call gave back: its return value and the attr as the kernel left it."""

    __slots__ = ("_fields", "attr", "layout", "ret")

    def __init__(self, ret: int, layout: Layout, attr: bytes | bytearray) -> None:
        self.ret = ret
        self.layout = layout
        self.attr = attr
        self._fields: dict[str, int | bytes] | None = None

    def __getitem__(self, path: str) -> int:
        """The integer field ``path`` as written back, e.g. ``reply["batch.count"]``."""
        if self._fields is None:
            self._fields = self.layout.unpack(self.attr)
        value = self._fields[path]
        if not isinstance(value, int):
            raise TypeError(f"{path} is no integer field")
        return value


class Memory(Protocol):
    """A mapped region. Loads and stores are single machine accesses of an aligned word; see ``fence``."""

    @property
    def view(self) -> memoryview:
        """For writing, when nobody else writes: what it holds is recorded when the region is closed. To see what others write,
        use ``read`` and the loads."""

    def read(self, offset: int, length: int) -> memoryview:
        """What is there: valid until the region is closed, and only to be looked at once, as it may change."""

    def load_u32(self, offset: int) -> int: ...
    def load_u64(self, offset: int) -> int: ...
    def store_u64(self, offset: int, value: int) -> None: ...
    def fence(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Memory: ...
    def __exit__(self, *exc: object) -> None: ...


class Poller(Protocol):
    """An epoll set of fds, level-triggered for reading."""

    def add(self, fd: int) -> None: ...
    def wait(self, timeout: float | None) -> list[int]: ...
    def close(self) -> None: ...


class Signals(Protocol):
    """SIGINT and SIGTERM, caught; a second signal of a kind acts as if nobody did. ``fd``: readable when one has come."""

    fd: int

    @property
    def caught(self) -> bool: ...
    def close(self) -> None: ...


class Child(Protocol):
    """A child process that waits. ``fd``: a pidfd, readable when it has ended; ``status``: how, as shells say it, or None."""

    pid: int
    fd: int
    status: int | None
    started: bool

    def go(self) -> None:
        """Lets it execute the command. Raises RawkmError when that fails."""

    def ended(self) -> bool:
        """Whether it has ended; then ``status`` is its exit status, or 128 + the signal that ended it."""

    def end(self) -> None:
        """SIGTERM, and SIGKILL when it does not end of that. Waits for it."""


class Kernel(Protocol):
    """The system calls that rawkm makes. Each raises SyscallError with the errno when the kernel refuses."""

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        """bpf(2). Pointer fields take values: bytes or str to read from, bytearray or writable memoryview to write to
        (filled in place), a sequence of names for ``char **``, a sequence of ints for ``u64 *``, None for NULL."""

    def obj_info(self, fd: int, layout: Layout, values: Mapping[str, Value] | None = None) -> tuple[dict[str, int | bytes], int]:
        """BPF_OBJ_GET_INFO_BY_FD into the info struct ``layout``, filled in first with ``values``, whose pointer fields take
        buffers to write to: the fields, and how many bytes of the struct this kernel knows (what lies behind reads 0)."""

    def perf_event_open(self, values: Mapping[str, Value], *, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
        """perf_event_open(2). With ``kprobe_func`` among the values, which takes a name, the event is a kprobe's."""

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int: ...
    def mmap(self, fd: int, length: int, *, offset: int = 0, writable: bool = False) -> Memory: ...
    def poller(self) -> Poller: ...
    def close(self, fd: int) -> None: ...

    def close_all(self, fds: Sequence[int], step: Callable[[int, int], None]) -> None:
        """Closes each of many whose closing makes the kernel wait: several at a time, unless the calls are watched.

        ``step`` is called with (closed, all) meanwhile; when it raises, they are all closed nevertheless."""

    # -- files -----------------------------------------------------------------------------------------------------------------

    def open(self, path: str, *, dir_fd: int | None = None) -> int:
        """A read-only fd (O_CLOEXEC)."""

    def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes:
        """The whole file."""

    def read_chunks(self, path: str, *, dir_fd: int | None = None) -> Iterator[bytes]:
        """The file in pieces of about 64 KiB, cut anywhere; nothing is kept in memory."""

    def append_file(self, path: str, data: bytes, *, dir_fd: int | None = None) -> None:
        """One write(2) at the end of an existing file: a command for one that the kernel makes."""

    def read_stdin(self) -> bytes:
        """All of standard input."""

    def list_dir(self, path: str) -> list[str]: ...

    def identity(self, path: str) -> tuple[int, int]:
        """(device, inode) of what ``path`` leads to, e.g. a namespace; the device as the kernel numbers it."""

    def write_file(self, path: str, data: bytes) -> None:
        """Makes the file, all at once: whoever sees it sees all of it."""

    def overwrite(self, path: str, data: bytes) -> None:
        """Writes the file, whatever it was or is."""

    def unlink(self, path: str) -> None: ...

    def fsopen(self, filesystem: str) -> int: ...
    def fsconfig_create(self, fd: int) -> None: ...

    def fsmount(self, fd: int) -> int:
        """A directory fd of the new mount, which is attached nowhere and so visible to nobody else."""

    # -- processes -------------------------------------------------------------------------------------------------------------

    def rlimit(self, resource: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        """prlimit(2) on this process: the (soft, hard) limits before the call, replaced by ``limits`` when given."""

    def uname(self) -> tuple[str, str]:
        """(release, machine)."""

    def environ(self, name: str) -> str:
        """A variable of the environment, "" when it is not set."""

    def getpid(self) -> int: ...
    def pidfd_open(self, pid: int) -> int: ...

    def start(self, argv: Sequence[str], *, seed: Callable[[], None], stdout_to_stderr: bool = False) -> Child:
        """A child that waits with the command ``argv``; ``seed`` is called in it first: what must happen in its own context.

        Raises RawkmError when there is no such command, or ``seed`` failed."""

    def signals(self) -> Signals:
        """Catches SIGINT and SIGTERM until it is closed."""

    # -- time ------------------------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""

    def monotonic_ns(self) -> int: ...
    def time_ns(self) -> int:
        """CLOCK_REALTIME."""

    def utc_offset(self, second: int) -> int:
        """How many seconds local time is ahead of UTC at ``second`` (of CLOCK_REALTIME)."""

    def sleep(self, seconds: float) -> None: ...
