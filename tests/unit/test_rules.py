"""The errno model: the table itself, and calls whose answers are known."""

from __future__ import annotations

import re
import struct
from errno import E2BIG, EBADF, EFAULT, EINVAL, ENOENT, EPERM

import pytest

from rawkm.rules import Call, Facts, Memory, Obj, Rule, predict, rules, suspects
from rawkm.rules.predict import TABLES
from rawkm.uapi.constants import Cmd, MapType, ProgType
from rawkm.uapi.tables import ATTR

KERNELS = ((5, 10), (6, 1), (6, 12), (6, 18), (7, 2))
FACTS = {version: Facts(version) for version in KERNELS}
HERE = FACTS[6, 12]

ARRAY = Obj("map", MapType.ARRAY, key_size=4, value_size=8, max_entries=2)
FDS = {3: ARRAY, 4: Obj("file"), 5: Obj("map", MapType.ARRAY, key_size=4, value_size=8, max_entries=2, frozen=True)}
KEY, VALUE = 0x10000, 0x20000
MEMORY = Memory([(KEY, struct.pack("=II", 1, 2), True), (VALUE, bytes(64), True)], whole=True)


def elem(fd: int = 3, key: int = KEY, value: int = VALUE, flags: int = 0, tail: bytes = b"") -> bytes:
    return struct.pack("=I4xQQQ", fd, key, value, flags) + tail


def ask(cmd: int, attr: bytes, facts: Facts = HERE, size: int | None = None) -> tuple[set[int], str]:
    prediction = predict(Call(cmd, attr, size=size, fds=FDS, memory=MEMORY), facts)
    return set(prediction.errnos), prediction.rule.name if prediction.rule else ""


def test_names_are_unique() -> None:
    names = [rule.name for rule in rules()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.name)
def test_a_rule_is_whole(rule: Rule) -> None:
    known = {path for group in ATTR for path, *_ in group}
    assert set(rule.fields) <= known, rule.name
    assert rule.text and rule.text[-1] not in ".,"
    assert rule.source or rule.errno is None
    assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", rule.name)
    assert rule.since <= rule.until
    assert not rule.command or getattr(Cmd, rule.command) >= 0


def test_no_two_of_a_name_in_one_table() -> None:
    """rules() would hide the second."""
    for table in TABLES.values():
        for version in KERNELS:
            names = [rule.name for rule in table.at(version)]
            twice = {name for name in names if names.count(name) > 1}
            # One rule may stand in several branches.
            assert all(len({id(r) for r in table.at(version) if r.name == name}) == 1 for name in twice), twice


def test_the_order_of_checks() -> None:
    """Each call has one fault more than the next: the kernel names the first."""
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(9, 1, 1, 8, b"\1" * 200), size=5000) == ({E2BIG}, "attr_size")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(9, 1, 1, 8, b"\1" * 200)) == ({E2BIG}, "attr_tail")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(9, 1, 1, 8, b"\1" * 20)) == ({EINVAL}, "map_lookup_elem.tail")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(9, 1, 1, 8)) == ({EINVAL}, "map_lookup_elem.flags")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(9, 1, 1)) == ({EBADF}, "map_lookup_elem.map_fd_open")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(4, 1, 1)) == ({EINVAL}, "map_lookup_elem.map_fd_kind")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(3, 1, 1)) == ({EFAULT}, "map_lookup_elem.key")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(3, KEY + 4, 1)) == ({ENOENT}, "map_lookup_elem.index")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(3, KEY, 1)) == ({EFAULT}, "map_lookup_elem.value")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem()) == ({0}, "")


def test_the_size_of_the_union_decides() -> None:
    """A byte beyond the kernel's union is E2BIG, one within it EINVAL."""
    for version, facts in FACTS.items():
        inside = elem(tail=bytes(facts.attr_size - 33) + b"\1")
        assert ask(Cmd.MAP_LOOKUP_ELEM, inside, facts)[0] == {EINVAL}, version
        assert ask(Cmd.MAP_LOOKUP_ELEM, inside[:-1] + b"\0\1", facts)[0] == {E2BIG}, version


def test_what_the_call_does_not_show() -> None:
    """Whether a hash has the key: both answers."""
    fds = {3: Obj("map", MapType.HASH, key_size=4, value_size=8, max_entries=2)}
    prediction = predict(Call(Cmd.MAP_LOOKUP_ELEM, elem(), fds=fds, memory=MEMORY), HERE)
    assert prediction.known
    assert prediction.errnos == {0, ENOENT}
    assert prediction.allows(0) and prediction.allows(ENOENT) and not prediction.allows(EINVAL)


def test_memory_that_is_not_known() -> None:
    """Without a word about other memory, an address may be good or bad; NULL and the kernel's half are bad."""
    prediction = predict(Call(Cmd.MAP_LOOKUP_ELEM, elem(key=0x7000_0000_0000), fds=FDS), HERE)
    assert prediction.errnos == {0, EFAULT, ENOENT}
    for address in (0, 1, 1 << 63, (1 << 64) - 4):
        assert predict(Call(Cmd.MAP_LOOKUP_ELEM, elem(key=address), fds=FDS), HERE).errnos == {EFAULT}


def test_privileges() -> None:
    plain = Facts((6, 12), caps=0)
    assert ask(Cmd.PROG_GET_NEXT_ID, bytes(8), plain) == ({EPERM}, "prog_get_next_id.capable")
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(), plain) == ({0}, "")
    old = Facts((5, 10), caps=0)
    assert ask(Cmd.MAP_LOOKUP_ELEM, elem(), old) == ({EPERM}, "bpf_gate")


def test_commands_that_a_kernel_lacks() -> None:
    assert ask(36, bytes(8), FACTS[6, 1]) == ({EINVAL}, "command")
    assert ask(99, b"") == ({EINVAL}, "command")


def test_what_old_kernels_check_first() -> None:
    """Before 5.11: a map of 4 GiB and more before the limit, and the type of a program before its target's fd."""
    old = Facts((5, 10), memlock=1 << 16)
    array = struct.pack("=IIII", MapType.ARRAY, 4, 8, 1 << 30)
    assert ask(Cmd.MAP_CREATE, array, old) == ({E2BIG}, "map_create.charge")
    assert ask(Cmd.MAP_CREATE, array[:12] + struct.pack("=I", 1 << 20), old) == ({EPERM}, "map_create.memlock")
    for type, answer in (
        (ProgType.XDP, ({EINVAL}, "prog_load.attach_target")),
        (ProgType.EXT, ({EBADF}, "prog_load.target_old_open")),
    ):
        load = struct.pack("=IIQQ", type, 1, KEY, VALUE).ljust(112, b"\0") + struct.pack("=I", 77)
        assert ask(Cmd.PROG_LOAD, load, old) == answer


@pytest.mark.parametrize("type", [MapType.HASH, MapType.HASH_OF_MAPS])
def test_batches_of_hashes_take_no_flags(type: int) -> None:
    fds = {3: Obj("map", type, key_size=4, value_size=4, max_entries=2)}
    attr = struct.pack("=QQQQIIQQ", 0, VALUE, KEY, VALUE, 1, 3, 0, 1)
    found = predict(Call(Cmd.MAP_LOOKUP_BATCH, attr, fds=fds, memory=MEMORY), HERE)
    assert found.errnos == {EINVAL} and found.rule is not None and found.rule.name == "map_lookup_batch.flags"


def test_suspects() -> None:
    """For an errno that was not predicted: the rules that answer so."""
    call = Call(Cmd.MAP_LOOKUP_ELEM, elem(), fds=FDS, memory=MEMORY)
    assert "map_lookup_elem.read" in {rule.name for rule in suspects(call, HERE, EPERM)}
