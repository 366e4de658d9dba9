"""Kernels without kprobe_multi: the main job is done another way, which is said; asked for by name, it is status 3 and one sentence."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from ..lib import nobody, rawkm, root_without, work

OLD = os.uname().release.startswith("5.10")
MULTI = ("--backend", "kprobe-multi")


def is_the_cause(sentence: str) -> None:
    if OLD:
        assert "EINVAL" in sentence, sentence
        assert "bpf_attr" in sentence and "kprobe_multi" in sentence, sentence
    else:
        assert "EOPNOTSUPP" in sentence, sentence
        assert "CONFIG_FPROBE" in sentence, sentence
    assert "LINK_CREATE" in sentence, sentence
    assert "CAP_" not in sentence, sentence


def test_the_named_backend_says_why(tmp_path: Path) -> None:
    """Whatever is asked for; the command does not start, and no ready file comes."""
    mark, ready = tmp_path / "ran", tmp_path / "ready"
    for argv in (
        ["count", "tcp_v4_connect"],
        ["count", "tcp_*", "--json", "-d", "1"],
        ["count", "tcp_v4_connect", "--by", "addrs", "--", "touch", str(mark)],
        ["count", "tcp_v4_connect", "--by", "syms", "-p", "1"],
        ["trace", "tcp_*", "--", "touch", str(mark)],
        ["trace", "tcp_v4_connect", "--buffer", "perf", "-d", "1"],
        ["count", "*"],
    ):
        ready.write_text("old")
        done = rawkm(argv[0], *MULTI, "--ready-file", str(ready), *argv[1:])
        notes = [note for note in done.notes if not note.startswith("left alone")]
        assert done.status == 3, done
        assert done.out == ""
        assert len(notes) == 1, done
        assert len(done.notes) == len(done.err.splitlines()), done
        is_the_cause(notes[0])
        assert not ready.exists()
    assert not mark.exists()


def test_the_main_job_is_done_another_way() -> None:
    """count and trace of a whole glob: exact, every function attached or named, and the reason in one line."""
    done = rawkm("count", "tcp_v4_*", "inet_csk_a*", "--json", "--", *work("connect", "12"), timeout=200)
    assert done.status == 0, done
    assert done.counts["tcp_v4_connect"] == done.counts["inet_csk_accept"] == 12, done
    assert done.summary["backend"] == "kprobe"
    assert done.summary["attached"] > 20
    refused = [note for note in done.notes if note.startswith("not by ")]
    assert refused[0].startswith("not by kprobe-multi: "), done
    is_the_cause(refused[0])
    done = rawkm("trace", "tcp_v4_c*", "--json", "--", *work("connect", "6"), timeout=100)
    assert done.status == 0, done
    assert [row["function"] for row in done.of("event")].count("tcp_v4_connect") == 6
    assert done.summary["dropped"] == 0


def test_list_works(functions: dict[str, list[str]]) -> None:
    done = rawkm("list", "tcp_v4_*", "--json")
    assert done.status == 0, done
    expected = {name for name in functions if name.startswith("tcp_v4_")}
    assert {row["function"] for row in done.of("target")} == expected
    assert all(row["address"] for row in done.of("target")), "by kallsyms"
    text = rawkm("list", "tcp_v4_connect")
    assert text.out.startswith("+ tcp_v4_connect ffffffff"), text


def test_doctor_works() -> None:
    done = rawkm("doctor", "--json")
    assert done.status == 0, done
    (report,) = done.rows
    assert report["can_trace"] is True
    found = {check["feature"]: check for check in report["checks"]}
    assert found["kprobe_multi"]["state"] == "no"
    is_the_cause(found["kprobe_multi"]["evidence"])
    assert found["kprobe_multi"]["help"]
    for feature in (
        "bpf maps",
        "tracing programs",
        "kprobe",
        "fentry",
        "ring buffer",
        "perf buffer",
        "function list",
        "symbol addresses",
        "kernel BTF",
        "process trees",
    ):
        assert found[feature]["state"] == "yes", found[feature]
    text = rawkm("doctor")
    assert text.status == 0
    assert "count and trace work here" in text.out


def test_the_limit_of_locked_memory() -> None:
    """5.10 charges maps to RLIMIT_MEMLOCK, for root too. It is raised where that can be, else named: no capability is to blame."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    line = ("trace", "tcp_v4_connect", *MULTI)
    try:
        # The ring buffer of 4 MiB is charged.
        is_the_cause(rawkm(*line, "-d", "1").refused(3))
        # Without CAP_SYS_RESOURCE nobody may raise it.
        for prefix in root_without("sys_resource"), nobody("bpf", "perfmon", "dac_read_search", "syslog"):
            sentence = rawkm(*line, "-d", "1", prefix=prefix).refused(3)
            if OLD:
                assert "RLIMIT_MEMLOCK" in sentence, sentence
                assert not any(cap in sentence for cap in ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN")), sentence
            else:
                is_the_cause(sentence)
            sentence = rawkm(*line, "--", "true", prefix=prefix).refused(3)
            assert OLD == ("RLIMIT_MEMLOCK" in sentence), sentence
        # It is the soft limit that counts: with room up to the hard one, no capability is needed.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 20))
        is_the_cause(rawkm(*line, "-d", "1", prefix=root_without("sys_resource")).refused(3))
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def test_a_missing_capability_comes_first() -> None:
    for held, missing in ((["perfmon"], {"CAP_BPF"}), (["bpf"], {"CAP_PERFMON"}), ([], {"CAP_BPF", "CAP_PERFMON"})):
        sentence = rawkm("count", "tcp_v4_connect", "-d", "1", prefix=nobody(*held)).refused(3)
        assert {cap for cap in ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE") if cap in sentence} == missing, (
            sentence
        )


def test_without_the_right_to_perf_events() -> None:
    """kernel.perf_event_paranoid is 3 in Debian: kprobes take CAP_SYS_ADMIN, fentry does not (and 5.10 has no safe one)."""
    prefix = nobody("bpf", "perfmon", "dac_read_search", "syslog")
    sentence = rawkm("count", "tcp_v4_connect", "--backend", "kprobe", "-d", "1", prefix=prefix).refused(3)
    assert "CAP_SYS_ADMIN" in sentence and "perf_event_paranoid" in sentence, sentence
    if not OLD:
        done = rawkm("count", "tcp_v4_connect", "--json", "--", *work("connect", "3"), prefix=prefix)
        assert done.counts == {"tcp_v4_connect": 3}, done
        assert done.summary["backend"] == "fentry"
