"""What is particular to one run: the command, its settings, the first process; and QEMU's command line."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

from .arch import Arch
from .cpio import Archive

_INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init.sh")

# The ports of init.sh, in its order.
PORTS = ("stdin", "control", "stdout", "stderr", "status")
READ = ("stdin", "control")


@dataclass(frozen=True)
class Options:
    """How to run: processors, the emulator's threads ("single", "multi"), memory in MiB, seconds for the command."""

    smp: int = 1
    tcg: str = "single"
    memory: int = 1024
    timeout: float = 600.0
    minimal: bool = False
    stdin: bool = False


def quote(argument: str) -> bytes:
    """The argument as a word of a shell script, whatever bytes it is made of."""
    return b"'" + os.fsencode(argument).replace(b"'", b"'\\''") + b"'"


def run_archive(command: Sequence[str], options: Options, config: tuple[str, bytes] | None = None) -> bytes:
    """The archive of one run. *config*: the kernel's release and configuration, put where Debian installs it."""
    out = io.BytesIO()
    archive = Archive(out)
    with open(_INIT, "rb") as file:
        archive.file("init", file.read(), 0o755)
    archive.file("vm/command", b"exec " + b" ".join(map(quote, command)) + b"\n")
    archive.file("vm/settings", f"minimal={options.minimal:d} stdin={options.stdin:d}\n".encode())
    if config is not None and not options.minimal:
        archive.file(f"boot/config-{config[0]}", config[1])
    archive.close()
    return out.getvalue()


def qemu_arguments(arch: Arch, options: Options, vmlinux: str, initrd: int, ends: dict[str, int]) -> list[str]:
    """The arguments after QEMU's name.

    *initrd* is a file descriptor that QEMU inherits, *ends* names those of the console and the ports: sockets
    for what the guest reads, else pipes. So nothing of a run has a path in the file system.
    """
    arguments = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *arch.arguments]
    # The threads matter with more than one processor: code patched on all of them (thousands of probes attached
    # at once) has crashed guests whose processors run in parallel.
    arguments += ["-accel", f"tcg,thread={options.tcg}", "-smp", str(options.smp), "-m", str(options.memory)]
    # panic=-1 with -no-reboot ends QEMU when the guest panics.
    append = f"{arch.append} quiet panic=-1 mitigations=off random.trust_cpu=on"
    arguments += ["-kernel", vmlinux, "-initrd", _fd(initrd), "-append", append]
    arguments += ["-chardev", f"file,id=console,path={_fd(ends['console'])}", "-serial", "chardev:console"]
    arguments += ["-device", f"virtio-serial-pci,max_ports={len(PORTS) + 1}"]
    for number, name in enumerate(PORTS, 1):
        if name in ends:
            end = ends[name]
            backend = f"socket,id={name},fd={end}" if name in READ else f"file,id={name},path={_fd(end)}"
            port = f"virtserialport,nr={number},chardev={name},name={name}"
            arguments += ["-chardev", backend, "-device", port]
    return arguments


def _fd(number: int) -> str:
    return f"/proc/self/fd/{number}"
