"""rawkm run: a program that somebody wrote as text, on real functions."""

from __future__ import annotations

import signal
import struct
from pathlib import Path

from ..lib import Running, Worker, rawkm, work

N = 40

COUNT = """\
.license "GPL"
.map counts, type=percpu_hash, key=8, value=8, max_entries=64
.map events, type=ringbuf, max_entries=65536

    r6 = r1
    call bpf_get_func_ip
    *(u64 *)(r10 - 8) = r0
    r1 = r6
    call bpf_get_attach_cookie
    *(u64 *)(r10 - 16) = r0
    r1 = events ll
    r2 = r10
    r2 += -16
    r3 = 16
    r4 = 0
    call bpf_ringbuf_output
    r1 = counts ll
    r2 = r10
    r2 += -8
    call bpf_map_lookup_elem
    if r0 == 0 goto new
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    goto out
new:
    *(u64 *)(r10 - 24) = 1
    r1 = counts ll
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -24
    r4 = 0
    call bpf_map_update_elem
out:
    r0 = 0
    exit
"""
FUNCTIONS = ["tcp_v4_connect", "inet_csk_accept"]


def written(folder: Path, text: str) -> str:
    path = folder / "prog.s"
    path.write_text(text)
    return str(path)


def test_maps_and_records_of_functions(tmp_path: Path) -> None:
    path = written(tmp_path, COUNT)
    done = rawkm("run", path, "--attach", FUNCTIONS[0], "--attach", FUNCTIONS[1], "--json", "--", *work("connect", str(N)))
    assert done.status == 0, done
    counts = {
        row["function"]: sum(int.from_bytes(bytes.fromhex(v), "little") for v in row["value"]) for row in done.of("element")
    }
    assert counts == dict.fromkeys(FUNCTIONS, N), done
    addresses = {row["function"]: row["key"] for row in done.of("element")}
    records = [struct.unpack("<QQ", bytes.fromhex(row["data"])) for row in done.of("record")]
    assert len(records) == 2 * N
    # The cookie tells the functions apart, as the address does.
    assert len(set(records)) == 2 and {cookie for cookie, _ in records} == {0, 1}
    assert {struct.pack("<Q", address).hex() for _, address in records} == set(addresses.values())
    summary = done.rows[-1]
    assert summary == summary | {
        "type": "summary",
        "attached": 2,
        "missed": 0,
        "recursion_misses": 0,
        "records": 2 * N,
        "full": 0,
    }
    assert "kprobe-multi" in summary["backend"]


def test_from_the_section_at_return_until_a_signal(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    path = written(tmp_path, '.section "kretprobe.multi/tcp_v4_connect"\n' + COUNT)
    with Running("run", path, "--ready-file", str(ready)) as running, Worker() as worker:
        worker.start()
        running.until(str(ready))
        worker.do("connect 5")
        done = running.end(signal.SIGTERM)
    assert done.status == 0, done
    lines = done.out.splitlines()
    assert lines[0] == "events #1, 16 bytes"
    table = lines[lines.index("counts: 1 element of 64") :]
    assert "tcp_v4_connect  5  (" in table[1], done
    assert any("kprobe-multi" in note and "1 function attached" in note for note in done.notes), done


def test_a_session_runs_twice_per_call(tmp_path: Path) -> None:
    path = written(tmp_path, '.section "kprobe.session/tcp_v4_connect"\n' + COUNT)
    done = rawkm("run", path, "--json", "--", *work("connect", "5"))
    assert done.rows[-1]["records"] == 10, done
    assert "kprobe-session" in done.rows[-1]["backend"]


def test_a_tracepoint(tmp_path: Path) -> None:
    text = ".map hits, type=array, key=4, value=8, max_entries=1\nr1 = hits[0] ll\nr2 = 1\nlock *(u64 *)(r1 + 0) += r2\nr0 = 0\nexit\n"
    path = written(tmp_path, '.section "tp/sched/sched_process_exec"\n' + text)
    done = rawkm("run", path, "--", "sh", "-c", "exec true")
    assert done.status == 0, done
    # sh, true.
    assert done.out.splitlines() == ["hits: 1 element of 1", "  0  2"], done


def test_what_the_verifier_refuses_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path, COUNT.replace("if r0 == 0 goto new", "if r0 == 1 goto new"))
    sentence = rawkm("run", path, "--attach", "tcp_v4_connect").refused(1)
    line = COUNT[: COUNT.index("    r1 = *(u64 *)(r0 + 0)")].count("\n") + 1
    assert sentence.startswith(f"{path}:{line}: bpf(BPF_PROG_LOAD) was refused with EACCES at instruction "), sentence
    assert "r1 = *(u64 *)(r0 + 0x0): " in sentence and "R0 invalid mem access" in sentence
