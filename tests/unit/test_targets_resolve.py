"""resolve(): which list is read, which functions come out with which addresses, and why the others do not."""

from __future__ import annotations

from errno import EACCES, ENOENT

import pytest

from rawkm.errors import SymbolError
from rawkm.host import caps
from rawkm.host.deny import DenyList
from rawkm.targets import Pattern, Target, Targets, labels, resolve
from tests.unit.files import (
    BTF,
    KALLSYMS,
    NAMES,
    SITES,
    STATUS,
    TRACING,
    FileKernel,
    Function,
    btf,
    kallsyms,
    lists,
    machine,
    status,
)

BASE = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0000000

# ``twin`` stands three times in the image, once where ftrace does not reach, and once in a module. ``same``
# in both, once each.
FUNCTIONS = [
    Function("tcp_sendmsg", BASE + 0x100),
    Function("tcp_recvmsg", BASE + 0x200, site=0, kind="T"),
    Function("tcp_notrace", BASE + 0x300, site=None),
    Function("twin", BASE + 0x400),
    Function("twin", BASE + 0x500, site=None),
    Function("twin", BASE + 0x600, site=0),
    Function("same", BASE + 0x700),
    Function("rcu_thing", BASE + 0x800),
    Function("twin", MODULE + 0x100, module="nf_nat"),
    Function("same", MODULE + 0x200, module="nf_nat"),
    Function("nf_nat_in", MODULE + 0x300, module="nf_nat"),
]
BY_PLACE = {(f.name.decode(), f.address) for f in FUNCTIONS if f.site is not None and f.name != b"rcu_thing"}


def chosen(fake: FileKernel, *patterns: str, addresses: bool = False, deny: DenyList | None = None) -> Targets:
    targets = resolve(fake.kernel, [Pattern(text) for text in patterns], addresses=addresses, deny=deny)
    assert not fake.open_fds
    return targets


def rows(targets: Targets) -> list[tuple[str, str, int | None]]:
    return [(t.name, t.module, t.address) for t in targets.ok]


def rejections(targets: Targets) -> dict[str, str]:
    return {r.name: r.reason for r in targets.rejected}


# -- the kernel's list ---------------------------------------------------------------------------------------


def test_a_name_of_its_own_needs_no_address() -> None:
    fake = machine(FUNCTIONS)
    targets = chosen(fake, "tcp_*")
    assert rows(targets) == [("tcp_sendmsg", "", None), ("tcp_recvmsg", "", None)]
    assert targets.certain
    assert targets.source == NAMES
    assert not targets.addressed
    assert (targets.rejected, targets.missing, targets.notes) == ([], [], [])
    # That is what makes a start fast: neither kallsyms nor the longer list is read.
    assert fake.reads == [f"{TRACING}/{NAMES}"]


def test_addresses_when_asked_for() -> None:
    fake = machine(FUNCTIONS)
    targets = chosen(fake, "tcp_*", addresses=True)
    assert rows(targets) == [("tcp_sendmsg", "", BASE + 0x100), ("tcp_recvmsg", "", BASE + 0x200)]
    assert [t.site for t in targets.ok] == [BASE + 0x104, BASE + 0x200]
    assert targets.source == SITES
    assert targets.addressed
    assert fake.reads == [f"{TRACING}/{SITES}", KALLSYMS]


@pytest.mark.parametrize("pattern", ["twin", "tw*", "/^twin$/", "*win"])
@pytest.mark.parametrize("chunk", [1 << 16, 50])
def test_several_functions_of_a_name_are_told_apart_by_address(pattern: str, chunk: int) -> None:
    targets = chosen(machine(FUNCTIONS, chunk=chunk), pattern)
    assert rows(targets) == [
        ("twin", "", BASE + 0x400),
        ("twin", "", BASE + 0x600),
        ("twin", "nf_nat", MODULE + 0x100),
    ]
    # A row each.
    assert len(set(labels(targets.ok))) == 3
    assert labels(targets.ok)[2] == "twin [nf_nat]"


def test_a_twin_that_cannot_be_traced_is_never_chosen() -> None:
    assert BASE + 0x500 not in [t.address for t in chosen(machine(FUNCTIONS), "*").ok]


def test_twins_closer_together_than_a_site_may_lie_behind_its_symbol() -> None:
    functions = [Function("tiny", BASE, site=None), Function("tiny", BASE + 8), Function("other", BASE + 32)]
    assert rows(chosen(machine(functions), "tiny", addresses=True)) == [("tiny", "", BASE + 8)]
    # A module's symbols come in any order.
    functions = [Function("tiny", MODULE + 8, module="m"), Function("tiny", MODULE, module="m", site=None)]
    assert rows(chosen(machine(functions), "tiny", addresses=True)) == [("tiny", "m", MODULE + 8)]


def test_a_site_without_its_symbol_is_not_given_to_another_of_the_name() -> None:
    fake = machine(FUNCTIONS)
    fake.files[KALLSYMS] = kallsyms(f for f in FUNCTIONS if f.address != BASE + 0x600)
    targets = chosen(fake, "vmlinux:twin")
    assert rows(targets) == [("twin", "", BASE + 0x400)]
    assert rejections(targets) == {"twin": "kallsyms has no symbol at its ftrace site"}


def test_a_name_in_two_modules_is_not_unique_even_if_one_is_chosen() -> None:
    """By name the kernel would take the first of them."""
    targets = chosen(machine(FUNCTIONS), "nf_nat:same")
    assert rows(targets) == [("same", "nf_nat", MODULE + 0x200)]
    targets = chosen(machine(FUNCTIONS), "vmlinux:same")
    assert rows(targets) == [("same", "", BASE + 0x700)]


def test_module_functions() -> None:
    targets = chosen(machine(FUNCTIONS), "nf_nat:nf_*")
    assert rows(targets) == [("nf_nat_in", "nf_nat", None)]
    targets = chosen(machine(FUNCTIONS), "nf_*:*", addresses=True)
    assert {t.module for t in targets.ok} == {"nf_nat"}
    assert targets.addressed


def test_everything() -> None:
    targets = chosen(machine(FUNCTIONS), "*")
    assert {(t.name, t.address) for t in targets.ok} == BY_PLACE
    assert len(targets.ok) == len(BY_PLACE)
    # The file's order.
    assert [t.address for t in targets.ok] == sorted(t.address or 0 for t in targets.ok)


def test_patterns_for_thousands_read_the_long_list_at_once() -> None:
    """They choose two of a name sooner or later, and the lists of a whole kernel are not read for nothing."""
    for pattern in ("*", "*win", "/twin/"):
        fake = machine(FUNCTIONS)
        chosen(fake, pattern)
        assert fake.reads == [f"{TRACING}/{SITES}", KALLSYMS]


def test_several_patterns_choose_a_function_once() -> None:
    targets = chosen(machine(FUNCTIONS), "tcp_send*", "*_sendmsg", "tcp_sendmsg")
    assert [t.name for t in targets.ok] == ["tcp_sendmsg"]


def test_the_same_site_twice_is_one_target() -> None:
    fake = machine(FUNCTIONS)
    listed = fake.files[f"{TRACING}/{SITES}"]
    assert isinstance(listed, bytes)
    fake.files[f"{TRACING}/{SITES}"] = listed + listed.splitlines(keepends=True)[0]
    assert [t.name for t in chosen(fake, "tcp_send*", addresses=True).ok] == ["tcp_sendmsg"]


def test_what_gives_nothing_is_missing() -> None:
    targets = chosen(machine(FUNCTIONS), "tcp_*", "udp_*", "twins", "other:tcp_*")
    assert [r.name for r in targets.missing] == ["udp_*", "twins", "other:tcp_*"]
    assert len(targets.ok) == 2


def test_no_target_at_all() -> None:
    targets = chosen(machine(FUNCTIONS), "udp_*", addresses=True)
    assert (targets.ok, targets.rejected) == ([], [])
    assert len(targets.missing) == 1


def test_without_a_mount_point() -> None:
    fake = machine(FUNCTIONS, mounted=False)
    assert rows(chosen(fake, "twin")) == rows(chosen(machine(FUNCTIONS), "twin"))


# -- deny ----------------------------------------------------------------------------------------------------


def test_deny() -> None:
    targets = chosen(machine(FUNCTIONS), "*")
    (rejected,) = targets.rejected
    assert (rejected.name, rejected.denied) == ("rcu_thing", True)
    assert "RCU" in rejected.reason
    targets = chosen(machine(FUNCTIONS), "rcu_thing", deny=DenyList(builtin=False))
    assert [t.name for t in targets.ok] == ["rcu_thing"]
    targets = chosen(machine(FUNCTIONS), "*", deny=DenyList(["tw*", "tcp_*"]))
    assert [(r.name, r.module) for r in targets.rejected] == [
        ("tcp_sendmsg", ""),
        ("tcp_recvmsg", ""),
        ("twin", ""),
        ("twin", ""),
        ("rcu_thing", ""),
        ("twin", "nf_nat"),
    ]
    assert all(r.denied for r in targets.rejected)
    assert {t.name for t in targets.ok} == {"same", "nf_nat_in"}


def test_denied_twins_cost_nothing() -> None:
    fake = machine(FUNCTIONS)
    chosen(fake, "twin", "tcp_sendmsg", deny=DenyList(["twin"]))
    assert KALLSYMS not in fake.reads


# -- kernels before 6.5: no sites ----------------------------------------------------------------------------


def test_without_sites_as_many_symbols_as_entries_are_all_of_them() -> None:
    functions = [f for f in FUNCTIONS if f.site is not None]
    targets = chosen(machine(functions, sites=False), "*")
    assert {(t.name, t.address) for t in targets.ok} == BY_PLACE
    assert len(targets.ok) == len(BY_PLACE)
    assert targets.source == NAMES
    assert {r.name for r in targets.rejected} == {"rcu_thing"}


def test_without_sites_a_twin_that_cannot_be_traced_leaves_the_name_out() -> None:
    targets = chosen(machine(FUNCTIONS, sites=False), "twin")
    # The module's is one of one; of the image's three, two can be traced.
    assert rows(targets) == [("twin", "nf_nat", MODULE + 0x100)]
    (rejected,) = targets.rejected
    assert rejected.reason.startswith("3 functions have this name, 2 of them can be traced")


def test_without_sites_one_entry_but_two_symbols() -> None:
    """The image's count and the module's must not be mixed up: one and one entries, two and one symbols."""
    functions = [
        Function("one", BASE, site=None),
        Function("one", BASE + 0x100),
        Function("one", MODULE, module="m"),
    ]
    targets = chosen(machine(functions, sites=False), "one")
    assert rows(targets) == [("one", "m", MODULE)]
    assert "2 functions have this name, 1 of them" in targets.rejected[0].reason


# -- hidden addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", [True, False])
def test_hidden_addresses(sites: bool) -> None:
    targets = chosen(machine(FUNCTIONS, hidden=True, sites=sites), "*")
    assert {t.name for t in targets.ok} == {"tcp_sendmsg", "tcp_recvmsg", "nf_nat_in"}
    assert all(t.address is None for t in targets.ok)
    assert [r.name for r in targets.rejected if not r.denied] == ["twin", "twin", "same", "twin", "same"]
    assert "addresses are hidden (CAP_SYSLOG" in rejections(targets)["twin"]
    assert any("CAP_SYSLOG" in note for note in targets.notes)


def test_names_of_their_own_do_not_care_whether_addresses_are_hidden() -> None:
    targets = chosen(machine(FUNCTIONS, hidden=True), "tcp_*")
    assert [t.name for t in targets.ok] == ["tcp_sendmsg", "tcp_recvmsg"]
    assert (targets.rejected, targets.notes) == ([], [])


def test_symbols_that_cannot_be_read() -> None:
    fake = machine(FUNCTIONS)
    fake.files[KALLSYMS] = EACCES
    targets = chosen(fake, "tw*", "tcp_*")
    assert [t.name for t in targets.ok] == ["tcp_sendmsg", "tcp_recvmsg"]
    assert "EACCES" in targets.notes[0]


def test_a_symbol_that_is_not_there_is_not_hidden() -> None:
    fake = machine(FUNCTIONS)
    fake.files[KALLSYMS] = kallsyms(f for f in FUNCTIONS if f.name != b"tcp_sendmsg")
    targets = chosen(fake, "tcp_send*", addresses=True)
    assert targets.ok == []
    assert targets.notes == []
    assert "no symbol" in rejections(targets)["tcp_sendmsg"]


# -- hostile names -------------------------------------------------------------------------------------------


def test_names_that_are_no_text() -> None:
    functions = [
        Function(b"bad_\xff\xfe", MODULE, module=b"ev\xffil"),
        Function(b"bad_\x1b[2J\x07", MODULE + 0x100, module="evil"),
        Function("bad_é", MODULE + 0x200, module="evil"),
        Function("bad_*[", MODULE + 0x300, module="evil"),
        Function("bad_*[", MODULE + 0x400, module="evil"),
    ]
    targets = chosen(machine(functions), "bad_*")
    assert rejections(targets) == {"bad_\\xff\\xfe": "its name is no UTF-8 text"}
    assert targets.rejected[0].module == "ev\\xffil"
    assert rows(targets) == [
        ("bad_\x1b[2J\x07", "evil", MODULE + 0x100),
        ("bad_é", "evil", MODULE + 0x200),
        ("bad_*[", "evil", MODULE + 0x300),
        ("bad_*[", "evil", MODULE + 0x400),
    ]
    # What is attached by name is given to the kernel as it came.
    assert {t.name.encode() for t in targets.ok} == {f.name for f in functions[1:]}


# -- no list -------------------------------------------------------------------------------------------------


def unlisted(functions: list[Function], *in_btf: str, hidden: bool = False) -> FileKernel:
    """A process that may read symbols and BTF, but not tracefs."""
    closed = dict.fromkeys([f"{TRACING}/{NAMES}", f"{TRACING}/{SITES}"], EACCES)
    files: dict[str, bytes | int] = {
        KALLSYMS: kallsyms(functions, hidden=hidden),
        STATUS: status(caps.CAP_BPF, caps.CAP_PERFMON),
        **closed,
    }
    if in_btf:
        files[BTF] = btf(*in_btf)
    return FileKernel(files)


def test_globs_choose_from_btf_and_symbols() -> None:
    fake = unlisted(FUNCTIONS, "tcp_sendmsg", "tcp_recvmsg", "tcp_inlined", "nf_nat_in", "twin")
    targets = chosen(fake, "t*", "nf_*", "udp_*")
    assert rows(targets) == [
        ("tcp_sendmsg", "", BASE + 0x100),
        ("tcp_recvmsg", "", BASE + 0x200),
        ("twin", "", BASE + 0x400),
        ("twin", "", BASE + 0x500),
        ("twin", "", BASE + 0x600),
    ]
    assert not targets.certain
    assert targets.source == "BTF and kallsyms"
    # The kernel's BTF says nothing about a module's function, whatever its name.
    assert [r.name for r in targets.missing] == ["nf_*", "udp_*"]
    assert "CAP_DAC_READ_SEARCH" in targets.notes[0]
    assert "modules" in targets.notes[1]


def test_exact_names_need_no_btf() -> None:
    fake = unlisted(FUNCTIONS)
    targets = chosen(fake, "tcp_sendmsg", "nf_nat_in", "tcp_nosuch")
    assert rows(targets) == [("tcp_sendmsg", "", BASE + 0x100), ("nf_nat_in", "nf_nat", MODULE + 0x300)]
    assert [r.name for r in targets.missing] == ["tcp_nosuch"]
    assert targets.source == "kallsyms"
    assert BTF not in fake.reads


def test_no_list_and_hidden_addresses() -> None:
    fake = unlisted(FUNCTIONS, "tcp_sendmsg", "twin", "same", hidden=True)
    targets = chosen(fake, "t*", "same", "rcu_thing")
    assert rows(targets) == [("tcp_sendmsg", "", None)]
    reasons = rejections(targets)
    assert "several functions have this name" in reasons["twin"]
    # Once in the image and once in a module is twice, too.
    assert [r.module for r in targets.rejected if r.name == "same"] == ["", "nf_nat"]
    assert "RCU" in reasons["rcu_thing"]


def test_code_that_ftrace_does_not_reach_is_left_out() -> None:
    functions = [
        Function("__noinstr_text_start", BASE, kind="T"),
        Function("do_nmi", BASE),
        Function("__noinstr_text_end", BASE + 0x100, kind="T"),
        Function("fine", BASE + 0x200),
        Function("perf_trace_sched_switch", BASE + 0x300),
        Function("_sinittext", BASE + 0x1000, kind="T"),
        Function("fine", BASE + 0x1000),
        Function("fine_init", BASE + 0x1100),
        Function("_einittext", BASE + 0x2000, kind="T"),
        Function("finest", BASE + 0x3000),
        # A module's own labels mean nothing.
        Function("_sinittext", MODULE, module="m", kind="T"),
        Function("last", MODULE + 0x100, module="m"),
    ]
    names = [f.name.decode() for f in functions]
    targets = chosen(unlisted(functions, *names), "*", "last")
    assert rows(targets) == [
        ("fine", "", BASE + 0x200),
        ("finest", "", BASE + 0x3000),
        ("last", "m", MODULE + 0x100),
    ]
    # So a name that also stood there is not ambiguous.
    targets = chosen(unlisted(functions, *names, hidden=True), "fine")
    assert rows(targets) == [("fine", "", None)]


def test_a_region_that_is_not_closed_does_not_swallow_modules() -> None:
    functions = [Function("_sinittext", BASE), Function("gone", BASE), Function("last", MODULE, module="m")]
    assert [t.name for t in chosen(unlisted(functions), "gone", "last").ok] == ["last"]


def test_neither_list_nor_symbols() -> None:
    fake = unlisted([])
    fake.files[KALLSYMS] = ENOENT
    targets = chosen(fake, "tcp_sendmsg", "nf_nat:nf_nat_in", "vmlinux:tcp_recvmsg")
    assert rows(targets) == [
        ("tcp_sendmsg", "", None),
        ("nf_nat_in", "nf_nat", None),
        ("tcp_recvmsg", "", None),
    ]
    assert targets.source == "the names given"
    assert not targets.certain
    assert any("nothing says whether they exist" in note for note in targets.notes)


def test_neither_list_nor_btf() -> None:
    targets = chosen(unlisted(FUNCTIONS), "tcp_sendmsg", "udp_*")
    assert [t.name for t in targets.ok] == ["tcp_sendmsg"]
    assert [r.name for r in targets.missing] == ["udp_*"]
    with pytest.raises(SymbolError) as caught:
        chosen(unlisted(FUNCTIONS), "udp_*")
    sentence = str(caught.value)
    assert "CAP_DAC_READ_SEARCH" in sentence
    assert "give exact names" in sentence


def test_no_list_and_names_that_are_no_text() -> None:
    fake = unlisted([Function(b"bad\xff", BASE), Function("good", BASE + 0x100)])
    targets = chosen(fake, b"bad\xff".decode("utf-8", "surrogateescape"), "good")
    assert rejections(targets) == {"bad\\xff": "its name is no UTF-8 text"}
    assert [t.name for t in targets.ok] == ["good"]


# -- labels --------------------------------------------------------------------------------------------------


def test_labels() -> None:
    targets = [
        Target("a"),
        Target("a", "m"),
        Target("b", "", 0x10),
        Target("b", "", 0x20),
        Target("c", "", None, 8),
    ]
    assert labels(targets) == ["a", "a [m]", "b @10", "b @20", "c"]
    assert repr(targets[1]) == "Target('a [m]', address=None)"


def test_lists_of_the_made_up_kernel() -> None:
    """The tests above stand on it."""
    listed = lists(FUNCTIONS)
    assert listed[NAMES].splitlines()[0] == b"tcp_sendmsg"
    assert listed[SITES].splitlines()[0] == b"ffffffff81000104 tcp_sendmsg"
    assert listed[SITES].splitlines()[-1] == b"ffffffffc0000304 nf_nat_in [nf_nat]"
    assert kallsyms(FUNCTIONS).splitlines()[-1] == b"ffffffffc0000300 t nf_nat_in\t[nf_nat]"
