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

    from rawkm.syscall.live import LiveKernel

_GO = b"g"
_PATIENCE = 2.0


def find_program(name: str) -> str | None:
    """The path that execvp would take, None when there is none."""
    if "/" in name:
        places = [name]
    else:
        places = [os.path.join(folder or ".", name) for folder in os.get_exec_path()]
    for path in places:
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


class WaitingChild:
    """As in ``kernel.Child``. What it does passes the kernel's observer.

    With a kernel that replays or pretends, no child is there, and ``seed`` is called in this process.
    """

    def __init__(self, kernel: LiveKernel, argv: Sequence[str], seed: Callable[[], None], stdout_to_stderr: bool) -> None:
        self._kernel = kernel
        path = kernel._passed("find", {"name": argv[0]}, lambda: find_program(argv[0]) or "", argv[0])
        if not path:
            raise RawkmError(f"the command {argv[0]!r} is not there or cannot be executed")
        self._path = path
        self._argv = argv
        self._seed = seed
        self._stdout_to_stderr = stdout_to_stderr
        self._go = self._ready = -1
        self.status: int | None = None
        self.started = False
        self.pid, answer = kernel._forked(list(argv), self._fork, seed)
        # "" when the child died, "k" when it waits, else what went wrong in its words.
        if answer != "k":
            self.end()
            raise RawkmError(f"the command could not be prepared: {answer or 'it died'}")
        # Linux 5.3.
        self.fd = kernel.pidfd_open(self.pid)

    def go(self) -> None:
        """As in Child."""
        self.started = True
        answer = self._kernel._passed("go", {}, self._let_go, "")
        if answer:
            raise RawkmError(f"cannot run {self._path}: {answer}")

    def ended(self) -> bool:
        """As in Child."""
        if self.status is None:
            self.status = self._kernel._passed("ended", {}, self._reap, None)
        return self.status is not None

    def end(self) -> None:
        """As in Child."""
        if self.status is None:
            self.status = self._kernel._passed("end", {}, self._end, 0)

    # -- the real child --------------------------------------------------------------------------------------------------------

    def _fork(self) -> tuple[int, str]:
        ready_r, ready_w = os.pipe()
        go_r, go_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # Nothing of the parent's Python may run from here on but this.
            code = 127
            try:
                os.close(ready_r)
                os.close(go_w)
                code = _child(self._path, self._argv, self._seed, ready_w, go_r, self._stdout_to_stderr)
            finally:
                os._exit(code)
        os.close(ready_w)
        os.close(go_r)
        self._go = go_w
        self._ready = ready_r
        return self.pid, os.read(ready_r, 4096).decode("utf-8", "replace")

    def _let_go(self) -> str:
        """What went wrong, or ""."""
        try:
            os.write(self._go, _GO)
        except BrokenPipeError:
            return "it has ended before it began"
        finally:
            os.close(self._go)
            self._go = -1
        # Closed by a successful exec; otherwise the reason comes through.
        answer = os.read(self._ready, 4096).decode("utf-8", "replace")
        self._close_ready()
        return answer

    def _close_ready(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _reap(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _end(self) -> int:
        self._close_ready()
        if self._go >= 0:
            # It still waits for its start: the closed pipe ends it.
            os.close(self._go)
            self._go = -1
        status = self._reap()
        if status is not None:
            return status
        _kill(self.pid, signal.SIGTERM)
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline:
            status = self._reap()
            if status is not None:
                return status
            sleep(0.005)
        _kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return 128 + signal.SIGKILL


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
