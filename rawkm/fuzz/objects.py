"""The objects whose fds calls are made of, by name: each is itself a call, so that a failure can tell how to get there.

All are small, attach to nothing but the kernel's own test functions, and go with their fds.
"""

from __future__ import annotations

import struct

from rawkm.fuzz.attr import Attr, Fd, Mem, Number, layout_of
from rawkm.rules.model import Obj
from rawkm.uapi.constants import AttachType, LinkType, MapFlag, MapType, ProgFlag, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rawkm.fuzz.attr import Value

#: r0 = 0; exit
RETURN_0 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
#: A function that the kernel has for tests, and that nobody calls but BPF_PROG_TEST_RUN (net/bpf/test_run.c, Linux 5.5).
TEST_FUNCTION = "bpf_fentry_test1"
#: A tracepoint that is seldom hit.
TRACEPOINT = b"task_rename"
KEY, VALUE, ENTRIES = 4, 8, 4


class Object:
    """``make``: the call whose result is the fd; ``after``: calls that fill it. None of the two where it is no BPF object."""

    __slots__ = ("after", "make")

    def __init__(self, make: Attr, after: tuple[Attr, ...] = ()) -> None:
        self.make = make
        self.after = after


def map_attr(type: int, *, key: int = KEY, value: int = VALUE, entries: int = ENTRIES, flags: int = 0, **more: Value) -> Attr:
    values: dict[str, Value] = {
        "map_type": type,
        "key_size": key,
        "value_size": value,
        "max_entries": entries,
        "map_flags": flags,
    }
    return Attr(layout_of("MAP_CREATE"), {**values, **more})


def prog_attr(type: int, *, insns: bytes = RETURN_0, license: bytes = b"GPL\0", **more: Value) -> Attr:
    values: dict[str, Value] = {
        "prog_type": type,
        "insn_cnt": len(insns) // 8,
        "insns": Mem(insns),
        "license": Mem(license),
    }
    return Attr(layout_of("PROG_LOAD"), {**values, **more})


def link_attr(variant: str, prog: str, attach_type: int, **more: Value) -> Attr:
    values: dict[str, Value] = {"link_create.prog_fd": Fd(prog), "link_create.attach_type": attach_type}
    prefix = f"link_create.{variant}." if variant else "link_create."
    return Attr(layout_of("LINK_CREATE", variant), {**values, **{prefix + name: value for name, value in more.items()}})


def strings(*names: bytes) -> Mem:
    """An array of pointers to NUL-terminated strings."""
    return Mem(bytes(8 * len(names)), {8 * i: Mem(name + b"\0") for i, name in enumerate(names)})


def u64s(*values: int) -> Mem:
    return Mem(struct.pack(f"={len(values)}Q", *values))


def u32s(*values: int) -> Mem:
    return Mem(struct.pack(f"={len(values)}I", *values))


def key(n: int, size: int = KEY) -> Mem:
    return Mem(struct.pack("=I", n).ljust(size, b"\0")[:size])


def small_btf() -> bytes:
    """One int, and a struct of two."""
    from rawkm.btf.build import Builder

    builder = Builder()
    number = builder.integer("int", 4, signed=True)
    builder.array(number, number, 2)
    return builder.build()


def _fill(name: str, *, key_size: int = KEY, value_size: int = VALUE, keys: tuple[int, ...] = (1, 2)) -> tuple[Attr, ...]:
    layout = layout_of("MAP_UPDATE_ELEM")
    return tuple(
        Attr(layout, {"map_fd": Fd(name), "key": key(n, key_size) if key_size else None, "value": Mem(bytes([n]) * value_size)})
        for n in keys
    )


def _catalogue() -> dict[str, Object]:
    found: dict[str, Object] = {}

    def maps(name: str, attr: Attr, *after: Attr) -> None:
        found[f"map/{name}"] = Object(attr, after)

    # Values of per-CPU maps are one per possible CPU: filling them would need their number.
    maps("array", map_attr(MapType.ARRAY), *_fill("map/array"))
    maps("hash", map_attr(MapType.HASH), *_fill("map/hash"))
    maps("lru_hash", map_attr(MapType.LRU_HASH), *_fill("map/lru_hash"))
    maps("percpu_array", map_attr(MapType.PERCPU_ARRAY))
    maps("percpu_hash", map_attr(MapType.PERCPU_HASH))
    maps("lpm_trie", map_attr(MapType.LPM_TRIE, key=8, flags=MapFlag.NO_PREALLOC), *_fill("map/lpm_trie", key_size=8))
    maps("queue", map_attr(MapType.QUEUE, key=0), *_fill("map/queue", key_size=0))
    maps("stack", map_attr(MapType.STACK, key=0), *_fill("map/stack", key_size=0))
    maps("bloom", map_attr(MapType.BLOOM_FILTER, key=0))
    maps("ringbuf", map_attr(MapType.RINGBUF, key=0, value=0, entries=4096))
    maps("prog_array", map_attr(MapType.PROG_ARRAY, value=4))
    maps("perf_event_array", map_attr(MapType.PERF_EVENT_ARRAY, value=4))
    maps("stack_trace", map_attr(MapType.STACK_TRACE, value=8))
    maps("array_of_maps", map_attr(MapType.ARRAY_OF_MAPS, value=4, inner_map_fd=Fd("map/array")))
    maps("hash_of_maps", map_attr(MapType.HASH_OF_MAPS, value=4, inner_map_fd=Fd("map/array")))
    maps("rdonly", map_attr(MapType.HASH, flags=MapFlag.RDONLY))
    maps("wronly", map_attr(MapType.HASH, flags=MapFlag.WRONLY))
    maps("mmapable", map_attr(MapType.ARRAY, flags=MapFlag.MMAPABLE))
    freeze = Attr(layout_of("MAP_FREEZE"), {"map_fd": Fd("map/frozen")})
    maps("frozen", map_attr(MapType.ARRAY), freeze)

    def prog(name: str, attr: Attr) -> None:
        found[f"prog/{name}"] = Object(attr)

    prog("socket_filter", prog_attr(ProgType.SOCKET_FILTER))
    prog("kprobe", prog_attr(ProgType.KPROBE))
    prog("kprobe_multi", prog_attr(ProgType.KPROBE, expected_attach_type=AttachType.TRACE_KPROBE_MULTI))
    prog("kprobe_session", prog_attr(ProgType.KPROBE, expected_attach_type=AttachType.TRACE_KPROBE_SESSION))
    sleepable = prog_attr(ProgType.KPROBE, expected_attach_type=AttachType.TRACE_KPROBE_MULTI, prog_flags=ProgFlag.SLEEPABLE)
    prog("kprobe_multi_sleepable", sleepable)
    prog("tracepoint", prog_attr(ProgType.TRACEPOINT))
    prog("raw_tracepoint", prog_attr(ProgType.RAW_TRACEPOINT))
    prog("perf_event", prog_attr(ProgType.PERF_EVENT))
    prog("xdp", prog_attr(ProgType.XDP))
    prog("sched_cls", prog_attr(ProgType.SCHED_CLS))
    prog("cgroup_skb", prog_attr(ProgType.CGROUP_SKB, expected_attach_type=AttachType.CGROUP_INET_INGRESS))
    prog("syscall", prog_attr(ProgType.SYSCALL, prog_flags=ProgFlag.SLEEPABLE))
    test = Number(f"btf_id:{TEST_FUNCTION}")
    for name in ("FENTRY", "FEXIT"):
        attach_type = getattr(AttachType, f"TRACE_{name}")
        prog(name.lower(), prog_attr(ProgType.TRACING, expected_attach_type=attach_type, attach_btf_id=test))
        multi = getattr(AttachType, f"TRACE_{name}_MULTI")
        prog(f"{name.lower()}_multi", prog_attr(ProgType.TRACING, expected_attach_type=multi))
    iterator = Number("btf_id:bpf_iter_bpf_map")
    prog("iter", prog_attr(ProgType.TRACING, expected_attach_type=AttachType.TRACE_ITER, attach_btf_id=iterator))

    def link(name: str, attr: Attr) -> None:
        found[f"link/{name}"] = Object(attr)

    link("kprobe_multi", link_attr("kprobe_multi", "prog/kprobe_multi", AttachType.TRACE_KPROBE_MULTI, **test_symbols()))
    opened: dict[str, Value] = {
        "raw_tracepoint.name": Mem(TRACEPOINT + b"\0"),
        "raw_tracepoint.prog_fd": Fd("prog/raw_tracepoint"),
    }
    link("raw_tracepoint", Attr(layout_of("RAW_TRACEPOINT_OPEN"), opened))
    link("tracing", Attr(layout_of("RAW_TRACEPOINT_OPEN"), {"raw_tracepoint.prog_fd": Fd("prog/fentry")}))
    link("iter", link_attr("iter", "prog/iter", AttachType.TRACE_ITER))
    link("perf_event", Attr(layout_of("LINK_CREATE", "perf_event"), perf_values()))
    data = small_btf()
    found["btf/small"] = Object(Attr(layout_of("BTF_LOAD"), {"btf": Mem(data), "btf_size": len(data)}))
    return found


def test_symbols() -> dict[str, Value]:
    """Of kprobe_multi: one function, by name."""
    return {"cnt": 1, "syms": strings(TEST_FUNCTION.encode())}


def perf_values() -> dict[str, Value]:
    return {
        "link_create.prog_fd": Fd("prog/perf_event"),
        "link_create.target_fd": Fd("perf/software"),
        "link_create.attach_type": AttachType.PERF_EVENT,
    }


OBJECTS = _catalogue()

#: What is no BPF object; the pool opens it.
FILES = ("file/null", "file/pipe", "file/directory", "file/bpffs", "perf/software")
#: A number that is no fd.
CLOSED = "file/closed"


def names(kind: str) -> list[str]:
    """The names of all objects of a kind: "map", "prog", "link", "btf", "file", "perf"."""
    return [name for name in (*OBJECTS, *FILES) if name.startswith(f"{kind}/")]


_FILE_KINDS = {"file/directory": "dir", "file/bpffs": "bpffs", "perf/software": "perf_event"}
_LINK_TYPES = {
    "kprobe_multi": LinkType.KPROBE_MULTI,
    "raw_tracepoint": LinkType.RAW_TRACEPOINT,
    "tracing": LinkType.TRACING,
    "iter": LinkType.ITER,
    "perf_event": LinkType.PERF_EVENT,
}


def model_of(name: str, number: Callable[[str], int]) -> Obj:
    """What the model has to know of an object. ``number``: the pool's."""
    kind, _, which = name.partition("/")
    if name not in OBJECTS:
        return Obj(_FILE_KINDS.get(name, "file"))

    def of(path: str) -> int:
        value = OBJECTS[name].make.valid.get(path, 0)
        return number(value.name) if isinstance(value, Fd) else value if isinstance(value, int) else 0

    if kind == "map":
        flags = of("map_flags")
        return Obj(
            "map",
            of("map_type"),
            key_size=of("key_size"),
            value_size=of("value_size"),
            max_entries=of("max_entries"),
            flags=flags,
            frozen=which == "frozen",
            readable=not flags & MapFlag.WRONLY,
            writable=not flags & MapFlag.RDONLY,
        )
    if kind == "prog":
        return Obj(
            "prog",
            of("prog_type"),
            attach_type=of("expected_attach_type"),
            attach_btf_id=of("attach_btf_id"),
            sleepable=bool(of("prog_flags") & ProgFlag.SLEEPABLE),
        )
    return Obj("link", _LINK_TYPES[which]) if kind == "link" else Obj(kind)
