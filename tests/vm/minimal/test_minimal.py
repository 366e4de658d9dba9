"""A minimal container: tracefs, debugfs and bpffs are not mounted, and rawkm mounts nothing that anybody sees."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ..lib import CALL, Running, Worker, nobody, rawkm, work

MOUNTS = Path("/proc/mounts")


def test_everything_works_and_no_mount_is_seen(tmp_path: Path) -> None:
    """Before, during, after: in the own mount table and in everybody's."""
    before = MOUNTS.read_text()
    assert "tracefs" not in before
    for what, by in (("count", "syms"), ("count", "addrs"), ("trace", "auto")):
        ready = tmp_path / f"{what}-{by}"
        with Worker() as worker:
            argv = [what, "tcp_v4_*", "--by", by, "--json", "--ready-file", str(ready), "--", *worker.argv]
            with Running(*argv, fds=worker.fds) as running:
                worker.do("connect 25")
                assert ready.exists()
                assert MOUNTS.read_text() == before
                assert Path(f"/proc/{running.pid}/mounts").read_text() == before
                assert Path(f"/proc/{running.pid}/mountinfo").read_text() == Path("/proc/1/mountinfo").read_text()
                worker.stop()
                done = running.end()
        assert done.status == 0, done
        assert done.summary["attached"] > 20
        hits = (
            done.counts["tcp_v4_connect"]
            if what == "count"
            else len([e for e in done.of("event") if e["function"] == "tcp_v4_connect"])
        )
        assert hits == 25, done
        assert len(done.notes) == 2, done
    assert MOUNTS.read_text() == before
    assert os.listdir("/sys/kernel/tracing") == []


def test_list_and_doctor() -> None:
    done = rawkm("list", "tcp_v4_*", "--json")
    assert done.status == 0, done
    assert done.summary["attachable"] > 20
    assert done.summary["source"].startswith("available_filter_functions")
    done = rawkm("doctor", "--json")
    assert done.status == 0, done
    (report,) = done.rows
    (check,) = [check for check in report["checks"] if check["feature"] == "function list"]
    assert check["state"] == "yes"
    assert "without a mount point" in check["evidence"], check
    before = MOUNTS.read_text()
    with Running("count", "*", "-d", "1", "--json") as running:
        done = running.end(timeout=120)
    assert done.summary["attached"] > 30_000
    assert MOUNTS.read_text() == before


def test_tracefs_in_debugfs() -> None:
    """Only debugfs is mounted: tracefs is found in it."""
    script = 'mount -t debugfs debugfs /sys/kernel/debug; exec rawkm "$@"'
    done = rawkm("doctor", "--json", prefix=["unshare", "--mount", "sh", "-c", script])
    (check,) = [check for check in done.rows[0]["checks"] if check["feature"] == "function list"]
    assert "/sys/kernel/debug/tracing/" in check["evidence"], check
    done = rawkm("count", "tcp_v4_*", "--json", "--", *work("connect", "3"), prefix=["unshare", "--mount", "sh", "-c", script])
    assert done.counts["tcp_v4_connect"] == 3, done
    assert len(done.notes) == 2, done


def test_who_may_open_it() -> None:
    """Opening tracefs takes CAP_SYS_ADMIN, reading it CAP_DAC_READ_SEARCH: each is named where it is missing, and the names of BTF do."""
    command = ["--json", "--zero", "--", *work("connect", "5")]
    for held, missing in (
        (["bpf", "perfmon"], {"CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH"}),
        (["bpf", "perfmon", "dac_read_search"], {"CAP_SYS_ADMIN"}),
        (["bpf", "perfmon", "sys_admin"], {"CAP_DAC_READ_SEARCH"}),
        (["sys_admin", "dac_read_search"], set()),
    ):
        done = rawkm("count", "tcp_v4_*", *command, prefix=nobody(*held))
        assert done.status == 0, done
        assert done.counts["tcp_v4_connect"] == 5, done
        text = "\n".join(note for note in done.notes if "CAP_SYSLOG" not in note)
        assert {cap for cap in ("CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_PERFMON") if cap in text} == missing, done
        done = rawkm("doctor", "--json", prefix=nobody(*held))
        (check,) = [check for check in done.rows[0]["checks"] if check["feature"] == "function list"]
        assert check["state"] == ("no" if missing else "yes")
        assert all(cap in check["evidence"] for cap in missing), check
    done = rawkm("count", "tcp_v4_connect", "--json", "--", *work("connect", "5"), prefix=nobody("bpf", "perfmon"))
    assert done.counts == {"tcp_v4_connect": 5}, done


def test_signals_leave_no_mount() -> None:
    before = MOUNTS.read_text()
    for number in signal.SIGINT, signal.SIGKILL:
        with Worker() as worker, Running("count", CALL, "--", *worker.argv, fds=worker.fds) as running:
            worker.do("getppid 1")
            running.end(number)
            worker.stop()
    assert MOUNTS.read_text() == before
