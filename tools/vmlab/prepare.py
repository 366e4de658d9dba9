"""Everything a guest is made of, made ready: found in the cache, else fetched and built under the cache's lock."""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import base, extra, headers, kernelimage, project, pythondeps
from .cache import Cache
from .errors import VMError
from .kernels import Kernel

_BASE_SUITES = ("bookworm", "trixie", "forky", "sid")
_BASE_DEFAULT = "trixie"


def host_suite(path: str = "/etc/os-release") -> str:
    """The code name of the host's Debian suite, or "" on another system."""
    try:
        with open(path, encoding="utf-8") as file:
            fields = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except OSError:
        return ""
    values = {name: value.strip('"') for name, value in fields.items()}
    return values.get("VERSION_CODENAME", "") if values.get("ID") == "debian" else ""


def ensure_kernel(cache: Cache, kernel: Kernel, refresh: bool = False) -> None:
    """Have the kernel in the cache."""
    if refresh or not kernelimage.cached(cache, kernel):
        with cache.lock():
            if refresh or not kernelimage.cached(cache, kernel):  # another process may have built it meanwhile
                kernelimage.build(cache, kernel, host_suite())


def ensure_headers(cache: Cache, refresh: bool = False) -> None:
    """Have the kernel headers in the cache."""
    if refresh or not headers.cached(cache):
        with cache.lock():
            if refresh or not headers.cached(cache):
                headers.build(cache)


class Userland:
    """The guest's user land: the base and the Python packages. Both are ready once this exists.

    ``packages``: Debian packages on top of it. ``python``: the guest's Python where this machine can run it, else its twin of the
    same version that this machine can.
    """

    def __init__(self, cache: Cache, arch: str, refresh: bool = False, packages: Sequence[str] = ()) -> None:
        if os.uname().machine != "x86_64":
            raise VMError("Programs of x86-64 are run to build the guests: use an x86-64 host.")
        host, native = host_suite(), "amd64"
        suite = host if host in _BASE_SUITES else _BASE_DEFAULT
        for one in dict.fromkeys((native, arch)):
            if refresh or not base.cached(cache, suite, one):
                with cache.lock():
                    if refresh or not base.cached(cache, suite, one):
                        twin = None if one == native else base.root_path(cache, suite, native)
                        base.build(cache, suite, one, twin)
        self.python = base.GuestPython(base.root_path(cache, suite, native))
        with open(os.path.join(project.ROOT, "pyproject.toml"), encoding="utf-8") as file:
            wanted = pythondeps.requirements(file.read())
        key = (wanted, self.python.version, suite)
        if refresh or not pythondeps.cached(cache, *key):
            with cache.lock():
                if refresh or not pythondeps.cached(cache, *key):
                    pythondeps.build(cache, wanted, suite, native, self.python)
        self.archives = [base.archive_path(cache, suite, arch), pythondeps.archive_path(cache, *key)]
        if packages:
            if not extra.cached(cache, packages, suite, arch):
                with cache.lock():
                    if not extra.cached(cache, packages, suite, arch):
                        extra.build(cache, packages, suite, arch)
            self.archives.append(extra.archive_path(cache, packages, suite, arch))
