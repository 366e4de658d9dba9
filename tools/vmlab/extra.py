"""Debian packages on top of the guest's user land, for the runs that name them (``--with``).

Of the named packages everything but documentation is taken, of what they depend on the shared libraries that their programs
need. Nothing is installed: scripts of packages do not run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from . import elf
from .apt import Apt
from .base import add_libraries, put
from .cache import Cache, digest
from .cpio import Archive
from .deb import members
from .hosttools import say

_NOT_NEEDED = re.compile(r"usr/(share/(doc|man|locale|info|lintian|bash-completion|bug)|include)/|.*\.(a|h)$|etc/init\.d/")
_LIBRARY = re.compile(r"usr/lib(64)?/.*\.so(\.|$)")
_KEPT = 6


def _name(packages: Sequence[str], suite: str, arch: str) -> tuple[str, str]:
    recipe = digest("extra 1", _NOT_NEEDED, sorted(packages), suite, arch)
    return f"extra/{recipe}", recipe


def cached(cache: Cache, packages: Sequence[str], suite: str, arch: str) -> bool:
    """Whether the archive of these packages is there."""
    return cache.meta(*_name(packages, suite, arch)) is not None


def archive_path(cache: Cache, packages: Sequence[str], suite: str, arch: str) -> str:
    """The path of the archive."""
    return cache.path(_name(packages, suite, arch)[0], "extra.cpio")


def build(cache: Cache, packages: Sequence[str], suite: str, arch: str) -> None:
    """Fetch and build. The caller holds the cache's lock."""
    name, recipe = _name(packages, suite, arch)
    with cache.build(name, recipe) as (directory, meta), cache.scratch() as scratch:
        apt = Apt(scratch, suite, arch)
        apt.update()
        say(f"fetching {', '.join(packages)} from {suite}")
        debs = apt.closure(*packages)
        root = os.path.join(scratch, "root")
        _select(debs, packages, root)
        meta.update(packages=[os.path.basename(deb) for deb in debs])
        with open(os.path.join(directory, "extra.cpio"), "wb") as file:
            archive = Archive(file)
            archive.tree(root)
            archive.close()


def _select(debs: Sequence[str], packages: Sequence[str], root: str) -> None:
    libraries: dict[str, tuple[str, bytes]] = {}
    links: dict[str, tuple[str, str]] = {}
    needed: list[str] = []
    for deb in debs:
        wanted = os.path.basename(deb).partition("_")[0] in packages
        for member in members(deb):
            base = os.path.basename(member.path)
            if wanted and not _NOT_NEEDED.match(member.path):
                put(root, member.path, member.data, member.target, member.executable)
                if elf.is_elf(member.data):
                    needed += elf.needed(member.data)
            if _LIBRARY.match(member.path):
                if member.target is None:
                    libraries[base] = (member.path, member.data)
                else:
                    links[base] = (member.path, member.target)
    add_libraries(needed, libraries, links, root)
