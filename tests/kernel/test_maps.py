"""Maps of the running kernel: elements, batches, per-CPU values, mmap, and what is refused before any system call."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable

import pytest

from rawkm.asm import DW, R0, R1, R2, R10, Add, JEq, Mov, W, call, exit_, label, load, map_ptr, store, store_imm
from rawkm.errors import SyscallError, UsageError
from rawkm.maps import Map, MapSpec
from rawkm.prog import ProgramSpec
from rawkm.syscall import PAGE_SIZE
from rawkm.syscall.live import LiveKernel
from rawkm.uapi.constants import Helper, MapFlag, MapType, MapUpdate, ProgType
from tests.kernel.fillers import PACKET
from tests.kernel.watching import watched

E2BIG, EEXIST, EINVAL, ENOENT, ENOSPC = 7, 17, 22, 2, 28
CPUS = os.sysconf("SC_NPROCESSORS_CONF")

HASHES = [MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH]
ARRAYS = [MapType.ARRAY, MapType.PERCPU_ARRAY]
PER_CPU = [MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY]


def spec(type: int, *, key: int = 4, value: int = 8, entries: int = 256, flags: int = 0) -> MapSpec:
    return MapSpec("m", type, key=key, value=value, max_entries=entries, flags=flags)


def number(raw: bytes | None) -> int:
    assert raw is not None
    return int.from_bytes(raw, sys.byteorder)


@pytest.mark.parametrize("type", HASHES)
def test_elements_of_a_hash(kernel: LiveKernel, type: int) -> None:
    with spec(type).create(kernel) as m:
        assert m.lookup(1) is None
        assert not m.delete(1)
        assert list(m.keys()) == []
        assert list(m.items()) == []
        m.update(1, 10)
        m.update(b"\2\0\0\0" if sys.byteorder == "little" else b"\0\0\0\2", bytes(m.value_size))
        assert number(m.lookup(1)) & 0xFF == 10
        assert m.lookup(2) == bytes(m.value_size)
        m.update(1, 11)
        assert number(m.lookup(1)) & 0xFF == 11
        assert sorted(map(number, m.keys())) == [1, 2]
        assert m.delete(1)
        assert not m.delete(1)
        assert m.lookup(1) is None
        assert [(number(key), value) for key, value in m.items()] == [(2, bytes(m.value_size))]


@pytest.mark.parametrize("type", ARRAYS)
def test_elements_of_an_array(kernel: LiveKernel, type: int) -> None:
    with spec(type, entries=5).create(kernel) as m:
        assert list(map(number, m.keys())) == [0, 1, 2, 3, 4]
        assert all(value == bytes(m.value_size) for _, value in m.items())
        m.update(4, 7)
        assert [number(value) & 0xFF for _, value in m.items()] == [0, 0, 0, 0, 7]
        assert m.lookup(5) is None
        with pytest.raises(SyscallError) as caught:
            m.update(5, 0)
        assert caught.value.errno == E2BIG
        with pytest.raises(SyscallError) as caught:
            m.delete(4)
        assert caught.value.errno == EINVAL


def test_update_flags(kernel: LiveKernel) -> None:
    with spec(MapType.HASH, entries=2).create(kernel) as m:
        with pytest.raises(SyscallError) as caught:
            m.update(1, 1, flags=MapUpdate.EXIST)
        assert caught.value.errno == ENOENT
        m.update(1, 1, flags=MapUpdate.NOEXIST)
        with pytest.raises(SyscallError) as caught:
            m.update(1, 2, flags=MapUpdate.NOEXIST)
        assert caught.value.errno == EEXIST
        m.update(2, 2)
        with pytest.raises(SyscallError) as caught:
            m.update(3, 3)
        assert caught.value.errno == E2BIG
    with spec(MapType.LRU_HASH, entries=64).create(kernel) as m:
        for key in range(1000):
            m.update(key, key)
        assert 0 < len(list(m.items())) <= 64


# -- per-CPU values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", PER_CPU)
@pytest.mark.parametrize("size", [1, 4, 8, 12, 24])
def test_per_cpu_values(kernel: LiveKernel, type: int, size: int) -> None:
    slot = size + 7 & ~7
    with spec(type, value=size).create(kernel) as m:
        assert m.value_size == slot * CPUS
        each = b"".join(bytes([cpu + 1]) * size + bytes(slot - size) for cpu in range(CPUS))
        m.update(3, each)
        assert m.lookup(3) == each
        # An int goes to every CPU.
        m.update(3, 5)
        assert m.lookup(3) == (5).to_bytes(size, sys.byteorder).ljust(slot, b"\0") * CPUS
        with pytest.raises(UsageError, match=f"{1 << 8 * size} does not fit the {size}-byte value"):
            m.update(3, 1 << 8 * size)


def test_a_program_sees_its_cpus_value(kernel: LiveKernel) -> None:
    counters = MapSpec("counters", MapType.PERCPU_ARRAY, key=4, value=8, max_entries=3)
    insns = [
        store_imm(R10, -4, 1, W), map_ptr(R1, counters), Mov.reg(R2, R10), Add.imm(R2, -4),
        call(Helper.map_lookup_elem), JEq.imm(R0, 0, "out"), load(R1, R0, 0, DW), Add.imm(R1, 1), store(R0, 0, R1, DW),
        label("out"), Mov.imm(R0, 0), exit_(),
    ]  # fmt: skip
    with ProgramSpec("count", ProgType.SOCKET_FILTER, insns=insns).load(kernel) as prog:
        m = prog.maps["counters"]
        m.update(1, 100)
        prog.test_run(data=PACKET, repeat=1000)
        value = m.lookup(1)
        assert value is not None
        assert sum(struct.unpack(f"={CPUS}Q", value)) == 100 * CPUS + 1000


# -- batches -------------------------------------------------------------------------------------------------


def filled(kernel: LiveKernel, type: int, count: int, *, entries: int = 1000, key: int = 4) -> tuple[Map, dict[bytes, bytes]]:
    m = spec(type, key=key, entries=entries).create(kernel)
    wanted = {}
    for i in range(count):
        raw = bytes(m.value_size - 8) + i.to_bytes(8, sys.byteorder) if type in PER_CPU else i.to_bytes(8, sys.byteorder)
        wanted[i.to_bytes(key, sys.byteorder)] = raw
    m.update_batch(wanted)
    return m, wanted


def split(m: Map, keys: bytes, values: bytes) -> dict[bytes, bytes]:
    width, size = m.spec.key, m.value_size
    count = len(keys) // width
    assert len(keys) == count * width
    assert len(values) == count * size
    return {keys[i * width : (i + 1) * width]: values[i * size : (i + 1) * size] for i in range(count)}


@pytest.mark.parametrize("type", HASHES)
@pytest.mark.parametrize("count", [7, 100, 600, 601, 5000])
def test_batches_of_a_hash(kernel: LiveKernel, type: int, count: int) -> None:
    """The end comes as ENOENT together with the last elements."""
    m, wanted = filled(kernel, type, 600)
    with m:
        got: dict[bytes, bytes] = {}
        sizes = []
        for keys, values in m.lookup_batch(count):
            part = split(m, keys, values)
            assert not part.keys() & got.keys()
            got |= part
            sizes.append(len(part))
        assert got == wanted
        assert max(sizes) <= count
        assert all(sizes)
        assert dict(m.items()) == wanted


@pytest.mark.parametrize("type", ARRAYS)
@pytest.mark.parametrize("count", [1, 7, 100, 600, 601, 5000])
def test_batches_of_an_array(kernel: LiveKernel, type: int, count: int) -> None:
    m, wanted = filled(kernel, type, 600, entries=600)
    with m:
        parts = [split(m, keys, values) for keys, values in m.lookup_batch(count)]
        assert [len(part) for part in parts[:-1]] == [min(count, 600)] * (len(parts) - 1)
        assert {key: value for part in parts for key, value in part.items()} == wanted
        assert list(m.items()) == list(wanted.items())


@pytest.mark.parametrize("key", [1, 2, 4, 8, 20])
def test_batches_with_keys_of_any_size(kernel: LiveKernel, key: int) -> None:
    m, wanted = filled(kernel, MapType.HASH, 200, key=key)
    with m:
        got: dict[bytes, bytes] = {}
        for keys, values in m.lookup_batch(16):
            got |= split(m, keys, values)
        assert got == wanted


def test_a_bucket_larger_than_the_batch() -> None:
    kernel, watcher = watched()
    m, wanted = filled(kernel, MapType.HASH, 900)
    with m:
        got: dict[bytes, bytes] = {}
        for keys, values in m.lookup_batch(1):
            got |= split(m, keys, values)
        assert got == wanted
    batches = [call for call in watcher.left if call.layout is not None and call.layout.command == "MAP_LOOKUP_BATCH"]
    assert ENOSPC in {call.errno for call in batches}
    assert len(batches) < 900


def test_one_call_reads_a_map_that_fits(kernel: LiveKernel) -> None:
    kernel, watcher = watched()
    for type in (MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.PERCPU_ARRAY):
        m, _ = filled(kernel, type, 50, entries=50)
        with m:
            before = watcher.bpf_calls().count("MAP_LOOKUP_BATCH")
            assert len(list(m.items())) == 50
            assert watcher.bpf_calls().count("MAP_LOOKUP_BATCH") - before == 1


def test_large_values_are_read_a_few_at_a_time() -> None:
    kernel, watcher = watched()
    with spec(MapType.ARRAY, value=1 << 20, entries=10).create(kernel) as m:
        m.update(9, b"x" * (1 << 20))
        assert [value[:1] for _, value in m.items()] == [b"\0"] * 9 + [b"x"]
    counts = [attr["batch.count"] for attr in watcher.attrs("MAP_LOOKUP_BATCH")]
    assert set(counts) == {3}


def test_a_map_without_batches_is_read_and_written_one_by_one() -> None:
    kernel, watcher = watched()
    empty = ProgramSpec("empty", ProgType.SOCKET_FILTER, insns=[Mov.imm(R0, 0), exit_()])
    with empty.load(kernel) as prog, spec(MapType.PROG_ARRAY, value=4, entries=9).create(kernel) as m:
        m.update_batch({3: prog.fd, 5: prog.fd})
        # What is read back is the program's id.
        id = prog.info()["id"]
        assert [(number(key), number(value)) for key, value in m.items()] == [(3, id), (5, id)]
        with pytest.raises(SyscallError, match="ENOTSUPP"):
            list(m.lookup_batch())
    calls = watcher.bpf_calls()
    assert calls.count("MAP_UPDATE_BATCH") == 1
    assert calls.count("MAP_UPDATE_ELEM") == 2
    assert calls.count("MAP_GET_NEXT_KEY") == 10


def test_update_batch(kernel: LiveKernel) -> None:
    kernel, watcher = watched()
    with spec(MapType.HASH, entries=10).create(kernel) as m:
        m.update_batch({})
        m.update_batch({key: key * key for key in range(10)})
        assert {number(key): number(value) for key, value in m.items()} == {key: key * key for key in range(10)}
        assert watcher.bpf_calls().count("MAP_UPDATE_BATCH") == 1
        assert "MAP_UPDATE_ELEM" not in watcher.bpf_calls()
        with pytest.raises(SyscallError) as caught:
            m.update_batch(dict.fromkeys(range(20), 0))
        assert caught.value.errno == E2BIG
    with spec(MapType.PERCPU_HASH).create(kernel) as m:
        m.update_batch({1: 5, 2: 6})
        assert struct.unpack(f"={CPUS}Q", m.lookup(2) or b"") == (6,) * CPUS


# -- mmap, info, life ----------------------------------------------------------------------------------------


def test_mmap(kernel: LiveKernel) -> None:
    with spec(MapType.ARRAY, value=12, entries=3, flags=MapFlag.MMAPABLE).create(kernel) as m:
        m.update(2, b"a" * 12)
        with m.mmap() as memory:
            assert memory.view[32:44] == b"a" * 12
            memory.store_u64(16, 0x1122334455667788)
            assert memory.load_u64(16) == 0x1122334455667788
            assert m.lookup(1) == struct.pack("=Q4x", 0x1122334455667788)
            m.update(1, bytes(12))
            assert memory.load_u64(16) == 0
        with m.mmap(writable=False) as memory:
            with pytest.raises(TypeError):
                memory.store_u64(0, 1)
            with pytest.raises(TypeError):
                memory.view[0] = 1
    with spec(MapType.ARRAY, value=8, entries=3 * PAGE_SIZE, flags=MapFlag.MMAPABLE).create(kernel) as m, m.mmap() as memory:
        memory.store_u64(8 * (3 * PAGE_SIZE - 1), 42)
        assert m.lookup(3 * PAGE_SIZE - 1) == (42).to_bytes(8, sys.byteorder)
    with spec(MapType.ARRAY).create(kernel) as m, pytest.raises(UsageError, match=r"m was not made with MapFlag\.MMAPABLE"):
        m.mmap()


def test_info(kernel: LiveKernel) -> None:
    with MapSpec("my.map_1", MapType.HASH, key=8, value=24, max_entries=77, flags=MapFlag.NO_PREALLOC).create(kernel) as m:
        info = m.info()
        found = [info[name] for name in ("type", "key_size", "value_size", "max_entries", "map_flags")]
        assert found == [MapType.HASH, 8, 24, 77, MapFlag.NO_PREALLOC]
        assert bytes(info["name"]).rstrip(b"\0") == b"my.map_1"
        assert isinstance(info["id"], int)
        assert info["id"] > 0


def test_close(kernel: LiveKernel) -> None:
    m = spec(MapType.HASH).create(kernel)
    assert repr(m) == f"<Map fd {m.fd}>"
    m.close()
    m.close()
    assert repr(m) == "<Map closed>"
    with pytest.raises(UsageError):
        m.lookup(1)


# -- refused before any system call --------------------------------------------------------------------------

USES: list[tuple[Callable[[Map], object], str]] = [
    (lambda m: m.lookup(b"abc"), "the map m has a key of 4 bytes, not 3"),
    (lambda m: m.lookup(b""), "a key of 4 bytes, not 0"),
    (lambda m: m.lookup(1 << 32), "4294967296 does not fit the 4-byte key"),
    (lambda m: m.lookup(-1), "-1 does not fit the 4-byte key"),
    (lambda m: m.lookup("abcd"), "the key of the map m takes bytes or an int, not str"),  # type: ignore[arg-type]
    (lambda m: m.update(1, b"1234567"), "a value of 8 bytes, not 7"),
    (lambda m: m.update(1, bytes(9)), "a value of 8 bytes, not 9"),
    (lambda m: m.update(1, None), "the value of the map m takes bytes or an int, not NoneType"),  # type: ignore[arg-type]
    (lambda m: m.update(b"abcde", 0), "a key of 4 bytes, not 5"),
    (lambda m: m.update(1, 1 << 64), "does not fit the 8-byte value"),
    (lambda m: m.delete(b"abcde"), "a key of 4 bytes, not 5"),
    (lambda m: m.update_batch({1: 1, 1 << 40: 1}), "does not fit the 4-byte key"),
    (lambda m: m.update_batch({1: bytes(8), 2: b"x"}), "a value of 8 bytes, not 1"),
    (lambda m: list(m.lookup_batch(0)), "at least one element"),
    (lambda m: m.mmap(), "MMAPABLE"),
]


@pytest.mark.parametrize(("use", "words"), USES)
def test_bad_sizes_are_refused_before_any_call(use: Callable[[Map], object], words: str) -> None:
    kernel, watcher = watched()
    with spec(MapType.HASH).create(kernel) as m:
        made = len(watcher.entered)
        with pytest.raises(UsageError) as caught:
            use(m)
        assert words in str(caught.value)
        assert len(watcher.entered) == made


@pytest.mark.parametrize("name", ["x" * 16, "a b", "a-b", "ä", "a/b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be named"):
        MapSpec(name, MapType.HASH)
    with pytest.raises(UsageError, match="cannot be named"):
        ProgramSpec(name, ProgType.KPROBE, insns=[])


def test_what_the_kernel_refuses_comes_with_a_hint(kernel: LiveKernel) -> None:
    with pytest.raises(SyscallError) as caught:
        spec(9999).create(kernel)
    words = "bpf(BPF_MAP_CREATE) was refused with EINVAL: the map m: this kernel does not know the map type"
    assert str(caught.value).startswith(words)
    with pytest.raises(SyscallError) as caught:
        spec(MapType.HASH, key=1 << 24).create(kernel)
    assert (caught.value.errno, bool(caught.value.hint)) == (E2BIG, True)
    with pytest.raises(UsageError, match="max_entries"):
        spec(MapType.HASH, entries=-1).create(kernel)


def test_memoryviews_and_bytearrays(kernel: LiveKernel) -> None:
    with spec(MapType.HASH).create(kernel) as m:
        m.update(bytearray(4), memoryview(bytes(8)))
        assert m.lookup(memoryview(b"\0\0\0\0")) == bytes(8)
        words = memoryview(struct.pack("=Q", 7)).cast("Q")
        m.update(0, words)
        assert m.lookup(0) == struct.pack("=Q", 7)
