"""The project itself, as it lies in the working tree, packed afresh at every run.

Compiled modules are kept one by one under the digest of their source: a change costs one compilation, a run
without changes costs none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator

from .base import GuestPython
from .cache import Cache
from .cpio import Archive

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PARTS = ("rawkm", "tests", "tools", "pyproject.toml", "README.md")
_SKIP = ("__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache")
_MOST_COMPILED = 4000

# Runs in the guest's Python. stdin: JSON list of (source, its name in the guest, output).
_COMPILE = """
import json, os, py_compile, sys
for source, name, out in json.load(sys.stdin):
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(source, out, name, doraise=True, invalidation_mode=mode)
    except (py_compile.PyCompileError, OSError, ValueError):
        pass  # the guest will say what is wrong with it, if it ever imports it
"""

_RAWKM = """#!/usr/bin/python3
import sys

from rawkm.__main__ import main

sys.exit(main())
"""

_PYTEST = """#!/usr/bin/python3
import sys

from pytest import main

sys.exit(main())
"""


def pack(cache: Cache, python: GuestPython, root: str = ROOT) -> bytes:
    """An archive with the project under /rawkm, importable from anywhere, and its command on PATH."""
    files = list(_files(root))
    compiled = _compiled(cache, python, root, [path for path in files if path.endswith(".py")])
    tag = "cpython-" + python.version.replace(".", "")
    out = io.BytesIO()
    archive = Archive(out)
    for path in files:
        full = os.path.join(root, path)
        if os.path.islink(full):
            archive.symlink(f"rawkm/{path}", os.readlink(full))
            continue
        with open(full, "rb") as file:
            archive.file(f"rawkm/{path}", file.read(), 0o755 if os.access(full, os.X_OK) else 0o644)
        if path in compiled:
            directory, name = os.path.split(path)
            stem = name.removesuffix(".py")
            archive.file(f"rawkm/{directory}/__pycache__/{stem}.{tag}.pyc", compiled[path])
    # A link, not a .pth file: it costs nothing at the start of a Python that does not import rawkm.
    archive.symlink(f"usr/local/lib/python{python.version}/dist-packages/rawkm", "/rawkm/rawkm")
    archive.file("usr/local/bin/rawkm", _RAWKM.encode(), 0o755)
    archive.file("usr/local/bin/pytest", _PYTEST.encode(), 0o755)
    archive.close()
    return out.getvalue()


def _files(root: str) -> Iterator[str]:
    for part in _PARTS:
        if os.path.isfile(os.path.join(root, part)):
            yield part
        for directory, names, files in os.walk(os.path.join(root, part)):
            names[:] = sorted(name for name in names if name not in _SKIP)
            for name in sorted(files):
                if not name.endswith((".pyc", ".swp", "~")):
                    yield os.path.relpath(os.path.join(directory, name), root)


def _compiled(cache: Cache, python: GuestPython, root: str, sources: list[str]) -> dict[str, bytes]:
    """The compiled form of each source; what is not in the cache is compiled now."""
    store = cache.path("pyc")
    keys: dict[str, str] = {}
    for path in sources:
        with open(os.path.join(root, path), "rb") as file:
            text = file.read()
        inputs = b"\0".join((python.version.encode(), os.fsencode(path), text))
        keys[path] = hashlib.sha256(inputs).hexdigest()[:32]
    missing = [path for path in sources if not os.path.exists(os.path.join(store, keys[path]))]
    if missing and _make_store(store):
        jobs = [(os.path.join(root, p), f"/rawkm/{p}", os.path.join(store, keys[p])) for p in missing]
        python.run("-c", _COMPILE, stdin=json.dumps(jobs).encode())
    found: dict[str, bytes] = {}
    for path, key in keys.items():
        try:
            with open(os.path.join(store, key), "rb") as file:
                found[path] = file.read()
        except OSError:
            continue
    return found


def _make_store(store: str) -> bool:
    """Make the directory of compiled files, or say False where that is not allowed. Old ones are dropped."""
    try:
        os.makedirs(store, exist_ok=True)
        names = os.listdir(store)
        if len(names) > _MOST_COMPILED:
            paths = sorted((os.path.join(store, name) for name in names), key=os.path.getmtime)
            for path in paths[: len(paths) // 2]:
                os.unlink(path)
    except OSError:
        return False
    return os.access(store, os.W_OK)
