"""Any bytes of any command: decoded without a word, and back again, every one of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rawkm import uapi
from rawkm.errors import UsageError
from rawkm.uapi import codec, layouts, names
from rawkm.uapi.constants import AttachType, Cmd, LinkType

COMMANDS = sorted(set(names.members(Cmd).values()) - {Cmd.COMMON_ATTRS})


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """0 to 4096 bytes: random, or mostly zeros, or counting."""
    size = draw(st.integers(0, 4096) | st.integers(0, 200))
    head = draw(st.binary(max_size=min(size, 300)))
    filler = draw(st.sampled_from([b"\0", b"\xff", bytes(range(256)), b"\0\1"]))
    data = (head + filler * (size // len(filler) + 1))[:size]
    at = draw(st.integers(0, max(size - 1, 0)))
    return data[:at] + draw(st.binary(max_size=1)) + data[at + 1 :]


@st.composite
def links(draw: st.DrawFn) -> bytes:
    """An attr of LINK_CREATE whose attach_type is one."""
    data = draw(anything())
    type = draw(st.sampled_from(sorted(names.members(AttachType).values())))
    return data[:8] + struct.pack("=I", type)[: max(len(data) - 8, 0)] + data[12:]


@given(st.sampled_from(COMMANDS), anything())
@example(Cmd.MAP_CREATE, bytes(4096))
def test_there_and_back(cmd: int, data: bytes) -> None:
    check(uapi.decode(cmd, data), data, cmd)


@given(links())
def test_there_and_back_for_every_kind_of_link(data: bytes) -> None:
    check(uapi.decode(Cmd.LINK_CREATE, data), data, Cmd.LINK_CREATE)


@given(st.sampled_from(layouts.STRUCTS), anything())
def test_there_and_back_for_structs_that_are_no_attrs(name: str, data: bytes) -> None:
    check(codec.decode_struct(name, data), data, name)


@given(anything(), st.sampled_from(sorted(names.members(LinkType).values())), st.integers(0, 7))
def test_there_and_back_for_every_link_info(data: bytes, type: int, event: int) -> None:
    data = (struct.pack("=I12xI", type, event) + data)[: len(data)]
    check(codec.decode_struct("link_info", data), data, "link_info")


def check(decoded: codec.Decoded, data: bytes, command: int | str) -> None:
    assert bytes(decoded) == data
    covered = bytearray(data)
    for offset, raw in decoded.uncovered.items():
        assert raw and 0 not in raw
        assert data[offset : offset + len(raw)] == raw
        # Runs are as long as they can be.
        assert data[offset + len(raw) : offset + len(raw) + 1] in (b"", b"\0") or offset + len(raw) in ends(decoded)
        covered[offset : offset + len(raw)] = bytes(len(raw))
    # Going by attach_type, by the variant, by name and by number is the same.
    assert codec.encode(command, decoded.values, size=len(data)) == covered
    assert codec.encode(decoded.command, decoded.values, variant=decoded.variant, size=len(data)) == covered
    if not isinstance(command, str):
        definition = layouts.for_attr(command, data)
        assert set(decoded.values) == {*definition.fields, *(alias for alias, _ in definition.aliases)}


def ends(decoded: codec.Decoded) -> set[int]:
    """Where holes end: a field follows."""
    command = decoded.command.lower() + (f".{decoded.variant}" if decoded.variant else "")
    return {member.offset for member in layouts.named(command).members if member.role.kind != "hole"}


@given(st.integers() | st.integers(-5, 80), st.binary(max_size=64))
def test_a_number_is_a_command_or_an_error(cmd: int, data: bytes) -> None:
    if cmd & ~Cmd.COMMON_ATTRS in COMMANDS:
        assert bytes(uapi.decode(cmd, data)) == data
    else:
        with pytest.raises(UsageError):
            uapi.decode(cmd, data)
