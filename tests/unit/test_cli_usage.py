"""The command line as a whole: help without a kernel, wrong usage in one sentence with status 2."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawkm.cli import main
from rawkm.errors import RawkmError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _collecting_again() -> Iterator[None]:
    yield
    gc.enable()


def rawkm(*argv: str | bytes, code: str | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A process of its own; with ``code``, that instead of rawkm, which then has to run it."""
    start = ["-c", code] if code is not None else ["-m", "rawkm"]
    return subprocess.run(
        [sys.executable, *start, *argv],
        capture_output=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        timeout=60,
        check=False,
    )


# -- wrong usage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--explain",
        "frobnicate",
        "frobnicate --help",
        "--frobnicate",
        "-x count",
        "--explain -x count",
        "count",
        "count --json",
        "count -- true",
        "count tcp_* -d",
        "count tcp_* -d soon",
        "count tcp_* -d -5",
        "count tcp_* -d 0 -- true",
        "count tcp_* -i nan",
        "count tcp_* --top 0",
        "count tcp_* --top=x",
        "count tcp_* -p 0",
        "count tcp_* -p 99999999",
        "count tcp_* -p 1 -- true",
        "count tcp_* -a",
        "count tcp_* --by magic",
        "count tcp_* --missing",
        "count tcp_* --max-funcs many",
        "count tcp_* --nope",
        "count tcp_* --exp",
        "count tcp_[ -d 1",
        "count tcp_[^a]* -d 1",
        "count :tcp_* -d 1",
        "count nf: -d 1",
        "count /( -d 1",
        "count /(/ -d 1",
        "count tcp_* --deny nf:*",
        "count tcp_* --deny [",
        "trace",
        "trace tcp_* -n 0",
        "trace tcp_* --buffer pipe",
        "trace tcp_* --buffer-size 3G",
        "trace tcp_* --buffer-size 1X",
        "trace tcp_* --zero",
        "list",
        "list tcp_* -d 1",
        "list tcp_* -- true",
        "list //",
        "asm",
        "asm a b",
        "asm x.s --format elf",
        "asm x.s -- true",
        "disasm",
        "disasm x --prog 1",
        "disasm --prog many",
        "check",
        "check x.s --type",
        "run",
        "run x.s -d 0",
        "run x.s --attach",
        "run x.s --missing never",
        "doctor tcp_*",
        "doctor -d 1",
        "doctor -- true",
    ],
)
def test_wrong_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main.run(line.split())
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    if line not in ("", "--explain"):
        # One sentence, and nothing of how it came about.
        assert err.startswith("rawkm: ")
        assert err.count("\n") == 1
        assert 10 < len(err) < 300


def test_arguments_that_are_no_text() -> None:
    for argv in (
        [b"\xff\xfe"],
        [b"count", b"\xff[", b"-d", b"1"],
        [b"count", b"tcp_*", b"-d", b"\xff"],
        [b"count", b"/\xff(/"],
    ):
        done = rawkm(*argv)
        assert done.returncode == 2
        assert done.stderr.startswith(b"rawkm: ")
        assert done.stderr.count(b"\n") == 1


def test_what_is_shown_again_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["\x1b[2J"],
        ["count", "\x1b[2J", "-d", "\x1b[2J"],
        ["count", "\x1b[2J["],
        ["count", "x", "--\x1b[2J"],
    ):
        assert main.run(argv) == 2
        assert "\x1b" not in capsys.readouterr().err


# -- options for all commands --------------------------------------------------------------------------------


class Stop(RawkmError):
    pass


@pytest.mark.parametrize(
    ("line", "explained"),
    [
        ("list tcp_*", False),
        ("--explain list tcp_*", True),
        ("list --explain tcp_*", True),
        ("list tcp_* --explain", True),
        ("list --explain --deny=x tcp_*", True),
        ("--explain --explain list tcp_*", True),
        ("--explain count tcp_* -d 1 -- true", True),
        ("count tcp_* -d 1 -- true --explain", False),
        ("--explain doctor", True),
        ("doctor --explain", True),
    ],
)
def test_explain_before_and_after(
    line: str, explained: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = []

    def open_kernel(*, explain: object) -> None:
        streams.append(explain)
        raise Stop("no further")

    monkeypatch.setattr("rawkm.syscall.open_kernel", open_kernel)
    assert main.run(line.split()) == 1
    assert streams == [sys.stderr if explained else None]
    assert capsys.readouterr().err == "rawkm: no further\n"


# -- help ----------------------------------------------------------------------------------------------------

# Runs rawkm and then tells what it imported.
SPY = """
import sys
from rawkm.cli.main import run
try:
    status = run(sys.argv[1:])
except SystemExit as err:
    status = err.code
print("\\n" + "\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(status)
"""

# What help has no use for: packages of others, the way into the kernel, the dear ones of Python.
UNWANTED = {
    "construct",
    "pyroute2",
    "hypothesis",
    "dataclasses",
    "typing",
    "ctypes",
    "inspect",
    "asyncio",
    "json",
}


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in main.COMMANDS)])
def test_help_needs_no_kernel(argv: list[str]) -> None:
    done = rawkm(*argv, code=SPY)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
    imported = set(done.stderr.decode().split())
    assert "rawkm.cli.main" in imported
    assert not imported & UNWANTED
    assert "rawkm.syscall.live" not in imported
    if len(argv) == 1:
        assert "argparse" not in imported


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_shows_examples_and_statuses(name: str) -> None:
    text = rawkm(name, "--help").stdout.decode()
    assert text.startswith(f"usage: rawkm {name} ")
    assert "examples:" in text
    assert f"\n  rawkm {name}" in text
    assert "exit status: 0 done" in text
    assert "--explain" in text
    if name in ("count", "trace"):
        # Whose hit it is that softirq work makes.
        assert "softirq" in text


def test_overview() -> None:
    done = rawkm("--help")
    for name in main.COMMANDS:
        assert f"\n  {name} " in done.stdout.decode()
    assert done.stderr == b""
    without = rawkm()
    assert (without.returncode, without.stdout, without.stderr) == (2, b"", done.stdout)


def test_a_reader_that_has_enough() -> None:
    """`rawkm list | head` is no error."""
    code = (
        "import os, sys; from rawkm.cli import main, list_cmd; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
        "list_cmd.run = lambda args, kernel: print('x' * 100000) or 0; sys.exit(main.run(['list', 'x']))"
    )
    done = rawkm(code=code)
    assert (done.returncode, done.stderr) == (0, b"")
