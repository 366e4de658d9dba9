"""A valid call for every command of bpf(2) and every variant: what changes are made to.

"Valid" is as of Linux 7.2, with the capabilities of root and objects that exist; an older kernel has its reasons to refuse it.
Each recipe makes its choices by a Source, the simplest first.
"""

from __future__ import annotations

from rawkm.fuzz.attr import Attr, Fd, Mem, Number, all_layouts
from rawkm.fuzz.objects import (
    ENTRIES,
    OBJECTS,
    TRACEPOINT,
    key,
    link_attr,
    names,
    perf_values,
    small_btf,
    strings,
    u64s,
)
from rawkm.uapi.constants import AttachType, MapFlag, MapType, MapUpdate, ProgFlag, StatsType, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rawkm.fuzz.attr import Value
    from rawkm.fuzz.source import Source

    Values = dict[str, Value]
    Recipe = Callable[[Source], Values]

# Bytes per possible CPU of per-CPU values: enough for every machine that is fuzzed.
_CPUS = 64

# type: (key, value, entries, flags)
_MAPS = {
    MapType.ARRAY: (4, 8, 4, (0, MapFlag.MMAPABLE, MapFlag.RDONLY_PROG, MapFlag.RDONLY)),
    MapType.HASH: (4, 8, 4, (0, MapFlag.NO_PREALLOC, MapFlag.ZERO_SEED, MapFlag.WRONLY)),
    MapType.PROG_ARRAY: (4, 4, 4, (0,)),
    MapType.PERF_EVENT_ARRAY: (4, 4, 4, (0, MapFlag.PRESERVE_ELEMS)),
    MapType.PERCPU_HASH: (4, 8, 4, (0, MapFlag.NO_PREALLOC)),
    MapType.PERCPU_ARRAY: (4, 8, 4, (0,)),
    MapType.STACK_TRACE: (4, 8, 4, (0, MapFlag.STACK_BUILD_ID)),
    MapType.CGROUP_ARRAY: (4, 4, 4, (0,)),
    MapType.LRU_HASH: (4, 8, 4, (0, MapFlag.NO_COMMON_LRU)),
    MapType.LRU_PERCPU_HASH: (4, 8, 4, (0,)),
    MapType.LPM_TRIE: (8, 8, 4, (MapFlag.NO_PREALLOC,)),
    MapType.DEVMAP: (4, 4, 4, (0,)),
    MapType.SOCKMAP: (4, 4, 4, (0,)),
    MapType.CPUMAP: (4, 4, 1, (0,)),
    MapType.XSKMAP: (4, 4, 4, (0,)),
    MapType.SOCKHASH: (4, 4, 4, (0,)),
    MapType.REUSEPORT_SOCKARRAY: (4, 4, 4, (0,)),
    MapType.QUEUE: (0, 8, 4, (0,)),
    MapType.STACK: (0, 8, 4, (0,)),
    MapType.DEVMAP_HASH: (4, 4, 4, (0,)),
    MapType.RINGBUF: (0, 0, 4096, (0,)),
    MapType.BLOOM_FILTER: (0, 8, 4, (0,)),
    MapType.USER_RINGBUF: (0, 0, 4096, (0,)),
    MapType.ARENA: (0, 0, 1, (MapFlag.MMAPABLE,)),
    MapType.INSN_ARRAY: (4, 16, 4, (0,)),
}


def _map_create(source: Source) -> Values:
    type = source.pick(list(_MAPS))
    key_size, value_size, entries, flags = _MAPS[type]
    values: Values = {
        "map_type": type,
        "key_size": key_size,
        "value_size": value_size,
        "max_entries": entries,
        "map_flags": source.pick(flags),
    }
    if source.one_in(3):
        values["map_name"] = b"fuzz.map_1"
    if source.one_in(12):
        values.update(map_type=MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=4, map_flags=0)
        values["inner_map_fd"] = Fd("map/array")
    return values


# The maps whose elements are 4 and 8 bytes and can be looked up, updated and deleted by key.
_KEYED = (
    "map/hash",
    "map/array",
    "map/lru_hash",
    "map/percpu_hash",
    "map/percpu_array",
    "map/mmapable",
    "map/lpm_trie",
    "map/frozen",
)
_ALL_MAPS = tuple(names("map"))


def _shape(name: str) -> tuple[int, int]:
    """(bytes of a key, bytes of the value's buffer) of a map of the pool."""
    made = OBJECTS[name].make.valid
    key_size, value_size = made["key_size"], made["value_size"]
    assert isinstance(key_size, int) and isinstance(value_size, int)
    return key_size, (value_size + 7) // 8 * 8 * _CPUS if "percpu" in name else value_size


def _elem(source: Source, maps: tuple[str, ...] = _KEYED) -> tuple[str, Values, int]:
    name = source.pick(_ALL_MAPS) if source.one_in(6) else source.pick(maps)
    key_size, value_size = _shape(name)
    values: Values = {"map_fd": Fd(name), "key": key(source.pick((1, 2, 0, 3, 4, 7)), key_size) if key_size else None}
    return name, values, value_size


def _map_lookup(source: Source) -> Values:
    _, values, size = _elem(source)
    return {**values, "value": Mem(bytes(size))}


def _map_update(source: Source) -> Values:
    _, values, size = _elem(source)
    return {
        **values,
        "value": Mem(bytes([1 + source.below(4)]) * size),
        "flags": source.pick((MapUpdate.ANY, MapUpdate.EXIST, MapUpdate.NOEXIST)),
    }


def _map_delete(source: Source) -> Values:
    return _elem(source)[1]


def _map_next_key(source: Source) -> Values:
    name, values, _ = _elem(source)
    values["next_key"] = Mem(bytes(_shape(name)[0]))
    if source.one_in(3):
        values["key"] = None
    return values


def _map_lookup_and_delete(source: Source) -> Values:
    _, values, size = _elem(source, ("map/hash", "map/queue", "map/stack", "map/lru_hash"))
    return {**values, "value": Mem(bytes(size))}


def _map_freeze(source: Source) -> Values:
    return {"map_fd": Fd(source.pick(("map/array", "map/hash", *_ALL_MAPS)))}


def _batch(source: Source, *, out: bool, values: bool = True, cursor: bool = False) -> Values:
    name = (
        source.pick(_ALL_MAPS) if source.one_in(6) else source.pick(("map/hash", "map/array", "map/lru_hash", "map/percpu_hash"))
    )
    key_size, value_size = _shape(name)
    n = source.between(1, ENTRIES)
    found: Values = {"batch.map_fd": Fd(name), "batch.count": n}
    found["batch.keys"] = Mem(bytes(key_size * n) if out else b"".join(key(i + 1, key_size).data for i in range(n)))
    if values:
        found["batch.values"] = Mem(bytes(value_size * n) if out else b"\1" * value_size * n)
    if cursor:
        found["batch.out_batch"] = Mem(bytes(max(key_size, 4)))
    return found


def _lookup_batch(source: Source) -> Values:
    return _batch(source, out=True, cursor=True)


def _update_batch(source: Source) -> Values:
    return _batch(source, out=False)


def _delete_batch(source: Source) -> Values:
    return _batch(source, out=False, values=False)


_PROGS = tuple(name for name in names("prog") if not name.endswith("sleepable"))


def _prog_load(source: Source) -> Values:
    values = dict(OBJECTS[source.pick(_PROGS)].make.valid)
    if source.one_in(3):
        values["prog_name"] = b"fuzz.prog_1"
    if source.one_in(4):
        values.update(log_level=source.pick((1, 2, 4)), log_size=4096, log_buf=Mem(bytes(4096)))
    if source.one_in(8):
        values["prog_flags"] = source.pick((ProgFlag.STRICT_ALIGNMENT, ProgFlag.ANY_ALIGNMENT, ProgFlag.TEST_RND_HI32))
    if source.one_in(8):
        values.update(fd_array=Mem(bytes(4), fds={0: Fd("map/array")}))
    return values


def _test_run(source: Source) -> Values:
    name = source.pick(("prog/socket_filter", "prog/xdp", "prog/sched_cls", "prog/raw_tracepoint", "prog/cgroup_skb", *_PROGS))
    values: Values = {"test.prog_fd": Fd(name)}
    if name == "prog/raw_tracepoint":
        if source.one_in(2):
            values.update({"test.ctx_in": Mem(bytes(16)), "test.ctx_size_in": 16})
        return values
    if name.rpartition("/")[2] in ("fentry", "fexit", "fentry_multi", "fexit_multi", "iter", "syscall", "kprobe"):
        return values
    values.update({"test.data_in": Mem(bytes(range(64))), "test.data_size_in": 64})
    if source.one_in(2):
        values.update({"test.data_out": Mem(bytes(128)), "test.data_size_out": 128})
    if source.one_in(3):
        values["test.repeat"] = source.pick((1, 2, 5))
    return values


def _raw_tracepoint_open(source: Source) -> Values:
    if source.one_in(4):
        return {"raw_tracepoint.prog_fd": Fd(source.pick(("prog/fentry", "prog/fexit")))}
    return {"raw_tracepoint.name": Mem(TRACEPOINT + b"\0"), "raw_tracepoint.prog_fd": Fd("prog/raw_tracepoint")}


def _btf_load(source: Source) -> Values:
    data = small_btf()
    values: Values = {"btf": Mem(data), "btf_size": len(data)}
    if source.one_in(3):
        values.update(btf_log_level=1, btf_log_size=4096, btf_log_buf=Mem(bytes(4096)))
    return values


def _pin(source: Source) -> Values:
    """In the pool's own file system, by a path through its directory's fd."""
    kinds = [*_ALL_MAPS[:4], "prog/socket_filter", "prog/kprobe_multi", "link/raw_tracepoint", "link/iter"]
    return {
        "pathname": Mem(b"fuzz_pin\0"),
        "bpf_fd": Fd(source.pick(kinds)),
        "file_flags": MapFlag.PATH_FD,
        "path_fd": Fd("file/bpffs"),
    }


def _get(source: Source) -> Values:
    return {
        "pathname": Mem(source.pick((b"fuzz_none\0", b".\0", b"fuzz_none/x\0"))),
        "file_flags": MapFlag.PATH_FD,
        "path_fd": Fd("file/bpffs"),
    }


def _next_id(source: Source) -> Values:
    return {"start_id": source.pick((0, 1, 2, 1 << 20, (1 << 31) - 2))}


def _by_id(kind: str, field: str) -> Recipe:
    objects = tuple(name for name in names(kind) if not name.endswith(("multi", "session")))

    def recipe(source: Source) -> Values:
        return {field: Number(f"{kind}_id:{source.pick(objects)}")}

    return recipe


_INFO_SIZES = {"map": 96, "prog": 232, "link": 64, "btf": 32}


def _info(source: Source) -> Values:
    kind = source.pick(("map", "prog", "link", "btf"))
    size = source.pick((_INFO_SIZES[kind], 16, 8, 4, 0, 256))
    return {"info.bpf_fd": Fd(source.pick(names(kind))), "info.info_len": size, "info.info": Mem(bytes(size))}


def _task_fd_query(source: Source) -> Values:
    return {
        "task_fd_query.pid": Number("pid:self"),
        "task_fd_query.fd": Fd(source.pick(("link/raw_tracepoint", "perf/software", "map/array"))),
        "task_fd_query.buf_len": 64,
        "task_fd_query.buf": Mem(bytes(64)),
    }


def _attach(source: Source) -> Values:
    """Nothing that could be attached to: the checks before that."""
    return {
        "target_fd": Fd(source.pick(("file/directory", "file/null", "file/closed"))),
        "attach_bpf_fd": Fd("prog/cgroup_skb"),
        "attach_type": source.pick((AttachType.CGROUP_INET_INGRESS, AttachType.CGROUP_INET_EGRESS)),
    }


def _query(source: Source) -> Values:
    return {
        "query.target_fd": Fd(source.pick(("file/directory", "file/null", "file/closed"))),
        "query.attach_type": source.pick((AttachType.CGROUP_INET_INGRESS, AttachType.CGROUP_INET_EGRESS)),
        "query.prog_ids": Mem(bytes(16)),
        "query.prog_cnt": 4,
    }


def _kprobe_multi(source: Source) -> Values:
    prog, attach_type = source.pick(
        (("prog/kprobe_multi", AttachType.TRACE_KPROBE_MULTI), ("prog/kprobe_session", AttachType.TRACE_KPROBE_SESSION))
    )
    n = source.between(1, 3)
    functions = [f"bpf_fentry_test{i + 1}" for i in range(n)]
    values: Values = {"cnt": n}
    if source.one_in(3):
        values["addrs"] = Mem(bytes(8 * n), fds={8 * i: Number(f"address:{name}", 8) for i, name in enumerate(functions)})
    else:
        values["syms"] = strings(*(name.encode() for name in functions))
    if source.one_in(2):
        values["cookies"] = u64s(*range(1, n + 1))
    if source.one_in(4):
        values["flags"] = 1
    return dict(link_attr("kprobe_multi", prog, attach_type, **values).valid)


def _link(variant: str, prog: str, attach_type: int, **more: Value) -> Recipe:
    def recipe(source: Source) -> Values:  # noqa: ARG001 (every recipe has the same form)
        return dict(link_attr(variant, prog, attach_type, **more).valid)

    return recipe


def _tracing(source: Source) -> Values:
    name = source.pick(("FENTRY", "FEXIT"))
    more: Values = {"cookie": 7} if source.one_in(2) else {}
    return dict(link_attr("tracing", f"prog/{name.lower()}", getattr(AttachType, f"TRACE_{name}"), **more).valid)


def _tracing_multi(source: Source) -> Values:
    name = source.pick(("FENTRY", "FEXIT"))
    n = source.between(1, 3)
    ids = Mem(bytes(4 * n), fds={4 * i: Number(f"btf_id:bpf_fentry_test{i + 1}") for i in range(n)})
    more: Values = {"ids": ids, "cnt": n}
    if source.one_in(2):
        more["cookies"] = u64s(*range(1, n + 1))
    attach_type = getattr(AttachType, f"TRACE_{name}_MULTI")
    return dict(link_attr("tracing_multi", f"prog/{name.lower()}_multi", attach_type, **more).valid)


def _perf_event(source: Source) -> Values:
    values = perf_values()
    if source.one_in(2):
        values["link_create.perf_event.bpf_cookie"] = 7
    return values


def _iter(source: Source) -> Values:  # noqa: ARG001
    return dict(link_attr("iter", "prog/iter", AttachType.TRACE_ITER).valid)


def _ordered(variant: str, prog: str, attach_type: int) -> Recipe:
    # No interface has this number, and no cgroup is behind that fd.
    target: Value = Fd("file/directory") if variant == "cgroup" else 1 << 30

    def recipe(source: Source) -> Values:  # noqa: ARG001
        return {**link_attr(variant, prog, attach_type).valid, "link_create.target_fd": target}

    return recipe


def _uprobe_multi(source: Source) -> Values:  # noqa: ARG001
    """No file is probed: the path is no regular file."""
    return dict(
        link_attr("uprobe_multi", "prog/kprobe", AttachType.TRACE_UPROBE_MULTI, path=Mem(b"/\0"), offsets=u64s(1), cnt=1).valid
    )


def _link_update(source: Source) -> Values:
    return {
        "link_update.link_fd": Fd(source.pick(names("link"))),
        "link_update.new_prog_fd": Fd(source.pick(("prog/raw_tracepoint", "prog/iter", "prog/kprobe_multi", "prog/xdp"))),
    }


RECIPES: dict[str, Recipe] = {
    "map_create": _map_create,
    "map_lookup_elem": _map_lookup,
    "map_update_elem": _map_update,
    "map_delete_elem": _map_delete,
    "map_get_next_key": _map_next_key,
    "map_lookup_and_delete_elem": _map_lookup_and_delete,
    "map_freeze": _map_freeze,
    "map_lookup_batch": _lookup_batch,
    "map_lookup_and_delete_batch": _lookup_batch,
    "map_update_batch": _update_batch,
    "map_delete_batch": _delete_batch,
    "prog_load": _prog_load,
    "prog_test_run": _test_run,
    "raw_tracepoint_open": _raw_tracepoint_open,
    "btf_load": _btf_load,
    "prog_bind_map": lambda source: {
        "prog_bind_map.prog_fd": Fd(source.pick(_PROGS)),
        "prog_bind_map.map_fd": Fd(source.pick(_ALL_MAPS)),
    },
    "prog_stream_read_by_fd": lambda source: {
        "prog_stream_read.stream_buf": Mem(bytes(64)),
        "prog_stream_read.stream_buf_len": 64,
        "prog_stream_read.stream_id": source.pick((Stream.STDOUT, Stream.STDERR)),
        "prog_stream_read.prog_fd": Fd(source.pick(_PROGS)),
    },
    "prog_assoc_struct_ops": lambda source: {
        "prog_assoc_struct_ops.map_fd": Fd(source.pick(_ALL_MAPS)),
        "prog_assoc_struct_ops.prog_fd": Fd(source.pick(_PROGS)),
    },
    "obj_pin": _pin,
    "obj_get": _get,
    "prog_get_next_id": _next_id,
    "map_get_next_id": _next_id,
    "btf_get_next_id": _next_id,
    "link_get_next_id": _next_id,
    "prog_get_fd_by_id": _by_id("prog", "prog_id"),
    "map_get_fd_by_id": _by_id("map", "map_id"),
    "btf_get_fd_by_id": _by_id("btf", "btf_id"),
    "link_get_fd_by_id": _by_id("link", "link_id"),
    "obj_get_info_by_fd": _info,
    "enable_stats": lambda source: {"enable_stats.type": source.pick((StatsType.RUN_TIME,))},
    "task_fd_query": _task_fd_query,
    "token_create": lambda source: {"token_create.bpffs_fd": Fd(source.pick(("file/bpffs",)))},
    "prog_attach": _attach,
    "prog_detach": _attach,
    "prog_query": _query,
    "link_create": _link("", "prog/xdp", AttachType.XDP, target_btf_id=0),
    "link_create.perf_event": _perf_event,
    "link_create.kprobe_multi": _kprobe_multi,
    "link_create.tracing": _tracing,
    "link_create.iter": _iter,
    "link_create.netfilter": _link("netfilter", "prog/kprobe", AttachType.NETFILTER, pf=2),
    "link_create.tcx": _ordered("tcx", "prog/sched_cls", AttachType.TCX_INGRESS),
    "link_create.uprobe_multi": _uprobe_multi,
    "link_create.netkit": _ordered("netkit", "prog/sched_cls", AttachType.NETKIT_PRIMARY),
    "link_create.cgroup": _ordered("cgroup", "prog/cgroup_skb", AttachType.CGROUP_INET_INGRESS),
    "link_create.tracing_multi": _tracing_multi,
    "link_update": _link_update,
    "link_detach": lambda source: {"link_detach.link_fd": Fd(source.pick(names("link")))},
    "iter_create": lambda source: {"iter_create.link_fd": Fd(source.pick(("link/iter", "link/raw_tracepoint")))},
}

_missing = {layout.name for layout in all_layouts()} - RECIPES.keys()
assert not _missing, f"no valid call is known for {_missing}"


def valid(name: str, source: Source) -> Attr:
    """A valid call of the layout with this name."""
    from rawkm.uapi import layouts

    return Attr(layouts.named(name), RECIPES[name](source))
