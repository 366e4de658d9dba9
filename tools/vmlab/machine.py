"""Run one guest: start QEMU, carry its output, find out how it ended, and leave nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import select
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence

from .arch import Arch
from .guest import Options, qemu_arguments

TIMED_OUT = 124
GUEST_FAILED = 125

_BOOT_LIMIT = 120.0  # seconds for a boot that takes about three
_ANSWER_LIMIT = 15.0  # seconds for a living guest to say that it lives
_CONSOLE_KEPT = 4 << 20  # bytes
_WORDS, _WORDS_AT_MOST = 25, 200  # lines of the console shown when a guest fails

_PR_SET_PDEATHSIG = 1
_F_SETPIPE_SZ = 1031

# Lines of the kernel's log that mean that something went wrong inside of the kernel.
_TROUBLE = re.compile(
    r"\bBUG:|\bOops\b|\bWARNING:|general protection fault|unable to handle|Kernel panic|soft lockup"
    r"|detected stall|blocked for more than|stack segment|double fault|UBSAN:|KASAN:|Out of memory: Killed"
)


def trouble(console: str) -> list[str]:
    """The lines of the console that tell of an oops, a warning or a panic, each once."""
    lines = (line.strip() for line in console.splitlines())
    return list(dict.fromkeys(line for line in lines if _TROUBLE.search(line)))


def last_words(console: str) -> list[str]:
    """The console's end, from the first trouble in it: a trace has its cause at the top, which the last lines may miss."""
    lines = console.splitlines()[-_WORDS_AT_MOST:]
    first = next((at for at, line in enumerate(lines) if _TROUBLE.search(line)), len(lines))
    return lines[max(min(first - 2, len(lines) - _WORDS), 0) :]


def diagnosis(console: str, ready: bool) -> str:
    """Why a guest that ended without a status did so, as one sentence."""
    panic = re.search(r"Kernel panic - not syncing: (.*)", console)
    if panic:
        return f"the guest's kernel panicked: {panic[1].strip()}"
    if re.search(r"\bOops\b|\bBUG:", console):
        return "the guest died after an oops of its kernel"
    if not ready:
        return "the guest did not boot"
    return "the guest went down without giving the command's exit status"


class Machine:
    """One guest, from start to end. run() gives the exit status for the program to end with."""

    def __init__(self, arch: Arch, qemu: str, vmlinux: str, archives: Sequence[str | bytes], options: Options) -> None:
        self._arch = arch
        self._qemu = qemu
        self._vmlinux = vmlinux
        self._archives = archives
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._console = bytearray()
        self._status = bytearray()
        self._inputs: dict[str, int] = {}
        self.reason = ""  # after run(): why the guest failed or was ended, else empty
        self._open: list[int] = []  # every descriptor of ours that is still open

    def run(self) -> int:
        """Boot, run, stop. Nothing is left behind, whatever is raised meanwhile (by a signal's handler too)."""
        try:
            self._start()
            return self._follow()
        finally:
            self._stop()

    @property
    def console(self) -> str:
        """What the kernel has written to its console so far."""
        return self._console.decode(errors="replace").replace("\r", "")

    def _start(self) -> None:
        initrd = os.memfd_create("initrd")
        self._open.append(initrd)
        for archive in self._archives:
            _append(initrd, archive)
        theirs = [initrd]
        ends: dict[str, int] = {}
        for name in ("console", "stdout", "stderr", "status"):
            source, ends[name] = self._pipe()
            self._selector.register(source, selectors.EVENT_READ, name)
            theirs.append(ends[name])
        # What the guest reads comes through sockets: QEMU 7.2 has no other chardev that reads a descriptor.
        for name in ("control", "stdin") if self._options.stdin else ("control",):
            ours, yours = (end.detach() for end in socket.socketpair())
            self._open += [ours, yours]
            theirs.append(yours)
            ends[name] = yours
            self._inputs[name] = ours
        arguments = qemu_arguments(self._arch, self._options, self._vmlinux, initrd, ends)
        parent = os.getpid()
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            [self._qemu, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=ends["console"],  # QEMU's complaints are shown like the guest's when it does not start
            stderr=ends["console"],
            pass_fds=theirs,
            start_new_session=True,  # Ctrl-C reaches us, not QEMU
            preexec_fn=die_with_parent,  # noqa: PLW1509 (no thread has been started yet)
        )
        for fd in theirs:
            self._close(fd)
        if self._options.stdin:
            threading.Thread(target=_feed, args=(os.dup(self._inputs["stdin"]),), daemon=True).start()

    def _follow(self) -> int:
        """Carry output until QEMU has ended; the exit status."""
        phase = "boot"
        deadline = time.monotonic() + _BOOT_LIMIT
        result: int | None = None
        reason = ""
        while self._selector.get_map():
            wait = 1.0 if result is not None else max(0.0, deadline - time.monotonic())
            for key, _events in self._selector.select(wait):
                self._read(key.fd, str(key.data))
            if result is not None:
                continue  # QEMU is ended; what is still in the pipes is read to their ends
            words = self._status.decode(errors="replace").split("\n")[:-1]
            late = time.monotonic() >= deadline
            if words and words[-1].startswith("exit "):
                result = int(words[-1].removeprefix("exit "))
            elif phase == "boot" and "ready" in words:
                phase = "command"
                deadline = time.monotonic() + self._options.timeout
            elif phase == "boot" and late:
                result, reason = GUEST_FAILED, f"the guest did not boot within {_BOOT_LIMIT:.0f} s"
            elif phase == "command" and late:
                phase = "asked"
                os.write(self._inputs["control"], b"?\n")
                deadline = time.monotonic() + _ANSWER_LIMIT
            elif phase == "asked" and "alive" in words:
                result, reason = TIMED_OUT, f"the command did not end within {self._options.timeout:g} s"
            elif phase == "asked" and late:
                result = GUEST_FAILED
                reason = f"the guest hung: after {self._options.timeout:g} s it no longer answers"
            if result is not None:
                self._kill()
        if result is None:
            result, reason = GUEST_FAILED, diagnosis(self.console, phase != "boot")
        self.reason = reason
        return result

    def _read(self, fd: int, name: str) -> None:
        data = os.read(fd, 1 << 16)
        if not data:
            self._selector.unregister(fd)
            self._close(fd)
        elif name == "stdout":
            _write(1, data)
        elif name == "stderr":
            _write(2, data)
        elif name == "status":
            self._status += data
        else:
            self._console += data
            del self._console[:-_CONSOLE_KEPT]

    def _pipe(self) -> tuple[int, int]:
        source, sink = os.pipe()
        self._open += [source, sink]
        # Room for a burst; without it (the user's limit on pipes is used up) all works the same.
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink, _F_SETPIPE_SZ, 1 << 20)
        return source, sink

    def _close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def _kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()

    def _stop(self) -> None:
        # A second Ctrl-C must not interrupt the cleaning up.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        self._kill()
        if self._process:
            self._process.wait()
        self._selector.close()
        for fd in list(self._open):
            self._close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _feed(number: int) -> None:
    """Copy our stdin to the guest's. In a thread: our stdin may be anything, also what cannot be waited for."""
    with socket.socket(fileno=number) as sink, contextlib.suppress(OSError):  # the guest may be gone
        while data := os.read(0, 1 << 16):
            sink.sendall(data)
        # Not closed: QEMU drops what it has not read yet when the other end hangs up, but not after this.
        sink.shutdown(socket.SHUT_WR)


def _append(fd: int, archive: str | bytes) -> None:
    """Append an archive (a path or the bytes themselves) to the file."""
    if isinstance(archive, bytes):
        _write(fd, archive)
        return
    with open(archive, "rb") as file:
        while os.sendfile(fd, file.fileno(), None, 1 << 30):
            pass


def _write(fd: int, data: bytes) -> None:
    """Write everything, also to a descriptor that someone has made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
