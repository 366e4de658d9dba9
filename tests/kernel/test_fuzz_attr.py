"""Calls as values, their strategies, and the campaign against the errno model, on the running kernel."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from errno import EFAULT, EINVAL
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy

from rawkm.cli import main
from rawkm.errors import UsageError
from rawkm.fuzz import attr_campaign, attrs, calls
from rawkm.fuzz.attr import ROOM, SIZE, Attr, Change, Fd, Mem, Within, all_layouts, byte_at, fit, layout_of
from rawkm.fuzz.attr_campaign import AttrCampaign
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.case import run as run_case
from rawkm.fuzz.changes import USER, change, changed, places
from rawkm.fuzz.coverage import Coverage, table
from rawkm.fuzz.judge import Judge
from rawkm.fuzz.recipes import RECIPES, valid
from rawkm.fuzz.recorded_calls import calls_of
from rawkm.fuzz.source import FirstSource, RandomSource
from rawkm.recording import Call as RecordedCall
from rawkm.recording import Header, Pointee, Writer
from rawkm.rules import Call, Facts, Prediction, predict
from rawkm.syscall.live import LiveKernel
from rawkm.syscall.raw import Address, At, Block, RawBpf
from rawkm.uapi.constants import AttachType, Cmd, MapType, ProgType

MANY = settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def judge(kernel: LiveKernel) -> Iterator[Judge]:
    with Judge(kernel) as found:
        yield found


def minimal(strategy: SearchStrategy[Attr], condition: Callable[[Attr], bool]) -> Attr:
    """The simplest example with the condition."""
    from hypothesis import find

    return find(strategy, condition, settings=settings(max_examples=20_000, deadline=None, database=None))


# -- raw memory ----------------------------------------------------------------------------------------------------------------


def test_nothing_is_mapped_behind_a_block(kernel: LiveKernel) -> None:
    raw = RawBpf()
    array = raw.call(Cmd.MAP_CREATE, bytearray(struct.pack("=IIII", MapType.ARRAY, 4, 8, 1)))
    attr = struct.pack("=I", array).ljust(32, b"\0")
    value = Block(bytes(8))
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), pointers={8: Block(bytes(4)), 16: value}) == 0
    for size in (7, 1, 0):
        assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), pointers={8: Block(bytes(4)), 16: Block(bytes(size))}) == -EFAULT
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), pointers={8: Block(bytes(3)), 16: value}) == -EFAULT
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), pointers={8: Address(8), 16: value}) == -EFAULT
    # The attr itself: as much as there is, and no more.
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), 64, room=40) == -EFAULT
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, Address(0), 32) == -EFAULT
    # Key and value in one piece: the key is read first.
    shared = Block(bytes(8))
    assert raw.call(Cmd.MAP_LOOKUP_ELEM, bytearray(attr), pointers={8: At(shared, 4), 16: shared}) == 0
    kernel.close(array)
    raw.close()


# -- calls as values -----------------------------------------------------------------------------------------------------------


def test_there_is_a_valid_call_of_everything() -> None:
    assert {layout.name for layout in all_layouts()} == RECIPES.keys()
    for name in RECIPES:
        attr = valid(name, FirstSource())
        assert attr.changes == () and attr.cmd == attr.layout.cmd
        lowered = attr.lower(lambda _: 7)
        assert lowered.size == attr.layout.size == len(lowered.sent)


def test_changes_reach_the_bytes() -> None:
    attr = valid("map_lookup_elem", FirstSource())

    def sent(*changes: Change) -> bytes:
        return attr.with_changes(*changes).lower(lambda _: 5).sent

    plain = sent()
    assert plain == struct.pack("=IIQQQ", 5, 0, 0, 0, 0)
    assert sent(Change("flags", 4)) == struct.pack("=IIQQQ", 5, 0, 0, 0, 4)
    assert sent(Change(byte_at(4), 0x80))[4] == 0x80
    assert sent(Change(byte_at(40), 1)) == plain.ljust(40, b"\0") + b"\1"
    assert sent(Change(SIZE, 3)) == plain[:3]
    assert sent(Change("map_fd", 0xFFFFFFFF))[:4] == b"\xff" * 4
    assert sent(Change("key", Address(9)))[8:16] == struct.pack("=Q", 9)
    lowered = attr.with_changes(Change("value", Within("key", 1))).lower(lambda _: 5)
    at = lowered.paths["value"]
    assert isinstance(at, At) and at.block is lowered.paths["key"] and at.offset == 1
    # The other name of a place.
    assert attr.with_changes(Change("next_key", None)).lower(lambda _: 5).paths.keys() == {"key"}


def test_every_place_of_an_attr_is_changed() -> None:
    for layout in all_layouts():
        covered = {at for m in layout.members for at in range(m.offset, m.offset + m.size) if m.path in places(layout)}
        covered |= {int(place[5:]) for place in places(layout) if place.startswith("byte ")}
        assert covered >= set(range(layout.size)), layout.name
        assert {SIZE, ROOM, "cmd", "attr"} <= set(places(layout))


def test_no_change_makes_up_an_address_of_this_process(kernel: LiveKernel, judge: Judge) -> None:
    """The kernel would write there."""
    source = RandomSource(Random(1))
    for _ in range(3000):
        attr = changed(source, valid(source.pick(list(RECIPES)), source))
        try:
            lowered = attr.lower(judge.pool.fd)
        except Exception:
            continue
        if judge.limits.refuse(lowered) or isinstance(lowered.attr, Address):
            continue
        for path, m in {m.path: m for m in layout_of(attr.layout.command).members if m.role.kind == "pointer"}.items():
            word = int.from_bytes(bytes(lowered.sent[m.offset : m.offset + 8]).ljust(8, b"\0"), "little")
            if lowered.cmd == attr.layout.cmd and m.offset not in lowered.blocks and not path.endswith("cookie"):
                assert word not in USER, (path, attr)


def test_an_address_that_is_cut_off_is_not_sent(judge: Judge) -> None:
    """What is left of it may be an address of this process, which a Python that is linked to a fixed place has below 16 MiB."""
    load = Attr(layout_of("PROG_LOAD"), RECIPES["prog_load"](FirstSource()))
    license = load.layout.offset("license")[0]
    made = {cut: judge.run(load.with_changes(Change(SIZE, license + cut))).errno is not None for cut in range(9)}
    assert [cut for cut, there in made.items() if not there] == [3, 4, 5]


def test_a_policy_that_refuses_a_type_is_told_from_the_model(judge: Judge) -> None:
    """Whatever type of program: what a security module refuses before all checks is not said to be the kernel's mistake."""
    load = Attr(layout_of("PROG_LOAD"), RECIPES["prog_load"](FirstSource()))
    types = sorted({value for name, value in vars(ProgType).items() if type(value) is int and name[0] != "_"})
    for number in types:
        outcome = judge.run(load.with_changes(Change("prog_type", number), Change("expected_attach_type", 56)))
        assert outcome.explained, (number, outcome.errno, outcome.prediction)


def test_signed_fields_fit() -> None:
    layout = layout_of("MAP_CREATE")
    assert fit(layout, "map_token_fd", 0xFFFFFFFF) == -1
    assert fit(layout, "map_type", -1) == 0xFFFFFFFF
    assert fit(layout, "map_extra", 1 << 64) == 0


def test_unknown_commands_are_refused() -> None:
    with pytest.raises(UsageError, match="LINK_CREATE"):
        attrs("LINK_CREAT")
    with pytest.raises(UsageError, match="kprobe_multy"):
        attrs("LINK_CREATE", variant="kprobe_multy")


# -- strategies ----------------------------------------------------------------------------------------------------------------


@MANY
@given(attrs())
def test_every_example_is_a_call(attr: Attr) -> None:
    lowered = attr.lower(lambda name: 1000 + len(name))
    assert repr(attr).startswith(f"<{attr.name}: ")
    assert isinstance(lowered.attr, Address) or len(lowered.attr) <= max(lowered.size, 4096)


def test_a_failure_shrinks_to_the_valid_call_and_one_field() -> None:
    found = minimal(attrs("LINK_CREATE", variant="kprobe_multi"), lambda attr: attr.values["link_create.flags"] not in (0, None))
    assert [change.place for change in found.changes] == ["link_create.flags"]
    assert found.valid == valid("link_create.kprobe_multi", FirstSource()).valid
    found = minimal(attrs("MAP_CREATE"), lambda attr: any(c.place == SIZE and c.value not in range(4097) for c in attr.changes))
    assert found.changes == (Change(SIZE, 4097),)
    found = minimal(attrs("OBJ_GET_INFO_BY_FD"), lambda attr: isinstance(attr.values["info.info"], Address))
    assert [change.place for change in found.changes] == ["info.info"]


def test_every_size_is_tried() -> None:
    source = RandomSource(Random(3))
    attr = valid("map_create", FirstSource())
    sizes = {value for _ in range(500_000) if isinstance(value := change(source, attr, SIZE).value, int)}
    assert sizes >= set(range(4098))


def test_no_such_example() -> None:
    with pytest.raises(NoSuchExample):
        minimal(attrs("MAP_FREEZE", changes=False), lambda attr: bool(attr.changes))


def test_calls_are_made_and_judged(judge: Judge) -> None:
    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(calls(judge, "MAP_LOOKUP_ELEM"))
    def one(outcome: object) -> None:
        assert getattr(outcome, "explained")  # noqa: B009

    one()


# -- planted faults ------------------------------------------------------------------------------------------------------------


def campaign_of(
    kernel: LiveKernel, command: str, model: Callable[[Call, Facts], Prediction], *, seed: int = 1
) -> list[dict[str, object]]:
    """The findings of a short campaign on one command."""
    rows: list[dict[str, object]] = []
    campaign = Campaign("attr", kernel, examples=100, seed=seed, report=lambda row: rows.append(dict(row)))
    with Judge(kernel, model=model) as judge:
        engine = AttrCampaign(campaign, judge, Coverage(), [layout_of(command).name])
        engine.mutate(2000)
    return [row for row in rows if row["type"] == "finding"]


def test_the_model_and_this_kernel_agree_on_maps(kernel: LiveKernel) -> None:
    assert campaign_of(kernel, "MAP_FREEZE", predict) == []


def test_a_rule_that_is_missing_is_found_and_shrunk_to_its_field(kernel: LiveKernel) -> None:
    def without(call: Call, facts: Facts) -> Prediction:
        found = predict(call, facts)
        named = found.rule is not None and found.rule.name == "map_create.map_name"
        return Prediction(frozenset((0,))) if named else found

    findings = campaign_of(kernel, "MAP_CREATE", without)
    assert [row["what"] for row in findings] == ["map_create: map_name"]
    assert findings[0]["seen"] == "EINVAL" and findings[0]["expected"] == "accepted"


def test_two_fields_swapped_are_found_and_shrunk_to_one_of_them(kernel: LiveKernel) -> None:
    def swapped(call: Call, facts: Facts) -> Prediction:
        """Of a layout in which key_size and value_size have changed places."""
        attr = call.attr and bytes(call.attr)
        if call.cmd == Cmd.MAP_CREATE and attr and len(attr) >= 12:
            attr = attr[:4] + attr[8:12] + attr[4:8] + attr[12:]
        return predict(Call(call.cmd, attr, size=call.size, fds=call.fds, memory=call.memory), facts)

    findings = campaign_of(kernel, "MAP_CREATE", swapped)
    # What comes first is about one of them; where another field is wrong as well, the errno of that may be the other one, too.
    assert findings and findings[0]["what"] in ("map_create: key_size", "map_create: value_size")


def test_a_wrong_constant_is_found_and_shrunk_to_its_field(kernel: LiveKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """47 for 42 (a tool was shipped with it): here as the attach type that links of kprobe_multi are made and modelled with."""
    wrong, right = 47, AttachType.TRACE_KPROBE_MULTI
    values = dict(RECIPES["link_create.kprobe_multi"](FirstSource()), **{"link_create.attach_type": wrong})
    monkeypatch.setitem(RECIPES, "link_create.kprobe_multi", lambda _: dict(values))

    def mistaken(call: Call, facts: Facts) -> Prediction:
        attr = call.attr and bytearray(call.attr)
        if call.cmd == Cmd.LINK_CREATE and attr and len(attr) >= 12:
            kind = struct.unpack_from("=I", attr, 8)[0]
            struct.pack_into("=I", attr, 8, {wrong: right, right: wrong}.get(kind, kind))
        return predict(Call(call.cmd, attr, size=call.size, fds=call.fds, memory=call.memory), facts)

    rows: list[dict[str, object]] = []
    campaign = Campaign("attr", kernel, examples=50, seed=1, report=lambda row: rows.append(dict(row)), own=True)
    with Judge(kernel, owned=True, model=mistaken) as judge:
        AttrCampaign(campaign, judge, Coverage(), ["link_create.kprobe_multi"]).mutate(300)
    findings = [row for row in rows if row["type"] == "finding"]
    assert "link_create.kprobe_multi: link_create.attach_type" in {row["what"] for row in findings}, findings
    assert any("link_create.attach_type = 42" in str(row["text"]) for row in findings)


def test_the_three_reproducers_reproduce(kernel: LiveKernel, tmp_path: Path) -> None:
    def wrong(call: Call, facts: Facts) -> Prediction:
        """A model that knows nothing of short memory."""
        found = predict(call, facts)
        return Prediction(found.errnos - {EFAULT} | {EINVAL}) if found.errnos == {EFAULT} else found

    findings = campaign_of(kernel, "MAP_LOOKUP_ELEM", wrong)
    assert findings
    namespace: dict[str, object] = {}
    exec(str(findings[0]["pytest"]), namespace)
    assert run_case(namespace["CASE"], kernel, RawBpf())  # type: ignore[arg-type]
    # In C as in Python, nothing is mapped behind the memory that a call points to.
    source, program, recording = tmp_path / "found.c", tmp_path / "found", tmp_path / "found.rkm"
    source.write_text(str(findings[0]["c"]))
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 1 and "reproduced" in done.stdout, done
    recording.write_text(str(findings[0]["rkm"]))
    assert main.run(["fuzz", "replay", str(recording)]) == 1


def test_coverage_is_stored_and_taken_up_again(judge: Judge) -> None:
    coverage = Coverage()
    source = RandomSource(Random(5))
    for _ in range(300):
        coverage.note(judge.run(changed(source, valid("map_create", source))))
    other = Coverage()
    other.add(coverage.rows())
    assert other.rows() == coverage.rows() and other.cells == coverage.cells
    lines = table(coverage.row(judge.facts))
    assert lines[0].startswith("map_create") and any("map_create." in line for line in lines)


def test_recorded_calls_are_changed_too(kernel: LiveKernel, tmp_path: Path) -> None:
    path = tmp_path / "calls.rkm"
    create = struct.pack("=IIII", MapType.PERCPU_HASH, 4, 8, 3).ljust(92, b"\0")
    update = struct.pack("=I4xQQQ", 5, 0x1000, 0x2000, 1)
    memory = {"key": Pointee(b"\1\0\0\0", address=0x1000), "value": Pointee(b"\7" * 64, address=0x2000)}
    with path.open("wb") as file:
        writer = Writer(file.write, Header("calls", ["test"]))
        writer.call(RecordedCall("bpf", command=Cmd.MAP_CREATE, size=92, attr=create, result=5))
        for _ in range(2):
            writer.call(RecordedCall("bpf", command=Cmd.MAP_UPDATE_ELEM, size=32, attr=update, memory=memory))
        writer.call(RecordedCall("close", args={"fd": 5}))
    made, changed_map = calls_of(str(path))
    assert made.given == {"map_type": MapType.PERCPU_HASH, "key_size": 4, "value_size": 8, "max_entries": 3}
    assert changed_map.given == {"map_fd": Fd("map/percpu_hash"), "key": Mem(b"\1\0\0\0"), "value": Mem(b"\7" * 64), "flags": 1}
    rows: list[dict[str, object]] = []
    campaign = Campaign("attr", kernel, examples=5, seed=1, report=lambda row: rows.append(dict(row)))
    attr_campaign.run(campaign, {"cmd": "MAP_UPDATE_ELEM", "calls": 200, "from": str(path)})
    assert campaign.extra["recorded_calls"] == 1 and campaign.unexplained == 0, rows


def test_what_is_too_large_or_reaches_others_is_not_sent(judge: Judge) -> None:
    def skipped(attr: Attr) -> str:
        return judge.run(attr).skipped

    create = valid("map_create", FirstSource())
    assert skipped(create) == ""
    assert skipped(create.with_changes(Change("max_entries", 1 << 24))) == "a map too large"
    assert skipped(valid("link_create.tcx", FirstSource())) == "a command that may disturb others"
    run = valid("prog_test_run", FirstSource())
    assert skipped(run.with_changes(Change("test.repeat", 1 << 31))) == "a program repeated too often"
    info = Attr(
        layout_of("OBJ_GET_INFO_BY_FD"), {"info.bpf_fd": Fd("prog/xdp"), "info.info_len": 232, "info.info": Mem(b"\x11" * 232)}
    )
    assert skipped(info) == ""
    mine = Mem(struct.pack("=29Q", *(0x7F00_0000_0000,) * 29))
    assert skipped(info.with_changes(Change("info.info", mine))) == "an address that may be this process's"


@pytest.mark.parametrize("option", ["--dry-run", "--redact"])
def test_calls_past_the_seam_are_not_pretended(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["fuzz", "attr", option, "--examples", "1"]) == 2
    assert "not for it" in capsys.readouterr().err
