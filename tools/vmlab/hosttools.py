"""Programs of the host: found, or installed by apt when root, or asked for in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from .errors import VMError

# program -> Debian package
_PACKAGES = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
}


def say(text: str) -> None:
    """One line about what is going on, on stderr."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


def require(program: str) -> str:
    """The program's path. Installs its package when it is missing and we are root."""
    path = shutil.which(program)
    if path:
        return path
    package = _PACKAGES[program]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        advice = f"apt-get install --no-install-recommends {package}"
        raise VMError(f"{program} is missing; install it with: {advice}")
    say(f"{program} is missing: installing {package}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The lists may be missing or stale: try, and try again with fresh ones.
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if command is install and done.returncode == 0:
            break
    path = shutil.which(program)
    if not path:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise VMError(f"apt-get could not install {package}: {' '.join(tail)}")
    return path
