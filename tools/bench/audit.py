#!/usr/bin/env python3
"""What an audit costs a program that makes many bpf(2) calls, next to strace; and one that makes none.

    PYTHONPATH=. python3 tools/bench/audit.py [--runs N] [--calls N] [--others N]      (root; strace and gcc)

Of many bpf(2) calls, each line has the seconds from start to end (the median), as a multiple of the first line, and the same in
seconds of CPU time (program, auditor and all), which other work on the machine disturbs less. A program of other calls is slowed
by nothing but its seccomp filter, whoever put it there: what the kernel takes to look a call up in its bitmap of calls that are
always allowed, some 20 to 50 ns of each: much of the shortest calls, little of what most programs do. strace --seccomp-bpf, which
has such a filter, stands beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

SOURCE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/bpf.h>

static long bpf(int cmd, union bpf_attr *attr, unsigned size) { return syscall(SYS_bpf, cmd, attr, size); }

static int calls(int n)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 8, .max_entries = 1024 };
	int fd = bpf(BPF_MAP_CREATE, &attr, sizeof attr);
	if (fd < 0)
		return 1;
	for (int i = 1; i < n; i++) {
		unsigned key = i % 1000;
		unsigned long value = i;
		memset(&attr, 0, sizeof attr);
		attr.map_fd = fd;
		attr.key = (unsigned long)&key;
		attr.value = (unsigned long)&value;
		bpf(i & 1 ? BPF_MAP_UPDATE_ELEM : BPF_MAP_LOOKUP_ELEM, &attr, 32);
	}
	return 0;
}

static int getppids(int n)
{
	for (int i = 0; i < n; i++)
		syscall(SYS_getppid);
	return 0;
}

static int reads(int n)
{
	int zero = open("/dev/zero", O_RDONLY);
	char page[4096];
	for (int i = 0; i < n; i++)
		if (read(zero, page, sizeof page) < 0)
			return 1;
	return 0;
}

static int pipes(int n)
{
	int fds[2];
	char page[4096] = "";
	if (pipe(fds))
		return 1;
	for (int i = 0; i < n / 2; i++)
		if (write(fds[1], page, 1024) < 0 || read(fds[0], page, 1024) < 0)
			return 1;
	return 0;
}

static int files(int n)
{
	char page[4096];
	struct stat st;
	for (int i = 0; i < n / 4; i++) {
		int fd = open("/etc/passwd", O_RDONLY);
		if (fd < 0 || fstat(fd, &st) || read(fd, page, sizeof page) < 0 || close(fd))
			return 1;
	}
	return 0;
}

static int datagrams(int n)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof at;
	char page[1024] = "";
	int from = socket(AF_INET, SOCK_DGRAM, 0), to = socket(AF_INET, SOCK_DGRAM, 0);
	if (from < 0 || to < 0 || bind(to, (void *)&at, size) || getsockname(to, (void *)&at, &size))
		return 1;
	for (int i = 0; i < n / 2; i++)
		if (sendto(from, page, sizeof page, 0, (void *)&at, size) < 0 || recv(to, page, sizeof page, 0) < 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	static int (*const works[])(int) = { calls, getppids, reads, pipes, files, datagrams };
	struct timespec begun, over;
	if (argc < 4)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	if (works[atoi(argv[1])](atoi(argv[2])))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &over);
	FILE *file = fopen(argv[3], "w");
	if (!file)
		return 1;
	fprintf(file, "%f", over.tv_sec - begun.tv_sec + (over.tv_nsec - begun.tv_nsec) / 1e9);
	return fclose(file) != 0;
}
"""
BPF = 0
OTHERS = {
    1: "getppid, the shortest there is",
    2: "read 4 KiB of /dev/zero",
    3: "write and read 1 KiB of a pipe",
    4: "open, fstat, read and close a file",
    5: "send and receive 1 KiB over loopback",
}


def run(argv: list[str]) -> tuple[float, float]:
    """(seconds, seconds of CPU time of it and all that it has waited for)."""
    start = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet)
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(argv)} failed")
    return seconds, used.ru_utime + used.ru_stime


def compare(title: str, lines: dict[str, list[str]], runs: int) -> None:
    """All lines in turn, ``runs`` times over, so that what disturbs one disturbs all."""
    print(title)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for argv in lines.values():
        run(argv)  # warms the page cache
    for _ in range(runs):
        for name, argv in lines.items():
            measured[name].append(run(argv))
    medians = {name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in measured.items()}
    first = next(iter(medians.values()))
    for name, (wall, cpu) in medians.items():
        print(f"  {name:44} {wall:7.3f} s {wall / first[0]:6.2f} x   cpu {cpu:7.3f} s {cpu / first[1]:6.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--others", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "calls")
        subprocess.run(["gcc", "-O2", "-x", "c", "-o", program, "-"], input=SOURCE.encode(), check=True)
        audit = [sys.executable, "-m", "rawkm", "audit"]
        took = os.path.join(directory, "took")
        bpf = [program, str(BPF), str(args.calls), took]
        lines = {
            "strace -f -e trace=bpf -v -o /dev/null": ["strace", "-f", "-e", "trace=bpf", "-v", "-o", "/dev/null", *bpf],
            "rawkm audit -o /dev/null": [*audit, "-o", "/dev/null", "--", *bpf],
            "rawkm audit --record FILE": [*audit, "--record", os.path.join(directory, "calls.rkm"), "--", *bpf],
        }
        compare(f"{args.calls:,} bpf(2) calls:", lines, args.runs)
        print(f"{args.others:,} other system calls, as the program itself times them:")
        for work, what in OTHERS.items():
            other = [program, str(work), str(args.others), took]
            lines = {
                "as it is": other,
                "strace --seccomp-bpf": ["strace", "-f", "--seccomp-bpf", "-e", "trace=bpf", "-o", "/dev/null", *other],
                "rawkm audit": [*audit, "-q", "--", *other],
            }
            slowed(what, lines, took, args.runs)
        # A program that also does something between its calls, as most do.
        search = ["grep", "-rc", "no such words", sysconfig.get_path("stdlib"), "/usr/share", "/usr/include"]
        timed = ["sh", "-c", 'begun=$(date +%s%N); took=$1; shift; "$@"; echo $(($(date +%s%N) - begun))e-9 >"$took"', "sh", took]
        lines = {
            "as it is": [*timed, *search],
            "strace --seccomp-bpf": ["strace", "-f", "--seccomp-bpf", "-e", "trace=bpf", "-o", "/dev/null", *timed, *search],
            "rawkm audit": [*audit, "-q", "--", *timed, *search],
        }
        slowed("grep -r, some 670,000 calls", lines, took, args.runs)


def slowed(title: str, lines: dict[str, list[str]], took: str, runs: int) -> None:
    """What the program wrote to ``took``, of all lines in turn: the medians, and in percent what each adds to the first."""
    measured: dict[str, list[float]] = {name: [] for name in lines}
    for turn in range(runs + 1):
        for name, argv in lines.items():
            run(argv)
            with open(took) as file:
                seconds = float(file.read())
            if turn:
                measured[name].append(seconds)
    first, *others = ((name, statistics.median(values)) for name, values in measured.items())
    more = ", ".join(f"{name} {(seconds / first[1] - 1) * 100:+.1f} %" for name, seconds in others)
    print(f"  {title:38} {first[1]:.3f} s; {more}", flush=True)


if __name__ == "__main__":
    main()
