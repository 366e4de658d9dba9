"""The newest kernel headers Debian has (sid's linux-libc-dev), to check layouts against a C compiler.

The result is a directory with ``include/linux/bpf.h`` and all that it includes, ``asm`` among it.
"""

from __future__ import annotations

import os
import re
from typing import Any

from .apt import Apt
from .cache import Cache, digest
from .deb import members
from .hosttools import say

_SUITE = "sid"
_RECIPE = digest("headers 1", _SUITE)
# linux-libc-dev lays <asm/…> in a directory per architecture, elsewhere in different versions.
_ASM = re.compile(r"usr/(include/x86_64-linux-gnu|lib/linux/uapi/x86)/")


def cached(cache: Cache) -> dict[str, Any] | None:
    """The notes on the cached headers (version), or None."""
    return cache.meta("headers", _RECIPE)


def directory(cache: Cache) -> str:
    """The directory that holds ``include``."""
    return cache.path("headers")


def build(cache: Cache) -> None:
    """Fetch and build. The caller holds the cache's lock."""
    with cache.build("headers", _RECIPE) as (new, meta), cache.scratch() as scratch:
        apt = Apt(scratch, _SUITE, "amd64")
        apt.update()
        meta["version"] = apt.show("linux-libc-dev").get("Version", "")
        say(f"fetching linux-libc-dev {meta['version']} from {_SUITE}")
        for deb in apt.download("linux-libc-dev"):
            for member in members(deb):
                inside = _inside(member.path)
                if inside and member.target is None:
                    path = os.path.join(new, inside)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(member.data)


def _inside(path: str) -> str:
    """Where a file of the package goes, or "" when it is not wanted."""
    if _ASM.match(path):
        return _ASM.sub("include/", path)
    if re.match(r"usr/include/[^/]+-linux-[^/]+/", path):
        return ""  # another architecture's
    return path.removeprefix("usr/") if path.startswith("usr/include/") else ""
