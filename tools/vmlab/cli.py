"""The command line of tools/vm."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from . import arch, headers, kernelimage, project
from .cache import Cache
from .errors import VMError
from .guest import Options, run_archive
from .hosttools import require, say
from .kernels import BY_NAME, DEFAULT, KERNELS, Kernel
from .machine import GUEST_FAILED, Machine, last_words, trouble
from .prepare import Userland, ensure_headers, ensure_kernel, host_suite


class _Interrupted(Exception):
    """A signal that ends the program; its number is args[0]."""


_VALUED = ("-k", "--kernel", "--smp", "--tcg", "--memory", "--timeout", "--with")
_LOGS_KEPT = 20
_LEAST_MEMORY = 320  # MiB: the archives unpacked, and a little to live on


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if arguments[:1] == ["run"]:
        head, command = split_command(arguments[1:])
        arguments = ["run", *head]
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.action == "run" and not command:
        parser.error("run needs a command")
    with _signals_raise():
        try:
            return _act(options, command)
        except VMError as error:
            print(f"vm: {error}", file=sys.stderr)
            return GUEST_FAILED
        except _Interrupted as interrupted:
            return 128 + int(interrupted.args[0])
        except BrokenPipeError:
            # Whoever read our output is gone. Nothing more can be said on it, not even at Python's own exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 141


def _act(options: argparse.Namespace, command: Sequence[str]) -> int:
    match options.action:
        case "kernels":
            return _kernels()
        case "fetch":
            return _fetch([BY_NAME[name] for name in options.kernel or BY_NAME], options.refresh)
        case "path":
            return _path(BY_NAME[options.kernel], options.artefact)
        case _:
            return _run(BY_NAME[options.kernel], command, options)


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own options, and the command: what follows "--", or begins at the first word that is no option."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            return list(arguments[:position]), list(arguments[position + 1 :])
        if not word.startswith("-"):
            break
        position += 2 if word in _VALUED else 1
    return list(arguments[:position]), list(arguments[position:])


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block, the signals that mean "end" raise _Interrupted, so that everything is cleaned up."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vm",
        description="Boot a real Debian kernel in QEMU and run a command in it.",
        epilog="Exit status of run: the command's; 124 when it took too long; 125 when the guest failed.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("kernels", help="list the kernels, and which of them are cached")

    fetch = actions.add_parser("fetch", help="fetch and build what run needs", allow_abbrev=False)
    fetch.add_argument("-k", "--kernel", action="append", choices=BY_NAME, help="a kernel (all when none is named)")
    fetch.add_argument("--refresh", action="store_true", help="anew, even what is cached: newer versions may exist")

    run = actions.add_parser(
        "run",
        help="run a command in a guest",
        usage="vm run [options] [--] COMMAND [ARG ...]",
        description="Boot a guest, run COMMAND as root in /rawkm there, and return its exit status.",
        allow_abbrev=False,
    )
    run.add_argument("-k", "--kernel", choices=BY_NAME, default=DEFAULT, help=f"the kernel (default {DEFAULT})")
    run.add_argument("--minimal", action="store_true", help="mount neither tracefs, debugfs, bpffs nor cgroup2")
    run.add_argument("--smp", type=_at_least(1), default=1, metavar="N", help="virtual processors (default 1)")
    run.add_argument(
        "--tcg",
        choices=("single", "multi"),
        default="single",
        help="emulator threads: one, or one per processor",
    )
    run.add_argument(
        "--memory",
        type=_at_least(_LEAST_MEMORY),
        default=1024,
        metavar="MB",
        help="the guest's memory (default 1024, at least 320)",
    )
    run.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds for the command, without the boot (default 600)",
    )
    run.add_argument(
        "--with",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a Debian package in the guest, with the libraries it needs (may be given several times)",
    )
    run.add_argument("--stdin", action="store_true", help="give our standard input to the command")

    path = actions.add_parser("path", help="print the path of a cached artefact", allow_abbrev=False)
    path.add_argument("-k", "--kernel", choices=BY_NAME, default=DEFAULT, help=f"the kernel (default {DEFAULT})")
    path.add_argument("artefact", choices=("btf", "config", "vmlinuz", "vmlinux", "headers"))
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of at least {least}")
        return int(text)

    return number


def _kernels() -> int:
    cache, host = Cache(), host_suite()
    rows = [("KERNEL", "ARCH", "SUITE", "PACKAGE", "VERSION", "CACHED", "KPROBE_MULTI")]
    for kernel in KERNELS:
        source = kernel.source_for(host)
        meta = kernelimage.cached(cache, kernel)
        suite, package, version = source.suite, source.package, "-"
        if meta:
            suite, package, version = meta["suite"], meta["package"], meta["version"]
        flags = ("yes" if meta else "no", "yes" if kernel.kprobe_multi else "no")
        rows.append((kernel.name, kernel.arch, suite, package, version, *flags))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _fetch(kernels: Sequence[Kernel], refresh: bool) -> int:
    cache = Cache()
    for name in dict.fromkeys(kernel.arch for kernel in kernels):
        require(arch.BY_NAME[name].qemu)
        project.pack(cache, Userland(cache, name, refresh).python)
    for kernel in kernels:
        ensure_kernel(cache, kernel, refresh)
    ensure_headers(cache, refresh)
    say(f"ready: {', '.join(kernel.name for kernel in kernels)} (in {cache.root})")
    return 0


def _path(kernel: Kernel, artefact: str) -> int:
    cache = Cache()
    if artefact == "headers":
        ensure_headers(cache)
        print(headers.directory(cache))
        return 0
    ensure_kernel(cache, kernel)
    path = kernelimage.artefact(cache, kernel, artefact)
    if not os.path.exists(path):
        raise VMError(f"The package of kernel {kernel.name} holds no {artefact}.")
    print(path)
    return 0


def _config(cache: Cache, kernel: Kernel) -> tuple[str, bytes] | None:
    """The kernel's release and configuration; None where its packages have none."""
    release = str((kernelimage.cached(cache, kernel) or {}).get("release", ""))
    try:
        with open(kernelimage.artefact(cache, kernel, "config"), "rb") as file:
            return release, file.read()
    except FileNotFoundError:
        return None


def _run(kernel: Kernel, command: Sequence[str], given: argparse.Namespace) -> int:
    cache = Cache()
    options = Options(given.smp, given.tcg, given.memory, given.timeout, given.minimal, given.stdin)
    machine_arch = arch.BY_NAME[kernel.arch]
    qemu = require(machine_arch.qemu)
    userland = Userland(cache, kernel.arch, packages=sorted(set(given.packages)))
    ensure_kernel(cache, kernel)
    archives: list[str | bytes] = [
        *userland.archives,
        kernelimage.artefact(cache, kernel, "modules.cpio"),
        project.pack(cache, userland.python),
        run_archive(command, options, _config(cache, kernel)),
    ]
    machine = Machine(machine_arch, qemu, kernelimage.artefact(cache, kernel, "vmlinux"), archives, options)
    status = machine.run()
    if machine.reason:
        say(f"{machine.reason} (kernel {kernel.name})")
        if status == GUEST_FAILED:
            print("\n".join(last_words(machine.console) or ["(the console shows nothing)"]), file=sys.stderr)
            say(f"the whole console: {_save(cache, kernel, machine.console)}")
    for line in trouble(machine.console):
        say(f"the guest's kernel said: {line}")
    return status


def _save(cache: Cache, kernel: Kernel, console: str) -> str:
    """Keep the console's text; its path. Old ones are dropped."""
    directory = cache.path("logs")
    try:
        os.makedirs(directory, exist_ok=True)
        for old in sorted(os.listdir(directory))[: -_LOGS_KEPT + 1]:
            os.unlink(os.path.join(directory, old))
    except OSError:
        directory = tempfile.gettempdir()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = os.path.join(directory, f"{stamp}-{kernel.name}-{os.getpid()}.log")
    with open(path, "w", encoding="utf-8") as file:
        file.write(console)
    return path
