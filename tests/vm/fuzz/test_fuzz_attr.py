"""Campaigns in short, on this guest's kernel; and that a planted fault shows itself where links can be made."""

from __future__ import annotations

import json
import struct
import subprocess

import pytest

from rawkm.fuzz.attr_campaign import AttrCampaign
from rawkm.fuzz.campaign import Campaign
from rawkm.fuzz.coverage import Coverage
from rawkm.fuzz.judge import Judge
from rawkm.fuzz.recipes import RECIPES
from rawkm.fuzz.source import FirstSource
from rawkm.rules import Call, Facts, Prediction, predict
from rawkm.syscall import open_kernel
from rawkm.uapi.constants import AttachType, Cmd

KPROBE_MULTI_SINCE = (5, 18)


def summary(*argv: str) -> dict[str, object]:
    """The last row of `rawkm fuzz ...`, which must end well."""
    done = subprocess.run(["rawkm", "fuzz", *argv, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_calls_agree_with_the_model() -> None:
    found = summary("attr", "--calls", "250", "--examples", "20", "--seed", "3")
    assert found["unexplained"] == found["leaks"] == 0
    assert isinstance(found["calls"], int) and found["calls"] >= 250


def test_objects_agree_with_the_state_machine() -> None:
    found = summary("stateful", "--examples", "6", "--seed", "3")
    assert found["unexplained"] == found["leaks"] == 0


def test_a_wrong_constant_is_found_and_shrunk_to_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """47 for 42, in the model and in the calls."""
    wrong, right = 47, AttachType.TRACE_KPROBE_MULTI
    kernel = open_kernel()
    values = dict(RECIPES["link_create.kprobe_multi"](FirstSource()), **{"link_create.attach_type": wrong})
    monkeypatch.setitem(RECIPES, "link_create.kprobe_multi", lambda _: dict(values))

    def mistaken(call: Call, facts: Facts) -> Prediction:
        attr = call.attr and bytearray(call.attr)
        if call.cmd == Cmd.LINK_CREATE and attr and len(attr) >= 12:
            kind = struct.unpack_from("=I", attr, 8)[0]
            struct.pack_into("=I", attr, 8, {wrong: right, right: wrong}.get(kind, kind))
        return predict(Call(call.cmd, attr, size=call.size, fds=call.fds, memory=call.memory), facts)

    rows: list[dict[str, object]] = []
    campaign = Campaign("attr", kernel, examples=10, seed=1, report=lambda row: rows.append(dict(row)))
    with Judge(kernel, owned=True, model=mistaken) as judge:
        AttrCampaign(campaign, judge, Coverage(), ["link_create.kprobe_multi"]).mutate(40)
        known = judge.facts.version >= KPROBE_MULTI_SINCE
    whats = {row["what"] for row in rows if row["type"] == "finding"}
    # A kernel that knows neither number refuses both alike.
    assert ("link_create.kprobe_multi: link_create.attach_type" in whats) == known, rows
