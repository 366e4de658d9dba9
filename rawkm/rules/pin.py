"""OBJ_PIN and OBJ_GET: flags and fds; what the path leads to is beyond the model."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM

from rawkm.rules.common import tail
from rawkm.rules.model import Form, Rule, Table, always, maybe
from rawkm.uapi.constants import Cmd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.rules.model import Facts

_RDONLY, _WRONLY, _PATH_FD = 1 << 3, 1 << 4, 1 << 14
_BY_FD = (6, 5)
_FORM = ("pathname", "bpf_fd", "file_flags", "path_fd")
_ENDS = {(0, 0): 16, _BY_FD: 20}


def _path_flag(k: Facts) -> int:
    return _PATH_FD if k.version >= _BY_FD else 0


def _path_fd(command: str) -> Rule:
    return Rule(
        f"{command}.path_fd",
        "path_fd file_flags",
        EINVAL,
        "path_fd takes BPF_F_PATH_FD in file_flags",
        f"bpf_{command}",
        lambda a, c, k: not a.file_flags & _PATH_FD and a.path_fd != 0,
        since=_BY_FD,
    )


_C = "obj_pin"
PIN = Table(
    Form(*_FORM),
    [
        *tail(_C, _ENDS),
        Rule(
            f"{_C}.file_flags",
            "file_flags",
            EINVAL,
            "file_flags must be 0, or since 6.5 BPF_F_PATH_FD",
            "bpf_obj_pin",
            lambda a, c, k: bool(a.file_flags & ~_path_flag(k)),
        ),
        _path_fd(_C),
        Rule(
            f"{_C}.bpf_fd",
            "bpf_fd",
            EINVAL,
            "bpf_fd must be the fd of a map, a program or a link",
            "bpf_fd_probe_obj",
            lambda a, c, k: a.bpf_fd not in c.fds or c.fds[a.bpf_fd].kind not in ("map", "prog", "link"),
        ),
        Rule(
            f"{_C}.file_system",
            "pathname",
            EPERM,
            "the path must be in a bpf file system (mount -t bpf)",
            "bpf_obj_do_pin",
            maybe,
        ),
        Rule(f"{_C}.path", "pathname", None, "the path must be a new one", "bpf_obj_do_pin", always),
    ],
)

_C = "obj_get"
GET = Table(
    Form(*_FORM),
    [
        *tail(_C, _ENDS),
        Rule(f"{_C}.bpf_fd", "bpf_fd", EINVAL, "bpf_fd must be 0", "bpf_obj_get", lambda a, c, k: a.bpf_fd != 0),
        Rule(
            f"{_C}.file_flags",
            "file_flags",
            EINVAL,
            "file_flags may have BPF_F_RDONLY or BPF_F_WRONLY, and since 6.5 BPF_F_PATH_FD",
            "bpf_obj_get",
            lambda a, c, k: bool(a.file_flags & ~(_RDONLY | _WRONLY | _path_flag(k))),
        ),
        _path_fd(_C),
        Rule(
            f"{_C}.access",
            "file_flags",
            EINVAL,
            "BPF_F_RDONLY and BPF_F_WRONLY exclude each other",
            "bpf_get_file_flag",
            lambda a, c, k: bool(a.file_flags & _RDONLY and a.file_flags & _WRONLY),
        ),
        Rule(f"{_C}.absent", "pathname", ENOENT, "there must be a file of this name", "bpf_obj_do_get", maybe),
        Rule(f"{_C}.path", "pathname", None, "the path must be that of a pinned object", "bpf_obj_do_get", always),
    ],
)

TABLES = {Cmd.OBJ_PIN: PIN, Cmd.OBJ_GET: GET}
