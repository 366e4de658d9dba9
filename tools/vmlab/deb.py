"""Read the files of a .deb without unpacking it to disk."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import VMError
from .hosttools import require

# Debian's merged /usr: these top directories are links into /usr.
MERGED = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")


@dataclass(frozen=True)
class Member:
    """A file (data) or a symbolic link (target) of a package. The path is relative to / with /usr merged."""

    path: str
    data: bytes
    target: str | None
    executable: bool


def merged(path: str) -> str:
    """A package's path as it lies on a system with merged /usr, without leading slash."""
    path = path.removeprefix("./").strip("/")
    top = path.split("/", 1)[0]
    return f"usr/{path}" if top in MERGED else path


def members(path: str) -> Iterator[Member]:
    """Every file and link of the package; hard links come as files of their own."""
    command = [require("dpkg-deb"), "--fsys-tarfile", path]
    seen: dict[str, bytes] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for info in archive:
                name = merged(info.name)
                executable = bool(info.mode & 0o100)
                if info.issym():
                    yield Member(name, b"", info.linkname, executable)
                elif info.isreg():
                    content = archive.extractfile(info)
                    assert content
                    data = content.read()
                    seen[name] = data if executable else b""
                    yield Member(name, data, None, executable)
                elif info.islnk() and merged(info.linkname) in seen:
                    yield Member(name, seen[merged(info.linkname)], None, executable)
    if process.returncode:
        raise VMError(f"{path} is no sound Debian package.")
