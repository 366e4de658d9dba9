"""What is the same on every kernel: help, usage, list, doctor, and what is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..lib import rawkm

COMMANDS = ("list", "count", "trace", "doctor", "bench")


def test_help() -> None:
    """Of each command, with real examples; of all, on stdout; without a command on stderr, as wrong usage."""
    done = rawkm("--help")
    assert done.status == 0
    assert done.err == ""
    for command in COMMANDS:
        assert command in done.out
        each = rawkm(command, "--help")
        assert each.status == 0, each
        assert each.err == ""
        assert each.out.count(f"rawkm {command}") >= 2, each
        assert "--explain" in each.out
        if command in ("count", "trace"):
            assert "softirq" in each.out
            for option in ("-d", "-p", "-a", "--json", "--deny", "--unsafe", "--max-funcs", "--missing", "--by", "--ready-file"):
                assert f"{option}" in each.out, option
    assert rawkm("--version").out.startswith("rawkm 0.")


def test_help_imports_little() -> None:
    code = "import sys; sys.argv[1:] = {!r}; import atexit; atexit.register(lambda: print(sorted(sys.modules))); from rawkm.__main__ import main; main()"
    for argv in ["--help"], ["count", "--help"]:
        text = subprocess.run([sys.executable, "-c", code.format(argv)], capture_output=True, text=True, check=False).stdout
        assert "rawkm.cli" in text
        for module in "construct", "pyroute2", "hypothesis":
            assert f"'{module}'" not in text


def test_wrong_usage() -> None:
    for argv in ([], ["--what"], ["measure"], ["count"], ["list"], ["trace", "x", "--buffer", "pipe"], ["list", "a b"]):
        done = rawkm(*argv)
        assert done.status == 2, done
        assert done.out == ""
        assert "Traceback" not in done.err


def test_list(functions: dict[str, list[str]]) -> None:
    """The functions of the kernel's own list, with the symbol's address; what is not there, with near names."""
    done = rawkm("list", "tcp_v[46]_*", "tcp_v4_conect", "--json")
    assert done.status == 0, done
    assert {row["function"] for row in done.of("target")} == {
        name for name in functions if name.startswith(("tcp_v4_", "tcp_v6_"))
    }
    for row in done.of("target"):
        assert list(row) == ["type", "function", "module", "address", "site"]
        assert row["address"] >> 40
    rejected = {row["function"]: row for row in done.of("rejected")}
    assert list(rejected["tcp_v4_conect"]) == ["type", "function", "module", "denied", "reason"]
    assert "tcp_v4_connect" in rejected["tcp_v4_conect"]["reason"]
    assert list(done.summary) == ["type", "attachable", "rejected", "source", "notes"]
    assert done.summary["attachable"] == len(done.of("target"))
    assert done.summary["rejected"] == len(done.of("rejected"))
    assert done.status == 0
    done = rawkm("list", "no_such_*")
    assert done.status == 1
    assert "no_such_*" in done.out + done.err


def test_list_of_a_module(functions: dict[str, list[str]]) -> None:
    subprocess.run(["modprobe", "veth"], check=True)
    done = rawkm("list", "veth:*", "--json")
    listing = Path("/sys/kernel/tracing/available_filter_functions").read_text().splitlines()
    assert {row["function"] for row in done.of("target")} == {line.split()[0] for line in listing if line.endswith("[veth]")}
    assert {row["module"] for row in done.of("target")} == {"veth"}
    assert "veth_newlink" not in functions or functions["veth_newlink"] == ["veth"]


def test_what_json_means_is_documented() -> None:
    """Each key of list --json and doctor --json stands in the help, but for the settings' names."""
    for argv in ["list", "tcp_v4_connect", "tcp_v4_conect"], ["doctor"]:
        text = rawkm(argv[0], "--help").out
        rows = rawkm(*argv, "--json").rows
        keys = set(_keys(rows)) - set(_keys([row.pop("settings") for row in rows if "settings" in row]))
        assert [key for key in sorted(keys) if f'"{key}"' not in text] == []


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _keys(inner)


def test_explain_before_and_after_the_subcommand() -> None:
    for argv in (["--explain", "doctor"], ["doctor", "--explain"], ["--explain", "list", "tcp_v4_connect"]):
        done = rawkm(*argv)
        assert "openat(" in done.err, done
        assert "openat(" not in done.out
