"""python3 -m tests.witnesses.refuse KIND…: makes calls of bpf(2) that the kernel refuses, for `rawkm why` to explain.

It prints what the kernel said, one errno a line.
"""

from __future__ import annotations

import resource
import struct
import sys
from collections.abc import Callable

from rawkm.uapi.constants import AttachType, MapType, ProgType

from .world import OBJECTS, RETURN_0, Question, World

_NAMES = (b"bpf_fentry_test1", b"bpf_fentry_test2", b"no_such_function", b"bpf_fentry_test3")
OBJECTS["tcx"] = lambda w: w.prog(ProgType.KPROBE, AttachType.TCX_EGRESS)
OBJECTS["lonely"] = lambda w: w.map(MapType.ARRAY)


def _load(w: World, type: int = ProgType.SOCKET_FILTER, insns: bytes = RETURN_0, **more: int) -> Question:
    return w.load(type, insns=insns, **more)


def _multi(w: World, prog: str = "multi", link_flags: int = 0, **fields: int) -> Question:
    values: dict[str, int | bytes | str] = {
        "link_create.prog_fd": prog,
        "link_create.attach_type": AttachType.TRACE_KPROBE_MULTI,
        "link_create.flags": link_flags,
    }
    given = {"syms": w.strings(_NAMES[0]), "cnt": 1, **fields}
    return w.call("LINK_CREATE", {**values, **{f"kprobe_multi.{name}": value for name, value in given.items()}})


KINDS: dict[str, Callable[[World], Question]] = {
    "attach_type": lambda w: _multi(w, "tcx"),
    "symbol": lambda w: _multi(w, syms=w.strings(*_NAMES), cnt=4),
    "symbols": lambda w: _multi(w, syms=w.strings(_NAMES[0], b"", *_NAMES[1:]), cnt=5),
    "twice": lambda w: _multi(w, syms=w.strings(*_NAMES[:2], *_NAMES[:2]), cnt=4),
    "address": lambda w: _multi(w, syms=0, addrs=w.u64(0x1234, 0x5678), cnt=2),
    "both": lambda w: _multi(w, addrs=w.u64(1)),
    "cnt": lambda w: _multi(w, cnt=0),
    "beyond": lambda w: w.call("MAP_LOOKUP_ELEM", map_fd="array", key=w.u32(0), value=w.room(), size=512, at={500: 7}),
    "inside": lambda w: w.call("MAP_LOOKUP_ELEM", map_fd="array", key=w.u32(0), value=w.room(), size=64, at={40: 7}),
    "closed": lambda w: w.call("MAP_LOOKUP_ELEM", map_fd=777, key=w.u32(0), value=w.room()),
    "kind": lambda w: w.call("MAP_LOOKUP_ELEM", map_fd="socket_filter", key=w.u32(0), value=w.room()),
    "key_size": lambda w: w.call("MAP_CREATE", map_type=MapType.HASH, value_size=8, max_entries=1),
    "log": lambda w: _load(w, log_buf=w.room(), log_size=256),
    "map_flags": lambda w: w.call(
        "MAP_CREATE", map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=1, map_flags=1 << 30 | 1 << 10
    ),
    "info_len": lambda w: w.call(
        "OBJ_GET_INFO_BY_FD", {"info.bpf_fd": "array", "info.info_len": 300, "info.info": w.data(bytes(290) + b"\5" * 10)}
    ),
    "prog_flags": lambda w: _load(w, flags=1 << 30),
    "link_flags": lambda w: _multi(w, link_flags=8),
    "index": lambda w: w.call("MAP_UPDATE_ELEM", map_fd="array", key=w.u32(9), value=w.room()),
    "verifier": lambda w: _load(w, insns=RETURN_0[8:]),
    "capable": lambda w: _load(w, ProgType.KPROBE),
    "frozen": lambda w: w.call("MAP_UPDATE_ELEM", map_fd="frozen", key=w.u32(0), value=w.room()),
    "two": lambda w: w.call("MAP_CREATE", map_type=MapType.HASH, max_entries=1),
    "memlock": lambda w: w.call("MAP_CREATE", map_type=MapType.ARRAY, key_size=4, value_size=8, max_entries=100_000),
    "in_use": lambda w: w.call("MAP_LOOKUP_ELEM", map_fd="lonely", key=0x10, value=w.room()),
}


def main(kinds: list[str]) -> None:
    with World(links=False) as world:
        if "memlock" in kinds:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
        for kind in kinds:
            print(kind, world.ask(KINDS[kind](world)), flush=True)


if __name__ == "__main__":
    assert struct.calcsize("P") == 8
    main(sys.argv[1:])
