"""The seam: everything that leaves the process is a method of a Kernel.

Callers pass values: ints, bytes, lists of names, fds. Only the live kernel turns them into addresses. Because there is one
seam, there can be one that explains each call, one that records, one that replays.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
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
    def view(self) -> memoryview: ...
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


class Kernel(Protocol):
    """The system calls that rawkm makes. Each raises SyscallError with the errno when the kernel refuses."""

    def bpf(self, layout: Layout, values: Mapping[str, Value]) -> Reply:
        """bpf(2). Pointer fields take values: bytes or str to read from, bytearray or writable memoryview to write to
        (filled in place), a sequence of names for ``char **``, a sequence of ints for ``u64 *``, None for NULL."""

    def obj_info(self, fd: int, layout: Layout, values: Mapping[str, Value] | None = None) -> tuple[dict[str, int | bytes], int]:
        """BPF_OBJ_GET_INFO_BY_FD into the info struct ``layout``, filled in first with ``values``, whose pointer fields take
        buffers to write to: the fields, and how many bytes of the struct this kernel knows (what lies behind reads 0)."""

    def perf_event_open(self, values: Mapping[str, Value], *, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int: ...
    def ioctl(self, fd: int, request: int, arg: int = 0) -> int: ...
    def mmap(self, fd: int, length: int, *, offset: int = 0, writable: bool = False) -> Memory: ...
    def poller(self) -> Poller: ...
    def close(self, fd: int) -> None: ...

    def open(self, path: str, *, dir_fd: int | None = None) -> int:
        """A read-only fd (O_CLOEXEC)."""

    def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes:
        """The whole file."""

    def read_chunks(self, path: str, *, dir_fd: int | None = None) -> Iterator[bytes]:
        """The file in pieces of about 64 KiB, cut anywhere; nothing is kept in memory."""

    def list_dir(self, path: str) -> list[str]: ...

    def identity(self, path: str) -> tuple[int, int]:
        """(device, inode) of what ``path`` leads to, e.g. a namespace; the device as the kernel numbers it."""

    def fsopen(self, filesystem: str) -> int: ...
    def fsconfig_create(self, fd: int) -> None: ...

    def fsmount(self, fd: int) -> int:
        """A directory fd of the new mount, which is attached nowhere and so visible to nobody else."""

    def rlimit(self, resource: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        """prlimit(2) on this process: the (soft, hard) limits before the call, replaced by ``limits`` when given."""
