"""The matrix of kernels, as data. A new kernel is a new row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a kernel can come from: a Debian suite and a meta-package in it.

    The meta-package is resolved when fetching: the archive drops old versions, so nothing is pinned.
    """

    suite: str
    package: str


@dataclass(frozen=True)
class Kernel:
    """One row: a short name, the machine it runs on, where it comes from, what it can be expected to do."""

    name: str
    arch: str  # Debian's name of the architecture
    sources: tuple[Source, ...]  # in order of preference; the host's own suite goes first
    kprobe_multi: bool  # BPF_LINK_CREATE of BPF_TRACE_KPROBE_MULTI is expected to work

    def source_for(self, host_suite: str) -> Source:
        """The source to use on a host of this suite: what the host knows itself, else the first."""
        for source in self.sources:
            if source.suite == host_suite:
                return source
        return self.sources[0]


KERNELS = (
    Kernel(
        "6.12",
        "amd64",
        (Source("trixie", "linux-image-cloud-amd64"), Source("bookworm", "linux-image-6.12-cloud-amd64")),
        kprobe_multi=True,
    ),
    Kernel("7.2", "amd64", (Source("sid", "linux-image-cloud-amd64"),), kprobe_multi=True),
    # New enough by its version, but built without CONFIG_FPROBE.
    Kernel("6.1", "amd64", (Source("bookworm", "linux-image-cloud-amd64"),), kprobe_multi=False),
    # kprobe_multi came with 5.18.
    Kernel("5.10", "amd64", (Source("bullseye", "linux-image-cloud-amd64"),), kprobe_multi=False),
    Kernel("7.2-arm64", "arm64", (Source("sid", "linux-image-cloud-arm64"),), kprobe_multi=True),
)

DEFAULT = "6.12"
BY_NAME = {kernel.name: kernel for kernel in KERNELS}
