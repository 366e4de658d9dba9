"""Write cpio archives of the kind an initramfs is made of.

Format: "newc" (SVR4 without checksum), Linux Documentation/driver-api/early-userspace/buffer-format.rst. The
kernel unpacks several archives laid one after the other, later files replacing earlier ones, which is how the
parts of the guest are kept in separate caches.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

# One fixed time for every file: archives of equal content are equal, and nothing in the guest depends on it.
MTIME = 1_704_067_200  # 2024-01-01

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Archive:
    """An archive being written to a binary file. Parent directories are added by themselves."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._ino = 0
        self._seen: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; adding it again changes nothing."""
        path = path.strip("/")
        if path and path not in self._seen:
            self._parents(path)
            self._seen.add(path)
            self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._parents(path)
        self._entry(path.strip("/"), stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link at *path* that points to *target*."""
        self._parents(path)
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, os.fsencode(target))

    def node(self, path: str, mode: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._parents(path)
        self._entry(path.strip("/"), stat.S_IFCHR | mode, b"", (major, minor))

    def tree(self, source: str, prefix: str = "") -> None:
        """Add everything below the directory *source*, in sorted order, under *prefix*."""
        for directory, names, files in os.walk(source):
            names.sort()
            inside = os.path.normpath(os.path.join(prefix, os.path.relpath(directory, source)))
            if inside != ".":
                self.directory(inside)
            for name in sorted(files + [n for n in names if os.path.islink(os.path.join(directory, n))]):
                self._add(os.path.join(directory, name), os.path.normpath(os.path.join(inside, name)))

    def close(self) -> None:
        """End the archive. The file itself stays open."""
        self._entry(_TRAILER, 0, b"")

    def _add(self, source: str, path: str) -> None:
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            self.symlink(path, os.readlink(source))
        elif stat.S_ISREG(status.st_mode):
            with open(source, "rb") as file:
                self.file(path, file.read(), 0o755 if status.st_mode & 0o100 else 0o644)

    def _parents(self, path: str) -> None:
        self.directory(os.path.dirname(path.strip("/")))

    def _entry(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._ino += 1
        name = os.fsencode(path) + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self._ino, mode, 0, 0, links, MTIME, len(data), 0, 0, *device, len(name), 0)
        head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
        self._out.write(head + bytes(-len(head) % 4))
        self._out.write(data)
        self._out.write(bytes(-len(data) % 4))
