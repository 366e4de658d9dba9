"""A Kernel that can only read: files as bytes, errors as errnos. And a made-up kernel to read about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import ENOENT, EPERM
from typing import TYPE_CHECKING, cast

from rawkm.btf.build import Builder
from rawkm.errors import SyscallError

if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

TRACING = "/sys/kernel/tracing"
NAMES = "available_filter_functions"
SITES = "available_filter_functions_addrs"
KALLSYMS = "/proc/kallsyms"
STATUS = "/proc/self/status"
BTF = "/sys/kernel/btf/vmlinux"

_MOUNT_FD = 1000


class FileKernel:
    """``files``: path → content, or the errno of opening it; what is not there is not there.

    ``detached``: the files of a tracefs without a mount point, or the errno of fsopen. ``reads``: what was
    opened, in order.
    """

    def __init__(
        self,
        files: Mapping[str, bytes | int],
        *,
        detached: Mapping[str, bytes | int] | int = EPERM,
        chunk: int = 1 << 16,
    ) -> None:
        self.files = dict(files)
        self.detached = detached
        self.chunk = chunk
        self.reads: list[str] = []
        self.mounts = 0
        self.open_fds: set[int] = set()

    @property
    def kernel(self) -> Kernel:
        return cast("Kernel", self)

    def read_file(self, path: str, *, dir_fd: int | None = None) -> bytes:
        return b"".join(self.read_chunks(path, dir_fd=dir_fd))

    def read_chunks(self, path: str, *, dir_fd: int | None = None) -> Iterator[bytes]:
        files = self.files
        if dir_fd is not None:
            assert dir_fd in self.open_fds
            assert not isinstance(self.detached, int)
            files = dict(self.detached)
        self.reads.append(path)
        content = files.get(path, ENOENT)
        if isinstance(content, int):
            raise SyscallError(f"openat({path})", content)
        for start in range(0, len(content), self.chunk):
            yield content[start : start + self.chunk]

    def list_dir(self, path: str) -> list[str]:
        below = [name.removeprefix(f"{path}/").partition("/")[0] for name in self.files if name.startswith(f"{path}/")]
        return list(dict.fromkeys(below))

    def fsopen(self, filesystem: str) -> int:
        if filesystem == "securityfs":  # where lockdown is read: nobody here has it
            raise SyscallError("fsopen", EPERM)
        assert filesystem == "tracefs"
        self.mounts += 1
        if isinstance(self.detached, int):
            raise SyscallError("fsopen", self.detached)
        return self._fd(1)

    def fsconfig_create(self, fd: int) -> None:
        assert fd in self.open_fds

    def fsmount(self, fd: int) -> int:
        assert fd in self.open_fds
        return self._fd(2)

    def _fd(self, number: int) -> int:
        fd = _MOUNT_FD + number
        assert fd not in self.open_fds
        self.open_fds.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.open_fds.remove(fd)


class Function:
    """A symbol of a made-up kernel.

    ``site``: how far behind the address its ftrace location lies, None when it has none.
    """

    def __init__(
        self,
        name: str | bytes,
        address: int,
        *,
        module: str | bytes = "",
        site: int | None = 4,
        kind: str = "t",
    ) -> None:
        self.name = _raw(name)
        self.address = address
        self.module = _raw(module)
        self.site = site
        self.kind = kind

    def line(self, *, site: bool) -> bytes:
        """As available_filter_functions(_addrs) has it."""
        at = b"%x " % (self.address + (self.site or 0)) if site else b""
        return at + self.name + (b" [%s]" % self.module if self.module else b"") + b"\n"

    def symbol(self, *, hidden: bool) -> bytes:
        """As kallsyms has it."""
        module = b"\t[%s]" % self.module if self.module else b""
        return b"%016x %s %s%s\n" % (0 if hidden else self.address, self.kind.encode(), self.name, module)


def _raw(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def lists(functions: Iterable[Function], *, sites: bool = True) -> dict[str, bytes]:
    """The files of tracefs. ``sites``: whether this kernel (6.5) tells them."""
    traceable = [function for function in functions if function.site is not None]
    files = {"README": b"tracing mini-HOWTO\n", NAMES: b"".join(f.line(site=False) for f in traceable)}
    if sites:
        files[SITES] = b"".join(f.line(site=True) for f in traceable)
    return files


def kallsyms(functions: Iterable[Function], *, hidden: bool = False) -> bytes:
    return b"".join(function.symbol(hidden=hidden) for function in functions)


def btf(*functions: str) -> bytes:
    """A kernel's BTF with these functions."""
    builder = Builder()
    prototype = builder.proto(builder.integer("int", 4, signed=True), [])
    for function in functions:
        builder.func(function, prototype)
    return builder.build()


def status(*caps: int, uid: int = 65534) -> bytes:
    """/proc/self/status of a process with these capabilities."""
    mask = sum(1 << cap for cap in caps)
    ids = b"\t".join([b"%d" % uid] * 4)
    return b"Name:\tpython3\nUid:\t%s\nGid:\t%s\nCapEff:\t%016x\nSeccomp:\t0\n" % (ids, ids, mask)


def machine(
    functions: Sequence[Function],
    *,
    sites: bool = True,
    hidden: bool = False,
    mounted: bool = True,
    chunk: int = 1 << 16,
) -> FileKernel:
    """A kernel that lets us read all. ``mounted``: its tracefs is; else it takes a mount of our own."""
    files: dict[str, bytes | int] = {KALLSYMS: kallsyms(functions, hidden=hidden), STATUS: status(uid=0)}
    listed = lists(functions, sites=sites)
    if mounted:
        files |= {f"{TRACING}/{name}": content for name, content in listed.items()}
    return FileKernel(files, detached=EPERM if mounted else listed, chunk=chunk)
