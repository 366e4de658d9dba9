"""What the tests in a guest share: rawkm as a user runs it, work of known size, and the kernel's own lists."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rawkm.errors import SyscallError
from rawkm.syscall import open_kernel
from rawkm.uapi import packed

Row = dict[str, Any]

KERNEL = open_kernel()
WORKER = str(Path(__file__).with_name("worker.py"))
# A system call without side effects that nothing makes by itself; SYSCALL_DEFINE0 gives it this name in ftrace's list.
CALL = "__do_sys_getppid"
# What the kernel's function of a system call begins with.
SYS = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}[os.uname().machine]
# What the last line of --json has, in this order; more may stand between.
SUMMARY = [
    "type",
    "backend",
    "attached",
    "hits",
    "dropped",
    "missed",
    "recursion_misses",
    "resolve_ms",
    "attach_ms",
    "attach_syscall_ms",
    "detach_ms",
    "command_status",
]

# A guest is 10 to 20 times slower than the machine it runs on, which may have other guests.
PATIENCE = 180.0


# -- rawkm -----------------------------------------------------------------------------------------------------


class Done:
    """What a run of rawkm came to. With --json, ``rows`` has its lines (each must be one JSON object)."""

    def __init__(self, argv: Sequence[str], status: int, out: bytes, err: bytes, seconds: float) -> None:
        self.argv = list(argv)
        self.status = status
        self.raw = out
        self.out = out.decode("utf-8", "backslashreplace")
        self.err = err.decode("utf-8", "backslashreplace")
        self.seconds = seconds
        self.rows: list[Row] = [json.loads(line) for line in self.out.splitlines()] if "--json" in argv else []

    def __repr__(self) -> str:
        return f"{' '.join(self.argv)}\nstatus {self.status}\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-3000:]}"

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row["type"] == kind]

    @property
    def summary(self) -> Row:
        assert self.rows and self.rows[-1]["type"] == "summary", self
        assert len(self.of("summary")) == 1, self
        return self.rows[-1]

    @property
    def counts(self) -> dict[str, int]:
        """Hits by name of function, of all rounds and instances."""
        counts: dict[str, int] = {}
        for row in self.of("count"):
            counts[row["function"]] = counts.get(row["function"], 0) + row["count"]
        return counts

    @property
    def notes(self) -> list[str]:
        """What rawkm itself said on stderr."""
        return [line.removeprefix("rawkm: ") for line in self.err.splitlines() if line.startswith("rawkm: ")]

    def refused(self, status: int) -> str:
        """The one sentence on stderr of a run that must have ended with ``status`` and printed nothing else."""
        assert self.status == status, self
        assert self.out == "", self
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("rawkm: "), self
        return lines[0].removeprefix("rawkm: ")


class Running:
    """A rawkm that runs. ``prefix``: what executes it (setpriv, unshare, …); ``fds``: kept open for it and its command.

    At the end of ``with`` it is dead.
    """

    def __init__(
        self,
        *args: str,
        prefix: Sequence[str] = (),
        fds: Iterable[int] = (),
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | int | None = None,
        cwd: str | None = None,
        new_group: bool = False,
    ) -> None:
        self.argv = [*prefix, "rawkm", *args]
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self._start = time.monotonic()
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=self._out if stdout is None else stdout,
            stderr=self._err,
            pass_fds=tuple(fds),
            cwd=cwd,
            process_group=0 if new_group else None,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()

    def until(self, path: str) -> None:
        """Waits for the ready file."""
        wait_for(lambda: os.path.exists(path) or self.process.poll() is not None, "the ready file")
        assert os.path.exists(path), self.end()

    def said(self) -> str:
        """What is on stderr so far."""
        fd = self._err.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = None, timeout: float = PATIENCE) -> Done:
        """Sends the signal, if any, and waits for the end."""
        if number is not None:
            self.send(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"rawkm did not end within {timeout} s: {self._done(-1)!r}") from None
        return self._done(status)

    def _done(self, status: int) -> Done:
        seconds = time.monotonic() - self._start
        self._out.seek(0)
        self._err.seek(0)
        return Done(self.argv, status, self._out.read(), self._err.read(), seconds)


def rawkm(
    *args: str,
    prefix: Sequence[str] = (),
    fds: Iterable[int] = (),
    timeout: float = PATIENCE,
    stdout: IO[bytes] | None = None,
) -> Done:
    """A whole run."""
    with Running(*args, prefix=prefix, fds=fds, stdout=stdout) as running:
        return running.end(timeout=timeout)


def wait_for(condition: Any, what: str, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.005)


# -- work ------------------------------------------------------------------------------------------------------

_SHORT = [sys.executable, "-S", "-E", WORKER]


def work(*words: str) -> list[str]:
    """The command line of a worker that does one thing and ends."""
    return [*_SHORT, "-", *words]


class Worker:
    """A worker that does what it is told (see worker.py). ``argv`` and ``fds`` are for whoever starts it; or ``start()``."""

    def __init__(self) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self.fds = (theirs_in, theirs_out)
        self.argv = [*_SHORT, str(theirs_in), str(theirs_out)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, prefix: Sequence[str] = ()) -> Worker:
        self.process = subprocess.Popen([*prefix, *self.argv], pass_fds=self.fds)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def do(self, *orders: str) -> None:
        """Each order, one after the other, each done when the next begins."""
        for order in orders:
            self.tell(order)
            answer = b""
            while not answer.endswith(b"\n"):
                assert select.select([self._from], [], [], PATIENCE)[0], f"no answer to {order!r}"
                piece = os.read(self._from, 4096)
                assert piece, f"the worker died of {order!r}"
                answer += piece
            assert answer == b"ok\n", f"{order!r}: {answer.decode()}"

    def tell(self, order: str) -> None:
        """As ``do``, without waiting for the answer."""
        os.write(self._to, f"{order}\n".encode())

    def stop(self) -> None:
        """No more orders: it ends."""
        if self._to >= 0:
            os.close(self._to)
            self._to = -1
            for fd in self.fds:
                os.close(fd)
        if self.process is not None:
            self.process.wait(PATIENCE)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        os.close(self._from)


# -- privileges and settings -----------------------------------------------------------------------------------


def nobody(*capabilities: str) -> list[str]:
    """A prefix: as uid 65534, with exactly these capabilities ("bpf", "perfmon", "syslog", …)."""
    given = ",".join(["-all", *(f"+{cap}" for cap in capabilities)])
    return [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        f"--inh-caps={given}",
        f"--ambient-caps={given}",
        f"--bounding-set={given}",
    ]


def root_without(*capabilities: str) -> list[str]:
    """A prefix: root, but for these capabilities."""
    taken = ",".join(f"-{cap}" for cap in capabilities)
    return ["setpriv", f"--inh-caps={taken}", f"--bounding-set={taken}"]


@contextmanager
def setting(name: str, value: int) -> Iterator[None]:
    """A sysctl, as /proc/sys has it, for a while."""
    path = Path("/proc/sys") / name
    before = path.read_text()
    path.write_text(f"{value}\n")
    try:
        yield
    finally:
        path.write_text(before)


# -- the kernel's lists ----------------------------------------------------------------------------------------

TRACEFS = Path("/sys/kernel/tracing")


def traceable() -> dict[str, list[str]]:
    """available_filter_functions: the modules of each name's instances, "" for the kernel image."""
    found: dict[str, list[str]] = {}
    for line in (TRACEFS / "available_filter_functions").read_text().splitlines():
        name, _, module = line.partition(" ")
        found.setdefault(name, []).append(module.strip("[]"))
    return found


def text_symbols() -> Iterator[tuple[int, str, str]]:
    """(address, name, module) of each function in kallsyms."""
    with open("/proc/kallsyms") as file:
        for line in file:
            words = line.split()
            if words[1] in "tTwW":
                yield int(words[0], 16), words[2], words[3].strip("[]") if len(words) > 3 else ""


# -- what must not stay behind ---------------------------------------------------------------------------------

_WALKS = {"prog": packed.PROG_GET_NEXT_ID, "map": packed.MAP_GET_NEXT_ID, "link": packed.LINK_GET_NEXT_ID}


def ids(kind: str) -> set[int]:
    """The ids of all programs, maps or links."""
    found: set[int] = set()
    last = 0
    while True:
        try:
            last = KERNEL.bpf(_WALKS[kind], {"start_id": last})["next_id"]
        except SyscallError:
            return found
        found.add(last)


def program_types() -> dict[int, int]:
    """The type of each program, by id."""
    found = {}
    for number in ids("prog"):
        try:
            fd = KERNEL.bpf(packed.PROG_GET_FD_BY_ID, {"prog_id": number}).ret
        except SyscallError:
            continue
        try:
            kind = KERNEL.obj_info(fd, packed.PROG_INFO)[0]["type"]
        finally:
            os.close(fd)
        assert isinstance(kind, int)
        found[number] = kind
    return found


def _processes() -> dict[str, str]:
    """pid and start time of each process, and its command line."""
    found = {}
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                os.readlink(f"/proc/{pid}/exe")
                start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("ascii", "replace")
            except OSError:
                continue  # a kernel thread, or it has ended
            found[f"process {pid} of {start}"] = command
    return found


class Inventory:
    """The programs, maps, links, kprobe events and processes there are."""

    def __init__(self) -> None:
        self.found = _processes()
        for kind in _WALKS:
            self.found.update(dict.fromkeys((f"{kind} {number}" for number in ids(kind)), ""))
        events = TRACEFS / "kprobe_events"
        if events.exists():
            self.found.update(dict.fromkeys(events.read_text().splitlines(), ""))

    def since(self, before: Inventory) -> list[str]:
        return sorted(f"{key} {text}".strip() for key, text in self.found.items() if key not in before.found)


class KernelLog:
    """The kernel's messages from now on."""

    _TROUBLE = re.compile(r"\bBUG:|\bOops\b|WARNING:|general protection fault|unable to handle|stall|lockup|UBSAN|Call Trace")

    def __enter__(self) -> KernelLog:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def trouble(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                line = os.read(self._fd, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # messages were overwritten before we read them
            if self._TROUBLE.search(line):
                found.append(line.partition(";")[2].splitlines()[0])
