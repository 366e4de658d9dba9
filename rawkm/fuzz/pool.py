"""Live objects for the names that calls use: made when first needed, made anew once a call may have changed them."""

from __future__ import annotations

import os
from errno import ENOENT, EPERM

from rawkm.errors import RawkmError, SyscallError
from rawkm.fuzz import bpffs
from rawkm.fuzz.objects import CLOSED, FILES, OBJECTS, model_of
from rawkm.rules.model import Obj

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rawkm.fuzz.attr import Attr
    from rawkm.syscall.kernel import Kernel
    from rawkm.syscall.raw import RawBpf

CLOSED_FD = 999_999
# What calls change: the objects, and what is pinned in the file system.
_NOT_FOR_EVER = (*OBJECTS, "file/bpffs")
_SOFTWARE, _DUMMY = 1, 9  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY


# fsmount(2) gives an O_PATH fd: bpf(2) takes it for a directory, and says EBADF wherever it wants an open file.
_PATH_ONLY = ("file/bpffs",)


class MissingError(RawkmError):
    """This kernel does not make the object. ``name``, ``errno`` of the call that failed."""

    def __init__(self, name: str, errno: int) -> None:
        super().__init__(name, errno)
        self.name = name
        self.errno = errno

    def __str__(self) -> str:
        return f"{self.name} cannot be made here: {os.strerror(self.errno)}"


class Pool:
    """``fd`` is what Attr.lower wants. ``objects``: fd → what the model has to know of it.

    Closing the pool closes all it has made. Without ``links`` there are none: a link attaches something.
    """

    def __init__(self, kernel: Kernel, raw: RawBpf, *, links: bool = True) -> None:
        self.kernel = kernel
        self._raw = raw
        self.objects: dict[int, Obj] = {}
        self._fds: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._missing: dict[str, int] = {} if links else dict.fromkeys((n for n in OBJECTS if n.startswith("link/")), EPERM)
        self._more: list[int] = []

    def fd(self, name: str) -> int:
        """The fd of an object, or the Number of that name. Raises MissingError."""
        found = self._fds.get(name)
        if found is not None:
            return found
        if ":" in name:
            return self._number(name)
        if name in self._missing:
            raise MissingError(name, self._missing[name])
        if name == CLOSED:
            return CLOSED_FD
        try:
            fd = self._open(name) if name in FILES else self._make(name)
        except MissingError as err:
            self._missing[name] = err.errno
            raise MissingError(name, err.errno) from None
        except SyscallError as err:
            self._missing[name] = err.errno
            raise MissingError(name, err.errno) from None
        self._fds[name] = fd
        if name not in _PATH_ONLY:
            self.objects[fd] = model_of(name, self.fd)
        return fd

    def has(self, name: str) -> bool:
        try:
            self.fd(name)
        except MissingError:
            return False
        return True

    def why_missing(self, name: str) -> int:
        """The errno that this kernel refuses the object with, 0 where it makes it."""
        return 0 if self.has(name) else self._missing[name]

    def forget(self, names: Iterable[str]) -> None:
        """Closes objects that a call may have changed; they are made anew when needed."""
        for name in names:
            if name in _NOT_FOR_EVER and name in self._fds:
                self._close(name)
                for number in [n for n in self._numbers if n.endswith(f":{name}")]:
                    del self._numbers[number]

    def close(self) -> None:
        for name in list(self._fds):
            self._close(name)
        while self._more:
            self.kernel.close(self._more.pop())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _close(self, name: str) -> None:
        fd = self._fds.pop(name)
        self.objects.pop(fd, None)
        self.kernel.close(fd)

    def _make(self, name: str) -> int:
        made = OBJECTS[name]
        fd = self._send(name, made.make)
        self._fds[name] = fd
        try:
            for attr in made.after:
                self._send(name, attr)
        except MissingError:
            self.kernel.close(self._fds.pop(name))
            raise
        return fd

    def _send(self, name: str, attr: Attr) -> int:
        result = attr.lower(self.fd).send(self._raw)
        if result < 0:
            raise MissingError(name, -result)
        return result

    def _open(self, name: str) -> int:
        opens: dict[str, Callable[[], int]] = {
            "file/null": lambda: self.kernel.open("/dev/null"),
            "file/directory": lambda: self.kernel.open("/"),
            "file/pipe": self._pipe,
            "file/bpffs": lambda: bpffs.mount(self.kernel),
            "perf/software": self._perf,
        }
        return opens[name]()

    def _pipe(self) -> int:
        reading, writing = os.pipe()
        self._more.append(writing)
        self.objects[writing] = Obj("file")
        return reading

    def _perf(self) -> int:
        return self.kernel.perf_event_open({"type": _SOFTWARE, "config": _DUMMY}, pid=0, cpu=-1, flags=8)

    def _number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            if name in self._missing:
                raise MissingError(name, self._missing[name])
            try:
                found = self._numbers[name] = self._find(name)
            except MissingError as err:
                self._missing[name] = err.errno
                raise
        return found

    def _find(self, name: str) -> int:
        what, _, of = name.partition(":")
        if what == "pid":
            return os.getpid()
        if "/" in of:
            return self._object_id(of)
        if what == "btf_id":
            return self._btf_id(of)
        return self._address(of)

    def _btf_id(self, function: str) -> int:
        from rawkm.btf import Btf
        from rawkm.btf.kinds import FUNC
        from rawkm.errors import BTFError

        if not hasattr(self, "_btf"):
            self._btf: Btf | None
            try:
                self._btf = Btf(self.kernel.read_file("/sys/kernel/btf/vmlinux"))
            except (SyscallError, BTFError):
                self._btf = None
        try:
            if self._btf is not None:
                return self._btf.find(function, FUNC)
        except BTFError:
            pass
        raise MissingError(f"btf_id:{function}", ENOENT)

    def _address(self, function: str) -> int:
        from rawkm.host import kallsyms

        wanted = function.encode()
        for address, name, _ in kallsyms.functions(self.kernel, [wanted]):
            if name == wanted and address:
                return address
        raise MissingError(f"address:{function}", ENOENT)

    def _object_id(self, name: str) -> int:
        from rawkm.uapi import layouts

        info = layouts.named(f"{name.partition('/')[0]}_info")
        fields, _ = self.kernel.obj_info(self.fd(name), info)
        value = fields["id"]
        assert isinstance(value, int)
        return value
