"""Whose hits count: each kind of descendant connects another power of two times, so the sum says who was missed."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

from ..lib import CALL, Running, Worker, rawkm, work

# What a tree does once it is traced: itself, a thread, a child, an orphan, an executed program, a thread's child, a child's thread.
ORDERS = [
    "connect 1",
    "thread connect 2",
    "fork connect 4",
    "grand connect 8",
    "spawn connect 16",
    "thread fork connect 32",
    "fork thread connect 64",
]
ALL = 127
# Made before the trace begins, and let go in it.
HELD = ["hold thread connect 128", "hold fork connect 256", "hold grand connect 512"]
ALL_HELD = 128 + 256 + 512


IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def beside(worker: Worker, directory: Path) -> list[str]:
    """A prefix: rawkm -p of the worker, both in a new PID namespace; it begins when the file "held" is there."""
    script = f'{shlex.join(worker.argv)} & until [ -e {directory}/held ]; do sleep 0.05; done; exec rawkm "$@" -p $!'
    return [*IN_A_NAMESPACE, "sh", "-c", script]


def test_a_command_and_its_descendants_and_nobody_else(tmp_path: Path) -> None:
    for scope, others in ([], 0), (["-a"], 5):
        ready = tmp_path / f"ready{others}"
        with (
            Worker() as stranger,
            Worker() as worker,
            Running(
                "count", "tcp_v4_connect", "--json", "--ready-file", str(ready), *scope, "--", *worker.argv, fds=worker.fds
            ) as running,
        ):
            stranger.start()
            running.until(str(ready))
            stranger.do("connect 3")
            worker.do(*HELD, *ORDERS, "release")
            stranger.do("connect 2")
            worker.stop()
            done = running.end()
        assert done.status == 0, done
        assert done.counts == {"tcp_v4_connect": ALL + ALL_HELD + others}, (scope, done)
        assert done.summary.get("unfollowed", 0) == 0


def test_a_living_process_with_its_threads_and_descendants(tmp_path: Path) -> None:
    """-p, which ends with the process. trace does as count."""
    for what in ["count", "tcp_v4_connect"], ["trace", "tcp_v4_connect"]:
        ready = tmp_path / what[0]
        with Worker() as stranger, Worker() as worker:
            stranger.start()
            worker.start().do(*HELD)
            with Running(*what, "--json", "--ready-file", str(ready), "-p", str(worker.pid)) as running:
                running.until(str(ready))
                stranger.do("connect 3", "fork connect 5")
                worker.do("release", *ORDERS)
                worker.stop()
                done = running.end()
        assert done.status == 0, done
        assert done.summary["hits"] == ALL + ALL_HELD, done
        assert done.summary["command_status"] is None
        if what[0] == "trace":
            assert len(done.of("event")) == ALL + ALL_HELD


def test_a_process_that_becomes_another_program() -> None:
    """execve by a thread that is not the first: the process keeps its number, and is still followed, as are its children."""
    with Worker() as worker, Running("count", "tcp_v4_connect", "--json", "--", *worker.argv, fds=worker.fds) as running:
        worker.do("connect 1", "become", "connect 2", "fork connect 4", "become", "thread connect 8")
        worker.stop()
        done = running.end()
    assert done.counts == {"tcp_v4_connect": 15}, done


def _child_of(pid: int) -> int:
    """The one child."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_number_that_is_used_again(tmp_path: Path) -> None:
    """A stranger that gets the number of a followed process which has ended is a stranger."""
    for turn in range(5):
        ready = tmp_path / f"ready{turn}"
        with Worker() as worker, Worker() as stranger:
            worker.start()
            with Running("count", "tcp_v4_connect", "--json", "--ready-file", str(ready), "-p", str(worker.pid)) as running:
                running.until(str(ready))
                worker.do("hold fork connect 1")
                child = _child_of(worker.pid)
                worker.do("release")
                # The kernel tells of the end of a process when nobody can see it any more.
                time.sleep(2)
                Path("/proc/sys/kernel/ns_last_pid").write_text(str(child - 1))
                stranger.start()
                stranger.do("connect 2", "fork connect 4")
                worker.do("fork connect 8")
                worker.stop()
                done = running.end()
        assert done.counts == {"tcp_v4_connect": 9}, done
        # A thread of the kernel's own can have come first.
        if stranger.pid == child:
            return
    raise AssertionError("the number was never used again")


def test_a_number_that_is_used_again_in_a_namespace(tmp_path: Path) -> None:
    """There too, where rawkm knows the process by another number than the kernel."""
    ready = tmp_path / "ready"
    with Worker() as worker:
        prefix = beside(worker, tmp_path)
        argv = ["count", "tcp_v4_connect", "--json", "--ready-file", str(ready)]
        with Running(*argv, prefix=prefix, fds=worker.fds) as running:
            worker.do("hold fork connect 1")
            (tmp_path / "held").touch()
            running.until(str(ready))
            init = _child_of(running.pid)
            process = _child_of(init)
            status = Path(f"/proc/{_child_of(process)}/status").read_text()
            number = int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
            worker.do("release")
            time.sleep(0.5)
            script = f"echo {number - 1} >/proc/sys/kernel/ns_last_pid; {shlex.join(work('connect', '2'))} & echo $!; wait"
            enter = ["nsenter", f"--target={init}", "--pid", "--mount", "sh", "-c", script]
            assert int(subprocess.run(enter, stdout=subprocess.PIPE, check=True).stdout) == number
            worker.do("fork connect 4")
            worker.stop()
            done = running.end()
    assert done.counts == {"tcp_v4_connect": 5}, done


def test_in_a_pid_namespace_of_its_own_with_a_command() -> None:
    with (
        Worker() as stranger,
        Worker() as worker,
        Running("count", "tcp_v4_connect", "--json", "--", *worker.argv, prefix=IN_A_NAMESPACE, fds=worker.fds) as running,
    ):
        stranger.start()
        worker.do(*HELD, *ORDERS, "release")
        stranger.do("connect 3")
        worker.stop()
        done = running.end()
    assert done.status == 0, done
    assert done.counts == {"tcp_v4_connect": ALL + ALL_HELD}, done


def test_in_a_pid_namespace_of_its_own_with_a_process(tmp_path: Path) -> None:
    """rawkm and the process share a namespace in which their numbers are small: 2 is somebody else outside."""
    ready = tmp_path / "ready"
    with Worker() as stranger, Worker() as worker:
        stranger.start()
        inside = f'{shlex.join(worker.argv)} & until [ -e {tmp_path}/held ]; do sleep 0.05; done; exec rawkm "$@" -p $!'
        prefix = [*IN_A_NAMESPACE, "sh", "-c", inside]
        with Running("count", "tcp_v4_connect", "--json", "--ready-file", str(ready), prefix=prefix, fds=worker.fds) as running:
            worker.do(*HELD)
            (tmp_path / "held").touch()
            running.until(str(ready))
            worker.do("release", *ORDERS)
            stranger.do("connect 3")
            worker.stop()
            done = running.end()
    assert done.status == 0, done
    assert done.counts == {"tcp_v4_connect": ALL + ALL_HELD}, done


def test_a_process_that_lives_in_another_pid_namespace(tmp_path: Path) -> None:
    """Seen from outside: -p takes the number that the process has here."""
    ready = tmp_path / "ready"
    with Worker() as worker:
        worker.start(prefix=["unshare", "--pid", "--fork"]).do(*HELD)
        with Running("count", "tcp_v4_connect", "--json", "--ready-file", str(ready), "-p", str(worker.pid)) as running:
            running.until(str(ready))
            worker.do("release", *ORDERS)
            worker.stop()
            done = running.end()
    assert done.status == 0, done
    assert done.counts == {"tcp_v4_connect": ALL + ALL_HELD}, done


def test_what_cannot_be_followed() -> None:
    gone = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(gone, 0)
    assert str(gone) in rawkm("count", "tcp_v4_connect", "-p", str(gone)).refused(1)


def test_many_short_processes() -> None:
    """Each is followed from its fork to its end, and the one that is left at last by its shell's own number."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (true | true); done; exec " + shlex.join(work("getppid", "1000"))
    done = rawkm("count", CALL, "--json", "--", "sh", "-c", script)
    assert done.status == 0, done
    # The shell itself asks once, when it starts.
    assert 1000 <= done.counts[CALL] <= 1001, done
    assert done.summary["unfollowed"] == 0
    assert done.summary["command_status"] == 0
