"""Where everything fetched or built is kept.

An artefact is a directory that appears complete or not at all: it is built beside its place and renamed. Each
keeps the digest of its recipe; when the recipe in the code changes, the artefact no longer counts as there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from .errors import VMError
from .hosttools import say

_META = "meta.json"


def digest(*parts: object) -> str:
    """A short digest of the parts' representation."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Cache:
    """The cache directory: artefacts by path (``kernel/6.12``), a lock for building, scratch directories."""

    def __init__(self, root: str | None = None) -> None:
        if root is None:
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            root = os.environ.get("RAWKM_VM_CACHE") or os.path.join(base, "rawkm-vm")
        self.root = os.path.abspath(root)

    def path(self, *parts: str) -> str:
        """A path in the cache."""
        return os.path.join(self.root, *parts)

    def meta(self, name: str, recipe: str) -> dict[str, Any] | None:
        """What was noted about the artefact, or None when it is not there or was made by another recipe."""
        try:
            with open(self.path(name, _META), encoding="utf-8") as file:
                meta: dict[str, Any] = json.load(file)
        except (OSError, ValueError):
            return None
        return meta if meta.get("recipe") == recipe else None

    @contextlib.contextmanager
    def build(self, name: str, recipe: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """A new directory to build the artefact in, and its notes; published when the block ends well."""
        with self.scratch() as scratch:
            new = os.path.join(scratch, "new")
            os.mkdir(new)
            meta: dict[str, Any] = {"recipe": recipe}
            yield new, meta
            with open(os.path.join(new, _META), "w", encoding="utf-8") as file:
                json.dump(meta, file, indent=1, sort_keys=True)
            final = self.path(name)
            os.makedirs(os.path.dirname(final), exist_ok=True)
            if os.path.lexists(final):
                os.rename(final, os.path.join(scratch, "old"))
            os.rename(new, final)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A directory inside of the cache that is gone afterwards."""
        self._make_root()
        path = tempfile.mkdtemp(prefix="building-", dir=self.root)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process builds at a time; the others wait here and then find the work done."""
        self._make_root()
        with open(self.path("lock"), "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another tools/vm that is building")
                fcntl.flock(file, fcntl.LOCK_EX)
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what a killed build left behind. Only the holder of the lock builds, so nobody needs it."""
        for name in os.listdir(self.root):
            if name.startswith("building-"):
                shutil.rmtree(self.path(name), ignore_errors=True)

    def _make_root(self) -> None:
        try:
            os.makedirs(self.root, exist_ok=True)
        except OSError as error:
            raise VMError(f"The cache directory {self.root} cannot be made: {error.strerror}.") from error
