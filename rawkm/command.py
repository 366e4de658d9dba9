"""The COMMAND that a user traces: started, held until everything is attached, let go, watched, ended.

Plain fork and exec: subprocess would cost more start-up time than everything else that happens before the attach.
"""

from __future__ import annotations

import os
import signal
from time import monotonic, sleep

from rawkm.errors import RawkmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_GO = b"g"


def find_program(name: str) -> str:
    """The path that execvp would take. Raises RawkmError when there is none."""
    if "/" in name:
        places = [name]
    else:
        places = [os.path.join(folder or ".", name) for folder in os.get_exec_path()]
    for path in places:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    raise RawkmError(f"the command {name!r} is not there or cannot be executed")


class Command:
    """A child process that waits. ``seed`` is called in it, before it waits: what must happen in its own context."""

    def __init__(self, argv: Sequence[str], *, seed: Callable[[], None], stdout_to_stderr: bool = False) -> None:
        self._path = find_program(argv[0])
        self.status: int | None = None
        self.started = False
        ready_r, ready_w = os.pipe()
        go_r, go_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # Nothing of the parent's Python may run from here on but this.
            code = 127
            try:
                os.close(ready_r)
                os.close(go_w)
                code = _child(self._path, argv, seed, ready_w, go_r, stdout_to_stderr)
            finally:
                os._exit(code)
        os.close(ready_w)
        os.close(go_r)
        self._go = go_w
        self._ready = ready_r
        # "" when the child died, "k" when it waits, else what went wrong in its words.
        answer = os.read(ready_r, 4096)
        if answer != b"k":
            self.end()
            raise RawkmError(f"the command could not be prepared: {answer.decode('utf-8', 'replace') or 'it died'}")
        # Linux 5.3.
        self.fd = os.pidfd_open(self.pid)

    def go(self) -> None:
        """Lets the child execute the command. Raises RawkmError when that fails."""
        os.write(self._go, _GO)
        self.started = True
        os.close(self._go)
        self._go = -1
        # Closed by a successful exec; otherwise the reason comes through.
        answer = os.read(self._ready, 4096)
        if answer:
            raise RawkmError(f"cannot run {self._path}: {answer.decode('utf-8', 'replace')}")

    def ended(self) -> bool:
        """Whether it has ended; then ``status`` is its exit status, or 128 + the signal that ended it, as shells say it."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code
        return self.status is not None

    def end(self, patience: float = 2.0) -> None:
        """SIGTERM, and SIGKILL when it has not ended after ``patience`` seconds. Waits for it."""
        if self._go >= 0:
            # It still waits for its start: the closed pipe ends it.
            os.close(self._go)
            self._go = -1
        if self.ended():
            return
        _kill(self.pid, signal.SIGTERM)
        if not self._wait(patience):
            _kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = 128 + signal.SIGKILL

    def _wait(self, patience: float) -> bool:
        """Waits for the end, at most ``patience`` seconds."""
        deadline = monotonic() + patience
        while not self.ended():
            if monotonic() >= deadline:
                return False
            sleep(0.005)
        return True


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _child(path: str, argv: Sequence[str], seed: Callable[[], None], ready: int, go: int, stdout_to_stderr: bool) -> int:
    """Prepares, waits, executes; only ever returns an exit status."""
    # rawkm's own handlers must not run here; what it was told to ignore, the command shall ignore. Python ignores SIGPIPE.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        seed()
        if stdout_to_stderr:
            os.dup2(2, 1)
        os.write(ready, b"k")
        if os.read(go, 1) != _GO:
            return 0
        os.execv(path, list(argv))
    except BaseException as err:
        os.write(ready, str(err).encode()[:4000])
    return 127
