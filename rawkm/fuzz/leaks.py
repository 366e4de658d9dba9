"""What a campaign may have left behind: programs, maps, links, BTF by id, and fds of this process."""

from __future__ import annotations

import os
from time import monotonic, sleep

from rawkm import objects
from rawkm.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Kernel

KINDS = ("prog", "map", "link", "btf")

# The kernel frees programs and maps after a grace period, and from a work queue.
_PATIENCE = 10.0


class Inventory:
    """What there is now. ``ids``: kind → ids, of the kinds that may be listed (CAP_SYS_ADMIN); ``fds``: fd → what it is."""

    __slots__ = ("fds", "ids")

    def __init__(self, kernel: Kernel) -> None:
        self.ids: dict[str, set[int]] = {}
        for kind in KINDS:
            try:
                self.ids[kind] = set(objects.ids(kernel, kind))
            except SyscallError:
                continue  # not allowed to us, or not known to this kernel
        self.fds = _fds(kernel)


def since(kernel: Kernel, before: Inventory, patience: float = _PATIENCE) -> list[str]:
    """What there is more than before and that no other process holds, in words; [] as soon as there is nothing."""
    deadline = monotonic() + patience
    while True:
        left = _since(kernel, before)
        if not left or monotonic() > deadline:
            return left
        sleep(0.02)


def _since(kernel: Kernel, before: Inventory) -> list[str]:
    now = Inventory(kernel)
    left = [f"fd {fd} ({what})" for fd, what in now.fds.items() if before.fds.get(fd) != what]
    fresh = [(kind, id) for kind in now.ids.keys() & before.ids.keys() for id in sorted(now.ids[kind] - before.ids[kind])]
    if fresh:
        others = _held_by_others(kernel)
        left += [f"{kind} {id}" for kind, id in fresh if (kind, id) not in others]
    return left


def _fds(kernel: Kernel) -> dict[int, str]:
    found = {}
    for name in kernel.list_dir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the one that listed them
    return found


def _held_by_others(kernel: Kernel) -> set[tuple[str, int]]:
    """(kind, id) of what other processes have an fd of: fdinfo tells."""
    found: set[tuple[str, int]] = set()
    own = os.getpid()
    for pid in kernel.list_dir("/proc"):
        if not pid.isdigit() or int(pid) == own:
            continue
        try:
            fds = kernel.list_dir(f"/proc/{pid}/fd")
        except SyscallError:
            continue
        for fd in fds:
            try:
                if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("anon_inode:bpf"):
                    continue
                text = kernel.read_file(f"/proc/{pid}/fdinfo/{fd}")
            except (OSError, SyscallError):
                continue
            for line in text.splitlines():
                name, _, value = line.partition(b":")
                if name.endswith(b"_id") and value.strip().isdigit():
                    found.add((name[:-3].decode("ascii", "replace"), int(value)))
    return found
