"""The guest's user land: Python, busybox and a few tools, from the packages of a Debian suite.

Nothing is installed and nothing needs root: the packages' files are picked apart. Which shared libraries are
needed is read from the programs themselves, so no list of libraries has to follow Debian's changes.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

from . import elf
from .apt import Apt
from .cache import Cache, digest
from .cpio import Archive
from .deb import members
from .errors import VMError
from .hosttools import say

_PACKAGES = (
    "python3-minimal",
    "libpython3-stdlib",
    "busybox-static",
    "dash",
    "util-linux",
    "strace",
    "iproute2",
    "libc-bin",
)

# Programs to keep of the packages, besides Python and busybox. dash is the guest's sh: busybox's own would run
# its small ip and setpriv in place of the real ones, whatever PATH says.
_PROGRAMS = ("dash", "setpriv", "unshare", "nsenter", "taskset", "prlimit", "chrt", "strace", "ip", "tc", "bridge")

# Libraries opened by name at run time, which nothing declares.
_DLOPENED = ("libgcc_s.so.1",)

_STDLIB = re.compile(r"usr/lib/python3(\.\d+)?/")
# Every megabyte takes the guest 8 ms to unpack, and much of the library's bulk is tests and what needs a screen.
_NOT_NEEDED = re.compile(
    r"/(__pycache__|tests?|config-[^/]*|curses|distutils|ensurepip|idlelib|lib2to3|pydoc_data)/"
    r"|/(tkinter|turtledemo)/"
    r"|/lib-dynload/(_?xx|_test|_ctypes_test|_curses|_dbm|_gdbm|nis|ossaudiodev|readline|spwd)"
    r"|/(turtle\.py|EXTERNALLY-MANAGED)$"
)
_DATA = re.compile(r"(etc/iproute2|usr/share/iproute2|usr/lib/locale/C\.utf8|etc/python3\.\d+)/")

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost rawkm-vm\n::1\tlocalhost ip6-localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/protocols": "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\nipv6-icmp 58 IPv6-ICMP\n",
}
_DIRECTORIES = (
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "mnt",
    "root",
    "var/tmp",
    "var/log",
    "usr/local/bin",
    "usr/sbin",
)

_RECIPE = digest("base 1", _PACKAGES, _PROGRAMS, _DLOPENED, _NOT_NEEDED, _DATA, _FILES, _DIRECTORIES)


def _name(suite: str, arch: str) -> str:
    return f"base/{suite}-{arch}"


def cached(cache: Cache, suite: str, arch: str) -> dict[str, Any] | None:
    """The notes on the cached base (python: its version, packages), or None."""
    return cache.meta(_name(suite, arch), _RECIPE)


def archive_path(cache: Cache, suite: str, arch: str) -> str:
    """The path of the base's archive."""
    return cache.path(_name(suite, arch), "base.cpio")


def build(cache: Cache, suite: str, arch: str, native: str | None = None) -> None:
    """Fetch and build. The caller holds the cache's lock.

    *native*: for an architecture whose programs this machine cannot run, the root of the same suite's base that it can.
    """
    with cache.build(_name(suite, arch), _RECIPE) as (directory, meta), cache.scratch() as scratch:
        apt = Apt(scratch, suite, arch)
        apt.update()
        say(f"fetching Python and a few tools from {suite}")
        debs = apt.closure(*_PACKAGES)
        root = os.path.join(directory, "root")
        runnable = native or root
        _select(debs, root, runnable)
        version = _python_version(root)
        meta.update(python=version, packages=[os.path.basename(deb) for deb in debs])
        say(f"compiling the standard library of Python {version}")
        GuestPython(runnable).compile_tree(os.path.join(root, "usr/lib", f"python{version}"), root)
        with open(os.path.join(directory, "base.cpio"), "wb") as file:
            archive = Archive(file)
            for path in _DIRECTORIES:
                archive.directory(path)
            archive.node("dev/console", 0o600, 5, 1)
            archive.tree(root)
            archive.close()


def root_path(cache: Cache, suite: str, arch: str) -> str:
    """The directory the base was unpacked to."""
    return cache.path(_name(suite, arch), "root")


class GuestPython:
    """The guest's own Python, run on the host from the directory it was unpacked to."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.version = _python_version(root)
        self._loader = os.path.join(root, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
        self._libraries = os.path.dirname(self._loader)

    def run(self, *arguments: str, path: str = "", stdin: bytes = b"") -> None:
        """Run Python with these arguments (and *path* as PYTHONPATH); VMError when it fails."""
        program = os.path.join(self.root, "usr/bin", f"python{self.version}")
        command = [self._loader, "--library-path", self._libraries, program, "-s", "-B", *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            command,
            env={**inherited, "PYTHONHOME": f"{self.root}/usr", "PYTHONPATH": path},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            tail = done.stdout.decode(errors="replace").strip().splitlines()[-3:]
            raise VMError(f"Python {self.version} failed with {' '.join(arguments[:3])}: {' '.join(tail)}")

    def compile_tree(self, directory: str, strip: str, prefix: str = "/") -> None:
        """Compile every module below *directory*; each names its source as *prefix* + its path below *strip*."""
        # Unchecked: the guest takes the compiled file as it is, whatever time the source bears.
        mode = ("--invalidation-mode", "unchecked-hash")
        self.run("-m", "compileall", "-q", *mode, "-s", strip, "-p", prefix, directory)


def _select(debs: list[str], root: str, runnable: str) -> None:
    """Write what is wanted of the packages below *root*. *runnable*: as _add_links has it."""
    libraries: dict[str, tuple[str, bytes]] = {}  # file name -> path, content
    links: dict[str, tuple[str, str]] = {}  # library link name -> path, target
    needed = list(_DLOPENED)
    for deb in debs:
        for member in members(deb):
            base = os.path.basename(member.path)
            if _keep(member.path, base):
                put(root, member.path, member.data, member.target, member.executable)
                if elf.is_elf(member.data):
                    needed += elf.needed(member.data)
            elif ".so" in base and re.match(r"usr/lib(64)?/", member.path):
                if member.target is None:
                    libraries[base] = (member.path, member.data)
                else:
                    links[base] = (member.path, member.target)
    add_libraries(needed, libraries, links, root)
    _add_links(root, runnable)
    for path, text in _FILES.items():
        put(root, path, text.encode(), None, False)


def _keep(path: str, base: str) -> bool:
    if _STDLIB.match(path):
        return not _NOT_NEEDED.search(path)
    if re.match(r"usr/s?bin/", path):
        return base in _PROGRAMS or base == "busybox" or bool(re.fullmatch(r"python3(\.\d+)?", base))
    return bool(_DATA.match(path))


def add_libraries(
    needed: list[str], libraries: dict[str, tuple[str, bytes]], links: dict[str, tuple[str, str]], root: str
) -> None:
    """Write the libraries *needed*, and those that they need, below *root*.

    *libraries*: file name -> path, content; *links*: name of a library's link -> path, target.
    """
    done: set[str] = set()
    while needed:
        name = needed.pop()
        if name in done:
            continue
        done.add(name)
        if name in links:
            path, target = links[name]
            put(root, path, b"", target, False)
            needed.append(os.path.basename(target))
        if name in libraries:
            path, data = libraries[name]
            put(root, path, data, None, True)
            needed += elf.needed(data)
        elif name not in links:
            raise VMError(f"The shared library {name} is in none of the packages.")


def _add_links(root: str, runnable: str) -> None:
    """Links of merged /usr, and one for each of busybox's programs that is not there already.

    busybox itself lists them: the one in *runnable*, where this machine can run it.
    """
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.isdir(os.path.join(root, "usr", name)):
            put(root, name, b"", f"usr/{name}", False)
    put(root, "usr/bin/sh", b"", "dash", False)
    busybox = "usr/bin/busybox"
    command = [os.path.join(runnable, busybox), "--list-full"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in listed.stdout.split():
        path = line if line.startswith("usr/") else f"usr/{line}"
        if os.path.dirname(path) in ("usr/bin", "usr/sbin"):
            others = (path, path.replace("/sbin/", "/bin/"), path.replace("/bin/", "/sbin/"))
            if not any(os.path.lexists(os.path.join(root, other)) for other in others):
                put(root, path, b"", f"/{busybox}", False)


def put(root: str, path: str, data: bytes, target: str | None, executable: bool) -> None:
    """Write one file, or a link to *target*, below *root*."""
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    if os.path.lexists(full):
        os.unlink(full)
    if target is not None:
        os.symlink(target, full)
        return
    with open(full, "wb") as file:
        file.write(data)
    os.chmod(full, 0o755 if executable else 0o644)


def _python_version(root: str) -> str:
    names = os.listdir(os.path.join(root, "usr/bin"))
    versions = [n.removeprefix("python") for n in names if re.fullmatch(r"python3\.\d+", n)]
    if not versions:
        raise VMError("The packages hold no Python.")
    return versions[0]
