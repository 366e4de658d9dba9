"""A program for the audit's tests: makes bpf(2) calls of all sorts, by plain ctypes.

audited.py WORD [ARGUMENT]...   see the functions below
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
NUMBER = {"x86_64": 321}.get(os.uname().machine, 280)
MAP_CREATE, LOOKUP, UPDATE, PROG_LOAD, GET_INFO = 0, 1, 2, 5, 15


def bpf(cmd: int, attr: bytes, size: int | None = None, *rest: int) -> int:
    """The result, or minus the errno."""
    buffer = ctypes.create_string_buffer(attr, max(len(attr), 1))
    return raw(cmd, ctypes.addressof(buffer), len(attr) if size is None else size, *rest)


def raw(cmd: int, address: int, size: int, *rest: int) -> int:
    words = [ctypes.c_long(word) for word in (NUMBER, cmd, address, size, *rest)]
    result: int = LIBC.syscall(*words)
    return result if result >= 0 else -ctypes.get_errno()


def make_map(name: bytes = b"counts") -> int:
    """An array of four 8-byte values."""
    fd = bpf(MAP_CREATE, struct.pack("=IIIIIII16s", 2, 4, 8, 4, 0, 0, 0, name))
    assert fd > 0, fd
    return fd


def update(fd: int, key: int, value: int) -> int:
    pair = ctypes.create_string_buffer(struct.pack("=IIQ", key, 0, value), 16)
    at = ctypes.addressof(pair)
    return bpf(UPDATE, struct.pack("=I4xQQQ", fd, at, at + 8, 0))


def lookup(fd: int, key: int) -> int:
    pair = ctypes.create_string_buffer(struct.pack("=IIQ", key, 0, 0), 16)
    at = ctypes.addressof(pair)
    assert bpf(LOOKUP, struct.pack("=I4xQQQ", fd, at, at + 8, 0)) == 0
    value: int = struct.unpack_from("=Q", pair, 8)[0]
    return value


def calls() -> None:
    """One of each sort that the auditor has to see through."""
    fd = make_map()
    assert update(fd, 1, 4711) == 0
    assert lookup(fd, 1) == 4711
    info = ctypes.create_string_buffer(256)
    assert bpf(GET_INFO, struct.pack("=IIQ", fd, 256, ctypes.addressof(info))) == 0
    insns = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 42, 0x95, 0, 0, 0), 16)
    gpl = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(4096)
    at = ctypes.addressof
    head = struct.pack("=IIQQIIQII16s", 1, 2, at(insns), at(gpl), 1, 4096, at(log), 0, 0, b"answer")
    assert bpf(PROG_LOAD, head) > 0
    bad = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 42, 0x85, 0, 0, 9999), 16)
    assert bpf(PROG_LOAD, head.replace(struct.pack("=Q", at(insns)), struct.pack("=Q", at(bad)))) == -22


def hostile() -> None:
    """Nothing here points to where it should."""
    assert raw(MAP_CREATE, 0x10, 72) == -14
    assert raw(MAP_CREATE, 0, 72) == -14
    assert bpf(4711, b"\1\2\3") == -22
    # From 7.2 on, one of its bits says that common attributes are somewhere, of some size.
    assert bpf(-1, b"\1\2\3") in (-7, -14, -22)
    assert bpf(MAP_CREATE, b"") == -22
    assert bpf(PROG_LOAD, struct.pack("=IIQQ", 1, 4, 0x10, 0x20)) < 0
    assert bpf(PROG_LOAD, struct.pack("=IIQQ", 1, 0xFFFFFFFF, (1 << 64) - 8, 1 << 63)) < 0
    assert bpf(MAP_CREATE, bytes(4096), 1 << 20) == -7
    assert bpf(GET_INFO, struct.pack("=IIQ", make_map(), 256, 0x10)) == -14
    edge = LIBC.mmap
    edge.restype = ctypes.c_void_p
    page = edge(None, ctypes.c_size_t(8192), 3, 0x22, -1, ctypes.c_long(0))
    assert LIBC.munmap(ctypes.c_void_p(page + 4096), ctypes.c_size_t(4096)) == 0
    ctypes.memmove(page + 4096 - 8, struct.pack("=II", 2, 4), 8)
    assert raw(MAP_CREATE, page + 4096 - 8, 72) == -14
    # A string that runs into the unmapped page.
    ctypes.memmove(page + 4096 - 4, b"/sys", 4)
    assert bpf(7, struct.pack("=QI", page + 4096 - 4, 0)) == -14
    raw(PROG_LOAD | 1 << 16, page, 8, page, 24)


def family() -> None:
    """Threads, children, grandchildren, other programs: each makes one map with its own name."""
    make_map(b"first")
    thread = threading.Thread(target=make_map, args=(b"thread",))
    thread.start()
    thread.join()
    pid = os.fork()
    if pid == 0:
        make_map(b"child")
        inner = os.fork()
        if inner == 0:
            make_map(b"grandchild")
            os._exit(0)
        os.waitpid(inner, 0)
        os._exit(0)
    os.waitpid(pid, 0)
    argv = [sys.executable, "-S", "-E", __file__, "named", "spawned"]
    os.waitpid(os.posix_spawn(sys.executable, argv, os.environ), 0)
    # A thread that is not the first becomes another program.
    threading.Thread(target=os.execv, args=(sys.executable, [*argv[:-1], "executed"])).start()
    time.sleep(60)


def named(name: str) -> None:
    make_map(name.encode())


def signals() -> None:
    """Signals arrive, each as often as it was sent; stops stop, and go on."""
    got: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, lambda n, _frame: got.append(n))
    fd = make_map()
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGUSR1)
        update(fd, 0, 1)
        os.kill(os.getpid(), signal.SIGUSR2)
    assert got.count(signal.SIGUSR1) == 50 and got.count(signal.SIGUSR2) == 50, got
    pid = os.fork()
    if pid == 0:
        while True:
            update(fd, 0, 1)
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        assert state in "tT", state
        before = os.times().elapsed
        time.sleep(0.05)
        assert os.times().elapsed > before
        os.kill(pid, signal.SIGCONT)
        assert os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1])
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def beats(path: str) -> None:
    """Looks up in a map twenty times a second, and says so in a file, until the file "PATH.stop" is there."""
    fd = make_map(b"beats")
    with open(path, "w") as file:
        file.write(f"pid {os.getpid()}\n")
        file.flush()
        number = 0
        while not os.path.exists(path + ".stop"):
            number += 1
            answer = update(fd, 0, number)
            file.write(f"{number} {answer}\n")
            file.flush()
            time.sleep(0.05)


def sleeper(path: str) -> None:
    """A child that goes on alone."""
    if os.fork() == 0:
        os.setsid()
        beats(path)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
