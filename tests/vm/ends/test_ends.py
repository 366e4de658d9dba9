"""However a trace ends: it detaches, prints what it has, and leaves nothing behind, its command neither."""

from __future__ import annotations

import os
import pty
import signal
import threading
import time
from pathlib import Path

from ..lib import CALL, Running, Worker, ids, program_types, rawkm, wait_for, work

KPROBE = 2  # BPF_PROG_TYPE_KPROBE


def test_signals_while_it_waits(tmp_path: Path) -> None:
    """SIGINT and SIGTERM, with and without a command. What was counted is printed, and the command is ended by SIGTERM."""
    for number, what in (
        (signal.SIGINT, "count"),
        (signal.SIGTERM, "trace"),
        (signal.SIGTERM, "count"),
        (signal.SIGINT, "trace"),
    ):
        with Worker() as worker, Running(what, CALL, "--json", "--", *worker.argv, fds=worker.fds) as running:
            worker.do("getppid 20")
            done = running.end(number)
        assert done.status == 0, done
        assert done.summary["hits"] == 20, done
        assert done.summary["command_status"] == 128 + signal.SIGTERM, done
        assert sum(done.counts.values()) + len(done.of("event")) == 20
    for what in "count", "trace":
        ready = tmp_path / what
        with Running(what, CALL, "--json", "--ready-file", str(ready)) as running:
            running.until(str(ready))
            done = running.end(signal.SIGTERM)
        assert done.status == 0, done
        assert done.summary["attached"] == 1
        assert done.summary["command_status"] is None


def test_ctrl_c_reaches_the_command_too() -> None:
    """A terminal sends SIGINT to both; the command ends by it, and rawkm prints."""
    with Running("count", CALL, "--json", "--", "sleep", "100", new_group=True) as running:
        wait_for(lambda: _children(running.pid) and "sleep" in _children(running.pid)[0], "the command")
        os.killpg(running.pid, signal.SIGINT)
        done = running.end()
    assert done.status == 0, done
    assert done.summary["command_status"] == 128 + signal.SIGINT


def _children(pid: int) -> list[str]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            found.append(Path(f"/proc/{child}/comm").read_text())
        except OSError:
            continue
    return found


def test_signals_while_it_attaches_the_whole_kernel(tmp_path: Path) -> None:
    """LINK_CREATE for 40,000 functions takes seconds. The signal is obeyed when it returns; a second one acts at once.

    The command, which was to start when everything is attached, does not start any more.
    """
    mark = tmp_path / "ran"
    for numbers in ([signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]):
        with Running("count", "*", "--json", "--", "sh", "-c", f"touch {mark}; exec sleep 100") as running:
            wait_for(lambda: KPROBE in program_types().values(), "the program")
            time.sleep(0.3)
            for number in numbers:
                running.send(number)
                time.sleep(0.05)
            done = running.end()
        if len(numbers) == 1:
            assert done.status == 0, done
            assert done.summary["attached"] > 30_000, done
        else:
            assert done.status in (-signal.SIGINT, 0, 1), done
        assert "Traceback" not in done.err, done
        assert not mark.exists(), (numbers, done)


def test_signals_before_anything_is_attached() -> None:
    """At any moment of the start: it ends at once, by the signal or with a sentence, and the command does not run on."""
    for number in signal.SIGINT, signal.SIGTERM:
        for delay in 0.02, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6:
            with Running("count", "tcp_*", "--", *work("getppid", "1"), "&&", "sleep", "100") as running:
                time.sleep(delay)
                done = running.end(number)
            assert "Traceback" not in done.err, (number, delay, done)
            assert done.status in (-number, 0, 1), (number, delay, done)


def test_the_time_is_over() -> None:
    """-d: the command gets SIGTERM, and SIGKILL when it does not listen; rawkm's own status is 0."""
    for order, status in (("getppid 3", 128 + signal.SIGTERM), ("stubborn", 128 + signal.SIGKILL)):
        with Worker() as worker, Running("count", CALL, "-d", "5", "--json", "--", *worker.argv, fds=worker.fds) as running:
            worker.do(order)
            done = running.end()
        assert done.status == 0, done
        assert done.summary["command_status"] == status, done
    for duration in "0.3", "1.5":
        with Running("trace", CALL, "-d", duration, "--json") as running:
            done = running.end()
        assert done.status == 0, done
        assert done.seconds > float(duration)
        assert done.summary["hits"] == 0


def test_a_trace_of_its_own_output() -> None:
    """Each line that it prints on a terminal is a hit that it prints: the time is over all the same, and Ctrl-C is heard."""
    for number in None, signal.SIGINT:
        master, slave = pty.openpty()
        drained: list[int] = []
        reader = threading.Thread(target=_drain, args=(master, drained))
        command = ["--", "sh", "-c", "echo begin; exec sleep 100"]
        with Running("trace", "pty_write", "-a", "-d", "3" if number is None else "100", *command, stdout=slave) as running:
            os.close(slave)
            reader.start()
            if number is not None:
                wait_for(lambda got=drained: sum(got) > 4096, "its output")
            done = running.end(number)
        reader.join()
        os.close(master)
        assert done.status == 0, done
        hits = next(int(note.split()[0].replace(",", "")) for note in done.notes if " hits, " in note)
        assert hits > 20, done


def _drain(fd: int, drained: list[int]) -> None:
    try:
        while got := os.read(fd, 1 << 16):
            drained.append(len(got))
    except OSError:  # EIO: the other end is closed
        pass


def test_the_command_ends() -> None:
    """Its status is in the summary; rawkm's own is 0; hits of the last moment are counted."""
    for script, status in (("exit 7", 7), ("kill -9 $$", 137), ("true", 0), ("kill -TERM $$", 143)):
        done = rawkm("count", CALL, "--json", "--", "sh", "-c", script)
        assert done.status == 0, done
        assert done.summary["command_status"] == status, done
    done = rawkm("trace", CALL, "--", "sh", "-c", "exit 7")
    assert done.status == 0
    assert any("status 7" in note for note in done.notes), done


def test_the_commands_output() -> None:
    """Left alone; with --json it goes to stderr, for stdout is then for JSON Lines alone."""
    script = "echo to-stdout; echo to-stderr >&2"
    done = rawkm("count", CALL, "--", "sh", "-c", script)
    assert done.out.splitlines()[0] == "to-stdout", done
    assert "to-stderr\n" in done.err
    assert "to-stdout" not in done.err
    for what in "count", "trace":
        done = rawkm(what, CALL, "--json", "--", "sh", "-c", script)
        assert "to-stdout" not in done.out
        assert "to-stdout\n" in done.err
        assert "to-stderr\n" in done.err
        assert done.summary["command_status"] == 0


def test_the_commands_input() -> None:
    """Left alone, too."""
    with open("/proc/version", "rb") as file, Running("count", CALL, "--", "cat", stdin=file) as running:
        done = running.end()
    assert done.out.startswith("Linux version "), done


def test_a_reader_that_has_enough() -> None:
    """stdout is closed early, as by head: no complaint, nothing left."""
    read, write = os.pipe()
    with Worker() as worker, Running("trace", CALL, "--", *worker.argv, stdout=write, fds=worker.fds) as running:
        os.close(write)
        worker.do("getppid 10")
        assert os.read(read, 4096)
        os.close(read)
        # It is ended in the middle of it.
        worker.tell("getppid 5000")
        done = running.end()
    assert "Traceback" not in done.err, done
    assert "BrokenPipe" not in done.err, done
    with open("/dev/full", "wb") as full, Running("count", CALL, "--json", "--", *work("getppid", "3"), stdout=full) as running:
        done = running.end()
    assert done.status == 1, done
    assert "Traceback" not in done.err, done
    assert any("space" in note or "ENOSPC" in note for note in done.notes), done


def test_killed() -> None:
    """SIGKILL leaves no program, map or link, neither while it waits nor while it attaches. (The fixture walks the ids.)"""
    links = ids("link")
    for buffer in "ring", "perf":
        with Worker() as worker, Running("trace", CALL, "--buffer", buffer, "--", *worker.argv, fds=worker.fds) as running:
            worker.do("getppid 10")
            # Of the function, of the end of a process, and of a fork one or, since Linux 7.0, three.
            assert len(ids("link") - links) in (3, 5)
            running.send(signal.SIGKILL)
            assert running.end().status == -signal.SIGKILL
            start = time.monotonic()
            wait_for(lambda: ids("link") == links, "the end of the links", 5)
            worker.do("getppid 1")  # the command is not rawkm: it lives on
            worker.stop()
        assert time.monotonic() - start < 5
    before = set(program_types())
    with Running("count", "*") as running:
        wait_for(lambda: set(program_types()) - before, "the program")
        time.sleep(0.3)
        running.send(signal.SIGKILL)
        running.end()
    # Programs of the runs before may still have been on their way out when ``before`` was taken.
    wait_for(lambda: set(program_types()) <= before, "the end of the program", 60)
