"""What is in the kernel already: programs, maps, links and BTF by id, whoever made them.

Ids and fds by id take CAP_SYS_ADMIN (Linux 4.13; links 5.8).
"""

from __future__ import annotations

from errno import ENOENT

from rawkm.errors import RawkmError, SyscallError
from rawkm.handle import Handle
from rawkm.uapi import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rawkm.btf import Btf
    from rawkm.syscall.kernel import Kernel
    from rawkm.uapi.layout import Layout

# kind: (GET_NEXT_ID, GET_FD_BY_ID, the id's field)
_KINDS: dict[str, tuple[Layout, Layout, str]] = {
    "prog": (packed.PROG_GET_NEXT_ID, packed.PROG_GET_FD_BY_ID, "prog_id"),
    "map": (packed.MAP_GET_NEXT_ID, packed.MAP_GET_FD_BY_ID, "map_id"),
    "link": (packed.LINK_GET_NEXT_ID, packed.LINK_GET_FD_BY_ID, "link_id"),
    "btf": (packed.BTF_GET_NEXT_ID, packed.BTF_GET_FD_BY_ID, "btf_id"),
}


def ids(kernel: Kernel, kind: str) -> Iterator[int]:
    """The ids of all objects of ``kind`` ("prog", "map", "link", "btf"), ascending."""
    next_id = _KINDS[kind][0]
    id = 0
    while True:
        try:
            id = kernel.bpf(next_id, {"start_id": id})["next_id"]
        except SyscallError as err:
            if err.errno == ENOENT:
                return
            raise
        yield id


def by_id(kernel: Kernel, kind: str, id: int) -> Handle:
    """A handle on the object. Raises RawkmError when there is none."""
    _, fd_by_id, field = _KINDS[kind]
    try:
        return Handle(kernel, kernel.bpf(fd_by_id, {field: id}).ret)
    except SyscallError as err:
        if err.errno == ENOENT:
            raise RawkmError(f"there is no {kind} with the id {id}") from None
        raise


class LoadedProgram:
    """A program as the kernel keeps it. ``xlated``: its instructions after the verifier's rewriting, b"" where they are hidden.

    ``map_ids``: the maps that it uses. ``functions``: (slot, name) of its subprograms, where it was loaded with BTF.
    """

    __slots__ = ("functions", "id", "map_ids", "name", "type", "xlated")

    def __init__(self, kernel: Kernel, id: int) -> None:
        with by_id(kernel, "prog", id) as prog:
            sizes, _ = kernel.obj_info(prog.fd, packed.PROG_INFO)
            code = bytearray(_int(sizes["xlated_prog_len"]))
            maps = bytearray(4 * _int(sizes["nr_map_ids"]))
            record = _int(sizes["func_info_rec_size"])
            functions = bytearray(record * _int(sizes["nr_func_info"]))
            info, _ = kernel.obj_info(
                prog.fd,
                packed.PROG_INFO,
                {
                    "xlated_prog_len": len(code),
                    "xlated_prog_insns": code,
                    "nr_map_ids": len(maps) // 4,
                    "map_ids": maps,
                    "func_info_rec_size": record,
                    "nr_func_info": sizes["nr_func_info"],
                    "func_info": functions,
                },
            )
        self.id = id
        self.type = _int(info["type"])
        self.name = _text(info["name"])
        # kernel.bpf_stats and dump rights: bpf_dump_raw_ok() hides them from readers without CAP_PERFMON.
        self.xlated = bytes(code) if _int(info["xlated_prog_insns"]) else b""
        self.map_ids: list[int] = memoryview(maps).cast("I").tolist()
        self.functions: list[tuple[int, str]] = []
        if functions and _int(info["func_info"]):
            types = btf(kernel, _int(info["btf_id"]))
            # struct bpf_func_info: u32 insn_off, u32 type_id.
            for at in range(0, len(functions), record):
                slot, type = memoryview(functions)[at : at + 8].cast("I")
                self.functions.append((slot, types.type(type).name))


def btf(kernel: Kernel, id: int) -> Btf:
    """The types of the BTF object ``id``. Raises BTFError for one that goes on behind another's."""
    from rawkm.btf import Btf

    with by_id(kernel, "btf", id) as handle:
        size = _int(kernel.obj_info(handle.fd, packed.BTF_INFO)[0]["btf_size"])
        data = bytearray(size)
        kernel.obj_info(handle.fd, packed.BTF_INFO, {"btf": data, "btf_size": size})
    return Btf(data)


def map_name(kernel: Kernel, id: int) -> str:
    """The name of a map, "" when it has none."""
    with by_id(kernel, "map", id) as m:
        return _text(kernel.obj_info(m.fd, packed.MAP_INFO)[0]["name"])


def _int(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _text(value: int | bytes) -> str:
    assert isinstance(value, bytes)
    return value.partition(b"\0")[0].decode("ascii", "backslashreplace")
