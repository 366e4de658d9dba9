"""What a program must come to: the interpreter with models of the maps and of the context that TEST_RUN gives it."""

from __future__ import annotations

import struct
import sys

from rawkm.asm import interp, interp_maps
from rawkm.errors import NotModelled
from rawkm.fuzz import prog_builder
from rawkm.uapi.constants import MapType, ProgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawkm.asm.interp_maps import MapModel
    from rawkm.fuzz.prog_recipes import Example

# What skb programs find in their context before they run, as PROG_TEST_RUN's ctx_in gives it.
SKB_SIZE = 192  # sizeof(struct __sk_buff) of Linux 5.10 and later: older kernels take less, and zeros
MARK, PRIORITY = 0x8000_0001, 0x1234_5678
CB = (0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 7)
# The fields of it that are compared.
SKB_WORDS = (prog_builder.SKB_MARK, prog_builder.SKB_PRIORITY, *range(prog_builder.SKB_CB, prog_builder.SKB_CB + 20, 4))
RAW_ARGS = (0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF, 7, 64, 0x8000000000000001, 2)


def skb_in() -> bytes:
    """The struct __sk_buff that TEST_RUN is given."""
    ctx = bytearray(SKB_SIZE)
    struct.pack_into("=I", ctx, prog_builder.SKB_MARK, MARK)
    struct.pack_into("=I", ctx, prog_builder.SKB_PRIORITY, PRIORITY)
    struct.pack_into("=5I", ctx, prog_builder.SKB_CB, *CB)
    return bytes(ctx)


def raw_in() -> bytes:
    """The arguments of a raw tracepoint."""
    return struct.pack(f"={prog_builder.RAW_ARGS}Q", *RAW_ARGS)


class Result:
    """``retval``: 32 bits. ``maps``: name → contents: key → value (this CPU's of a per-CPU map), or of a queue the values in the
    order in which they come out. ``data``: the packet afterwards, None without one; ``skb``: (mark, priority, cb...) afterwards.
    """

    __slots__ = ("data", "maps", "retval", "skb")

    def __init__(
        self, retval: int, maps: dict[str, dict[bytes, bytes] | list[bytes]], data: bytes | None, skb: tuple[int, ...] | None
    ) -> None:
        self.retval = retval
        self.maps = maps
        self.data = data
        self.skb = skb

    def parts(self) -> dict[str, object]:
        """Name → value of everything that is compared, in the order in which it is told."""
        found: dict[str, object] = {"retval": self.retval}
        for name, contents in self.maps.items():
            found[f"map {name}"] = contents
        if self.data is not None:
            found["packet"] = self.data
        if self.skb is not None:
            found["skb"] = self.skb
        return found


class _Context:
    """struct __sk_buff or xdp_md: 32-bit fields, some of which are pointers; any part of a field may be read."""

    def __init__(self, base: int, fields: dict[int, int], pointers: dict[int, int]) -> None:
        self.base = base
        self.fields = fields
        self.pointers = pointers

    def load(self, offset: int, size: int) -> int:
        if offset in self.pointers and size == 4:
            return self.pointers[offset]
        field = offset & ~3
        if field not in self.fields or (offset & 3) + size > 4:
            raise NotModelled(f"a load of {size} bytes at {offset} of the context: not modelled")
        raw = self.fields[field].to_bytes(4, sys.byteorder)
        return int.from_bytes(raw[offset & 3 : (offset & 3) + size], sys.byteorder)

    def store(self, offset: int, size: int, value: int) -> None:
        if offset not in self.fields or size != 4 or offset == prog_builder.SKB_LEN:
            raise NotModelled(f"a store of {size} bytes at {offset} of the context: not modelled")
        self.fields[offset] = value & 0xFFFFFFFF


def maps_of(names: Sequence[str]) -> dict[str, MapModel]:
    """Empty models of the maps with these names."""
    found: dict[str, MapModel] = {}
    for name in names:
        spec = prog_builder.MAPS[name]
        if spec.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            found[name] = interp_maps.ArrayModel(spec.value, spec.max_entries, direct=spec.type == MapType.ARRAY)
        elif spec.type in (MapType.HASH, MapType.PERCPU_HASH):
            percpu = spec.type == MapType.PERCPU_HASH
            found[name] = interp_maps.HashModel(spec.key, spec.value, spec.max_entries, percpu=percpu)
        else:
            found[name] = interp_maps.QueueModel(spec.value, spec.max_entries, last=spec.type == MapType.STACK)
    return found


def run(example: Example, *, cpu: int = 0, salt: int = 0) -> Result:
    """The program's result. ``salt``: other addresses (see interp.Memory).

    Raises InterpreterError for what the verifier must not accept, and for what is not modelled.
    """
    built, data = example.built, example.data
    memory = interp.Memory(salt)
    maps = maps_of(built.maps)
    helpers = {**interp_maps.HELPERS, 8: lambda _machine, _registers: cpu}
    code, references = example.for_model()
    machine = interp.Machine(
        code, maps={reference: maps[name] for reference, name in references.items()}, helpers=helpers, memory=memory
    )
    packet = context = None
    if built.type == ProgType.RAW_TRACEPOINT:
        ctx = memory.room(bytearray(raw_in()), readonly=True).base
    else:
        visible = data[prog_builder.ETH_HLEN :] if built.type == ProgType.SOCKET_FILTER else data
        packet = machine.packet = memory.room(bytearray(visible))
        begin, end = packet.base, packet.base + len(visible)
        if built.type == ProgType.XDP:
            fields: dict[int, int] = {}
            pointers = {prog_builder.XDP_DATA: begin, prog_builder.XDP_DATA_END: end}
        else:
            fields = {prog_builder.SKB_LEN: len(visible), prog_builder.SKB_MARK: MARK, prog_builder.SKB_PRIORITY: PRIORITY}
            fields |= {prog_builder.SKB_CB + 4 * i: word for i, word in enumerate(CB)}
            pointers = {}
            if built.type == ProgType.SCHED_CLS:
                pointers = {prog_builder.SKB_DATA: begin, prog_builder.SKB_DATA_END: end}
        context = memory.add(lambda base: _Context(base, fields, pointers))
        ctx = context.base
    retval = machine.run(ctx) & 0xFFFFFFFF
    contents: dict[str, dict[bytes, bytes] | list[bytes]] = {}
    for name, model in maps.items():
        if isinstance(model, interp_maps.QueueModel):
            contents[name] = model.values[::-1] if model.last else list(model.values)
        else:
            contents[name] = model.contents()
    out = None if packet is None else bytes(packet.data)
    if out is not None and built.type == ProgType.SOCKET_FILTER:
        # It does not see the Ethernet header, which TEST_RUN gives back as zeros (net/bpf/test_run.c).
        out = bytes(prog_builder.ETH_HLEN) + out
    skb = None
    if context is not None and built.type != ProgType.XDP:
        skb = tuple(context.fields[word] for word in SKB_WORDS)
    return Result(retval, contents, out, skb)


def depends_on_addresses(example: Example, *, cpu: int = 0) -> bool:
    """Whether it comes to something else where everything lies elsewhere: then no model can tell what the kernel's is."""
    first, second = (run(example, cpu=cpu, salt=salt).parts() for salt in (0, 1))
    return first != second
