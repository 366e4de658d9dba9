"""A kernel of the matrix, fetched and taken apart: vmlinuz, vmlinux, config, BTF, an archive of modules."""

from __future__ import annotations

import os
import re
from typing import Any

from . import modules
from .apt import Apt, depends
from .cache import Cache, digest
from .compress import decompress_by_name
from .cpio import Archive
from .deb import Member, members
from .errors import VMError
from .hosttools import say
from .kernels import Kernel
from .vmlinuz import btf, unpack

_RECIPE = digest("kernel 2", modules.AT_BOOT, modules.ON_DEMAND)

# The parts a kernel is packaged in. Debian splits them since 7.x: image, binary, modules.
_PARTS = re.compile(r"linux-(image|binary|modules)-\d")
_CONFIG = re.compile(r"(^|/)config(-[^/]*)?$")
_IMAGE = re.compile(r"(^|/)vmlinuz(-[^/]*)?$")


def cached(cache: Cache, kernel: Kernel) -> dict[str, Any] | None:
    """The notes on the cached kernel (version, package, suite, at_boot), or None."""
    return cache.meta(f"kernel/{kernel.name}", _RECIPE)


def artefact(cache: Cache, kernel: Kernel, name: str) -> str:
    """The path of one of vmlinux, vmlinuz, config, btf, modules.cpio."""
    return cache.path("kernel", kernel.name, name)


def build(cache: Cache, kernel: Kernel, host_suite: str) -> None:
    """Fetch and build. The caller holds the cache's lock."""
    source = kernel.source_for(host_suite)
    with cache.build(f"kernel/{kernel.name}", _RECIPE) as (directory, meta), cache.scratch() as scratch:
        apt = Apt(scratch, source.suite, kernel.arch)
        apt.update()
        names, version = _packages(apt, source.package)
        say(f"fetching {', '.join(names)} {version} from {source.suite}")
        files: dict[str, Member] = {}
        for deb in apt.download(*names):
            files.update((member.path, member) for member in members(deb) if _useful(member))
        if not any(_CONFIG.search(path) for path in files):
            files.update(_separate_config(apt, version, kernel.arch))
        release = _take_apart(files, directory, meta)
        meta.update(release=release, version=version, suite=source.suite, package=names[0])
    say(f"kernel {kernel.name} is ready: {release}")


def _packages(apt: Apt, package: str) -> tuple[list[str], str]:
    """The packages that hold the kernel's files, resolved from the meta-package, and their version."""
    found: list[str] = []
    pending = [package]
    version = ""
    while pending:
        stanza = apt.show(pending.pop(0))
        for name in depends(stanza):
            if _PARTS.match(name) and name not in found:
                found.append(name)
                pending.append(name)
        version = stanza.get("Version", version)
    if not found:
        raise VMError(f"{package} of Debian {apt.suite} leads to no kernel package.")
    return found, version


def _useful(member: Member) -> bool:
    path = member.path
    wanted = _CONFIG.search(path) or _IMAGE.search(path) or path.startswith("usr/lib/modules/")
    return member.target is None and bool(wanted)


def _separate_config(apt: Apt, version: str, arch: str) -> dict[str, Member]:
    """The configuration from the package linux-config-X.Y, for kernels that come without it (since 7.x)."""
    series = ".".join(version.split(".")[:2])
    name = f"config.{arch}_none_cloud-{arch}"
    try:
        debs = apt.download(f"linux-config-{series}")
    except VMError:
        return {}  # nothing but `path config` misses it
    for deb in debs:
        for member in members(deb):
            plain, data = decompress_by_name(member.path, member.data)
            if os.path.basename(plain) == name:
                return {"boot/config": Member("boot/config", data, None, False)}
    return {}


def _take_apart(files: dict[str, Member], directory: str, meta: dict[str, Any]) -> str:
    """Write the artefacts; the kernel's release (uname -r)."""
    release = next((path.split("/")[3] for path in files if path.startswith("usr/lib/modules/")), "")
    images = [path for path in files if _IMAGE.search(path)]
    if not release or not images:
        raise VMError("The kernel's packages hold no vmlinuz or no modules; their layout is unknown here.")
    image = files[images[0]].data
    vmlinux = unpack(image)
    _write(directory, "vmlinuz", image)
    _write(directory, "vmlinux", vmlinux)
    _write(directory, "btf", btf(vmlinux))
    configs = [path for path in files if _CONFIG.search(path)]
    if configs:
        _write(directory, "config", files[configs[0]].data)

    root = f"usr/lib/modules/{release}/"
    by_name = {modules.module_name(path): path for path in files if path.startswith(root) and ".ko" in path}

    def load(name: str) -> modules.Module | None:
        path = by_name.get(name)
        return modules.parse(*decompress_by_name(path.removeprefix(root), files[path].data)) if path else None

    at_boot = modules.closure(modules.AT_BOOT, load)
    chosen = modules.closure((*at_boot, *modules.ON_DEMAND), load)
    lists = [name for name in ("modules.builtin", "modules.order") if root + name in files]
    with open(os.path.join(directory, "modules.cpio"), "wb") as file:
        archive = Archive(file)
        for module in chosen.values():
            archive.file(root + module.path, module.data)
        archive.file(root + "modules.dep", modules.modules_dep(chosen).encode())
        archive.file(root + "modules.alias", modules.modules_alias(chosen).encode())
        archive.file(root + "modules.symbols", b"")
        for name in lists:
            archive.file(root + name, files[root + name].data)
        archive.file("vm/modules", "".join(f"/{root}{module.path}\n" for module in at_boot.values()).encode())
        archive.close()
    meta.update(at_boot=list(at_boot), modules=sorted(chosen))
    return release


def _write(directory: str, name: str, data: bytes) -> None:
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)
