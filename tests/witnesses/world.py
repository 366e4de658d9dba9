"""Objects, memory and privileges for calls of bpf(2) that are made of bare numbers."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rawkm.btf.build import Builder
from rawkm.btf.kinds import FUNC
from rawkm.errors import errno_name
from rawkm.host.facts import describe
from rawkm.rules import Call, Facts, Memory, Obj, Prediction, predict
from rawkm.syscall import nr, open_kernel
from rawkm.uapi import layouts, link
from rawkm.uapi.codec import number
from rawkm.uapi.constants import AttachType, LinkType, MapFlag, MapType, ProgFlag, ProgType

PAGE = 4096
#: Nobody maps anything there.
BAD = 0x1000
ALL_CAPS = (1 << 41) - 1
_READ_ONLY = 2 * PAGE
RETURN_0 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
#: r1 = *(u64 *)(r1 + 0); r0 = 0; exit
READS_CONTEXT = struct.pack("=BBhi", 0x79, 0x11, 0, 0) + RETURN_0
#: *(u64 *)(r1 + 80) = 0; r0 = 0; exit
WRITES_CONTEXT = struct.pack("=BBhi", 0x7A, 0x01, 80, 0) + RETURN_0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] * 6
_BPF = nr.numbers()[0]


class Unavailable(Exception):
    """This kernel does not give the object."""


class Question:
    """A call to be made: its attr's bytes (None: the attr has no memory), and under which privileges."""

    def __init__(
        self,
        cmd: int,
        attr: bytes | None,
        size: int,
        *,
        caps: int | None = None,
        unprivileged: int | None = None,
        memlock: int | None = None,
    ) -> None:
        self.cmd = cmd
        self.attr = attr
        self.size = size
        self.caps = caps
        self.unprivileged = unprivileged
        self.memlock = memlock


def _places(cmd: int) -> dict[str, tuple[int, int]]:
    """Each field by its path and by the path's end."""
    definitions = link.DEFINITIONS[:11] if cmd == 28 else (layouts.for_attr(cmd, b""),)
    found: dict[str, tuple[int, int]] = {}
    for definition in definitions:
        for member in definition.members:
            if member.role.kind == "hole":
                continue
            for path in (member.path, *member.also):
                found[path] = (member.offset, member.size)
                parts = path.split(".")
                for i in range(1, len(parts)):
                    found.setdefault(".".join(parts[i:]), (member.offset, member.size))
    return found


class World:
    """Close it: it has many fds open. ``links``: whether any may be made; outside of guests none are."""

    def __init__(self, *, links: bool) -> None:
        self.links = links
        self.kernel = open_kernel()
        self.facts = describe(self.kernel)
        self.version = self.facts.version
        if self.version < (5, 11):
            hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
            for limit in (resource.RLIM_INFINITY, hard):
                try:
                    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
                except ValueError:
                    continue  # only root raises the hard one
                break
        self._arena = self._map(1 << 18, 3)
        self.read_only = self._map(_READ_ONLY, 1)
        self._used = 64
        self.mapped = 0
        self._fds: dict[str, int] = {}
        self.objs: dict[int, Obj] = {}
        self._places: dict[int, dict[str, tuple[int, int]]] = {}
        for fd in os.listdir("/proc/self/fd"):
            self.objs[int(fd)] = Obj("file")

    @staticmethod
    def _map(size: int, prot: int) -> int:
        address: int = _libc.mmap(None, size, prot, 0x22, -1, 0)
        return address

    def close(self) -> None:
        if self.mapped:
            _libc.munmap(ctypes.c_void_p(self.mapped), ctypes.c_size_t(PAGE))
        for fd in self._fds.values():
            os.close(fd)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- memory --------------------------------------------------------------------------------------------------------

    def data(self, raw: bytes) -> int:
        """The address of these bytes, in memory that can be written to."""
        at = self._arena + self._used
        self._used += len(raw) + 15 & ~15
        if self._used > 1 << 17:
            self._used = 64
            at = self._arena + self._used
            self._used += len(raw) + 15 & ~15
        ctypes.memmove(at, raw, len(raw))
        return at

    def u32(self, *numbers: int) -> int:
        return self.data(struct.pack(f"={len(numbers)}I", *numbers))

    def u64(self, *numbers: int) -> int:
        return self.data(struct.pack(f"={len(numbers)}Q", *numbers))

    def text(self, text: bytes) -> int:
        return self.data(text + b"\0")

    def room(self, size: int = 256) -> int:
        return self.data(bytes(size))

    def strings(self, *texts: bytes) -> int:
        return self.u64(*[self.text(text) for text in texts])

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(
        self,
        command: str | int,
        fields: Mapping[str, int | bytes | str] | None = None,
        *,
        size: int | None = None,
        at: Mapping[int, int] | None = None,
        memory: bool = True,
        caps: int | None = None,
        unprivileged: int | None = None,
        memlock: int | None = None,
        **more: int | bytes | str,
    ) -> Question:
        """``fields`` and ``more``: by their UAPI paths or the ends of them; a str is the name of an object, for its fd. ``at``: bytes at offsets.
        Without ``memory`` the attr has none."""
        cmd = command if isinstance(command, int) else number(command)
        attr = bytearray(max(168, size or 0))
        for name, value in {**(fields or {}), **more}.items():
            offset, length = self._place(cmd, name)
            raw = self.fd(value) if isinstance(value, str) else value
            attr[offset : offset + length] = raw.ljust(length, b"\0") if isinstance(raw, bytes) else self._int(raw, length)
        for offset, byte in (at or {}).items():
            attr[offset] = byte
        if size is None:
            # As long as it is not zeros: so it goes to every kernel.
            size = len(bytes(attr).rstrip(b"\0")) + 7 & ~7
        sent = bytes(attr[:size]) if memory else None
        return Question(cmd, sent, size, caps=caps, unprivileged=unprivileged, memlock=memlock)

    @staticmethod
    def _int(value: int, length: int) -> bytes:
        return (value & (1 << 8 * length) - 1).to_bytes(length, sys.byteorder)

    def _place(self, cmd: int, name: str) -> tuple[int, int]:
        if cmd not in self._places:
            self._places[cmd] = _places(cmd)
        return self._places[cmd][name]

    def predict(self, question: Question) -> Prediction:
        regions = [
            (self._arena, ctypes.string_at(self._arena, 1 << 18), True),
            (self.read_only, bytes(_READ_ONLY), False),
        ]
        call = Call(question.cmd, question.attr, size=question.size, fds=self.objs, memory=Memory(regions, whole=True))
        return predict(call, self._facts(question))

    def _facts(self, question: Question) -> Facts:
        base = self.facts
        return Facts(
            base.version,
            caps=base.caps if question.caps is None else question.caps,
            attr_size=base.attr_size,
            config=base.config,
            cpus=base.cpus,
            nodes=base.nodes,
            unprivileged_bpf_disabled=(
                base.unprivileged_bpf_disabled if question.unprivileged is None else question.unprivileged
            ),
            memlock=question.memlock if base.version < (5, 11) else None,
            user_end=base.user_end,
        )

    def ask(self, question: Question) -> int:
        """What the kernel says: 0 or an errno. A new fd is closed again."""
        if question.unprivileged is not None:
            path = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
            before = path.read_text()
            path.write_text(f"{question.unprivileged}\n")
            try:
                return self._in_child(question)
            finally:
                path.write_text(before)
        if question.caps is not None or question.memlock is not None:
            return self._in_child(question)
        return self._make(question)

    def _make(self, question: Question) -> int:
        attr = self._arena + (1 << 17)
        if question.attr is not None:
            ctypes.memmove(attr, question.attr.ljust(256, b"\0"), max(len(question.attr), 256))
        result = _libc.syscall(_BPF, question.cmd, attr if question.attr is not None else BAD, question.size, 0, 0)
        if result < 0:
            return ctypes.get_errno()
        if result > 2 and question.cmd in _MAKES_FD:
            os.close(result)
        return 0

    def _in_child(self, question: Question) -> int:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 255
            try:
                if question.memlock is not None:
                    resource.setrlimit(resource.RLIMIT_MEMLOCK, (question.memlock, question.memlock))
                if question.caps is not None:
                    _set_caps(question.caps)
                os.write(write, struct.pack("=i", self._make(question)))
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        answer = os.read(read, 4)
        os.close(read)
        status = os.waitpid(pid, 0)[1]
        assert status == 0 and len(answer) == 4, status
        code = struct.unpack("=i", answer)[0]
        assert isinstance(code, int)
        return code

    def must(self, question: Question) -> int:
        """The fd that an object's call gives."""
        attr = self._arena + (1 << 17)
        assert question.attr is not None
        ctypes.memmove(attr, question.attr.ljust(256, b"\0"), 256)
        result: int = _libc.syscall(_BPF, question.cmd, attr, question.size, 0, 0)
        if result < 0:
            raise Unavailable(f"command {question.cmd}: {errno_name(ctypes.get_errno())}")
        return result

    # -- objects -------------------------------------------------------------------------------------------------------

    def fd(self, name: str) -> int:
        if name not in self._fds:
            fd, obj = OBJECTS[name](self)
            self._fds[name] = fd
            self.objs[fd] = obj
        return self._fds[name]

    def map(self, type: int, key: int = 4, value: int = 8, entries: int = 4, flags: int = 0, **more: Any) -> tuple[int, Obj]:
        question = self.call(
            "MAP_CREATE", map_type=type, key_size=key, value_size=value, max_entries=entries, map_flags=flags, **more
        )
        return self.must(question), Obj(
            "map",
            type,
            key_size=key,
            value_size=value,
            max_entries=entries,
            flags=flags,
            readable=not flags & MapFlag.WRONLY,
            writable=not flags & MapFlag.RDONLY,
        )

    def load(self, type: int, expected: int = 0, insns: bytes = RETURN_0, flags: int = 0, **more: Any) -> Question:
        return self.call(
            "PROG_LOAD",
            {
                "prog_type": type,
                "insns": self.data(insns),
                "insn_cnt": len(insns) // 8,
                "license": self.text(b"GPL"),
                "expected_attach_type": expected,
                "prog_flags": flags,
                **more,
            },
        )

    def prog(self, type: int, expected: int = 0, insns: bytes = RETURN_0, flags: int = 0, **more: Any) -> tuple[int, Obj]:
        fd = self.must(self.load(type, expected, insns, flags, **more))
        return fd, Obj(
            "prog",
            type,
            attach_type=expected,
            attach_btf_id=more.get("attach_btf_id", 0),
            sleepable=bool(flags & ProgFlag.SLEEPABLE),
            writes_context=insns is WRITES_CONTEXT,
            context_size=8 if insns is READS_CONTEXT else 0,
        )

    def function_id(self, name: str) -> int:
        from rawkm.btf import Btf

        if not hasattr(self, "_btf"):
            self._btf = Btf(Path("/sys/kernel/btf/vmlinux").read_bytes())
        return self._btf.find(name, FUNC)

    def may_link(self) -> None:
        if not self.links:
            raise Unavailable("links are made in guests only")


def _frozen(w: World) -> tuple[int, Obj]:
    fd, obj = w.map(MapType.ARRAY)
    assert w.ask(w.call("MAP_FREEZE", map_fd=fd)) == 0
    obj.frozen = True
    return fd, obj


def _mmapped(w: World) -> tuple[int, Obj]:
    fd, obj = w.map(MapType.ARRAY, flags=MapFlag.MMAPABLE)
    w.mapped = _libc.mmap(None, PAGE, 3, 1, fd, 0)
    assert w.mapped != ctypes.c_void_p(-1).value
    return fd, obj


def _btf(w: World) -> tuple[int, Obj]:
    builder = Builder()
    builder.integer("int", 4, signed=True)
    raw = builder.build()
    return w.must(w.call("BTF_LOAD", btf=w.data(raw), btf_size=len(raw))), Obj("btf")


def _spin_lock(w: World) -> tuple[int, Obj]:
    builder = Builder()
    word = builder.integer("int", 4)
    lock = builder.composite("bpf_spin_lock", 4, [("val", word, 0, 0)])
    value = builder.composite("value", 8, [("lock", lock, 0, 0), ("x", word, 32, 0)])
    raw = builder.build()
    btf = w.must(w.call("BTF_LOAD", btf=w.data(raw), btf_size=len(raw)))
    try:
        fd, obj = w.map(MapType.ARRAY, btf_fd=btf, btf_key_type_id=word, btf_value_type_id=value)
    finally:
        os.close(btf)
    obj.spin_lock = True
    return fd, obj


def _raw_tp_link(w: World) -> tuple[int, Obj]:
    w.may_link()
    question = w.call("RAW_TRACEPOINT_OPEN", name=w.text(b"task_rename"), prog_fd="raw_tp")
    return w.must(question), Obj("link", LinkType.RAW_TRACEPOINT)


def _kprobe_multi_link(w: World) -> tuple[int, Obj]:
    w.may_link()
    question = w.call(
        "LINK_CREATE",
        {"prog_fd": "multi", "attach_type": 42, "kprobe_multi.syms": w.strings(b"bpf_fentry_test1"), "kprobe_multi.cnt": 1},
    )
    return w.must(question), Obj("link", LinkType.KPROBE_MULTI)


def _tracing(name: str, expected: int) -> Callable[[World], tuple[int, Obj]]:
    return lambda w: w.prog(ProgType.TRACING, expected, attach_btf_id=w.function_id(name))


def _file(path: str, kind: str) -> Callable[[World], tuple[int, Obj]]:
    return lambda w: (os.open(path, os.O_RDONLY | os.O_CLOEXEC), Obj(kind))


def _map(*args: Any, **more: Any) -> Callable[[World], tuple[int, Obj]]:
    return lambda w: w.map(*args, **more)


def _prog(*args: Any, **more: Any) -> Callable[[World], tuple[int, Obj]]:
    return lambda w: w.prog(*args, **more)


def _kernel_btf(w: World) -> tuple[int, Obj]:
    return w.must(w.call("BTF_GET_FD_BY_ID", btf_id=1)), Obj("btf")


OBJECTS: dict[str, Callable[[World], tuple[int, Obj]]] = {
    "file": _file("/dev/null", "file"),
    "dir": _file("/tmp", "dir"),
    "array": _map(MapType.ARRAY),
    "percpu_array": _map(MapType.PERCPU_ARRAY),
    "hash": _map(MapType.HASH),
    "one": _map(MapType.HASH, entries=1),
    "lru": _map(MapType.LRU_HASH),
    "queue": _map(MapType.QUEUE, key=0),
    "full": _map(MapType.QUEUE, key=0, entries=1),
    "ringbuf": _map(MapType.RINGBUF, key=0, value=0, entries=PAGE),
    "stack_trace": _map(MapType.STACK_TRACE),
    "prog_array": _map(MapType.PROG_ARRAY, value=4),
    "perf_array": _map(MapType.PERF_EVENT_ARRAY, value=4),
    "bloom": _map(MapType.BLOOM_FILTER, key=0),
    "read_only": _map(MapType.ARRAY, flags=MapFlag.RDONLY),
    "write_only": _map(MapType.ARRAY, flags=MapFlag.WRONLY),
    "read_only_hash": _map(MapType.HASH, flags=MapFlag.RDONLY),
    "write_only_hash": _map(MapType.HASH, flags=MapFlag.WRONLY),
    "frozen": _frozen,
    "mmapped": _mmapped,
    "spin_lock": _spin_lock,
    "btf": _btf,
    "kernel_btf": _kernel_btf,
    "socket_filter": _prog(ProgType.SOCKET_FILTER),
    "kprobe": _prog(ProgType.KPROBE),
    "multi": _prog(ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI),
    "session": _prog(ProgType.KPROBE, AttachType.TRACE_KPROBE_SESSION),
    "sleepable": _prog(ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI, flags=ProgFlag.SLEEPABLE),
    "writing": _prog(ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI, WRITES_CONTEXT),
    "uprobe_multi": _prog(ProgType.KPROBE, AttachType.TRACE_UPROBE_MULTI),
    "tracepoint": _prog(ProgType.TRACEPOINT),
    "raw_tp": _prog(ProgType.RAW_TRACEPOINT),
    "raw_tp_reads": _prog(ProgType.RAW_TRACEPOINT, 0, READS_CONTEXT),
    "xdp": _prog(ProgType.XDP),
    "tc": _prog(ProgType.SCHED_CLS),
    "cgroup_skb": _prog(ProgType.CGROUP_SKB),
    "connect4": _prog(
        ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, struct.pack("=BBhi", 0xB7, 0, 0, 1) + RETURN_0[8:]
    ),
    "netfilter": _prog(ProgType.NETFILTER, AttachType.NETFILTER),
    "syscall": _prog(ProgType.SYSCALL, flags=ProgFlag.SLEEPABLE),
    "syscall_reads": _prog(ProgType.SYSCALL, 0, READS_CONTEXT, flags=ProgFlag.SLEEPABLE),
    "fentry": _tracing("bpf_fentry_test1", AttachType.TRACE_FENTRY),
    "iter": _tracing("bpf_iter_bpf_map", AttachType.TRACE_ITER),
    "fentry_multi": _prog(ProgType.TRACING, AttachType.TRACE_FENTRY_MULTI),
    "raw_tp_link": _raw_tp_link,
    "kprobe_multi_link": _kprobe_multi_link,
}

_MAKES_FD = frozenset((0, 5, 7, 13, 14, 17, 18, 19, 28, 30, 32, 33, 36))


def _set_caps(mask: int) -> None:
    """The effective and permitted sets of this process, as another user's: root's would come back by themselves for files only."""
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
