"""The seam on the running kernel: values become pointers, errors carry what was sent, observers see every call."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rawkm.asm import DW, R0, R1, R2, R3, R4, R10, Add, JNe, Mov, W, call, exit_, label, ld_imm64, load, map_value, store
from rawkm.buffers import PerfBuf, RingBuf
from rawkm.errors import NotSupportedError, SyscallError, UsageError
from rawkm.maps import MapSpec
from rawkm.prog import ProgramSpec
from rawkm.syscall import PAGE_SIZE, memory, nr, open_kernel
from rawkm.syscall.call import Call
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.lower import lower
from rawkm.uapi import packed
from rawkm.uapi.constants import AttachType, Helper, MapType, ProgType
from tests.kernel.conftest import open_fds
from tests.kernel.fillers import PACKET, PAIR, by_reserve, perf_array, ring, run
from tests.kernel.watching import Watcher, watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.syscall.kernel import Value

HASH = MapSpec("hash", MapType.HASH, key=4, value=8, max_entries=100)
FINE = ProgramSpec("fine", ProgType.SOCKET_FILTER, insns=[Mov.imm(R0, 1), exit_()])


# -- values to pointers --------------------------------------------------------------------------------------


def memory_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("in", b"bytes", b"bytes\0"),
        ("in", b"", b"\0"),
        ("in", bytearray(b"array"), b"array"),
        ("in", memoryview(b"read-only"), b"read-only"),
        ("in", memoryview(bytearray(b"part of it"))[5:7], b"of"),
        ("cstr", "name", b"name\0"),
        ("cstr", b"name", b"name\0"),
        ("cstr", "näme", "näme".encode() + b"\0"),
        ("u64s", [1, 2**64 - 1], struct.pack("=QQ", 1, 2**64 - 1)),
        ("u64s", (7,), struct.pack("=Q", 7)),
        ("u64s", range(3), struct.pack("=QQQ", 0, 1, 2)),
        ("u64s", struct.pack("=Q", 9), struct.pack("=Q", 9)),
        ("u32s", [1, 2**32 - 1], struct.pack("=II", 1, 2**32 - 1)),
    ],
)
def test_what_an_address_points_to(kind: str, value: Value, expected: bytes) -> None:
    address, held = lower("field", kind, value)
    assert memory_at(address, len(expected)) == expected
    del held


@pytest.mark.parametrize("names", [["one", "two", ""], (b"one", b"two"), ["x" * 511], ["näme"]])
def test_lists_of_names(names: list[str] | tuple[bytes, ...]) -> None:
    address, held = lower("syms", "cstrs", names)
    pointers = struct.unpack(f"={len(names)}Q", memory_at(address, 8 * len(names)))
    expected = [name.encode() if isinstance(name, str) else name for name in names]
    assert [ctypes.string_at(pointer) for pointer in pointers] == expected
    del held


def test_nothing_is_null() -> None:
    for kind in ("in", "out", "inout", "cstr", "cstrs", "u64s"):
        assert lower("field", kind, None) == (0, None)
    assert lower("field", "out", bytearray()) == (0, None)


@pytest.mark.parametrize("kind", ["out", "inout"])
@pytest.mark.parametrize("make", [bytearray, lambda raw: memoryview(bytearray(raw))])
def test_buffers_are_filled_in_place(kind: str, make: Callable[[bytes], bytearray | memoryview]) -> None:
    buffer = make(b"12345678")
    address, held = lower("field", kind, buffer)
    ctypes.memmove(address, b"abcd", 4)
    assert bytes(buffer) == b"abcd5678"
    del held


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("in", 0x1234, "pass what it points to, not the address 0x1234"),
        ("cstrs", 5, "not the address 0x5"),
        ("in", "text", "takes bytes or a buffer, not str"),
        ("in", [1, 2], "takes bytes or a buffer, not list"),
        ("in", 1.5, "not float"),
        ("in", memoryview(bytearray(8))[::2], "one piece of memory"),
        # The kernel would write into memory that Python shares.
        ("out", b"\0" * 8, "takes a buffer to write to, not bytes"),
        ("inout", b"\0" * 8, "takes a buffer to write to, not bytes"),
        ("out", memoryview(b"\0" * 8), "not a read-only one"),
        ("out", "text", "takes a buffer to write to, not str"),
        ("out", [0], "takes a buffer to write to, not list"),
        ("cstr", [b"x"], "takes a name, not list"),
        ("cstr", bytearray(b"x"), "takes a name, not bytearray"),
        ("cstr", "two\0names", "cannot hold a NUL"),
        ("cstrs", b"name", "takes a sequence of names, not bytes"),
        ("cstrs", "name", "takes a sequence of names, not str"),
        ("cstrs", ["a", 5], "takes a name, not int"),
        ("cstrs", ["a", None], "takes a name, not NoneType"),
        ("cstrs", ["a", "b\0c"], "cannot hold a NUL"),
        ("u64s", [1, -1], "takes a sequence of u64"),
        ("u64s", [1 << 64], "takes a sequence of u64"),
        ("u64s", ["a"], "takes a sequence of u64"),
        ("u64s", "12345678", "not str"),
        ("u64s", 1.5, "takes a sequence of u64"),
        ("u32s", [1 << 32], "takes a sequence of u32"),
    ],
)
def test_wrong_values_name_the_field(kind: str, value: Value, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        lower("some.field", kind, value)
    assert str(caught.value).startswith("some.field ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"map_fd": 1, "key": 5}, "key is a pointer"),
        ({"map_fd": 1, "value": b"12345678"}, "value takes a buffer to write to"),
        ({"map_fd": "1"}, "map_fd takes an int, not str"),
        ({"map_fd": -1}, "map_fd takes 0 to 4294967295, not -1"),
        ({"map_fd": None}, "map_fd takes an int, not NoneType"),
        ({"mapfd": 1}, "has no field 'mapfd'; did you mean map_fd"),
    ],
)
def test_wrong_values_make_no_call(values: dict[str, Value], words: str) -> None:
    kernel, watcher = watched()
    with pytest.raises(UsageError) as caught:
        kernel.bpf(packed.MAP_LOOKUP_ELEM, values)
    assert words in str(caught.value)
    assert watcher.entered == []


def test_strings_reach_the_kernel(kernel: LiveKernel) -> None:
    spec = ProgramSpec("tracepoint", ProgType.RAW_TRACEPOINT, insns=[Mov.imm(R0, 0), exit_()])
    with spec.load(kernel) as prog:
        for name in ("sched_switch", b"sched_switch"):
            values: dict[str, Value] = {"raw_tracepoint.name": name, "raw_tracepoint.prog_fd": prog.fd}
            kernel.close(kernel.bpf(packed.RAW_TRACEPOINT_OPEN, values).ret)
        with pytest.raises(SyscallError) as caught:
            kernel.bpf(packed.RAW_TRACEPOINT_OPEN, {"raw_tracepoint.name": "sched_sw", "raw_tracepoint.prog_fd": prog.fd})
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(SyscallError) as caught:
        kernel.bpf(packed.OBJ_GET, {"pathname": "/proc/no/such/file"})
    assert caught.value.errno == errno.ENOENT


# -- errors --------------------------------------------------------------------------------------------------


def test_errors_carry_the_attr_before_and_after(kernel: LiveKernel) -> None:
    with HASH.create(kernel) as m:
        m.update_batch({1: 1, 2: 2, 3: 3})
        sent: dict[str, Value] = {
            "batch.out_batch": bytearray(4),
            "batch.keys": bytearray(4 * 10),
            "batch.values": bytearray(8 * 10),
            "batch.count": 10,
            "batch.map_fd": m.fd,
        }
        with pytest.raises(SyscallError) as caught:
            kernel.bpf(packed.MAP_LOOKUP_BATCH, sent)
    err = caught.value
    assert (err.errno, err.call) == (errno.ENOENT, "bpf(BPF_MAP_LOOKUP_BATCH)")
    before, after = packed.MAP_LOOKUP_BATCH.unpack(err.attr), packed.MAP_LOOKUP_BATCH.unpack(err.attr_after)
    assert before["batch.count"] == 10
    assert after["batch.count"] == 3
    assert before["batch.keys"] == after["batch.keys"] != 0


def test_enotsupp_has_a_name(kernel: LiveKernel) -> None:
    with ring(PAGE_SIZE).create(kernel) as m, pytest.raises(SyscallError) as caught:
        kernel.bpf(packed.MAP_LOOKUP_ELEM, {"map_fd": m.fd, "key": None, "value": bytearray(8)})
    assert caught.value.errno == 524
    assert str(caught.value) == "bpf(BPF_MAP_LOOKUP_ELEM) was refused with ENOTSUPP"


def test_calls_without_an_attr(kernel: LiveKernel) -> None:
    for use, name, number in (
        (lambda: kernel.open("/no/such/file"), "openat(/no/such/file)", errno.ENOENT),
        (lambda: kernel.read_file("/proc"), "read(/proc)", errno.EISDIR),
        (lambda: kernel.list_dir("/no/such"), "getdents64(/no/such)", errno.ENOENT),
        (lambda: kernel.identity("/no/such"), "newfstatat(/no/such)", errno.ENOENT),
        (lambda: kernel.close(1 << 20), "close", errno.EBADF),
        (lambda: kernel.ioctl(0, 0x2400), "ioctl", errno.ENOTTY),
        (lambda: kernel.mmap(1 << 20, PAGE_SIZE), "mmap", errno.EBADF),
        (lambda: kernel.fsopen("no-such-filesystem"), "fsopen", errno.ENODEV),
        (lambda: kernel.fsmount(1 << 20), "fsmount", errno.EBADF),
        (lambda: kernel.fsconfig_create(1 << 20), "fsconfig", errno.EBADF),
    ):
        with pytest.raises(SyscallError) as caught:
            use()
        assert (caught.value.call, caught.value.errno, caught.value.attr) == (name, number, b"")


def test_perf_event_open_errors(kernel: LiveKernel) -> None:
    with pytest.raises(SyscallError) as caught:
        kernel.perf_event_open({"type": 1, "config": 999}, pid=0, cpu=-1)
    assert (caught.value.call, caught.value.errno) == ("perf_event_open", errno.ENOENT)
    assert packed.PERF_EVENT_ATTR.unpack(caught.value.attr)["config"] == 999
    # The kernel says how large its own attr is.
    with pytest.raises(SyscallError) as caught:
        kernel.perf_event_open({"type": 1, "size": 8}, pid=0, cpu=-1)
    assert caught.value.errno == errno.E2BIG
    assert int(packed.PERF_EVENT_ATTR.unpack(caught.value.attr_after)["size"]) >= 112


def test_an_error_keeps_no_references_to_the_values(kernel: LiveKernel) -> None:
    """What was passed can be changed and freed as soon as the call is over."""
    key, value = bytearray(4), bytearray(8)
    with HASH.create(kernel) as m:
        with pytest.raises(SyscallError):
            kernel.bpf(packed.MAP_LOOKUP_ELEM, {"map_fd": m.fd, "key": key, "value": value})
        m.update(0, 1)
        kernel.bpf(packed.MAP_LOOKUP_ELEM, {"map_fd": m.fd, "key": key, "value": value})
    assert int.from_bytes(value, sys.byteorder) == 1
    key.clear()
    value.extend(b"x")


def test_replies(kernel: LiveKernel) -> None:
    with FINE.load(kernel) as prog:
        values: dict[str, Value] = {
            "test.prog_fd": prog.fd, "test.data_in": PACKET, "test.data_size_in": len(PACKET),
            "test.data_out": (out := bytearray(64)), "test.data_size_out": 64,
        }  # fmt: skip
        reply = kernel.bpf(packed.PROG_TEST_RUN, values)
        assert reply["test.retval"] == 1
        assert reply["test.data_size_out"] == 64
        assert reply.ret == 0
        assert out == PACKET
        with pytest.raises(KeyError):
            reply["nothing"]
    assert packed.MAP_CREATE.command == "MAP_CREATE"


# -- observers -----------------------------------------------------------------------------------------------


class Reader(Watcher):
    """Follows the pointers of each attr while the call is being made."""

    def __init__(self) -> None:
        super().__init__()
        self.pointed: list[dict[str, bytes]] = []

    def enter(self, call: Call) -> None:
        super().enter(call)
        seen = {}
        if call.layout is not None:
            fields = call.layout.unpack(call.attr)
            for path, kind in call.layout.pointers:
                value, address = call.memory.get(path), fields[path]
                assert (value is None) == (address == 0), path
                if isinstance(value, bytes | bytearray) and isinstance(address, int):
                    seen[path] = ctypes.string_at(address, len(value))
                    assert kind == "out" or seen[path] == value, path
        self.pointed.append(seen)


def test_observers_see_the_bytes_that_are_sent() -> None:
    watcher = Reader()
    kernel = LiveKernel(watcher)
    with HASH.create(kernel) as m:
        m.update(b"\1\2\3\4", b"abcdefgh")
        assert m.lookup(b"\1\2\3\4") == b"abcdefgh"
        assert m.lookup(b"none") is None
        fd = m.fd
    assert [(call.name, call.errno) for call in watcher.left] == [
        ("bpf", 0), ("bpf", 0), ("bpf", 0), ("bpf", errno.ENOENT), ("close", 0),
    ]  # fmt: skip
    assert watcher.bpf_calls() == ["MAP_CREATE", "MAP_UPDATE_ELEM", "MAP_LOOKUP_ELEM", "MAP_LOOKUP_ELEM"]
    create, update, lookup, missing, close = watcher.left
    assert create.result == fd
    assert create.args == {"cmd": 0, "size": packed.MAP_CREATE.size}
    assert packed.MAP_CREATE.unpack(create.attr)["map_name"] == b"hash".ljust(16, b"\0")
    assert watcher.pointed[1] == {"key": b"\1\2\3\4", "value": b"abcdefgh"}
    assert watcher.pointed[2]["key"] == b"\1\2\3\4"
    # The buffer that the call filled is there to be shown.
    assert lookup.memory["value"] == b"abcdefgh"
    assert update.seconds > 0
    assert missing.result == -1
    assert close.args == {"fd": fd}
    assert all(call.attr_after == call.attr for call in (create, update, lookup))


def test_observers_see_what_the_kernel_wrote_back() -> None:
    kernel, watcher = watched()
    with FINE.load(kernel) as prog:
        prog.test_run(data=PACKET, repeat=3)
        call = watcher.left[-1]
        assert packed.PROG_TEST_RUN.unpack(call.attr)["test.retval"] == 0
        assert packed.PROG_TEST_RUN.unpack(call.attr_after)["test.retval"] == 1
        prog.info()
        call = watcher.left[-1]
        assert call.info is packed.PROG_INFO
        filled = call.memory["info.info"]
        assert isinstance(filled, bytearray)
        assert call.info.unpack(filled)["type"] == ProgType.SOCKET_FILTER


def test_every_call_is_seen() -> None:
    """Reading a ring, a perf buffer and files: nothing passes the observer by, and what is opened is closed."""
    kernel, watcher = watched()
    before = open_fds()
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog, RingBuf(prog.maps["ring"], PAIR) as rb:
        run(prog, 3)
        rb.read()
        rb.poll(0.2)
    with perf_array().create(kernel) as m, PerfBuf(m, PAIR, size=1):
        pass
    kernel.read_file("/proc/self/comm")
    kernel.list_dir("/proc/self/fd")
    kernel.identity("/proc/self/ns/pid")
    kernel.rlimit(resource.RLIMIT_NOFILE)
    assert open_fds() == before
    names = [call.name for call in watcher.left]
    assert {"bpf", "mmap", "epoll_create1", "epoll_ctl", "epoll_wait", "perf_event_open", "openat", "read", "close"} <= set(names)
    assert {"getdents64", "newfstatat", "prlimit64"} <= set(names)
    assert len(watcher.entered) == len(watcher.left)
    opened = [
        call.result
        for call in watcher.left
        if call.name in ("openat", "epoll_create1", "perf_event_open")
        or (call.layout is not None and call.layout.command in ("MAP_CREATE", "PROG_LOAD"))
    ]
    assert sorted(opened) == sorted(call.args["fd"] for call in watcher.left if call.name == "close")  # type: ignore[type-var]


def test_observers_see_failures() -> None:
    kernel, watcher = watched()
    for use in (
        lambda: kernel.open("/no/such/file"),
        lambda: kernel.fsopen("no-such-filesystem"),
        lambda: kernel.bpf(packed.MAP_CREATE, {}),
        lambda: kernel.perf_event_open({"type": 999}, pid=0, cpu=-1),
        lambda: kernel.read_file("/proc"),
    ):
        with pytest.raises(SyscallError):
            use()
    failed = [(call.name, errno.errorcode[call.errno]) for call in watcher.left if call.errno]
    assert failed == [
        ("openat", "ENOENT"), ("fsopen", "ENODEV"), ("bpf", "EINVAL"), ("perf_event_open", "ENOENT"), ("read", "EISDIR"),
    ]  # fmt: skip


# -- info structs --------------------------------------------------------------------------------------------


def test_info_with_nested_pointers(kernel: LiveKernel) -> None:
    a, b = (MapSpec(name, MapType.ARRAY, key=4, value=8, max_entries=1) for name in "ab")
    spec = ProgramSpec("two_maps", ProgType.SOCKET_FILTER, insns=[map_value(R1, a), map_value(R2, b), Mov.imm(R0, 0), exit_()])
    with spec.load(kernel) as prog:
        plain, known = kernel.obj_info(prog.fd, packed.PROG_INFO)
        assert known <= packed.PROG_INFO.size
        assert plain["nr_map_ids"] == 2
        size = plain["xlated_prog_len"]
        assert isinstance(size, int)
        code, ids = bytearray(size), bytearray(8)
        values: dict[str, Value] = {
            "xlated_prog_insns": code, "xlated_prog_len": size, "map_ids": ids, "nr_map_ids": 2,
        }  # fmt: skip
        info, _ = kernel.obj_info(prog.fd, packed.PROG_INFO, values)
        assert info["xlated_prog_len"] == size
        assert list(struct.unpack("=II", ids)) == [prog.maps[name].info()["id"] for name in ("a", "b")]
        assert code[0] == 0x18  # ld_imm64
        assert code.endswith(b"\x95" + bytes(7))
        with pytest.raises(UsageError, match="map_ids takes a buffer to write to"):
            kernel.obj_info(prog.fd, packed.PROG_INFO, {"map_ids": bytes(8), "nr_map_ids": 2})


def test_info_of_no_bpf_object(kernel: LiveKernel) -> None:
    with pytest.raises(SyscallError) as caught:
        kernel.obj_info(0, packed.MAP_INFO)
    assert caught.value.call == "bpf(BPF_OBJ_GET_INFO_BY_FD)"


# -- memory --------------------------------------------------------------------------------------------------


def test_memory_outlives_what_it_was_made_of(kernel: LiveKernel) -> None:
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog:
        run(prog, 5)
        mapped = kernel.mmap(prog.maps["ring"].fd, 3 * PAGE_SIZE, offset=PAGE_SIZE)
    assert mapped.load_u64(0) == 5 * 24
    assert mapped.load_u32(PAGE_SIZE) == 16
    mapped.close()
    mapped.close()
    with pytest.raises(ValueError, match="released"):
        mapped.load_u64(0)


def test_slices_keep_the_pages(kernel: LiveKernel) -> None:
    """Closing while somebody looks into the memory neither fails nor pulls it away."""
    with by_reserve(ring(PAGE_SIZE)).load(kernel) as prog:
        run(prog, 5)
        before = open_fds()
        mapped = kernel.mmap(prog.maps["ring"].fd, 3 * PAGE_SIZE, offset=PAGE_SIZE)
        part = mapped.view[PAGE_SIZE : PAGE_SIZE + 5 * 24]
        column = part.cast("Q")[1::3]
        rows = struct.iter_unpack("=8xQQ", mapped.view[PAGE_SIZE : PAGE_SIZE + 5 * 24])
        whole = struct.iter_unpack("=8Q", mapped.view)
        mapped.close()
        del mapped
    assert column.tolist() == [0, 1, 2, 3, 4]
    assert [row[0] for row in rows] == [0, 1, 2, 3, 4]
    assert next(whole)[0] == 5 * 24
    del part, column, rows, whole
    assert open_fds().keys() <= before.keys()


def test_a_read_only_mapping(kernel: LiveKernel) -> None:
    with ring(PAGE_SIZE).create(kernel) as m, kernel.mmap(m.fd, PAGE_SIZE) as mapped:
        assert mapped.view.readonly
        with pytest.raises(TypeError):
            mapped.store_u64(0, 1)


def test_fence_holds_on_weakly_ordered_machines_and_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full barrier takes a release followed by an acquire; taking a free lock and giving it back is none."""
    steps: list[str] = []

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.Lock()

        def acquire(self) -> None:
            self._lock.acquire()
            steps.append("acquire")

        def release(self) -> None:
            steps.append("release")
            self._lock.release()

    def fences(times: int) -> None:
        for _ in range(times):
            memory.MappedMemory.fence(None)  # type: ignore[arg-type]  # it uses no memory

    monkeypatch.setattr(memory, "_ORDERED", False)
    monkeypatch.setattr(memory, "_lock", Lock())
    fences(1)
    assert "acquire" in steps[steps.index("release") :]
    threads = [threading.Thread(target=fences, args=(2000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


# -- polling, files, limits, names ---------------------------------------------------------------------------


def test_poller(kernel: LiveKernel) -> None:
    read, write = os.pipe()
    other, other_write = os.pipe()
    poller = kernel.poller()
    poller.add(read)
    poller.add(other)
    start = time.monotonic()
    assert poller.wait(0.05) == []
    assert time.monotonic() - start >= 0.04
    assert poller.wait(0) == []
    os.write(write, b"x")
    # Level-triggered: as long as it is there.
    assert poller.wait(10) == [read]
    assert poller.wait(None) == [read]
    os.write(other_write, b"x")
    assert sorted(poller.wait(10)) == sorted([read, other])
    os.read(read, 1)
    assert poller.wait(10) == [other]
    with pytest.raises(SyscallError) as caught:
        poller.add(read)
    assert (caught.value.call, caught.value.errno) == ("epoll_ctl", errno.EEXIST)
    poller.close()
    poller.close()
    for fd in (read, write, other, other_write):
        os.close(fd)


def test_read_chunks(kernel: LiveKernel) -> None:
    path = "/proc/kallsyms"
    pieces = list(kernel.read_chunks(path))
    with open(path, "rb") as file:
        assert b"".join(pieces).count(b"\n") == sum(1 for _ in file)
    # Kernel-made files give a page at most per read; the pieces are worth the while.
    assert all(len(piece) >= 1 << 16 for piece in pieces[:-1])
    assert max(map(len, pieces)) < 1 << 18
    assert kernel.read_file("/proc/self/comm").endswith(b"\n")
    assert list(kernel.read_chunks("/dev/null")) == []


def test_reading_may_be_given_up(kernel: LiveKernel) -> None:
    before = open_fds()
    chunks = kernel.read_chunks("/proc/kallsyms")
    assert next(chunks)
    assert len(open_fds()) == len(before) + 1
    chunks.close()  # type: ignore[attr-defined]  # a generator
    assert open_fds() == before


def test_files_below_a_directory(kernel: LiveKernel) -> None:
    fd = kernel.open("/proc/self")
    assert kernel.read_file("comm", dir_fd=fd) == kernel.read_file("/proc/self/comm")
    assert "comm" in kernel.list_dir("/proc/self")
    assert not os.get_inheritable(fd)
    kernel.close(fd)


def test_a_mount_that_nobody_sees(kernel: LiveKernel) -> None:
    mounts = kernel.read_file("/proc/self/mountinfo")
    context = kernel.fsopen("tmpfs")
    kernel.fsconfig_create(context)
    fd = kernel.fsmount(context)
    assert kernel.read_file("/proc/self/mountinfo") == mounts
    root = kernel.open(".", dir_fd=fd)
    assert os.listdir(root) == []
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(context)
    for each in (root, fd, context):
        kernel.close(each)


def test_rlimit(kernel: LiveKernel) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert kernel.rlimit(resource.RLIMIT_NOFILE) == before
    assert kernel.rlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1])) == before
    try:
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[0] - 1, before[1])
    finally:
        assert kernel.rlimit(resource.RLIMIT_NOFILE, before) == (before[0] - 1, before[1])
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    with pytest.raises(SyscallError) as caught:
        kernel.rlimit(resource.RLIMIT_NOFILE, (10, 5))
    assert (caught.value.call, caught.value.errno) == ("prlimit64", errno.EINVAL)
    with pytest.raises(SyscallError) as caught:
        kernel.rlimit(resource.RLIMIT_NOFILE, (1 << 40, 1 << 40))
    assert caught.value.errno == errno.EPERM


def test_identity_is_what_the_kernel_calls_it(kernel: LiveKernel) -> None:
    """bpf_get_ns_current_pid_tgid knows a namespace by these two numbers."""
    device, inode = kernel.identity("/proc/self/ns/pid")
    assert inode == os.stat("/proc/self/ns/pid").st_ino
    found = MapSpec("found", MapType.ARRAY, key=4, value=8, max_entries=1)
    insns = [
        ld_imm64(R1, device), ld_imm64(R2, inode), Mov.reg(R3, R10), Add.imm(R3, -8), Mov.imm(R4, 8),
        call(Helper.get_ns_current_pid_tgid), JNe.imm(R0, 0, "out"),
        map_value(R1, found), load(R2, R10, -8, W), store(R1, 0, R2, W), load(R2, R10, -4, W), store(R1, 4, R2, W),
        label("out"), exit_(),
    ]  # fmt: skip
    with ProgramSpec("whoami", ProgType.RAW_TRACEPOINT, insns=insns).load(kernel) as prog:
        assert prog.test_run() == 0
        assert prog.maps["found"].lookup(0) == struct.pack("=II", threading.get_native_id(), os.getpid())


def test_the_kernels_numbers_of_a_device_are_not_libcs(kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        st_dev, st_ino = os.makedev(259, 1000), 7

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _: Found)
        found = kernel.identity("/anything")
    assert found == (259 << 20 | 1000, 7)


def test_ids_of_files_elsewhere(kernel: LiveKernel) -> None:
    """The device's 20 bits of minor number, as in /proc/self/mountinfo."""
    device, _ = kernel.identity("/proc")
    lines = [line.split() for line in kernel.read_file("/proc/self/mountinfo").decode().splitlines()]
    major, minor = map(int, next(line[2] for line in reversed(lines) if line[4] == "/proc").split(":"))
    assert device == major << 20 | minor


def test_open_kernel_is_a_context_manager() -> None:
    with open_kernel() as kernel:
        assert kernel.read_file("/proc/self/comm")


def test_system_call_numbers() -> None:
    assert nr.numbers("x86_64") == (321, 298)
    assert nr.numbers("aarch64") == nr.numbers("riscv64") == (280, 241)
    with pytest.raises(NotSupportedError, match="rawkm on vax"):
        nr.numbers("vax")
    text = Path("/usr/include/asm-generic/unistd.h").read_text()
    for name, number in (("fsopen", nr.FSOPEN), ("fsconfig", nr.FSCONFIG), ("fsmount", nr.FSMOUNT)):
        assert re.search(rf"__NR_{name} {number}$", text, re.MULTILINE)
    assert re.search(r"__NR_bpf 280$", text, re.MULTILINE)
    assert re.search(r"__NR_perf_event_open 241$", text, re.MULTILINE)
    assert AttachType.TRACE_KPROBE_MULTI == 42


def test_stores_of_a_program_and_of_python_meet(kernel: LiveKernel) -> None:
    """One word, one access, both ways."""
    spec = MapSpec("word", MapType.ARRAY, key=4, value=8, max_entries=1, flags=1 << 10)
    insns = [map_value(R1, spec), load(R2, R1, 0, DW), Add.imm(R2, 1), store(R1, 0, R2, DW), Mov.imm(R0, 0), exit_()]
    with ProgramSpec("count", ProgType.SOCKET_FILTER, insns=insns).load(kernel) as prog, prog.maps["word"].mmap() as mapped:
        mapped.store_u64(0, 2**63)
        prog.test_run(data=PACKET, repeat=10)
        assert mapped.load_u64(0) == 2**63 + 10


@pytest.mark.parametrize("go", [True, False])
def test_a_started_command_leaves_no_pipe(kernel: LiveKernel, go: bool) -> None:
    """Its pidfd is its owner's; what it was prepared with goes once it runs, or has ended without."""
    before = open_fds()
    child = kernel.start(["/bin/true"], seed=lambda: None)
    if go:
        child.go()
    child.end()
    kernel.close(child.fd)
    assert open_fds() == before
