"""Compiled BPF objects: from the sources beside this file, and from Debian packages that carry some."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "sources"
# (optimization, instruction set, seed of the constants)
VARIANTS = [("O2", "v1", 1), ("Os", "v2", 2), ("O0", "v3", 3), ("O2", "v4", 4)]
# Their programs have BPF objects inside.
PACKAGES = ("libbpf-tools", "xdp-tools", "libxdp1", "bpftool", "pcp")

EM_BPF = 247
SHT_PROGBITS, SHF_EXECINSTR = 1, 4


def compiled(folder: Path) -> list[Path]:
    """An object of each source in each variant."""

    def one(source: Path, optimize: str, cpu: str, seed: int) -> Path:
        out = folder / f"{source.stem}-{optimize}-{cpu}.o"
        # Nothing of it is loaded, so the stack may be as large as it likes.
        command = f"clang-19 -target bpf -{optimize} -mcpu={cpu} -DSEED={seed} -g -w -mllvm -bpf-stack-size=30000 -c"
        subprocess.run([*command.split(), str(source), "-o", str(out)], check=True)
        return out

    jobs = [(source, *variant) for source in sorted(SOURCES.glob("*.c")) for variant in VARIANTS]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: one(*job), jobs))


def packaged(folder: Path) -> list[Path]:
    """The objects in the programs of PACKAGES, fetched by apt."""
    folder.chmod(0o777)  # apt fetches as a user of its own
    apt = ["apt-get", "-qq", "-o", "Acquire::Retries=3"]
    download = [*apt, "download", *PACKAGES]
    if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode != 0:
        # The lists of packages are older than the packages, or not there at all.
        subprocess.run([*apt, "update"], check=True)
        subprocess.run(download, cwd=folder, check=True)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    found: dict[bytes, Path] = {}
    for path in sorted((folder / "root").rglob("*")):
        if path.is_file() and not path.is_symlink():
            for elf in embedded(path.read_bytes()):
                found.setdefault(elf, folder / f"{path.name}-{len(found)}.o")
    for elf, out in found.items():
        out.write_bytes(elf)
    return list(found.values())


def embedded(data: bytes) -> Iterator[bytes]:
    """The BPF objects that lie somewhere in a file, each up to the end of its section headers."""
    at = data.find(b"\x7fELF\x02\x01\x01")
    while at >= 0:
        if data[at + 18 : at + 20] == struct.pack("<H", EM_BPF):
            (headers,) = struct.unpack_from("<Q", data, at + 40)
            size, count = struct.unpack_from("<HH", data, at + 58)
            yield data[at : at + headers + size * count]
        at = data.find(b"\x7fELF\x02\x01\x01", at + 4)


def sections(elf: bytes) -> list[bytes]:
    """The contents of the sections with instructions, in the order of the file."""
    (headers,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    found = []
    for index in range(count):
        _, kind, flags, _, offset, length = struct.unpack_from("<IIQQQQ", elf, headers + size * index)
        if kind == SHT_PROGBITS and flags & SHF_EXECINSTR and length:
            found.append(elf[offset : offset + length])
    return found


def missing_tools() -> list[str]:
    tools = ("clang-19", "llvm-mc-19", "llvm-objdump-19")
    folders = os.environ["PATH"].split(":")
    return [tool for tool in tools if not any(os.access(f"{folder}/{tool}", os.X_OK) for folder in folders)]
