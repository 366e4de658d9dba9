"""What this process is shut in by: a container, a user namespace, seccomp, a security module."""

from __future__ import annotations

from errno import EACCES, EBADF, EINVAL, ENOSYS, EPERM

from rawkm.errors import SyscallError, errno_name
from rawkm.uapi import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rawkm.syscall.kernel import Kernel

# include/linux/proc_ns.h, PROC_PID_INIT_INO.
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_EBADFD = 77  # what BPF_OBJ_GET_INFO_BY_FD makes of a bad fd

# A file that only containers of a kind have.
_MARKS = (
    ("kubernetes", "/var/run/secrets/kubernetes.io"),
    ("podman", "/run/.containerenv"),
    ("docker", "/.dockerenv"),
    ("lxc", "/dev/.lxc"),
    ("openvz", "/proc/vz"),
)
# What the name of a control group of a container holds.
_CGROUPS = (
    ("kubernetes", b"kubepods"),
    ("docker", b"docker"),
    ("podman", b"libpod"),
    ("lxc", b"lxc"),
    ("containerd", b"containerd"),
)


def container(kernel: Kernel) -> tuple[str, str]:
    """(kind, evidence) of the container that this process runs in: "docker", "kubernetes", …, "unknown"; ("", "") for none."""
    return next(_signs(kernel), ("", ""))


def _signs(kernel: Kernel) -> Iterator[tuple[str, str]]:
    if kernel.environ("KUBERNETES_SERVICE_HOST"):
        yield "kubernetes", "KUBERNETES_SERVICE_HOST is set"
    for kind, path in _MARKS:
        if _exists(kernel, path):
            yield kind, f"{path} exists"
    # systemd's own word for it (https://systemd.io/CONTAINER_INTERFACE).
    said = _read(kernel, "/run/systemd/container").strip()
    if said:
        yield said.decode("ascii", "backslashreplace"), "/run/systemd/container says so"
    groups = _read(kernel, "/proc/self/cgroup")
    for kind, word in _CGROUPS:
        if word in groups:
            yield kind, "/proc/self/cgroup says so"
    try:
        if kernel.identity("/proc/self/ns/pid")[1] != _INITIAL_PID_NAMESPACE:
            yield "unknown", "this is not the first PID namespace"
    except SyscallError:
        pass


def user_namespace(kernel: Kernel) -> bool:
    """Whether this is another user namespace than the initial one, which maps every id to itself."""
    text = _read(kernel, "/proc/self/uid_map")
    return bool(text) and text.split() != [b"0", b"0", b"4294967295"]


def seccomp(kernel: Kernel) -> str:
    """The mode: "off", "strict", "filter"; "unknown" without /proc."""
    return {b"0": "off", b"1": "strict", b"2": "filter"}.get(_status(kernel, b"Seccomp:"), "unknown")


def file_uid(kernel: Kernel) -> int | None:
    """The user id that counts for files; None without /proc."""
    words = _status(kernel, b"Uid:", 4)
    return int(words) if words.isdigit() else None


def label(kernel: Kernel) -> str:
    """What a security module calls this process ("docker-default (enforce)", an SELinux context); "" for none."""
    for path in ("/proc/self/attr/apparmor/current", "/proc/self/attr/current"):
        text = _read(kernel, path).strip(b"\0\n ").decode("utf-8", "backslashreplace")
        if text and text != "unconfined":
            return text
    return ""


class Blocked:
    """System calls that do not reach the kernel's own code. ``calls``: name → what came back.

    Found by calls so wrong that the kernel refuses them before it looks at any privilege: another answer than that refusal is
    somebody else's. ``unsure``: those where the kernel itself may have said it (bpf(2) before 5.11, without CAP_BPF).
    """

    __slots__ = ("calls", "unsure")

    def __init__(self, kernel: Kernel, *, may_bpf: bool) -> None:
        """``may_bpf``: this process has CAP_BPF, or CAP_SYS_ADMIN."""
        self.calls: dict[str, str] = {}
        self.unsure: set[str] = set()
        self._try("bpf", lambda: kernel.obj_info(0xFFFFFFFF, packed.PROG_INFO), (_EBADFD, EBADF))
        self._try("perf_event_open", lambda: kernel.perf_event_open({}, pid=0, cpu=-1, flags=1 << 30), (EINVAL,))
        self._try("fsconfig", lambda: kernel.fsconfig_create(-1), (EINVAL,))
        if "bpf" in self.calls and not may_bpf:
            self.unsure.add("bpf")

    def _try(self, name: str, call: Callable[[], object], refusals: tuple[int, ...]) -> None:
        try:
            call()
        except SyscallError as err:
            if err.errno not in refusals and err.errno in (EPERM, EACCES, ENOSYS):
                self.calls[name] = errno_name(err.errno)


def _status(kernel: Kernel, field: bytes, word: int = 1) -> bytes:
    for line in _read(kernel, "/proc/self/status").splitlines():
        if line.startswith(field):
            return line.split()[word]
    return b""


def _exists(kernel: Kernel, path: str) -> bool:
    try:
        kernel.identity(path)
    except SyscallError:
        return False
    return True


def _read(kernel: Kernel, path: str) -> bytes:
    try:
        return kernel.read_file(path)
    except SyscallError:
        return b""
