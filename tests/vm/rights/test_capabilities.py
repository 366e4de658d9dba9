"""Who may what: uid 65534 with exactly these capabilities. What is missing is named, and what for; nothing else is."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from ..lib import CALL, Done, Running, Worker, nobody, rawkm, root_without, setting, wait_for, work

BPF, PERFMON, SYSLOG, READ, ADMIN = "CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"


def names_only(text: str, *capabilities: str) -> None:
    """Exactly these capabilities are spoken of."""
    assert {cap for cap in (BPF, PERFMON, SYSLOG, READ, ADMIN, "CAP_SYS_RESOURCE") if cap in text} == set(capabilities), text


def test_bpf_and_perfmon_are_enough_for_a_name() -> None:
    """By its name, its address unknown; with a command, with -p, and for everybody."""
    user = nobody("bpf", "perfmon")
    done = rawkm("count", "tcp_v4_connect", "--json", "--", *work("connect", "5"), prefix=user)
    assert done.status == 0, done
    assert [(row["function"], row["address"], row["count"]) for row in done.of("count")] == [("tcp_v4_connect", None, 5)]
    assert done.summary["backend"] == "kprobe-multi (syms)"
    assert done.summary["missed"] == 0
    assert isinstance(done.summary["recursion_misses"], int)
    with Worker() as worker:
        worker.start()
        with Running(
            "trace", "tcp_v4_connect", "--json", "-p", str(worker.pid), "--ready-file", "/tmp/rights", prefix=user
        ) as running:
            running.until("/tmp/rights")
            worker.do("fork connect 3", "connect 1")
            worker.stop()
            done = running.end()
    Path("/tmp/rights").unlink()
    assert done.status == 0, done
    assert len(done.of("event")) == done.summary["hits"] == 4


def test_bpf_and_perfmon_do_what_they_can_for_a_glob(functions: dict[str, list[str]]) -> None:
    """Without the kernel's list: the names that BTF has. What is left out is said, and what would be needed for it."""
    done = rawkm("count", "tcp_*", "no_such_*", "--json", "--zero", "--", *work("connect", "5"), prefix=nobody("bpf", "perfmon"))
    assert done.status == 0, done
    assert done.counts["tcp_v4_connect"] == 5
    text = "\n".join(done.notes)
    assert READ in text, done
    assert SYSLOG in text, done
    names_only(text, READ, SYSLOG)
    assert "no_such_*" in text
    assert "BTF" in text, "where the names are from, and that they are not all"
    whole = {name for name, modules in functions.items() if name.startswith("tcp_") and modules == [""]}
    attached = set(done.counts)
    # Where one function has several names, the kernel's list has one of them and BTF may have another (7.2: tcp_bpf_rtt).
    assert len(attached - set(functions)) < 5, attached - set(functions)
    assert len(done.counts) == done.summary["attached"] > 0.95 * len(whole)
    # What is not attached though it could be: variants made by the compiler, which BTF does not have; and names of several functions.
    for name in whole - attached:
        assert "." in name or name in text, name


def test_names_that_the_kernel_refuses(functions: dict[str, list[str]]) -> None:
    """Without the list some of BTF's functions turn out not to be traceable: they are named, with the kernel's reason."""
    user = nobody("bpf", "perfmon")
    symbols = {line.split()[2] for line in Path("/proc/kallsyms").read_text().splitlines()}
    refused = {"skip_spaces", "skip_atoi"} & symbols - set(functions)
    assert refused, "functions that BTF has and ftrace has not"
    argv = ["count", "skip_[as]*", "skb_[a-d]*", "--json", "--zero", "-d", "0.2"]
    done = rawkm(*argv, prefix=user)
    assert done.status == 0, done
    assert done.summary["attached"] == len(done.of("count")) > 20, "what is not attached has no row, not even with --zero"
    assert set(done.counts) <= set(functions)
    for name in refused:
        assert any(name in note and "ESRCH" in note for note in done.notes), done
    done = rawkm(*argv, "--missing", "ignore", prefix=user)
    assert done.status == 0
    assert not any("ESRCH" in note for note in done.notes), done
    done = rawkm(*argv, "--missing", "error", prefix=user)
    assert done.status == 1, done
    assert any(next(iter(refused)) in note for note in done.notes), done


def test_a_long_search_can_be_interrupted() -> None:
    """Many are refused: it takes a while to find them all. Ctrl-C does not have to wait for it."""
    with Running("count", "s*", "--json", prefix=nobody("bpf", "perfmon")) as running:
        wait_for(lambda: "looking for them (Ctrl-C ends this)" in running.said(), "the search")
        start = time.monotonic()
        done = running.end(signal.SIGINT, timeout=180)
        assert time.monotonic() - start < 5, done
    assert done.status in (0, 1), done


def test_one_capability_missing() -> None:
    """Status 3 and one sentence, which names exactly what is missing; the command does not start."""
    mark = Path("/tmp/never")
    for held, missing in ((["perfmon"], [BPF]), (["bpf"], [PERFMON]), ([], [BPF, PERFMON])):
        for argv in (
            ["count", "tcp_v4_connect", "-d", "1"],
            ["count", "tcp_*", "--json", "--", "touch", str(mark)],
            ["trace", "tcp_v4_connect", "-p", "1"],
        ):
            sentence = rawkm(*argv, prefix=nobody(*held)).refused(3)
            names_only(sentence, *missing)
    assert not mark.exists()


def test_root_without_one() -> None:
    """CAP_SYS_ADMIN stands in for both; without it root needs them like everybody."""
    done = rawkm("count", CALL, "--json", "--", *work("getppid", "3"), prefix=root_without("bpf", "perfmon"))
    assert done.counts == {CALL: 3}, done
    for gone, missing in ((["bpf", "sys_admin"], BPF), (["perfmon", "sys_admin"], PERFMON)):
        sentence = rawkm("count", CALL, "-d", "1", prefix=root_without(*gone)).refused(3)
        names_only(sentence, missing)


def test_in_a_user_namespace() -> None:
    """Its root has every capability there, none of which counts."""
    for argv in ["count", CALL, "-d", "1"], ["trace", "tcp_*", "--", "true"]:
        sentence = rawkm(*argv, prefix=["unshare", "--user", "--map-root-user"]).refused(3)
        assert "user namespace" in sentence
        names_only(sentence)


# Installs a seccomp filter by which bpf(2) ends in EPERM, as container engines do, and executes the rest of its command line.
_FORBID_BPF = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 321), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
insns = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *insn) for insn in code))
prog = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(insns)))
assert ctypes.CDLL(None).prctl(22, 2, prog, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_behind_a_seccomp_filter() -> None:
    for argv in ["count", CALL, "-d", "1"], ["count", CALL, "--", "true"]:
        sentence = rawkm(*argv, prefix=["python3", "-c", _FORBID_BPF]).refused(3)
        assert "seccomp" in sentence
        names_only(sentence)
    done = rawkm("doctor", prefix=["python3", "-c", _FORBID_BPF])
    assert done.status == 3
    assert "seccomp" in done.out


def test_reading_the_list(functions: dict[str, list[str]]) -> None:
    """CAP_DAC_READ_SEARCH reads it where tracefs is mounted; addresses take CAP_SYSLOG."""
    whole = {name: modules for name, modules in functions.items() if name.startswith("tcp_v4_")}
    argv = ["count", "tcp_v4_*", "--json", "--zero", "-d", "0.2"]
    done = rawkm(*argv, prefix=nobody("bpf", "perfmon", "dac_read_search"))
    assert done.status == 0, done
    assert set(done.counts) == {name for name, modules in whole.items() if len(modules) == 1}
    assert all(row["address"] is None for row in done.of("count"))
    assert READ not in done.err
    done = rawkm(*argv, "--by", "addrs", prefix=nobody("bpf", "perfmon", "dac_read_search", "syslog"))
    assert done.status == 0, done
    assert len(done.of("count")) == sum(map(len, whole.values()))
    assert all(row["address"] for row in done.of("count"))
    assert len(done.notes) == 2, done


def test_addresses_that_are_hidden() -> None:
    """--by addrs says what would show them: CAP_SYSLOG where that is missing, kptr_restrict where it is not."""
    sentence = rawkm("count", CALL, "--by", "addrs", "-d", "1", prefix=nobody("bpf", "perfmon", "dac_read_search")).refused(3)
    names_only(sentence, SYSLOG)
    with setting("kernel/kptr_restrict", 2):
        sentence = rawkm("count", CALL, "--by", "addrs", "-d", "1").refused(3)
        assert "kptr_restrict" in sentence
        names_only(sentence)  # root has all of them
        done = rawkm("count", CALL, "tcp_v4_connect", "--json", "--", *work("connect", "2"))
        assert done.status == 0, done
        assert [(row["function"], row["address"], row["count"]) for row in done.of("count")] == [("tcp_v4_connect", None, 2)]
        assert done.summary["backend"] == "kprobe-multi (syms)"
        # Several functions of one name cannot be told apart now.
        sentence = rawkm("count", "c_start").refused(1)
        assert "c_start" in sentence
        assert "hidden" in sentence
        assert sentence.count("c_start") == 1, sentence
        listing = rawkm("list", "tcp_v4_connect", "c_start", "--json")
        assert {(row["function"], row["address"]) for row in listing.of("target")} == {("tcp_v4_connect", None)}
        assert {row["function"] for row in listing.of("rejected")} == {"c_start"}


def test_the_perf_buffer() -> None:
    """Debian's perf_event_paranoid 3 wants CAP_SYS_ADMIN; at 2 CAP_PERFMON is enough. The ring buffer needs neither."""
    argv = ["trace", CALL, "--json", "--buffer", "perf", "--", *work("getppid", "3")]
    with setting("kernel/perf_event_paranoid", 3):
        sentence = rawkm(*argv, prefix=nobody("bpf", "perfmon")).refused(3)
        names_only(sentence, ADMIN)
        assert "perf" in sentence
        assert "paranoid" in sentence
        assert "ring" in sentence, "what works without"
        done = rawkm(*argv, prefix=nobody("bpf", "perfmon", "sys_admin"))
        assert len(done.of("event")) == 3, done
        done = rawkm("trace", CALL, "--json", "--", *work("getppid", "3"), prefix=nobody("bpf", "perfmon"))
        assert len(done.of("event")) == 3, done
    with setting("kernel/perf_event_paranoid", 2):
        done = rawkm(*argv, prefix=nobody("bpf", "perfmon"))
        assert len(done.of("event")) == 3, done


def checks(done: Done) -> dict[str, dict[str, str]]:
    (report,) = done.rows
    return {check["feature"]: check for check in report["checks"]}


def test_doctor_names_what_is_missing() -> None:
    done = rawkm("doctor", "--json", prefix=nobody("bpf", "perfmon"))
    assert done.status == 0, done
    assert done.rows[0]["can_trace"] is True
    assert sorted(done.rows[0]["capabilities"]) == [BPF, PERFMON]
    found = checks(done)
    names_only(found["function list"]["evidence"], READ)
    names_only(found["perf buffer"]["evidence"], ADMIN)
    names_only(found["symbol addresses"]["help"], SYSLOG)
    for held, missing in ((["perfmon"], [BPF]), (["bpf"], [PERFMON]), ([], [BPF, PERFMON])):
        done = rawkm("doctor", "--json", prefix=nobody(*held))
        assert done.status == 3
        assert done.rows[0]["can_trace"] is False
        for feature in "tracing programs", "kprobe_multi":
            names_only(checks(done)[feature]["evidence"], *missing)
        assert checks(done)["process trees"]["state"] == "no"
    done = rawkm("doctor", "--json")
    absent = {feature for feature, check in checks(done).items() if check["state"] != "yes"}
    assert absent <= {"fentry_multi", "fsession"}, done  # 7.2 has them
