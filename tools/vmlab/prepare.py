"""Everything a guest is made of, made ready: found in the cache, else fetched and built under the cache's lock."""

from __future__ import annotations

import os

from . import base, headers, kernelimage, project, pythondeps
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
    """The guest's user land: the base and the Python packages. Both are ready once this exists."""

    def __init__(self, cache: Cache, refresh: bool = False) -> None:
        if os.uname().machine != "x86_64":
            raise VMError("The guests are x86-64, and their programs are run to build them: use an x86-64 host.")
        host, arch = host_suite(), "amd64"
        suite = host if host in _BASE_SUITES else _BASE_DEFAULT
        if refresh or not base.cached(cache, suite, arch):
            with cache.lock():
                if refresh or not base.cached(cache, suite, arch):
                    base.build(cache, suite, arch)
        self.python = base.GuestPython(base.root_path(cache, suite, arch))
        with open(os.path.join(project.ROOT, "pyproject.toml"), encoding="utf-8") as file:
            wanted = pythondeps.requirements(file.read())
        key = (wanted, self.python.version, suite)
        if refresh or not pythondeps.cached(cache, *key):
            with cache.lock():
                if refresh or not pythondeps.cached(cache, *key):
                    pythondeps.build(cache, wanted, suite, arch, self.python)
        self.archives = [base.archive_path(cache, suite, arch), pythondeps.archive_path(cache, *key)]
