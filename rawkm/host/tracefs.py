"""Reading tracefs: where it is mounted, or through a mount of our own that nobody else sees."""

from __future__ import annotations

from errno import EACCES, ENODEV, ENOENT, EPERM

from rawkm.errors import SyscallError, errno_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.syscall.kernel import Kernel

# /sys/kernel/debug/tracing is an automount that Linux 6.17 deprecates: second.
MOUNT_POINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_ADVICE = {
    "open": "reading a mounted tracefs takes CAP_DAC_READ_SEARCH, or root",
    "mount": "reading it without a mount takes CAP_SYS_ADMIN (and CAP_DAC_READ_SEARCH, or root)",
}


class TraceFs:
    """One tracefs. ``place`` says in words where it was found; ``reasons`` why nothing (more) was, one line per place tried."""

    __slots__ = ("_dir_fd", "_found", "_kernel", "place", "reasons")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._found = False
        self._dir_fd: int | None = None
        self.place = ""
        self.reasons: list[str] = []

    def __enter__(self) -> TraceFs:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._dir_fd is not None:
            self._kernel.close(self._dir_fd)
            self._dir_fd = None

    def chunks(self, name: str) -> Iterator[bytes] | None:
        """The file ``name`` in pieces, or None when it cannot be had (then ``reasons`` grew)."""
        for chunks in self._candidates(name):
            # The first piece proves that the file can be opened and read.
            try:
                first = next(chunks, b"")
            except SyscallError as err:
                self._note(name, err)
                continue
            self._found = True
            return _again(first, chunks)
        return None

    def _candidates(self, name: str) -> Iterator[Iterator[bytes]]:
        if self._found and self._dir_fd is None:
            yield self._kernel.read_chunks(f"{self.place}/{name}")
            return
        for root in MOUNT_POINTS if self._dir_fd is None else ():
            self.place = root
            yield self._kernel.read_chunks(f"{root}/{name}")
        if self._dir_fd is None:
            self.place = "tracefs without a mount point"
            self._dir_fd = self._mount()
        if self._dir_fd is not None:
            yield self._kernel.read_chunks(name, dir_fd=self._dir_fd)

    def _mount(self) -> int | None:
        """fsopen + fsconfig + fsmount: a detached mount, gone when its fd is closed."""
        try:
            fd = self._kernel.fsopen("tracefs")
            try:
                self._kernel.fsconfig_create(fd)
                return self._kernel.fsmount(fd)
            finally:
                self._kernel.close(fd)
        except SyscallError as err:
            self._note("", err)
            return None

    def _note(self, name: str, err: SyscallError) -> None:
        if err.call.startswith("fs"):
            if err.errno == ENODEV:
                text = "this kernel has no tracefs"
            else:
                text = f"{err.call}(tracefs): {errno_name(err.errno)}, {_ADVICE['mount']}"
        elif err.errno == ENOENT:
            # Nothing is mounted there, or the kernel lacks the file: the next place tells.
            text = f"{self.place}/{name}: not there"
        elif err.errno in (EACCES, EPERM):
            advice = _ADVICE["mount" if self._dir_fd is not None else "open"]
            text = f"{self.place}/{name}: {errno_name(err.errno)}, {advice}"
        else:
            text = f"{self.place}/{name}: {errno_name(err.errno)}"
        if text not in self.reasons:
            self.reasons.append(text)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
