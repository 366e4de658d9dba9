"""`rawkm fuzz prog` and `replay` in a guest: programs on this kernel and in the interpreter."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .. import lib

RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])


def fuzz(*args: str) -> lib.Done:
    return lib.rawkm("fuzz", *args, "--json", timeout=300)


def test_programs(tmp_path: Path) -> None:
    last = tmp_path / "last"
    done = fuzz("prog", "--examples", "60", "--seed", "7", "--last", str(last))
    assert done.status == 0, done
    summary = done.summary
    assert summary["examples"] == 60 and summary["unexplained"] == summary["leaks"] == 0, done
    # What should be taken is taken, in this kernel's ways; what is off is mostly not.
    assert summary["loaded"]["valid"] >= 20, done
    assert summary["refused"].get("valid", 0) == sum(summary["known"].values()), done
    assert summary["refused"]["broken"] > 0, done
    assert set(summary["types"]) == {1, 3, 6, 17}
    for ability, since in (("sdiv", (6, 6)), ("may_goto", (6, 9))):
        assert (ability in summary["abilities"]) == (RELEASE >= since), (ability, done)
    # Stable releases of 6.1 have got it, too.
    assert RELEASE < (6, 6) or "gotol" in summary["abilities"], done
    assert ("fetch" in summary["abilities"]) == (RELEASE >= (5, 12))
    assert "jit_harden" in summary["variants"], done
    # What a dying machine did last would be known.
    lines = last.read_text().splitlines()
    assert len(lines) >= 60 and all(line.startswith("last: type ") for line in lines)


def test_a_planted_fault_is_found_and_replayed(tmp_path: Path) -> None:
    """The interpreter is made to compute an exclusive or wrongly; the failure is still one for a rawkm that is whole."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("from rawkm.asm import interp\ninterp.ALU['Xor'] = interp.ALU['Or']\n")
    prefix = ["env", f"PYTHONPATH={site}:{os.environ.get('PYTHONPATH', '')}"]
    found = tmp_path / "found"
    args = ["fuzz", "prog", "--examples", "100", "--seed", "29", "--out", str(found), "--json", "--seconds", "60"]
    done = lib.rawkm(*args, prefix=prefix, timeout=300)
    assert done.status == 1, done
    finding = done.of("finding")[0]
    assert "^= " in finding["text"], done
    paths = {Path(path).suffix: path for path in finding["files"]}
    assert set(paths) == {".rkm", ".py", ".c"}
    again = fuzz("replay", paths[".rkm"])
    assert again.status == 1 and again.summary["reproduced"] is True, again
    # The recording that the row has is the one that was kept.
    assert json.loads(finding["rkm"].splitlines()[1]) == json.loads(Path(paths[".rkm"]).read_text().splitlines()[1])
