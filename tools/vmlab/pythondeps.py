"""The Python packages that rawkm and its tests import, for the guest's Python.

The list is pyproject.toml's: the dependencies and every extra, but for the linters. pip comes from Debian and
runs in the guest's own Python, so that versions and markers are resolved for the guest and the host needs no pip.
Only pure wheels are taken.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib

from .apt import Apt
from .base import GuestPython
from .cache import Cache, digest
from .cpio import Archive
from .deb import members
from .hosttools import say

_NOT_IN_GUEST = ("mypy", "ruff")

_KEPT = 4
_NOT_NEEDED = re.compile(r"^bin/|/(tests?|__pycache__)/")


def requirements(pyproject: str) -> list[str]:
    """The requirements of the guest, sorted, from the text of pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    found = set(project.get("dependencies", ()))
    for extra in project.get("optional-dependencies", {}).values():
        found.update(extra)
    return sorted(item for item in found if _distribution(item) not in _NOT_IN_GUEST)


def _distribution(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _recipe(wanted: list[str], python: str, suite: str) -> str:
    return digest("deps 1", _NOT_NEEDED, wanted, python, suite)


def cached(cache: Cache, wanted: list[str], python: str, suite: str) -> bool:
    """Whether the archive for this list and this Python is there."""
    recipe = _recipe(wanted, python, suite)
    return cache.meta(f"python/{recipe}", recipe) is not None


def archive_path(cache: Cache, wanted: list[str], python: str, suite: str) -> str:
    """The path of the archive."""
    return cache.path("python", _recipe(wanted, python, suite), "python.cpio")


def build(cache: Cache, wanted: list[str], suite: str, arch: str, python: GuestPython) -> None:
    """Fetch and build. The caller holds the cache's lock."""
    recipe = _recipe(wanted, python.version, suite)
    site = f"usr/local/lib/python{python.version}/dist-packages"
    with cache.build(f"python/{recipe}", recipe) as (directory, meta), cache.scratch() as scratch:
        pip = os.path.join(scratch, "pip")
        _unpack_pip(os.path.join(scratch, "apt"), suite, arch, pip)
        say(f"fetching Python packages: {', '.join(wanted)}")
        root = os.path.join(scratch, "root")
        options = ("--quiet", "--no-compile", "--only-binary=:all:", "--target", os.path.join(root, site))
        pure = f"--python-version={python.version} --implementation=py --abi=none --platform=any".split()
        python.run("-m", "pip", "install", *options, *pure, *wanted, path=pip)
        _prune(os.path.join(root, site))
        python.compile_tree(os.path.join(root, site), root)
        installed = [n.removesuffix(".dist-info") for n in os.listdir(os.path.join(root, site)) if "dist-info" in n]
        meta.update(requirements=wanted, installed=sorted(installed))
        with open(os.path.join(directory, "python.cpio"), "wb") as file:
            archive = Archive(file)
            archive.tree(root)
            archive.close()
    _drop_old(cache.path("python"))


def _drop_old(directory: str) -> None:
    """Keep the archives built last: lists come and go with the branches of a working tree."""
    paths = sorted((entry.path for entry in os.scandir(directory)), key=os.path.getmtime)
    for path in paths[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _prune(site: str) -> None:
    for directory, _names, files in os.walk(site):
        for name in files:
            path = os.path.join(directory, name)
            if _NOT_NEEDED.search(os.path.relpath(path, site)):
                os.unlink(path)


def _unpack_pip(state: str, suite: str, arch: str, destination: str) -> None:
    apt = Apt(state, suite, arch)
    apt.update()
    inside = "usr/lib/python3/dist-packages/"
    for deb in apt.download("python3-pip"):
        for member in members(deb):
            if member.path.startswith(inside) and member.target is None:
                path = os.path.join(destination, member.path.removeprefix(inside))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(member.data)
