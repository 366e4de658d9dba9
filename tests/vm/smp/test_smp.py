"""Two processors: counts are exact though both run the program at once, and records come from both.

Only `tools/vm run --smp 2 --tcg multi` lets them run at once: with one emulator thread they take turns, at no moment
at which a count could be lost. But code that is patched while the other processor runs it is more than the emulator's threads
bear (the other one can meet a breakpoint that the kernel has long taken away): that is for test_smp_patching.py.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

from ..lib import CALL, Done, Running, Worker, rawkm, work

N = 60


def test_exact_on_two_processors(tmp_path: Path) -> None:
    """By addresses and by names, for everybody and for a command: two workers, one on each processor, at the same time."""
    for by in "addrs", "syms":
        ready = tmp_path / by
        with Running("count", "tcp_v4_connect", CALL, "--by", by, "--json", "--ready-file", str(ready)) as running:
            running.until(str(ready))
            both("connect", N)
            both("getppid", 5000)
            done = running.end(signal.SIGINT)
        assert done.counts == {"tcp_v4_connect": 2 * N, CALL: 10_000}, done
        done = rawkm("count", "tcp_v4_connect", "--by", by, "--json", "--", "sh", "-c", script("connect", N))
        assert done.counts == {"tcp_v4_connect": 2 * N}, done
        assert done.summary["missed"] == done.summary["recursion_misses"] == 0


def pinned(cpu: int, verb: str, number: int) -> list[str]:
    return ["taskset", "-c", str(cpu), *work(verb, str(number))]


def both(verb: str, number: int) -> None:
    """One process on each, at the same time."""
    processes = [subprocess.Popen(pinned(cpu, verb, number)) for cpu in (0, 1)]
    assert [process.wait(60) for process in processes] == [0, 0]


def script(verb: str, number: int) -> str:
    return " & ".join(" ".join(pinned(cpu, verb, number)) for cpu in (0, 1)) + " & wait"


def test_events_of_two_processors() -> None:
    """Enough room: all of them, of each processor in order; far too little: what is not there is counted."""
    for buffer in "ring", "perf":
        argv = ["trace", CALL, "--json", "--buffer", buffer]
        done = rawkm(*argv, "--", "sh", "-c", script("getppid", 1500))
        accounts(done, 3000)
        assert done.summary["dropped"] == 0
        for cpu in 0, 1:
            times = [event["ts_ns"] for event in done.of("event") if event["cpu"] == cpu]
            # The shell asks once or twice, on either.
            assert 1500 <= len(times) <= 1503, (cpu, len(times))
            assert times == sorted(times)
        done = rawkm(*argv, "--buffer-size", "4096", "--", "sh", "-c", script("getppid", 10_000))
        accounts(done, 20_000)
        assert done.summary["dropped"] > 0


def accounts(done: Done, least: int) -> None:
    assert done.status == 0, done
    assert least <= done.summary["hits"] <= least + 3, done
    assert len(done.of("event")) + done.summary["dropped"] == done.summary["hits"]


def test_a_tree_on_two_processors() -> None:
    """Children forked on one, running on the other; a stranger meanwhile."""
    stranger = threading.Thread(target=both, args=("connect", 20))
    many = " & ".join(
        " ".join(work(*words)) for words in (["fork", "connect", "7"], ["thread", "connect", "5"], ["grand", "connect", "3"]) * 3
    )
    with Worker() as worker:
        with Running("count", "tcp_v4_connect", "--json", "--", *worker.argv, fds=worker.fds) as running:
            worker.do("connect 1")
            stranger.start()
            worker.do("hold fork connect 2", "thread fork connect 4", "grand connect 8", "release", "spawn connect 16")
            stranger.join()
            worker.stop()
            done = running.end()
        assert done.counts == {"tcp_v4_connect": 31}, done
    done = rawkm("count", "tcp_v4_connect", "--json", "--", "sh", "-c", f"{many} & wait")
    assert done.counts == {"tcp_v4_connect": 45}, done


FORKS = """
import os
for _ in range(16):
    if os.fork() == 0:
        for _ in range(100):
            if (pid := os.fork()) == 0:
                os.getppid()
                os._exit(0)
            os.waitpid(pid, 0)
        os._exit(0)
for _ in range(16):
    os.wait()
"""


def test_many_forks_at_once() -> None:
    """Linux 7.0 and later pass by a program whose task was preempted in it: no child is lost, or it is said."""
    done = rawkm("count", CALL, "--json", "--", "python3", "-S", "-E", "-c", FORKS)
    assert done.status == 0, done
    assert 1600 - done.summary["unfollowed"] <= done.summary["hits"] <= 1600, done
    assert done.summary["unfollowed"] < 160, done
