"""Reproducers of a recording that somebody else made: its words stay comments and strings."""

from __future__ import annotations

import ast
import io
import json
import subprocess

import pytest

from rawkm.errors import RecordingError
from rawkm.fuzz import recorded
from rawkm.fuzz.case import Case, Check, Step
from rawkm.fuzz.reproducers import as_c, as_pytest

EVIL = ['*/ evil(); /*\nevil()\n"""\nevil()', '"); evil("', 'a\\"); evil("', '\\"""\nevil()', "trigraph ??/"]


def hostile(text: str) -> Case:
    steps = [Step(19, bytes(8), fds={0: text}, checks=[Check(text, 4, b"\1")], note=text)]
    case = Case(steps, title=text, text=text, kernel=text)
    line = json.dumps({"t": "case", **recorded.to_json(case)}, separators=(",", ":"))
    return recorded.read(io.BytesIO(line.encode()))


@pytest.mark.parametrize("text", EVIL)
def test_c(text: str) -> None:
    """evil() is declared nowhere: a call of it would be an error."""
    command = ["gcc", "-std=gnu11", "-fsyntax-only", "-Werror", "-Wno-trigraphs", "-x", "c", "-"]
    done = subprocess.run(command, input=as_c(hostile(text)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", EVIL)
def test_pytest(text: str) -> None:
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(as_pytest(hostile(text)))) if isinstance(node, ast.Call)}
    assert called <= {"Case", "Step", "Check", "Data", "bytes", "bytes.fromhex", "run", "open_kernel", "RawBpf"}


@pytest.mark.parametrize("within", ["1e999", "NaN", "-1", "86400", '"x"'])
def test_a_wait_without_an_end(within: str) -> None:
    case = Case([Step(19, bytes(8), within=1.0)])
    line = json.dumps({"t": "case", **recorded.to_json(case)}, separators=(",", ":"))
    assert '"within":1.0' in line
    with pytest.raises(RecordingError, match="damaged"):
        recorded.read(io.BytesIO(line.replace('"within":1.0', f'"within":{within}').encode()))
