"""The calls, by the name of the rule that they break."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import Any

from rawkm.rules import Rule
from rawkm.uapi.constants import AttachType, Cmd, MapFlag, MapType, ProgFlag, ProgType

from .world import ALL_CAPS, BAD, PAGE, RETURN_0, Question, World

Witness = Callable[[World], Question]
CLOSED = 999
BPF, PERFMON, NET_ADMIN, SYS_ADMIN = 1 << 39, 1 << 38, 1 << 12, 1 << 21
G = 1 << 30

CALLS: dict[str, Witness] = {}
#: (rule, errno) → a call that gets this one of the rule's answers, where it has several.
MORE: dict[tuple[str, int], Witness] = {}


def witness(name: str, make: Witness) -> None:
    assert name not in CALLS, name
    CALLS[name] = make


def call(rule: str, command: str | int, fields: dict[str, Any] | None = None, /, **more: Any) -> None:
    """Fields may be functions of the world: what makes memory."""
    how = {key: more.pop(key) for key in ("size", "at", "memory", "caps", "unprivileged", "memlock") if key in more}

    def make(w: World) -> Question:
        values = {key: value(w) if callable(value) else value for key, value in {**(fields or {}), **more}.items()}
        given = {key: value(w) if callable(value) else value for key, value in how.items()}
        return w.call(command, values, **given)

    witness(rule, make)


def room(w: World) -> int:
    return w.room()


def key(n: int) -> Callable[[World], int]:
    return lambda w: w.u32(n, 0)


def _own_pid(w: World) -> int:
    return os.getpid()


def read_only(w: World) -> int:
    return w.read_only


# -- every command -------------------------------------------------------------------------------------------------------

call("bpf_gate", "MAP_LOOKUP_ELEM", map_fd="array", caps=0)
call("attr_size", "MAP_FREEZE", size=PAGE + 1)
call("attr_tail", "MAP_FREEZE", size=4096, at={4000: 1})
call("attr_tail_memory", "MAP_FREEZE", memory=False, size=512)
call("attr_memory", "MAP_FREEZE", memory=False, size=8)
call("command", 99)

# -- MAP_CREATE ----------------------------------------------------------------------------------------------------------


def create(
    rule: str, type: int, key_size: int = 4, value_size: int = 8, max_entries: int = 4, map_flags: int = 0, **more: Any
) -> None:
    sizes = {"key_size": key_size, "value_size": value_size, "max_entries": max_entries}
    call(f"map_create.{rule}", "MAP_CREATE", map_type=type, map_flags=map_flags, **sizes, **more)


M, F = MapType, MapFlag
BOTH_PROG = F.RDONLY_PROG | F.WRONLY_PROG
BOTH = F.RDONLY | F.WRONLY
ODD = 1 << 30

create("gate_early", M.ARRAY, caps=0)
create("gate", M.ARRAY, caps=0)
create("vmlinux_type", M.ARRAY, btf_vmlinux_value_type_id=1)
create("vmlinux_alone", M.STRUCT_OPS, btf_vmlinux_value_type_id=1, btf_value_type_id=1)
create("btf_value", M.ARRAY, btf_key_type_id=1)
create("map_extra", M.ARRAY, map_extra=1)
create("fd_access", M.ARRAY, map_flags=BOTH)
create("fd_access_late", M.ARRAY, map_flags=BOTH)
create("numa_node", M.ARRAY, map_flags=F.NUMA_NODE, numa_node=4000)
create("map_type", 99)
for kind, type, value in (("array", M.ARRAY, 8), ("fd", M.PERF_EVENT_ARRAY, 4)):
    create(f"{kind}_max_entries", type, value_size=value, max_entries=0)
    create(f"{kind}_key_size", type, 3, value)
    create(f"{kind}_flags", type, value_size=value, map_flags=ODD)
create("array_value_size", M.ARRAY, value_size=0)
create("array_prog_access", M.ARRAY, map_flags=BOTH_PROG)
create("array_numa", M.PERCPU_ARRAY, map_flags=F.NUMA_NODE)
create("array_mmapable", M.PERCPU_ARRAY, map_flags=F.MMAPABLE)
create("array_preserve", M.ARRAY, map_flags=F.PRESERVE_ELEMS)
create("array_value_large", M.ARRAY, value_size=1 << 31)
create("fd_value_size", M.PROG_ARRAY)
create("fd_prog_access", M.PROG_ARRAY, value_size=4, map_flags=F.RDONLY_PROG)
create("fd_mmapable", M.PROG_ARRAY, value_size=4, map_flags=F.MMAPABLE)
create("fd_preserve", M.PROG_ARRAY, value_size=4, map_flags=F.PRESERVE_ELEMS)
create("lru_capable", M.LRU_HASH, caps=0, unprivileged=0)
create("zero_seed", M.HASH, map_flags=F.ZERO_SEED, caps=BPF)
create("hash_flags", M.HASH, map_flags=ODD)
create("hash_prog_access", M.HASH, map_flags=BOTH_PROG)
create("common_lru", M.HASH, map_flags=F.NO_COMMON_LRU)
create("lru_prealloc", M.LRU_HASH, map_flags=F.NO_PREALLOC)
create("hash_numa", M.PERCPU_HASH, map_flags=F.NUMA_NODE)
create("hash_max_entries", M.HASH, max_entries=0)
create("hash_key_size", M.HASH, 0)
create("hash_value_size", M.HASH, value_size=0)
create("hash_key_large", M.HASH, 513)
create("hash_large", M.HASH, value_size=G)
create("queue_capable", M.QUEUE, 0, caps=0, unprivileged=0)
create("queue_max_entries", M.QUEUE, 0, max_entries=0)
create("queue_key_size", M.QUEUE)
create("queue_value_size", M.QUEUE, 0, 0)
create("queue_flags", M.QUEUE, 0, map_flags=ODD)
create("queue_prog_access", M.QUEUE, 0, map_flags=BOTH_PROG)
create("queue_large", M.QUEUE, 0, G)
create("bloom_large", M.BLOOM_FILTER, 0, G)
create("offload_capable", M.ARRAY, map_ifindex=1, caps=BPF)
create("offload", M.ARRAY, map_ifindex=1)
create("map_token_fd_open", M.ARRAY, map_flags=F.TOKEN_FD, map_token_fd=CLOSED)
create("map_token_fd_kind", M.ARRAY, map_flags=F.TOKEN_FD, map_token_fd="file")
create("central_capable", M.LPM_TRIE, 8, map_flags=F.NO_PREALLOC, caps=0, unprivileged=0)
create("ringbuf_flags", M.RINGBUF, 0, 0, PAGE, map_flags=F.MMAPABLE)
create("user_ringbuf_overwrite", M.USER_RINGBUF, 0, 0, PAGE, map_flags=F.RB_OVERWRITE)
create("ringbuf_sizes", M.RINGBUF, 4, 0, PAGE)
create("ringbuf_size", M.RINGBUF, 0, 0, PAGE - 1)
create("lpm_capable", M.LPM_TRIE, 8, map_flags=F.NO_PREALLOC, caps=0, unprivileged=0)
create("lpm_max_entries", M.LPM_TRIE, 8, max_entries=0, map_flags=F.NO_PREALLOC)
create("lpm_prealloc", M.LPM_TRIE, 8)
create("lpm_flags", M.LPM_TRIE, 8, map_flags=F.NO_PREALLOC | ODD)
create("lpm_prog_access", M.LPM_TRIE, 8, map_flags=F.NO_PREALLOC | BOTH_PROG)
create("lpm_key_size", M.LPM_TRIE, 4, map_flags=F.NO_PREALLOC)
create("lpm_value_size", M.LPM_TRIE, 8, 0, map_flags=F.NO_PREALLOC)
create("stack_trace_capable", M.STACK_TRACE, caps=0, unprivileged=0)
create("stack_trace_flags", M.STACK_TRACE, map_flags=F.MMAPABLE)
create("stack_trace_max_entries", M.STACK_TRACE, max_entries=0)
create("stack_trace_key_size", M.STACK_TRACE, 8)
create("stack_trace_value_size", M.STACK_TRACE, value_size=12)
create("bloom_capable", M.BLOOM_FILTER, 0, caps=0, unprivileged=0)
create("bloom_key_size", M.BLOOM_FILTER)
create("bloom_value_size", M.BLOOM_FILTER, 0, 0)
create("bloom_max_entries", M.BLOOM_FILTER, 0, max_entries=0)
create("bloom_flags", M.BLOOM_FILTER, 0, map_flags=F.MMAPABLE)
create("bloom_prog_access", M.BLOOM_FILTER, 0, map_flags=BOTH_PROG)
create("bloom_extra", M.BLOOM_FILTER, 0, map_extra=16)
create("charge", M.ARRAY, max_entries=1 << 30)
create("memlock", M.ARRAY, max_entries=100_000, memlock=1 << 16)
create("map_name", M.ARRAY, map_name=b"a-b")
create("btf_fd_open", M.ARRAY, btf_fd=CLOSED, btf_value_type_id=1)
create("btf_fd_kind", M.ARRAY, btf_fd="file", btf_value_type_id=1)
create("excl_size", M.ARRAY, excl_prog_hash_size=31)
create("excl_hash", M.ARRAY, excl_prog_hash=BAD, excl_prog_hash_size=32)

# -- elements ------------------------------------------------------------------------------------------------------------

for command in ("MAP_LOOKUP_ELEM", "MAP_UPDATE_ELEM", "MAP_DELETE_ELEM", "MAP_GET_NEXT_KEY", "MAP_LOOKUP_AND_DELETE_ELEM"):
    name = command.lower()
    with_value = {} if command == "MAP_DELETE_ELEM" else {"value": room}
    call(f"{name}.map_fd_open", command, map_fd=CLOSED)
    call(f"{name}.map_fd_kind", command, map_fd="file")
    call(f"{name}.no_key", command, map_fd="queue", key=key(0), **with_value)
    call(f"{name}.key", command, map_fd="hash", key=BAD, **with_value)
    if "DELETE" in command or "UPDATE" in command:
        call(f"{name}.write", command, map_fd="read_only", key=key(0), **with_value)
        call(f"{name}.frozen", command, map_fd="frozen", key=key(0), **with_value)
    if command not in ("MAP_UPDATE_ELEM", "MAP_DELETE_ELEM"):
        call(f"{name}.read", command, map_fd="write_only", key=key(0), **with_value)
    if command in ("MAP_LOOKUP_ELEM", "MAP_UPDATE_ELEM"):
        call(f"{name}.cpu_number", command, map_fd="percpu_array", flags=1 << 32, key=key(0), value=room)
        call(f"{name}.cpu_map", command, map_fd="array", flags=8, key=key(0), value=room)
        call(f"{name}.cpu_range", command, map_fd="percpu_array", flags=8 | 4000 << 32, key=key(0), value=room)
    if command not in ("MAP_DELETE_ELEM", "MAP_GET_NEXT_KEY"):
        call(f"{name}.lock", command, map_fd="hash", flags=4, key=key(0), value=room)

L = "MAP_LOOKUP_ELEM"
call("map_lookup_elem.flags", L, map_fd="array", flags=8, key=key(0), value=room)
call("map_lookup_elem.op_flags", L, map_fd="array", flags=1, key=key(0), value=room)
call("map_lookup_elem.index", L, map_fd="array", key=key(4), value=room)
call("map_lookup_elem.value", L, map_fd="array", key=key(0), value=read_only)
call("map_lookup_elem.absent", L, map_fd="hash", key=key(7), value=room)
call("map_lookup_elem.empty", L, map_fd="queue", value=room)
call("map_lookup_elem.type", L, map_fd="perf_array", key=key(0), value=room)
call("map_lookup_elem.bloom_value", L, map_fd="bloom", value=BAD)
call("map_lookup_elem.bloom", L, map_fd="bloom", value=room)

U = "MAP_UPDATE_ELEM"
call("map_update_elem.cpu_both", U, map_fd="percpu_array", flags=24, key=key(0), value=room)
call("map_update_elem.value", U, map_fd="array", key=key(0), value=BAD)
call("map_update_elem.elem_flags", U, map_fd="array", flags=3, key=key(0), value=room)
call("map_update_elem.index", U, map_fd="array", key=key(4), value=room)
call("map_update_elem.array_noexist", U, map_fd="array", flags=1, key=key(0), value=room)
call("map_update_elem.percpu_flags", U, map_fd="percpu_array", flags=32, key=key(0), value=room)
call("map_update_elem.hash_flags", U, map_fd="hash", flags=3, key=key(0), value=room)
call("map_update_elem.noexist", U, map_fd="hash", flags=2, key=key(99), value=room)
call("map_update_elem.push_flags", U, map_fd="queue", flags=1, value=room)
call("map_update_elem.ringbuf", U, map_fd="ringbuf", value=room)
call("map_update_elem.stack_trace", U, map_fd="stack_trace", key=key(0), value=room)
call("map_update_elem.fd_flags", U, map_fd="perf_array", flags=1, key=key(0), value=room)


def again(rule: str, map: str, first: int, then: int, **more: Any) -> None:
    """An element is stored, and then this."""

    def make(w: World) -> Question:
        stored: dict[str, Any] = {"key": w.u32(first)} if map == "one" else {}
        assert w.ask(w.call(U, map_fd=map, value=w.room(), **stored)) in (0, 7)  # E2BIG: it was full before
        wanted: dict[str, Any] = {"key": w.u32(then)} if map == "one" else {}
        return w.call(U, map_fd=map, value=w.room(), **wanted, **more)

    witness(f"map_update_elem.{rule}", make)


again("exist", "one", 0, 0, flags=1)
again("full", "one", 0, 1)
again("push_full", "full", 0, 0)

D = "MAP_DELETE_ELEM"
call("map_delete_elem.absent", D, map_fd="hash", key=key(99))
call("map_delete_elem.type", D, map_fd="array", key=key(0))
call("map_delete_elem.ringbuf", D, map_fd="ringbuf")
call("map_delete_elem.index", D, map_fd="perf_array", key=key(4))

N = "MAP_GET_NEXT_KEY"
call("map_get_next_key.last", N, map_fd="array", key=key(3), next_key=room)
call("map_get_next_key.next_key", N, map_fd="array", key=key(0), next_key=read_only)
call("map_get_next_key.end", N, map_fd="lru", key=key(0), next_key=room)
call("map_get_next_key.queue", N, map_fd="queue", next_key=room)
call("map_get_next_key.ringbuf", N, map_fd="ringbuf", next_key=room)

A = "MAP_LOOKUP_AND_DELETE_ELEM"
call("map_lookup_and_delete_elem.flags", A, map_fd="hash", flags=8, key=key(0), value=room)
call("map_lookup_and_delete_elem.queue_flags", A, map_fd="queue", flags=4, value=room)
call("map_lookup_and_delete_elem.type", A, map_fd="array", key=key(0), value=room)
call("map_lookup_and_delete_elem.empty", A, map_fd="queue", value=room)
call("map_lookup_and_delete_elem.hash", A, map_fd="hash", key=key(0), value=room)
call("map_lookup_and_delete_elem.absent", A, map_fd="hash", key=key(99), value=room)


def _popped_into_nothing(w: World) -> Question:
    assert w.ask(w.call("MAP_UPDATE_ELEM", map_fd="queue", value=w.room())) == 0
    return w.call(A, map_fd="queue", value=w.read_only)


witness("map_lookup_and_delete_elem.value", _popped_into_nothing)

call("map_freeze.map_fd_open", "MAP_FREEZE", map_fd=CLOSED)
call("map_freeze.map_fd_kind", "MAP_FREEZE", map_fd="file")
call("map_freeze.fields", "MAP_FREEZE", map_fd="spin_lock")
call("map_freeze.write", "MAP_FREEZE", map_fd="read_only")
call("map_freeze.twice", "MAP_FREEZE", map_fd="frozen")
call("map_freeze.mmapped", "MAP_FREEZE", map_fd="mmapped")
call("map_freeze.capable", "MAP_FREEZE", map_fd="array", caps=0, unprivileged=0)

# -- batches -------------------------------------------------------------------------------------------------------------

for command in ("MAP_LOOKUP_BATCH", "MAP_LOOKUP_AND_DELETE_BATCH", "MAP_UPDATE_BATCH", "MAP_DELETE_BATCH"):
    name = command.lower()
    keys = {"keys": room, "count": 1} if command == "MAP_DELETE_BATCH" else {"keys": room, "values": room, "count": 1}
    reads, writes = "LOOKUP" in command, command != "MAP_LOOKUP_BATCH"
    call(f"{name}.map_fd_open", command, map_fd=CLOSED)
    call(f"{name}.map_fd_kind", command, map_fd="file")
    call(f"{name}.type", command, map_fd="queue", **keys)
    call(f"{name}.elem_flags", command, map_fd="hash", elem_flags=8, **keys)
    call(f"{name}.lock", command, map_fd="hash", elem_flags=4, **keys)
    if reads:
        call(f"{name}.read", command, map_fd="write_only_hash", **keys)
        call(f"{name}.flags", command, {"batch.flags": 1}, map_fd="hash", **keys)
        call(f"{name}.in_batch", command, map_fd="hash", in_batch=BAD, **keys)
        call(f"{name}.rest", command, map_fd="lru", out_batch=room, **keys)
    else:
        call(f"{name}.memory", command, map_fd="hash", **{**keys, "keys": BAD})
    if writes:
        call(f"{name}.write", command, map_fd="read_only_hash", **keys)
    if command != "MAP_DELETE_BATCH":
        call(f"{name}.op_flags", command, map_fd="hash", elem_flags=1, **keys)
call(
    "map_lookup_batch.cpu_range",
    "MAP_LOOKUP_BATCH",
    map_fd="percpu_array",
    elem_flags=8 | 4000 << 32,
    keys=room,
    values=room,
    count=1,
)
call(
    "map_update_batch.cpu_range",
    "MAP_UPDATE_BATCH",
    map_fd="percpu_array",
    elem_flags=8 | 4000 << 32,
    keys=room,
    values=room,
    count=1,
)
call("map_update_batch.rest", "MAP_UPDATE_BATCH", map_fd="array", keys=key(9), values=room, count=1)
call("map_delete_batch.rest", "MAP_DELETE_BATCH", map_fd="hash", keys=key(99), count=1)

# -- PROG_LOAD -----------------------------------------------------------------------------------------------------------

P, T = ProgType, AttachType


def load(rule: str, type: int = P.SOCKET_FILTER, **more: Any) -> None:
    values: dict[str, Any] = {
        "prog_type": type,
        "insns": lambda w: w.data(RETURN_0),
        "insn_cnt": 2,
        "license": lambda w: w.text(b"GPL"),
        **more,
    }
    call(f"prog_load.{rule}", "PROG_LOAD", **values)


load("gate_early", caps=0)
load("gate", caps=0)
for early in ("log_early", "log"):
    load(f"{early}_pair", log_size=4096, log_level=1)
    load(f"{early}_level", log_buf=room, log_size=256)
    load(f"{early}_bits", log_buf=room, log_size=256, log_level=16)
    load(f"{early}_large", log_buf=room, log_size=G, log_level=1)
load("log_all", log_level=1)
load("log_small", log_buf=room, log_size=127, log_level=1)
load("prog_flags", prog_flags=1 << 31)
load("prog_token_fd_open", prog_flags=ProgFlag.TOKEN_FD, prog_token_fd=CLOSED)
load("prog_token_fd_kind", prog_flags=ProgFlag.TOKEN_FD, prog_token_fd="file")
load("license_early", license=BAD)
load("license", license=BAD)
load("insn_cnt", insn_cnt=0)
load("insn_cnt_large", insn_cnt=1_000_001)
load("capable", P.KPROBE, caps=0, unprivileged=0)
load("net_admin", P.XDP, caps=BPF)
load("perfmon", P.KPROBE, caps=BPF)
load("target", P.TRACING, attach_prog_fd="file", attach_btf_id=1)
load("target_btf", P.TRACING, attach_prog_fd="btf", attach_btf_id=1)
load("attach_target", P.KPROBE, attach_btf_id=1)
load("expected_attach_type", P.CGROUP_SOCK_ADDR)
load("target_old_open", P.TRACING, attach_prog_fd=CLOSED, attach_btf_id=1)
load("target_old_kind", P.TRACING, attach_prog_fd="file", attach_btf_id=1)
load("memlock", insn_cnt=100_000, insns=BAD, memlock=1 << 16)
load("insns", insns=BAD)
load("ifindex", prog_ifindex=1)
load("prog_type", 99)
load("prog_name", prog_name=b"a-b")

call("prog_bind_map.flags", "PROG_BIND_MAP", {"prog_bind_map.flags": 1}, prog_fd="socket_filter", map_fd="array")
call("prog_bind_map.prog_fd_open", "PROG_BIND_MAP", prog_fd=CLOSED, map_fd="array")
call("prog_bind_map.prog_fd_kind", "PROG_BIND_MAP", prog_fd="file", map_fd="array")
call("prog_bind_map.map_fd_open", "PROG_BIND_MAP", prog_fd="socket_filter", map_fd=CLOSED)
call("prog_bind_map.map_fd_kind", "PROG_BIND_MAP", prog_fd="socket_filter", map_fd="file")

R = "RAW_TRACEPOINT_OPEN"
call("raw_tracepoint_open.prog_fd_open", R, prog_fd=CLOSED)
call("raw_tracepoint_open.prog_fd_kind", R, prog_fd="file")
call("raw_tracepoint_open.name", R, prog_fd="raw_tp", name=BAD)
call("raw_tracepoint_open.tracepoint", R, prog_fd="raw_tp", name=lambda w: w.text(b"no_such_tracepoint"))
call("raw_tracepoint_open.no_name", R, prog_fd="fentry", name=lambda w: w.text(b"x"))
call("raw_tracepoint_open.type", R, prog_fd="socket_filter", name=lambda w: w.text(b"x"))

S = "PROG_STREAM_READ_BY_FD"
call("prog_stream_read_by_fd.prog_fd_open", S, prog_fd=CLOSED)
call("prog_stream_read_by_fd.prog_fd_kind", S, prog_fd="file")
call("prog_stream_read_by_fd.stream_id", S, prog_fd="socket_filter", stream_id=3)

# -- PROG_TEST_RUN -------------------------------------------------------------------------------------------------------


def run(rule: str, prog: str | int, **more: Any) -> None:
    call(f"prog_test_run.{rule}", "PROG_TEST_RUN", prog_fd=prog, **more)


run("ctx_in", "raw_tp", ctx_in=room)
run("ctx_out", "raw_tp", ctx_out=room)
run("prog_fd_open", CLOSED)
run("prog_fd_kind", "file")
run("type", "kprobe")
run("raw_tp_unused", "raw_tp", repeat=1)
run("raw_tp_batch", "raw_tp", batch_size=1)
run("raw_tp_context", "raw_tp_reads")
run("raw_tp_cpu", "raw_tp", cpu=1)
run("raw_tp_memory", "raw_tp", ctx_in=BAD, ctx_size_in=8)
run("raw_tp_offline", "raw_tp", flags=1, cpu=4000)
run("tracing_unused", "fentry", flags=1)
run("tracing_batch", "fentry", batch_size=1)
run("tracing_type", "iter")
run("syscall_unused", "syscall", repeat=1)
run("syscall_batch", "syscall", batch_size=1)
run("syscall_context", "syscall_reads")
run("syscall_memory", "syscall", ctx_in=BAD, ctx_size_in=8)
run("skb_flags", "socket_filter", flags=1, data_in=room, data_size_in=64)
run("skb_cpu", "socket_filter", cpu=1, data_in=room, data_size_in=64)
run("skb_batch", "socket_filter", batch_size=1, data_in=room, data_size_in=64)
run("skb_short", "socket_filter", data_in=room, data_size_in=13)
run("skb_large", "socket_filter", data_in=room, data_size_in=PAGE + 1)

# -- BTF_LOAD ------------------------------------------------------------------------------------------------------------


def btf(rule: str, raw: bytes = b"", **more: Any) -> None:
    values: dict[str, Any] = {"btf": lambda w: w.data(raw.ljust(64, b"\0")), "btf_size": len(raw), **more}
    call(f"btf_load.{rule}", "BTF_LOAD", **values)


def header(magic: int = 0xEB9F, version: int = 1, flags: int = 0, length: int = 24) -> bytes:
    return magic.to_bytes(2, "little") + bytes((version, flags)) + length.to_bytes(4, "little") + bytes(16)


for early in ("log_early", "log"):
    btf(f"{early}_pair", btf_log_size=4096, btf_log_level=1)
    btf(f"{early}_level", btf_log_buf=room, btf_log_size=256)
    btf(f"{early}_bits", btf_log_buf=room, btf_log_size=256, btf_log_level=16)
    btf(f"{early}_large", btf_log_buf=room, btf_log_size=G, btf_log_level=1)
btf("log_all", btf_log_level=1)
btf("log_small", btf_log_buf=room, btf_log_size=127, btf_log_level=1)
btf("flags", btf_flags=1)
btf("btf_token_fd_open", btf_flags=1 << 16, btf_token_fd=CLOSED)
btf("btf_token_fd_kind", btf_flags=1 << 16, btf_token_fd="file")
btf("capable", caps=0, unprivileged=0)
btf("size", btf_size=(16 << 20) + 1)
btf("memory", btf=BAD, btf_size=24)
btf("short", header()[:7])
btf("hdr_len", header(length=25))
btf("hdr_tail", header(length=40) + bytes(15) + b"\1")
btf("magic", header(magic=0x1234) + b"\0")
btf("version", header(version=2) + b"\0")
btf("hdr_flags", header(flags=1) + b"\0")
btf("empty", header())

# -- LINK_CREATE ---------------------------------------------------------------------------------------------------------


def link(rule: str, prog: str | int, attach_type: int, **more: Any) -> None:
    fields = more.pop("fields", {})
    call(
        f"link_create.{rule}",
        "LINK_CREATE",
        {"link_create.prog_fd": prog, "link_create.attach_type": attach_type, **fields},
        **more,
    )


def multi(rule: str, prog: str = "multi", attach_type: int = T.TRACE_KPROBE_MULTI, **fields: Any) -> None:
    """By one symbol that can be traced, but for what is given."""
    link_flags = fields.pop("link_flags", 0)
    values = {"syms": lambda w: w.strings(b"bpf_fentry_test1"), "cnt": 1, **fields}
    paths = {f"kprobe_multi.{name}": value for name, value in values.items()}
    link(rule, prog, attach_type, fields={**paths, "link_create.flags": link_flags})


link("prog_fd_open", CLOSED, T.TRACE_KPROBE_MULTI)
link("prog_fd_kind", "array", T.TRACE_KPROBE_MULTI)
link("old_tracing", "fentry", T.TRACE_FENTRY)
link("kprobe_never", "kprobe", T.PERF_EVENT)
link("kprobe_expected", "multi", T.PERF_EVENT)
link("kprobe_attach_type", "kprobe", T.TRACE_FENTRY)
link("perf_attach_type", "tracepoint", T.TRACE_KPROBE_MULTI)
link("expected", "connect4", T.CGROUP_INET6_CONNECT)
link("cgroup_skb_capable", "cgroup_skb", T.CGROUP_INET_INGRESS, caps=BPF)
link("cgroup_skb_attach_type", "cgroup_skb", T.XDP)
link("netfilter_attach_type", "netfilter", T.XDP)
link("tc_attach_type", "tc", T.XDP)
link("attach_type", "xdp", T.TRACE_FENTRY)
link("perf_link_flags", "kprobe", T.PERF_EVENT, fields={"link_create.flags": 1})
link("perf_target", "kprobe", T.PERF_EVENT, fields={"link_create.target_fd": "file"})
multi("fprobe")
multi("kprobe_multi_link_flags", link_flags=1)
multi("kprobe_multi_expected", "kprobe")
multi("kprobe_multi_sleepable", "sleepable")
multi("kprobe_multi_write", "writing")
multi("kprobe_multi_flags", flags=2)
multi("kprobe_multi_both", addrs=lambda w: w.u64(1))
multi("kprobe_multi_neither", syms=0)
multi("kprobe_multi_cnt", cnt=0)
multi("kprobe_multi_many", cnt=(1 << 20) + 1)
multi("kprobe_multi_cookies", cookies=BAD)
multi("kprobe_multi_addrs", syms=0, addrs=BAD)
multi("kprobe_multi_syms", syms=BAD)
multi("kprobe_multi_long", syms=lambda w: w.strings(b"x" * 512))
multi("kprobe_multi_twice", syms=lambda w: w.strings(b"bpf_fentry_test1", b"bpf_fentry_test1"), cnt=2)
multi("kprobe_multi_symbol", syms=lambda w: w.strings(b"no_such_function"))
multi("kprobe_multi_address", syms=0, addrs=lambda w: w.u64(0x1234))
multi("kprobe_multi_no_function", syms=0, addrs=lambda w: w.u64(0x1234))


def uprobe(rule: str, prog: str = "uprobe_multi", **fields: Any) -> None:
    link_flags = fields.pop("link_flags", 0)
    values = {"path": lambda w: w.text(b"/bin/true"), "offsets": lambda w: w.u64(0), "cnt": 1, **fields}
    paths = {f"uprobe_multi.{name}": value for name, value in values.items()}
    link(rule, prog, T.TRACE_UPROBE_MULTI, fields={**paths, "link_create.flags": link_flags})


uprobe("uprobe_multi_link_flags", link_flags=1)
uprobe("uprobe_multi_expected", "kprobe")
uprobe("uprobe_multi_flags", flags=4)
uprobe("uprobe_multi_given", cnt=0)
uprobe("uprobe_multi_pid", pid=1 << 31)
uprobe("uprobe_multi_path", path=lambda w: w.text(b"/nowhere"))
uprobe("uprobe_multi_many", cnt=(1 << 20) + 1)

link("tracing_expected", "fentry", T.TRACE_FEXIT)
link("iter_head", "iter", T.TRACE_ITER, fields={"link_create.flags": 1})
link("iter_info", "iter", T.TRACE_ITER, fields={"iter_info_len": 4})
link("tracing_target", "fentry", T.TRACE_FENTRY, fields={"link_create.target_fd": "array"})
link("tracing_ext", "fentry", T.TRACE_FENTRY, fields={"link_create.target_fd": "array", "tracing.target_btf_id": 1})


def tracing(rule: str, *ids: int, **fields: Any) -> None:
    head = {f"link_create.{name}": fields.pop(name) for name in ("target_fd",) if name in fields}
    values = {"ids": lambda w: w.u32(*ids), "cnt": len(ids), **fields}
    paths = {f"tracing_multi.{name}": value for name, value in values.items()}
    link(rule, "fentry_multi", T.TRACE_FENTRY_MULTI, fields={**paths, **head})


tracing("tracing_multi_given")
tracing("tracing_multi_many", 1, cnt=(1 << 20) + 1)
tracing("tracing_multi_head", 1, target_fd=1)
tracing("tracing_multi_ids", 1, ids=BAD)
tracing("tracing_multi_cookies", 1, cookies=BAD)
tracing("tracing_multi_twice", 1, 1)

LU = "LINK_UPDATE"
call("link_update.flags", LU, {"link_update.flags": 1}, link_fd="raw_tp_link", new_prog_fd="raw_tp")
call("link_update.link_fd_open", LU, link_fd=CLOSED)
call("link_update.link_fd_kind", LU, link_fd="file")
call("link_update.new_prog_fd_open", LU, link_fd="raw_tp_link", new_prog_fd=CLOSED)
call("link_update.new_prog_fd_kind", LU, link_fd="raw_tp_link", new_prog_fd="file")
call(
    "link_update.old_prog_fd_open", LU, {"link_update.flags": 4}, link_fd="raw_tp_link", new_prog_fd="raw_tp", old_prog_fd=CLOSED
)
call(
    "link_update.old_prog_fd_kind", LU, {"link_update.flags": 4}, link_fd="raw_tp_link", new_prog_fd="raw_tp", old_prog_fd="file"
)
call("link_update.old_prog_fd", LU, link_fd="raw_tp_link", new_prog_fd="raw_tp", old_prog_fd="raw_tp")
call("link_update.type", LU, link_fd="raw_tp_link", new_prog_fd="raw_tp")
call("link_detach.link_fd_open", "LINK_DETACH", link_fd=CLOSED)
call("link_detach.link_fd_kind", "LINK_DETACH", link_fd="file")
call("link_detach.type", "LINK_DETACH", link_fd="raw_tp_link")
call("iter_create.flags", "ITER_CREATE", {"iter_create.flags": 1}, link_fd="raw_tp_link")
call("iter_create.link_fd_open", "ITER_CREATE", link_fd=CLOSED)
call("iter_create.link_fd_kind", "ITER_CREATE", link_fd="file")
call("iter_create.type", "ITER_CREATE", link_fd="raw_tp_link")

# -- attach, query, others -----------------------------------------------------------------------------------------------

call("prog_attach.attach_flags", "PROG_ATTACH", attach_flags=8)
call("prog_attach.attach_type", "PROG_ATTACH", attach_type=T.PERF_EVENT)
call("prog_attach.flags", "PROG_ATTACH", attach_type=T.FLOW_DISSECTOR, attach_flags=8, attach_bpf_fd=CLOSED)
call("prog_attach.attach_bpf_fd_open", "PROG_ATTACH", attach_type=T.FLOW_DISSECTOR, attach_bpf_fd=CLOSED)
call("prog_attach.attach_bpf_fd_kind", "PROG_ATTACH", attach_type=T.FLOW_DISSECTOR, attach_bpf_fd="file")
call("prog_attach.prog_type", "PROG_ATTACH", attach_type=T.FLOW_DISSECTOR, attach_bpf_fd="socket_filter")
call("prog_detach.attach_type", "PROG_DETACH", attach_type=T.PERF_EVENT)
call("prog_query.capable", "PROG_QUERY", caps=BPF)
call("prog_query.query_flags", "PROG_QUERY", query_flags=2)
call("prog_query.attach_type", "PROG_QUERY", attach_type=T.PERF_EVENT)
call("task_fd_query.capable", "TASK_FD_QUERY", caps=BPF)
call("task_fd_query.flags", "TASK_FD_QUERY", {"task_fd_query.flags": 1})
call("task_fd_query.pid", "TASK_FD_QUERY", pid=0)
call("task_fd_query.fd", "TASK_FD_QUERY", pid=_own_pid, fd=CLOSED)
call("token_create.flags", "TOKEN_CREATE", {"token_create.flags": 1})
call("token_create.bpffs_fd", "TOKEN_CREATE", bpffs_fd=CLOSED)

# -- OBJ_GET_INFO_BY_FD --------------------------------------------------------------------------------------------------

INFO = "OBJ_GET_INFO_BY_FD"
NAME = "obj_get_info_by_fd"


def info(rule: str, obj: str | int, info_len: int, memory: Any = room, **more: Any) -> None:
    call(f"{NAME}.{rule}", INFO, {"info.bpf_fd": obj, "info.info_len": info_len, "info.info": memory}, **more)


def filled(*places: tuple[int, int], size: int = 512) -> Callable[[World], int]:
    """A struct with these 32-bit words at these offsets."""

    def make(w: World) -> int:
        raw = bytearray(size)
        for offset, value in places:
            raw[offset : offset + 4] = value.to_bytes(4, "little")
        return w.data(bytes(raw))

    return make


info("bpf_fd_open", CLOSED, 0)
info("bpf_fd_kind", "file", 0)
for kind, obj in (("prog", "socket_filter"), ("map", "array"), ("btf", "btf"), ("link", "raw_tp_link")):
    info(f"{kind}_size", obj, PAGE + 1)
    info(f"{kind}_tail", obj, 300, filled((296, 1)))
    info(f"{kind}_tail_memory", obj, 300, BAD)
    info(f"{kind}_in", obj, 16, BAD)
    info(f"{kind}_out", obj, 16, read_only)
info("rec_size", "socket_filter", 208, filled((132, 7)))
info("buffers", "socket_filter", 208, filled((20, 16), (32, BAD)))
info("hash_size", "array", 104, filled((96, 32)))
info("hash", "array", 104, filled((88, BAD), (96, 31)))
MORE[f"{NAME}.hash", errno.EPERM] = lambda w: w.call(
    INFO,
    {
        "info.bpf_fd": "array",
        "info.info_len": 104,
        "info.info": w.data(bytes(88) + w.room().to_bytes(8, "little") + (32).to_bytes(8, "little")),
    },
)
info("btf_buffer", "btf", 16, filled((0, BAD), (8, 8)))
info("btf_name", "btf", 32, filled((24, 4)))
info("btf_name_size", "kernel_btf", 32, lambda w: w.data(bytes(16) + w.room().to_bytes(8, "little") + (1).to_bytes(8, "little")))
info("addrs", "kprobe_multi_link", 64, filled((24, 1)))
info("cookies", "kprobe_multi_link", 64, filled((40, BAD)))
info("count", "kprobe_multi_link", 64, filled((16, BAD), (24, 1)))
info("tp_name", "raw_tp_link", 32, filled((24, 4)))
info("tp_name_len", "raw_tp_link", 32, filled((16, BAD), (24, 4)))

# -- ids -----------------------------------------------------------------------------------------------------------------


def _with_one(obj: str, command: str) -> Witness:
    """An attr that is nowhere and has no bytes, while there is an object to tell of."""

    def make(w: World) -> Question:
        w.fd(obj)
        return w.call(command, memory=False, size=0)

    return make


for what, one in (("PROG", "raw_tp"), ("MAP", "array"), ("BTF", "btf"), ("LINK", "raw_tp_link")):
    name = f"{what.lower()}_get_next_id"
    witness(f"{name}.room", _with_one(one, f"{what}_GET_NEXT_ID"))
    call(f"{name}.start_id", f"{what}_GET_NEXT_ID", start_id=(1 << 31) - 1)
    call(f"{name}.capable", f"{what}_GET_NEXT_ID", caps=BPF)
    call(f"{name}.end", f"{what}_GET_NEXT_ID", start_id=(1 << 31) - 2)
    name = f"{what.lower()}_get_fd_by_id"
    call(f"{name}.capable", f"{what}_GET_FD_BY_ID", caps=BPF)
    call(f"{name}.absent", f"{what}_GET_FD_BY_ID", {f"{what.lower()}_id": (1 << 31) - 2})
call("map_get_fd_by_id.open_flags", "MAP_GET_FD_BY_ID", open_flags=1)
call("map_get_fd_by_id.both", "MAP_GET_FD_BY_ID", open_flags=BOTH)
call("btf_get_fd_by_id.open_flags", "BTF_GET_FD_BY_ID", open_flags=1)
call("btf_get_fd_by_id.fd_by_id_token_fd_open", "BTF_GET_FD_BY_ID", open_flags=1 << 16, fd_by_id_token_fd=CLOSED)
call("btf_get_fd_by_id.fd_by_id_token_fd_kind", "BTF_GET_FD_BY_ID", open_flags=1 << 16, fd_by_id_token_fd="file")
call("enable_stats.capable", "ENABLE_STATS", caps=BPF)
call("enable_stats.type", "ENABLE_STATS", {"enable_stats.type": 1})

# -- pins ----------------------------------------------------------------------------------------------------------------

call("obj_pin.file_flags", "OBJ_PIN", file_flags=1)
call("obj_pin.path_fd", "OBJ_PIN", path_fd=1)
call("obj_pin.bpf_fd", "OBJ_PIN", bpf_fd="file", pathname=lambda w: w.text(b"/nowhere"))
call("obj_pin.file_system", "OBJ_PIN", bpf_fd="array", pathname=lambda w: w.text(b"/tmp/no_such_pin"))
call("obj_get.absent", "OBJ_GET", pathname=lambda w: w.text(b"/nowhere"))
call("obj_get.bpf_fd", "OBJ_GET", bpf_fd=1)
call("obj_get.file_flags", "OBJ_GET", file_flags=1)
call("obj_get.path_fd", "OBJ_GET", path_fd=1)
call("obj_get.access", "OBJ_GET", file_flags=BOTH)


def of(rule: Rule) -> Witness | None:
    """The witness of a rule. Those of CHECK_ATTR need none of their own: zeros, and one byte behind the last field."""
    if rule.source == "CHECK_ATTR":
        end = int(re.findall(r"\d+", rule.text)[0])
        return lambda w: w.call(getattr(Cmd, rule.command), at={end: 1}, size=end + 8)
    return CALLS.get(rule.name)


__all__ = ["ALL_CAPS", "CALLS", "Witness", "of"]
