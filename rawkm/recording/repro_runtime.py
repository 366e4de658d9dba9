"""What stands around the calls in a script of `rawkm repro`. A template: ``str.format`` fills it in."""

from __future__ import annotations

RUNTIME = '''\
#!/usr/bin/env python3
"""{intro}

Written by `rawkm repro`. Needs Python 3.8 and root (or the capabilities that the calls take), nothing else: no rawkm.
Status 0: every call ended as recorded. -v also prints each call and what it wrote.
"""

import base64
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
import zlib

KERNEL = {kernel!r}  # where it was recorded
REDACTED = {redacted}
SYMBOL = {symbol!r}  # a function and its address there
NUMBERS = {{  # machine: (bpf, perf_event_open)
    "x86_64": (321, 298), "aarch64": (280, 241), "riscv64": (280, 241), "loongarch64": (280, 241),
    "s390x": (351, 331), "ppc64le": (361, 319),
}}
VERBOSE = "-v" in sys.argv[1:]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
fds = {{}}  # name: number
maps = {{}}  # name: mapped memory
calls = failures = different = 0


def fd(name):
    """The number here of the fd that was recorded as NAME."""
    return fds.get(name, -1)


def hexa(text):
    return bytes.fromhex(text)


def packed(text):
    return zlib.decompress(base64.b64decode(text))


def slide():
    """How far this boot has the kernel from where it was recorded."""
    if SYMBOL is None:
        return 0
    with open("/proc/kallsyms") as file:
        for line in file:
            words = line.split()
            if words[2] == SYMBOL[0] and len(words) == 3 and int(words[0], 16):
                return int(words[0], 16) - SYMBOL[1]
    return 0


class memory:
    """What a pointer points to: DATA, or SIZE bytes for the kernel to write to."""

    def __init__(self, data, size=None, fds=(), pointers=(), addresses=(), after=None):
        self.after = after
        raw = bytearray(data.ljust(size or 0, b"\\0"))
        for at, name in dict(fds).items():
            struct.pack_into("=i", raw, at, fd(name))
        self.inner = dict(pointers)
        for at, inner in self.inner.items():
            struct.pack_into("=Q", raw, at, inner.address())
        for at in addresses:
            if at >= 0:
                struct.pack_into("=Q", raw, at, struct.unpack_from("=Q", raw, at)[0] + SLIDE)
            else:  # ld_imm64: both halves of the immediate
                low, high = -at - 1 + 4, -at - 1 + 12
                value = struct.unpack_from("=I", raw, low)[0] | struct.unpack_from("=I", raw, high)[0] << 32
                value += SLIDE
                struct.pack_into("=I", raw, low, value & 0xFFFFFFFF)
                struct.pack_into("=I", raw, high, value >> 32)
        self.buffer = ctypes.create_string_buffer(bytes(raw), max(len(raw), 1))

    def address(self):
        return ctypes.addressof(self.buffer)


class strings:
    """An array of pointers to strings, each of which ends in a NUL."""

    after = None

    def __init__(self, joined):
        self.items = joined.split(b"\\0")[:-1]
        self.buffer = (ctypes.c_char_p * len(self.items))(*self.items)

    def address(self):
        return ctypes.addressof(self.buffer)


class unknown:
    """What was not recorded."""

    after = None

    def __init__(self, why):
        sys.exit("this script is not whole: what a pointer pointed to was not recorded (%s)" % why)


def name_of(number):
    return {{0: "success", 524: "ENOTSUPP"}}.get(number) or errno.errorcode.get(number, "errno %d" % number)


def ended(number, what, got, code, makes, result, error, others=False):
    """Compares how a call ended with how it ended when it was recorded. OTHERS: it tells what others have made, or not."""
    global calls, failures, different
    calls += 1
    if VERBOSE:
        print("call %d, %s = %d %s" % (number, what, got, name_of(code) if code else ""))
    if others:
        different += code != error or got != result and makes is None
    elif code != error:
        failures += 1
        print("call %d, %s: %s, recorded: %s" % (number, what, name_of(code), name_of(error)))
    elif makes is None and not code and got != result:
        failures += 1
        print("call %d, %s gave %d, recorded: %d" % (number, what, got, result))
    if makes is not None and not code:
        fds[makes] = got


def written(number, what, attr, after, pointers):
    """Compares what the kernel wrote with what it wrote then. Ids, sizes of logs and times may differ: that is only said."""
    global failures, different
    for path, offset, old in after:
        new = attr[offset : offset + len(old) // 2]
        if new == bytes.fromhex(old):
            continue
        if path.endswith(("id", "log_true_size", "duration")):
            different += 1
        else:
            failures += 1
            print("call %d, %s: %s is %s after the call, recorded: %s" % (number, what, path, new.hex(), old))
    for pointee in pointers.values():
        if pointee.after is not None and bytes(pointee.buffer)[: len(pointee.after)] != pointee.after:
            different += 1
            if VERBOSE:
                print("    wrote %s, recorded: %s" % (bytes(pointee.buffer).hex(), pointee.after.hex()))


def lowered(attr, places, pointers):
    raw = bytearray(bytes.fromhex(attr))
    for offset, name in places.items():
        struct.pack_into("=i", raw, offset, fd(name))
    for offset, pointee in pointers.items():
        struct.pack_into("=Q", raw, offset, pointee.address())
    return ctypes.create_string_buffer(bytes(raw), max(len(raw), 1))


def syscall(number, *args):
    got = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return got, ctypes.get_errno() if got < 0 else 0


def bpf(number, what, command, size, attr, fds={{}}, pointers={{}}, common=None, after=(), others=False,
        makes=None, result=0, error=0):
    buffer = lowered(attr, fds, pointers)
    more = () if common is None else (ctypes.create_string_buffer(bytes.fromhex(common)), len(common) // 2)
    got, code = syscall(NUMBERS[os.uname().machine][0], command, buffer, size, *more)
    ended(number, what, got, code, makes, result, error, others)
    written(number, what, buffer.raw, after, pointers)


def perf_event_open(
    number, what, attr, pid, cpu, group_fd, flags, fds={{}}, pointers={{}}, after=(), makes=None, result=0, error=0
):
    buffer = lowered(attr, fds, pointers)
    got, code = syscall(NUMBERS[os.uname().machine][1], buffer, pid, cpu, group_fd, flags)
    ended(number, what, got, code, makes, result, error)


def attempt(action):
    """(what came back, errno)."""
    try:
        return action(), 0
    except OSError as err:
        return -1, err.errno


def ioctl(number, what, fd, request, arg, result=0, error=0):
    got, code = attempt(lambda: fcntl.ioctl(fd, request, arg))
    ended(number, what, got, code, None, result, error)


def map_memory(number, what, addr, length, prot, flags, fd, offset, name, error=0):
    both = mmap.PROT_READ | (mmap.PROT_WRITE if "WRITE" in prot else 0)
    made, code = attempt(lambda: mmap.mmap(fd, length, mmap.MAP_SHARED, both, offset=offset))
    ended(number, what, -1 if code else 0, code, None, 0, error)
    if not code:
        maps[name] = made


def munmap(number, what, mem, error=0):
    memory_there = maps.pop(mem, None)
    got, code = attempt(lambda: memory_there.close() or 0) if memory_there is not None else (-1, errno.EINVAL)
    ended(number, what, got, code, None, 0, error)


def store(mem, offset, value):
    memoryview(maps[mem]).cast("Q")[offset // 8] = value


def fill(mem, data):
    maps[mem][: len(data)] = data


def close_fd(number, what, fd, result=0, error=0):
    got, code = attempt(lambda: os.close(fd) or 0)
    ended(number, what, got, code, None, result, error)


def prlimit64(number, what, pid, resource, limits, result=0, error=0):
    new = None if limits is None else ctypes.create_string_buffer(struct.pack("=qq", *limits), 16)
    got = libc.prlimit(pid, resource, new, ctypes.create_string_buffer(16))
    ended(number, what, got, ctypes.get_errno() if got else 0, None, result, error)


def open_file(number, what, dir_fd, path, flags, makes=None, error=0):
    bits = sum(getattr(os, flag) for flag in flags.split("|"))
    where = None if isinstance(dir_fd, str) else dir_fd
    got, code = attempt(lambda: os.open(path, bits, dir_fd=where))
    ended(number, what, got, code, makes, 0, error)


def write(number, what, fd, data, count, result=0, error=0):
    got, code = attempt(lambda: os.write(fd, data.encode()))
    ended(number, what, got, code, None, result, error)


def fsopen(number, what, filesystem, flags, makes=None, error=0):
    got, code = syscall(430, ctypes.c_char_p(filesystem.encode()), 1)
    ended(number, what, got, code, makes, 0, error)


def fsconfig(number, what, fd, cmd, key, value, aux, error=0):
    got, code = syscall(431, fd, 6, None, None, 0)
    ended(number, what, got, code, None, 0, error)


def fsmount(number, what, fd, flags, attr_flags, makes=None, error=0):
    got, code = syscall(432, fd, 1, 0)
    ended(number, what, got, code, makes, 0, error)


def pidfd_open(number, what, pid, flags, makes=None, error=0):
    got, code = attempt(lambda: os.pidfd_open(os.getpid()))
    ended(number, what, got, code, makes, 0, error)


def epoll_create1(number, what, flags, makes=None, error=0):
    got, code = syscall(-1)
    ended(number, what, got, code, makes, 0, error)


if sys.byteorder != {order!r}:
    sys.exit("recorded on a {order}-endian machine: the bytes mean nothing here")
if os.uname().release != KERNEL:
    print("note: recorded on Linux %s, this is %s" % (KERNEL, os.uname().release))
if REDACTED:
    print("note: the recording was redacted: addresses are left out, calls that take them will fail")
SLIDE = slide()

{body}

print("%d calls, %d not as recorded; %d differ that may (ids, times, others' objects)" % (calls, failures, different))
sys.exit(1 if failures else 0)
'''
