"""Reading tracefs: where it is mounted, or through a mount of our own that nobody else sees."""

from __future__ import annotations

from errno import EACCES, ENODEV, ENOENT, ENOSYS, EPERM

from rawkm.errors import SyscallError, errno_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.syscall.kernel import Kernel

# /sys/kernel/debug/tracing is an automount that Linux 6.17 deprecates: second.
MOUNT_POINTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")

_DETACHED = "tracefs without a mount point"

_CAP_DAC_OVERRIDE = 1  # include/uapi/linux/capability.h


class TraceFs:
    """One tracefs. ``place`` says in words where it was found, "" when nowhere; ``reasons`` why files could
    not be had.
    """

    __slots__ = ("_dir_fd", "_kernel", "_mount_error", "place", "reasons")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._dir_fd: int | None = None
        self._mount_error: SyscallError | None = None
        self.place = ""
        self.reasons: list[str] = []

    def __enter__(self) -> TraceFs:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._dir_fd is not None:
            self._kernel.close(self._dir_fd)
            self._dir_fd = None

    def chunks(self, name: str) -> Iterator[bytes] | None:
        """The file ``name`` in pieces, or None when it cannot be had: then ``reasons`` says why."""
        refused: tuple[str, SyscallError] | None = None
        for place in self._places():
            try:
                return self._open(place, name)
            except SyscallError as err:
                if err.errno == ENOENT and self._is_tracefs(place):
                    self.place = place
                    self._note(f"{place} has no {name}: this kernel does not have it")
                    return None
                if err.errno != ENOENT:
                    refused = refused or (place, err)
        self._note(self._why(refused))
        return None

    def append(self, name: str, line: str) -> None:
        """Writes ``line`` to the end of the file ``name``, which is a command.

        Raises SyscallError: what the kernel says to it, or why the file cannot be opened.
        """
        refused: SyscallError | None = None
        for place in self._places():
            try:
                if place == _DETACHED:
                    self._kernel.append_file(name, line.encode(), dir_fd=self._dir_fd)
                else:
                    self._kernel.append_file(f"{place}/{name}", line.encode())
            except SyscallError as err:
                if err.errno != ENOENT or self._is_tracefs(place):
                    raise
                refused = err
            else:
                self.place = place
                return
        raise refused or self._mount_error or SyscallError(f"openat({name})", ENOENT)

    def _places(self) -> Iterator[str]:
        """Where to look: where something was found before, else everywhere."""
        if self.place:
            yield self.place
            return
        yield from MOUNT_POINTS
        if self._mount():
            yield _DETACHED

    def _open(self, place: str, name: str) -> Iterator[bytes]:
        if place == _DETACHED:
            chunks = self._kernel.read_chunks(name, dir_fd=self._dir_fd)
        else:
            chunks = self._kernel.read_chunks(f"{place}/{name}")
        # The first piece proves that the file can be opened and read.
        first = next(chunks, b"")
        self.place = place
        return _again(first, chunks)

    def _is_tracefs(self, place: str) -> bool:
        """Whether something is mounted at ``place``: what sysfs and debugfs have there is empty."""
        if place == _DETACHED:
            return True
        try:
            return bool(self._kernel.list_dir(place))
        except SyscallError:
            return False

    def _mount(self) -> bool:
        """fsopen + fsconfig + fsmount (Linux 5.2): a detached mount, gone when its fd is closed."""
        if self._dir_fd is None and self._mount_error is None:
            try:
                fd = self._kernel.fsopen("tracefs")
                try:
                    self._kernel.fsconfig_create(fd)
                    self._dir_fd = self._kernel.fsmount(fd)
                finally:
                    self._kernel.close(fd)
            except SyscallError as err:
                self._mount_error = err
        return self._dir_fd is not None

    # -- reasons ---------------------------------------------------------------------------------------------

    def _note(self, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)

    def _why(self, refused: tuple[str, SyscallError] | None) -> str:
        """One sentence: what stands between this process and a file of tracefs."""
        if refused is not None:
            place, err = refused
            if place == _DETACHED:
                return f"tracefs is not mounted, and reading it {self._takes(err, mount=False)}"
            # Where it is mounted, this is the smaller obstacle.
            return f"reading {place} {self._takes(err, mount=False)}"
        if self._mount_error is None:
            return f"{self.place} is there no longer"
        if self._mount_error.errno == ENODEV:
            return "this kernel has no tracefs"
        if self._mount_error.errno == ENOSYS:
            return "tracefs is not mounted, and before Linux 5.2 there is no fsopen to do without a mount point"
        takes = self._takes(self._mount_error, mount=True)
        return f"tracefs is not mounted, and opening it without a mount point {takes}"

    def _takes(self, err: SyscallError, *, mount: bool) -> str:
        """What an access takes that ended in ``err``; how it ended, when nothing is missing."""
        said = errno_name(err.errno)
        if err.errno not in (EACCES, EPERM):
            return f"fails with {said}"
        missing = self._missing(mount)
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            return f"takes {' and '.join(missing)}, which {verb} missing ({said})"
        from rawkm.host import sysctl

        level = sysctl.lockdown(self._kernel)
        if level not in (None, "none"):
            return f"is refused with {said}: the kernel is locked down ({level})"
        others = "user namespaces and security modules" if mount else "security modules"
        return f"is refused with {said}: no capability is missing, but {others} can forbid it"

    def _missing(self, mount: bool) -> list[str]:
        """tracefs belongs to root and is closed to all others; mounting it takes more."""
        from rawkm.host import caps

        mask, uid = 0, b""
        try:
            mask = caps.effective(self._kernel)
            status = self._kernel.read_file("/proc/self/status")
            uid = status.partition(b"\nUid:")[2].split()[3]  # real, effective, saved, and that for files
        except (SyscallError, IndexError):
            pass  # without /proc, name all that it takes
        missing = []
        if mount and not caps.has(mask, caps.CAP_SYS_ADMIN):
            missing.append("CAP_SYS_ADMIN")
        if uid != b"0" and not caps.has(mask, caps.CAP_DAC_READ_SEARCH) and not caps.has(mask, _CAP_DAC_OVERRIDE):
            missing.append("CAP_DAC_READ_SEARCH (or root)")
        return missing


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
