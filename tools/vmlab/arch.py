"""The architectures of the matrix, as data: how QEMU plays each machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    """``name``: Debian's; ``qemu``: the program; ``arguments``: the machine and its processor; ``append``: for the kernel."""

    name: str
    qemu: str
    arguments: tuple[str, ...]
    append: str


AMD64 = Arch(
    "amd64",
    "qemu-system-x86_64",
    # With la57 the guest's page tables get a fifth level for nothing. With cx16, guests of QEMU 7.2 oops in the
    # slab allocator: 6.12 in about one boot of six.
    ("-M", "pc", "-cpu", "max,-la57,-cx16"),
    "console=ttyS0 tsc=reliable",
)
ARM64 = Arch(
    "arm64",
    "qemu-system-aarch64",
    # The architecture's own algorithm for pointer authentication takes an emulator half of its time.
    ("-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on"),
    "console=ttyAMA0",
)
BY_NAME = {arch.name: arch for arch in (AMD64, ARM64)}
