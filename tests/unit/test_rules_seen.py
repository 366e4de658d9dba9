"""The table of what was seen of the errno model (tests/witnesses/seen.md): it is complete, and of this model."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rawkm.rules import rules
from tests.witnesses import table

SEEN = Path(__file__).parents[1] / "witnesses" / "seen.md"


def test_every_answer_was_seen_or_says_why_not() -> None:
    found, _ = table.parse(SEEN.read_text().splitlines())
    wanted = table.wanted()
    assert list(found) == list(wanted), "run tools/rules-seen: the rules are others than those of the table"
    for key, (cells, why) in found.items():
        counts = dict(zip(table.KERNELS, cells, strict=True))
        seen = False
        for kernel, cell in counts.items():
            there = wanted[key].get(kernel, [])
            match = re.fullmatch(r"(\d+) of (\d+)", cell)
            assert (cell == "-") == (not there), (key, kernel, cell)
            if match:
                assert 0 < int(match[1]) <= int(match[2]) == len(there), (key, kernel, cell)
                seen = True
            else:
                assert cell in ("-", table.NEVER), (key, kernel, cell)
        assert seen != bool(why), (key, cells, why)


def test_it_says_where_the_model_ends() -> None:
    _, ends = table.parse(SEEN.read_text().splitlines())
    told = set(re.findall(r"`([a-z0-9_.]+)`", " ".join(ends)))
    assert told == {rule.name for rule in rules() if rule.errno is None}


def test_the_table_is_made_of_what_was_seen() -> None:
    seen = table.Seen()
    rows = [{"rule": "map_freeze.map_fd_open", "errno": "EBADF"}, {"rule": "map_freeze.map_fd_open", "errno": "EINVAL"}]
    seen.add("6.12", [json.loads(json.dumps(row)) for row in rows])
    seen.add("7.2", [{"type": "rule", "rule": "map_freeze.map_fd_open", "errno": "EBADF", "calls": 3}])
    seen.add("6.1", [{"rule": "map_freeze.map_fd_kind", "why": "nobody tried"}])
    found, _ = table.parse(table.lines(seen))
    assert found["MAP_FREEZE", "EBADF"] == (["no", "no", "1 of 1", "1 of 1"], "")
    cells, why = found["MAP_FREEZE", "EINVAL"]
    assert set(cells) == {"no"} and "nobody tried" in why
