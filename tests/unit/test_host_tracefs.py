"""tracefs: found where it is mounted or not, and one right sentence for whatever stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EACCES, EIO, ENODEV, ENOSYS, EPERM

import pytest

from rawkm.host import caps
from rawkm.host.tracefs import TraceFs
from tests.unit.files import NAMES, SITES, STATUS, TRACING, FileKernel, status

DEBUG = "/sys/kernel/debug/tracing"
LOCKDOWN = "/sys/kernel/security/lockdown"
TEXT = b"tcp_sendmsg\n"


def read(fake: FileKernel, *names: str) -> tuple[list[bytes | None], TraceFs]:
    with TraceFs(fake.kernel) as tracefs:
        got = []
        for name in names:
            chunks = tracefs.chunks(name)
            got.append(None if chunks is None else b"".join(chunks))
    assert not fake.open_fds
    return got, tracefs


def reason(
    files: Mapping[str, bytes | int],
    *held: int,
    uid: int = 65534,
    detached: int | dict[str, bytes | int] = EPERM,
) -> str:
    """Why the list cannot be read, which must be one sentence."""
    got, tracefs = read(FileKernel({STATUS: status(*held, uid=uid), **files}, detached=detached), NAMES)
    assert got == [None]
    assert tracefs.place == ""
    (text,) = tracefs.reasons
    return text


@pytest.mark.parametrize("root", [TRACING, DEBUG])
def test_mounted(root: str) -> None:
    fake = FileKernel({f"{root}/{NAMES}": TEXT})
    got, tracefs = read(fake, NAMES)
    assert got == [TEXT]
    assert (tracefs.place, tracefs.reasons, fake.mounts) == (root, [], 0)


def test_big_files_come_whole() -> None:
    text = b"".join(b"function_%d\n" % i for i in range(1000))
    got, _ = read(FileKernel({f"{TRACING}/{NAMES}": text}, chunk=100), NAMES)
    assert got == [text]


def test_not_mounted() -> None:
    fake = FileKernel({}, detached={NAMES: TEXT, SITES: b"10 tcp_sendmsg\n"})
    got, tracefs = read(fake, SITES, NAMES)
    assert got == [b"10 tcp_sendmsg\n", TEXT]
    assert tracefs.place == "tracefs without a mount point"
    assert fake.mounts == 1


@pytest.mark.parametrize("mounted", [True, False])
def test_a_file_that_an_older_kernel_lacks(mounted: bool) -> None:
    """Where tracefs is found there is no need to look elsewhere, least of all to mount another."""
    listed: dict[str, bytes | int] = {"README": b"", NAMES: TEXT}
    files = {f"{TRACING}/{name}": content for name, content in listed.items()} if mounted else {}
    fake = FileKernel(files, detached=EPERM if mounted else listed)
    got, tracefs = read(fake, SITES, NAMES)
    assert got == [None, TEXT]
    (text,) = tracefs.reasons
    assert f"has no {SITES}" in text
    assert fake.mounts == (0 if mounted else 1)
    if mounted:
        assert fake.reads == [f"{TRACING}/{SITES}", f"{TRACING}/{NAMES}"]


def test_the_second_mount_point_is_used_when_the_first_is_closed() -> None:
    fake = FileKernel({f"{TRACING}/{NAMES}": EACCES, f"{DEBUG}/{NAMES}": TEXT})
    got, tracefs = read(fake, NAMES)
    assert got == [TEXT]
    assert tracefs.place == DEBUG


def test_a_closed_mount_point_may_be_a_container_s_doing() -> None:
    got, tracefs = read(FileKernel({f"{TRACING}/{NAMES}": EACCES}, detached={NAMES: TEXT}), NAMES)
    assert got == [TEXT]
    assert tracefs.reasons == []


# -- reasons -------------------------------------------------------------------------------------------------


MOUNTED = {f"{TRACING}/{NAMES}": EACCES, f"{DEBUG}/{NAMES}": EACCES}


@pytest.mark.parametrize("held", [(), (caps.CAP_SYS_ADMIN,), (caps.CAP_BPF, caps.CAP_PERFMON)])
def test_mounted_and_not_readable(held: tuple[int, ...]) -> None:
    detached: int | dict[str, bytes | int] = {NAMES: EACCES} if caps.CAP_SYS_ADMIN in held else EPERM
    assert reason(MOUNTED, *held, detached=detached) == (
        f"reading {TRACING} takes CAP_DAC_READ_SEARCH (or root), which is missing (EACCES)"
    )


def test_not_mounted_and_nothing_held() -> None:
    assert reason({}) == (
        "tracefs is not mounted, and opening it without a mount point takes "
        "CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH (or root), which are missing (EPERM)"
    )


def test_not_mounted_and_no_admin() -> None:
    opening = "tracefs is not mounted, and opening it without a mount point"
    text = f"{opening} takes CAP_SYS_ADMIN, which is missing (EPERM)"
    assert reason({}, caps.CAP_DAC_READ_SEARCH) == text
    # CAP_DAC_OVERRIDE opens the same doors; files that belong to root are open to root.
    assert reason({}, 1) == text
    assert reason({}, uid=0) == text


def test_not_mounted_and_not_readable() -> None:
    text = "takes CAP_DAC_READ_SEARCH (or root), which is missing (EACCES)"
    held = caps.CAP_SYS_ADMIN
    assert reason({}, held, detached={NAMES: EACCES}) == f"tracefs is not mounted, and reading it {text}"


def test_nothing_is_missing() -> None:
    """A user namespace, a security module: EPERM to somebody who has it all."""
    text = reason({}, caps.CAP_SYS_ADMIN, caps.CAP_DAC_READ_SEARCH)
    assert "no capability is missing" in text
    assert "user namespaces" in text
    assert "EPERM" in text


def test_lockdown() -> None:
    files: dict[str, bytes | int] = {
        f"{TRACING}/{NAMES}": EPERM,
        LOCKDOWN: b"none integrity [confidentiality]\n",
    }
    assert reason(files, uid=0, detached={NAMES: EPERM}) == (
        f"reading {TRACING} is refused with EPERM: the kernel is locked down (confidentiality)"
    )


def test_no_tracefs() -> None:
    assert reason({}, detached=ENODEV) == "this kernel has no tracefs"
    assert "5.2" in reason({}, detached=ENOSYS)
    assert reason({f"{TRACING}/{NAMES}": EIO}) == f"reading {TRACING} fails with EIO"


def test_no_proc() -> None:
    """Without /proc the capabilities are not known: all that it takes is named."""
    got, tracefs = read(FileKernel({}), NAMES)
    assert got == [None]
    assert "CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH" in tracefs.reasons[0]


def test_a_reason_is_given_once() -> None:
    closed = {f"{root}/{name}": EACCES for root in (TRACING, DEBUG) for name in (SITES, NAMES)}
    fake = FileKernel({STATUS: status(), **closed})
    _, tracefs = read(fake, SITES, NAMES)
    assert len(tracefs.reasons) == 1
    assert fake.mounts == 1
