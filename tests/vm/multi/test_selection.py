"""Which functions are attached: patterns, what is left out and why, and several functions of one name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ..lib import CALL, Done, Row, Running, Worker, rawkm, work


def listed(*args: str) -> Done:
    return rawkm("list", "--json", *args)


def names(done: Done) -> set[str]:
    return {row["function"] for row in done.of("target")}


def test_patterns_choose_what_the_kernels_list_has(functions: dict[str, list[str]]) -> None:
    """Globs, regular expressions, modules: compared with Python's own matching over available_filter_functions."""
    for pattern, regex in (
        ("tcp_v[46]_*", r"tcp_v[46]_.*"),
        ("*_v?_connect", r".*_v._connect"),
        ("/^tcp_.*_(ack|data)$/", r"tcp_.*_(ack|data)"),
        ("vmlinux:udp[!_]*", r"udp[^_].*"),
    ):
        expected = {name for name, modules in functions.items() if re.fullmatch(regex, name) and "" in modules}
        assert len(expected) > 1, pattern
        done = listed(pattern)
        denied = {row["function"] for row in done.of("rejected") if row["denied"]}
        assert names(done) | denied == expected, pattern
        assert done.summary["attachable"] == len(done.of("target"))
        assert done.summary["rejected"] == len(done.of("rejected"))
        assert done.status == 0


def test_list_in_text_and_as_json(functions: dict[str, list[str]]) -> None:
    """The same functions; + and -; the symbol's address; a reason for each that would not be attached."""
    done = listed("tcp_v4_*")
    text = rawkm("list", "tcp_v4_*")
    assert text.status == 0
    shown = dict(line[2:].split(maxsplit=1) for line in text.out.splitlines() if line.startswith("+ "))
    assert set(shown) == names(done)
    for row in done.of("target"):
        assert list(row) == ["type", "function", "module", "address", "site"]
        assert row["site"] - row["address"] in (0, 4), row
        assert int(shown[row["function"]], 16) == row["address"]
    rejected = done.of("rejected")
    for row in rejected:
        assert list(row) == ["type", "function", "module", "denied", "reason"]
        assert row["reason"]
        assert row["function"] not in functions
    assert len([line for line in text.out.splitlines() if line.startswith("- ")]) == len(rejected) > 0
    assert rawkm("list", "no_such_function").status == 1
    near = rawkm("list", "tcp_v4_conect")
    assert "tcp_v4_connect" in near.out + near.err, near


def test_another_name_of_a_function() -> None:
    """Symbols at one address are one function, and ftrace's list has one of its names. Whoever asks for the other gets it, or is told."""
    other = CALL.replace("__do_", "__x64_")
    done = rawkm("count", other, "--json", "--", *work("getppid", "5"))
    if done.status == 0:
        assert done.summary["hits"] == 5, done
    else:
        assert CALL in done.refused(1), done


def test_the_same_function_twice_is_one() -> None:
    patterns = ["tcp_v4_connect", "tcp_v4_connec*", "/^tcp_v4_connect$/", "tcp_v4_connect", "vmlinux:tcp_v4_connect"]
    for by in "addrs", "syms":
        done = rawkm("count", *patterns, "--by", by, "--json", "--", *work("connect", "9"))
        assert done.status == 0, done
        assert done.summary["attached"] == 1, done
        assert [(row["function"], row["count"]) for row in done.of("count")] == [("tcp_v4_connect", 9)]


def test_missing() -> None:
    """--missing error attaches nothing, warn says what is left out and why, ignore is silent. Nothing at all is always an error."""
    command = ["--json", "--", *work("getppid", "4")]
    some = ["no_such_function", "zzz_*", "no_such_module:tcp_*", CALL]
    done = rawkm("count", *some, *command)
    assert done.status == 0, done
    assert done.counts == {CALL: 4}
    text = "\n".join(done.notes)
    assert all(word in text for word in ("no_such_function", "zzz_*", "no_such_module")), done
    assert rawkm("count", *some, "--missing", "warn", *command).notes[:-2] == done.notes[:-2]
    done = rawkm("count", *some, "--missing", "ignore", *command)
    assert done.status == 0
    assert done.counts == {CALL: 4}
    assert len(done.notes) == 2, done
    sentence = rawkm("count", *some, "--missing", "error", *command).refused(1)
    assert "no_such_function" in sentence
    assert "no_such_function" in rawkm("count", "no_such_function", "--missing", "ignore", *command).refused(1)


def test_a_function_that_cannot_be_traced_says_so(functions: dict[str, list[str]]) -> None:
    """In kallsyms, but not in the kernel's list."""
    notrace = "native_sched_clock" if "native_sched_clock" not in functions else "sched_clock_noinstr"
    assert notrace not in functions
    sentence = rawkm("count", notrace).refused(1)
    assert notrace in sentence
    assert "not traceable" in sentence, sentence


def test_more_functions_than_allowed() -> None:
    """Refused, never cut."""
    sentence = rawkm("count", "tcp_v4_*", "--max-funcs", "3", "--", "touch", "/tmp/never").refused(1)
    assert "3" in sentence
    assert "--max-funcs" in sentence
    assert not Path("/tmp/never").exists()
    done = rawkm("count", "tcp_v4_connect", CALL, "--max-funcs", "2", "--json", "--", "true")
    assert done.status == 0
    assert done.summary["attached"] == 2


def test_deny_and_unsafe() -> None:
    """--deny adds to what is left alone, --unsafe drops the built-in list only."""
    done = rawkm("count", "tcp_v[46]_connect", "--deny", "*_v6_*", "--json", "--", *work("connect", "2"))
    assert done.summary["attached"] == 1, done
    assert done.counts == {"tcp_v4_connect": 2}
    assert any("1 function" in note for note in done.notes), done
    denied = "bpf_get_current_comm"  # the programs of rawkm's own trace call it: harmless, but never counted
    sentence = rawkm("count", denied).refused(1)
    assert denied in sentence
    done = rawkm("count", denied, "--unsafe", "--json", "--", "true")
    assert done.status == 0, done
    assert done.summary["attached"] == 1
    sentence = rawkm("count", denied, "--unsafe", "--deny", "bpf_get_*").refused(1)
    assert "--deny" in sentence, sentence
    rows = {row["function"]: row for row in listed(denied, "migrate_disable", "tcp_v4_connect", "--deny", "tcp_*").of("rejected")}
    assert set(rows) == {denied, "migrate_disable", "tcp_v4_connect"}, rows
    assert rows[denied]["denied"] is True
    assert all(len(row["reason"]) > 10 for row in rows.values())
    assert len({row["reason"] for row in rows.values()}) == 3


@pytest.fixture
def veth() -> str:
    subprocess.run(["modprobe", "veth"], check=True)
    return "veth"


def test_functions_of_a_module(veth: str) -> None:
    """module:glob, by addresses and by names, counted: each pair of devices runs veth_newlink once."""
    listing = (Path("/sys/kernel/tracing") / "available_filter_functions").read_text()
    expected = {line.split()[0] for line in listing.splitlines() if line.endswith(f"[{veth}]")}
    assert expected >= {"veth_newlink", "veth_open"}
    script = "for i in 1 2 3; do ip link add a$i type veth peer name b$i; ip link del a$i; done"
    for by in "addrs", "syms":
        done = rawkm("count", f"{veth}:*", "tcp_v4_connect", "--by", by, "--json", "--zero", "--", "sh", "-c", script)
        assert done.status == 0, done
        assert done.counts["veth_newlink"] == 3, done
        rows = {row["function"]: row for row in done.of("count")}
        assert {name for name, row in rows.items() if row["module"] == veth} == expected
        assert rows["tcp_v4_connect"]["module"] is None
        assert all(row["address"] for row in rows.values()), done
    text = rawkm("count", f"{veth}:veth_new*", "--", "sh", "-c", script)
    assert re.search(r"^veth_newlink \[veth\] +3$", text.out, re.MULTILINE), text
    for pattern, words in (("dummy_nowhere:*", "dummy_nowhere"), ("veth:tcp_*", "veth")):
        assert words in rawkm("count", pattern).refused(1)
    assert rawkm("count", "vmlinux:veth_newlink").status == 1


def test_a_module_that_comes_and_goes(veth: str) -> None:
    """While a link holds the module it cannot go; afterwards it can."""
    with Worker() as worker, Running("count", "veth:veth_open", "--json", "--", *worker.argv, fds=worker.fds) as running:
        worker.do("getppid 1")
        assert subprocess.run(["rmmod", "veth"], stderr=subprocess.DEVNULL).returncode != 0
        worker.stop()
        assert running.end().status == 0
    subprocess.run(["rmmod", "veth"], check=True)
    assert "veth" in rawkm("count", "veth:*").refused(1)


def _reads(path: str) -> None:
    Path(path).read_bytes()


def test_several_functions_of_one_name(functions: dict[str, list[str]], tmp_path: Path) -> None:
    """Each has its own row and address, and its own hits: c_start of /proc/cpuinfo is not that of /proc/consoles."""
    name = "c_start"
    instances = len(functions[name])
    assert instances > 1
    ready = tmp_path / "ready"
    found: dict[str, dict[int, int]] = {}
    for path in "/proc/cpuinfo", "/proc/consoles":
        with Running("count", name, "--zero", "--json", "--ready-file", str(ready)) as running:
            running.until(str(ready))
            for _ in range(4):
                _reads(path)
            done = running.end(2)
        ready.unlink()
        rows: list[Row] = done.of("count")
        assert len(rows) == instances == done.summary["attached"], done
        assert len({row["address"] for row in rows}) == instances, done
        assert all(row["address"] and row["function"] == name for row in rows)
        found[path] = {row["address"]: row["count"] for row in rows if row["count"]}
        assert len(found[path]) == 1, found
    (cpuinfo,), (consoles,) = found.values()
    assert cpuinfo != consoles
    text = rawkm("count", name, "--zero", "-d", "0.2")
    cells = [line.split()[1] for line in text.out.splitlines()[1:]]
    assert len(set(cells)) == instances, text
    assert f"@{cpuinfo:x}" in cells
    sentence = rawkm("count", name, "--by", "syms").refused(1)
    assert sentence.count(name) == 1, sentence


def test_every_name_with_several_instances(functions: dict[str, list[str]]) -> None:
    """All such functions at once: as many as the list has lines, each with another address."""
    several = {name: modules for name, modules in functions.items() if len(modules) > 1}
    pattern = "/^(" + "|".join(map(re.escape, several)) + ")$/"
    done = rawkm("count", pattern, "--unsafe", "--json", "--zero", "--", "true")
    assert done.status == 0, done
    lines = sum(len(modules) for modules in several.values())
    rows = done.of("count")
    assert len(rows) == len({row["address"] for row in rows}) == done.summary["attached"]
    assert len(rows) == lines, (len(rows), lines, done.notes)
