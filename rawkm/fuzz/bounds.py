"""What a campaign does not send, whatever came out of its choices: what would write into this process, what takes memory or time
without end, and what would attach to something that it did not make.

What is left out is counted by its reason, never dropped silently.
"""

from __future__ import annotations

import struct

from rawkm.fuzz.attr import members
from rawkm.fuzz.changes import USER
from rawkm.syscall.raw import Address, Block
from rawkm.uapi import layouts
from rawkm.uapi.constants import AttachType, Cmd, MapType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rawkm.fuzz.attr import Lowered

#: What one map may take.
MAP_BYTES = 8 << 20
#: Times that PROG_TEST_RUN may repeat a program.
REPEAT = 10_000
# Interfaces have small numbers; none has one of these.
_NO_INTERFACE = 1 << 20
_BY_INTERFACE = (AttachType.XDP, AttachType.TCX_INGRESS, AttachType.TCX_EGRESS, AttachType.NETKIT_PRIMARY, AttachType.NETKIT_PEER)
# Attached to what the caller is in, whatever target is given.
_TO_OURSELVES = (AttachType.FLOW_DISSECTOR, AttachType.LIRC_MODE2)
_PER_ELEMENT = 64
# As many bytes of an address, the rest of which the size cuts off, can still be an address of this process: the program itself
# may lie below 4 GiB. Two bytes cannot (mmap_min_addr), and six are a whole address.
_CUT = range(3, 6)
# Where any of prog_info, map_info, btf_info and link_info has a pointer.
_INFO_POINTERS = tuple(
    sorted(
        {
            member.offset
            for definition in layouts.DEFINITIONS
            if definition.command in ("prog_info", "map_info", "btf_info", "link_info")
            for member in definition.members
            if member.role.kind == "pointer"
        }
    )
)


#: Commands that reach beyond what the caller holds: attaching, statistics, rights.
DISTURBING = frozenset(
    {
        *(Cmd.LINK_CREATE, Cmd.LINK_UPDATE, Cmd.LINK_DETACH, Cmd.RAW_TRACEPOINT_OPEN),
        *(Cmd.PROG_ATTACH, Cmd.PROG_DETACH, Cmd.ENABLE_STATS, Cmd.TOKEN_CREATE),
    }
)


class Limits:
    """``memory``: bytes of the whole machine. ``cpus``: possible ones, each of which has its own value in a per-CPU map.

    ``owned``: the machine may be disturbed; without it only what is read-only or touches nothing but itself is sent.
    """

    __slots__ = ("cpus", "memory", "owned")

    def __init__(self, memory: int, cpus: int, *, owned: bool) -> None:
        self.memory = memory
        self.cpus = cpus
        self.owned = owned

    def refuse(self, call: Lowered) -> str:
        """Why the call is not made, "" when it may be."""
        if isinstance(call.attr, Address):
            return ""
        cmd = call.cmd & ~Cmd.COMMON_ATTRS
        if not self.owned and cmd in DISTURBING:
            return "a command that may disturb others"
        if cmd > Cmd.PROG_ASSOC_STRUCT_OPS:
            return ""
        data = bytes(call.attr[:168]).ljust(168, b"\0")
        definition = layouts.for_attr(cmd, data)
        for path, member in members(definition).items():
            if member.role.kind != "pointer":
                continue
            if member.offset in call.blocks:
                if min(call.size, len(data)) - member.offset in _CUT:
                    return "an address that is cut off in the middle"
            else:
                word = struct.unpack_from("=Q", data, member.offset)[0]
                if word in USER and not path.endswith("cookie"):
                    return "an address that may be this process's"
        check = _CHECKS.get(cmd)
        return "" if check is None else check(self, data, call)


def _map_create(limits: Limits, data: bytes, call: Lowered) -> str:  # noqa: ARG001
    type, key_size, value_size, entries = struct.unpack_from("=4I", data)
    size = (
        value_size * limits.cpus if type in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH) else value_size
    )
    if type in (MapType.RINGBUF, MapType.USER_RINGBUF):
        need = entries
    elif type == MapType.ARENA:
        need = 0
    else:
        # The kernel refuses what is more than all memory at once; in between it would look for it.
        need = entries * (key_size + size + _PER_ELEMENT)
        if entries * 8 > 2 * limits.memory:
            need = 0
        if type in (MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY) and entries > 4096:
            need = max(need, MAP_BYTES + 1)
    return "a map too large" if need > MAP_BYTES else ""


def _test_run(limits: Limits, data: bytes, call: Lowered) -> str:  # noqa: ARG001
    return "a program repeated too often" if struct.unpack_from("=I", data, 32)[0] > REPEAT else ""


def _attach(limits: Limits, data: bytes, call: Lowered) -> str:  # noqa: ARG001
    target, _, attach_type = struct.unpack_from("=3I", data)
    return _target(target, attach_type)


def _link_create(limits: Limits, data: bytes, call: Lowered) -> str:  # noqa: ARG001
    _, target, attach_type = struct.unpack_from("=3I", data)
    return _target(target, attach_type)


def _target(target: int, attach_type: int) -> str:
    if attach_type in _TO_OURSELVES:
        return "an attachment to this process's own namespace"
    if attach_type in _BY_INTERFACE and 0 < target < _NO_INTERFACE:
        return "an interface that may be there"
    return ""


def _info(limits: Limits, data: bytes, call: Lowered) -> str:  # noqa: ARG001
    block = call.blocks.get(8)
    if isinstance(block, Block):
        for at in _INFO_POINTERS:
            if at + 8 <= len(block.data) and at not in block.pointers and struct.unpack_from("=Q", block.data, at)[0] in USER:
                return "an address that may be this process's"
    return ""


_CHECKS = {
    Cmd.MAP_CREATE: _map_create,
    Cmd.PROG_TEST_RUN: _test_run,
    Cmd.PROG_ATTACH: _attach,
    Cmd.LINK_CREATE: _link_create,
    Cmd.OBJ_GET_INFO_BY_FD: _info,
}
