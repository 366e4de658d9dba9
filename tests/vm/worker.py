"""A process that makes kernel functions run an exactly known number of times.

worker.py IN OUT        does what the lines on the fd IN say, and answers each with a line on the fd OUT
worker.py - COMMAND     does one command

connect N         N TCP connections over loopback: tcp_v4_connect runs N times
getppid N         getppid(2), N times
name HEX          gives itself a name (PR_SET_NAME)
thread COMMAND    in a new thread
fork COMMAND      in a child
grand COMMAND     in a grandchild, after the child, its parent, is gone
spawn COMMAND     in a child that executes another program
hold KIND COMMAND makes a thread, a fork or a grand (whose parent stays alive) now, which does it at "release"
release           lets all that wait go on, and waits for them
busy N            N times: a connection, a child, a child that executes another program, a few files
become            a thread that is not the first executes this program anew, with the same orders
stubborn          ignores SIGTERM from now on

No module is imported that the start of a process need not wait for.
"""

from __future__ import annotations

import _socket
import _thread
import os
import sys
from collections.abc import Callable

_held: list[tuple[int, Callable[[], None]]] = []


def connect(number: int) -> None:
    server = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(8)
    address = server.getsockname()
    for _ in range(number):
        client = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        client.connect(address)
        accepted, _ = server._accept()  # type: ignore[attr-defined]
        os.close(accepted)
        client.close()
    server.close()


def getppid(number: int) -> None:
    call = os.getppid
    for _ in range(number):
        call()


def rename(name: bytes) -> None:
    import ctypes

    if ctypes.CDLL(None).prctl(15, name, 0, 0, 0):  # PR_SET_NAME
        raise OSError("PR_SET_NAME")


def in_thread(action: Callable[[], None]) -> Callable[[], None]:
    done = _thread.allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            action()
        finally:
            done.release()

    _thread.start_new_thread(body, ())

    def wait() -> None:
        done.acquire()

    return wait


def in_child(action: Callable[[], None]) -> Callable[[], None]:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)

    def wait() -> None:
        if os.waitpid(pid, 0)[1]:
            raise OSError("a child failed")

    return wait


def in_orphan(action: Callable[[], None]) -> Callable[[], None]:
    """In a grandchild, which begins when its parent has been waited for."""
    go, done = os.pipe(), os.pipe()

    def act() -> None:
        os.read(go[0], 1)
        action()
        os.write(done[1], b".")

    in_child(lambda: _forget(in_child(act)))()
    os.write(go[1], b"!")
    os.close(done[1])

    def wait() -> None:
        if os.read(done[0], 1) != b".":
            raise OSError("a grandchild failed")
        for end in (*go, done[0]):
            os.close(end)

    return wait


def _forget(_wait: Callable[[], None]) -> None:
    pass


def nested(action: Callable[[], None]) -> Callable[[], None]:
    """In a grandchild whose parent lives on."""

    def in_two() -> None:
        in_child(action)()

    return in_child(in_two)


def spawn(words: list[str]) -> None:
    argv = [sys.executable, "-S", "-E", __file__, "-", *words]
    pid = os.posix_spawn(sys.executable, argv, os.environ)
    if os.waitpid(pid, 0)[1]:
        raise OSError("a program failed")


def busy(rounds: int) -> None:
    for number in range(rounds):
        connect(1)
        in_child(lambda: None)()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
        for name in f"/tmp/busy-{os.getpid()}-{number}", f"/dev/shm/busy-{os.getpid()}":
            with open(name, "w") as file:
                file.write("x" * 10_000)
            os.stat(name)
            os.unlink(name)
        os.listdir("/proc")


def hold(kind: str, words: list[str]) -> None:
    read, write = os.pipe()

    def act() -> None:
        os.read(read, 1)
        perform(words)

    _held.append((write, {"thread": in_thread, "fork": in_child, "grand": nested}[kind](act)))


def release() -> None:
    for write, _ in _held:
        os.write(write, b"!")
    while _held:
        _held.pop()[1]()


def become() -> None:
    """The answer comes from the new program."""
    in_thread(lambda: os.execv(sys.executable, [sys.executable, "-S", "-E", *sys.argv[:3], "again"]))()
    raise OSError("still here")


def perform(words: list[str]) -> None:
    verb, rest = words[0], words[1:]
    if verb == "connect":
        connect(int(rest[0]))
    elif verb == "getppid":
        getppid(int(rest[0]))
    elif verb == "busy":
        busy(int(rest[0]))
    elif verb == "name":
        rename(bytes.fromhex(rest[0]))
    elif verb == "thread":
        in_thread(lambda: perform(rest))()
    elif verb == "fork":
        in_child(lambda: perform(rest))()
    elif verb == "grand":
        in_orphan(lambda: perform(rest))()
    elif verb == "spawn":
        spawn(rest)
    elif verb == "hold":
        hold(rest[0], rest[1:])
    elif verb == "release":
        release()
    elif verb == "become":
        become()
    elif verb == "stubborn":
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        raise ValueError(verb)


def obey(orders: int, answers: int) -> None:
    with open(orders) as lines:
        for line in lines:
            try:
                perform(line.split())
                answer = "ok"
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(answers, f"{answer}\n".encode())


if __name__ == "__main__":
    if sys.argv[1] == "-":
        perform(sys.argv[2:])
    else:
        if sys.argv[3:] == ["again"]:
            os.write(int(sys.argv[2]), b"ok\n")
        obey(int(sys.argv[1]), int(sys.argv[2]))
