"""Debian packages of any suite by apt, download only, without a change to the system.

apt gets a state directory of its own with one generated source list; the mirror and the keyring are those of
the system's own sources.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import VMError
from .hosttools import require, say

_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://deb.debian.org/debian-security"
# Suites that never have a security archive of their own.
_ROLLING = ("sid", "unstable", "experimental")
# The keyring that holds every suite's keys; a source's own Signed-By may name the keys of its suite only.
_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
)
# The system's hooks are for its own state (some of them clean /var/cache/apt).
_HOOKS = (
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
)


@dataclass(frozen=True)
class Entry:
    """One binary source of the system: a URI, its suites, the keyring file it names (or None)."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str | None


def parse_deb822(text: str) -> Iterator[Entry]:
    """The entries of a ``.sources`` file (deb822 format, sources.list(5))."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE):
            fields[name.lower()] = value.strip()
        off = fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "without", "disable")
        if off or "deb" not in fields.get("types", "").split():
            continue
        signed = fields.get("signed-by", "")
        keyring = signed.split()[0] if signed.startswith("/") else None
        for uri in fields.get("uris", "").split():
            yield Entry(uri.rstrip("/"), tuple(fields.get("suites", "").split()), keyring)


def parse_oneline(text: str) -> Iterator[Entry]:
    """The entries of a ``.list`` file (one line each, sources.list(5))."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            options = dict(part.split("=", 1) for part in (match[1] or "").split() if "=" in part)
            keyring = options.get("signed-by", "").split(",")[0]
            yield Entry(match[2].rstrip("/"), (match[3],), keyring if keyring.startswith("/") else None)


def system_entries(root: str = "/etc/apt") -> list[Entry]:
    """Every enabled binary source of this system."""
    entries: list[Entry] = []
    for path in [f"{root}/sources.list", *sorted(glob.glob(f"{root}/sources.list.d/*"))]:
        parse = {".sources": parse_deb822, ".list": parse_oneline}.get(os.path.splitext(path)[1])
        if parse:
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    entries += parse(file.read())
            except OSError:
                continue
    return entries


def mirrors(entries: Iterable[Entry]) -> tuple[str, str]:
    """The Debian mirror and the security mirror that the system uses, else the well-known ones."""
    main, security = "", ""
    for entry in entries:
        if not re.match(r"(https?|file|copy|ftp|tor\+https?):", entry.uri):
            continue
        if re.search(r"/debian-security$|^https?://security\.debian\.org", entry.uri):
            security = security or entry.uri
        elif re.search(r"/debian$", entry.uri):
            main = main or entry.uri
    return main or _MIRROR, security or _SECURITY


def keyring(entries: Iterable[Entry]) -> str:
    """The keyring file for Debian's archives: the full one, else what the system's Debian source names."""
    named = [e.signed_by for e in entries if e.signed_by and re.search(r"/debian(-security)?$", e.uri)]
    for path in (*_KEYRINGS, *named):
        if os.path.exists(path):
            return path
    raise VMError("Debian's archive keys are missing; install the package debian-archive-keyring.")


def source_list(suite: str, main: str, security: str, key: str) -> str:
    """The source list of one suite, with its security archive where there is one."""
    lines = [f"deb [signed-by={key}] {main} {suite} main"]
    if suite not in _ROLLING:
        lines.append(f"deb [signed-by={key}] {security} {suite}-security main")
    return "\n".join(lines) + "\n"


def parse_stanza(text: str) -> dict[str, str]:
    """The fields of the first stanza that ``apt-cache show`` printed (continuation lines dropped)."""
    first = text.strip().split("\n\n")[0]
    return dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", first, re.MULTILINE))


def depends(stanza: dict[str, str]) -> list[str]:
    """The package names a stanza depends on; of alternatives the first."""
    names = []
    for relation in f"{stanza.get('Pre-Depends', '')},{stanza.get('Depends', '')}".split(","):
        match = re.match(r"\s*([a-z0-9][a-z0-9.+-]+)", relation)
        if match:
            names.append(match[1])
    return names


class Apt:
    """apt with its own state in *directory*, for one suite and architecture. Call update() first."""

    def __init__(self, directory: str, suite: str, arch: str) -> None:
        self.suite = suite
        self._dir = os.path.abspath(directory)
        self._configuration = os.path.join(self._dir, "apt.conf")
        self._archives = os.path.join(self._dir, "cache", "archives")
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            os.makedirs(os.path.join(self._dir, name), exist_ok=True)
        entries = system_entries()
        self._write("sources.list", source_list(suite, *mirrors(entries), keyring(entries)))
        self._write("status", "")  # nothing is installed: what is resolved is a full closure
        self._write("apt.conf", self._settings(arch))

    def update(self) -> None:
        """Fetch the package lists."""
        say(f"reading the package lists of {self.suite}")
        self._run("apt-get", "update", "-q")

    def show(self, package: str) -> dict[str, str]:
        """The stanza of the version apt would install."""
        return parse_stanza(self._run("apt-cache", "show", "--no-all-versions", package))

    def download(self, *packages: str) -> list[str]:
        """Download exactly these packages; the paths of the .deb files."""
        directory = tempfile.mkdtemp(prefix="debs-", dir=self._dir)
        self._run("apt-get", "download", "-q", *packages, cwd=directory)
        return sorted(glob.glob(os.path.join(directory, "*.deb")))

    def closure(self, *packages: str) -> list[str]:
        """Download these packages with everything they depend on; the paths of the .deb files."""
        self._run("apt-get", "install", "-q", "--download-only", "--no-install-recommends", *packages)
        return sorted(glob.glob(os.path.join(self._archives, "*.deb")))

    def _settings(self, arch: str) -> str:
        scalars = {
            "Dir::Etc::SourceList": f"{self._dir}/sources.list",
            "Dir::Etc::SourceParts": f"{self._dir}/parts",
            "Dir::Etc::Preferences": f"{self._dir}/parts/none",
            "Dir::Etc::PreferencesParts": f"{self._dir}/parts",
            "Dir::State": self._dir,
            "Dir::State::lists": f"{self._dir}/lists",
            "Dir::State::status": f"{self._dir}/status",
            "Dir::Cache": f"{self._dir}/cache",
            "APT::Architecture": arch,
            "APT::Get::Assume-Yes": "true",
            "APT::Default-Release": "",
            "APT::Keep-Downloaded-Packages": "true",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        }
        lines = [f"#clear {name};" for name in ("APT::Architectures", *_HOOKS)]
        lines += [f'{name} "{value}";' for name, value in scalars.items()]
        lines.append(f'APT::Architectures {{ "{arch}"; }};')
        return "\n".join(lines) + "\n"

    def _run(self, program: str, *arguments: str, cwd: str | None = None) -> str:
        require("apt-get")
        done = subprocess.run(
            # -c is read after everything else, so its #clear lines win.
            [program, "-c", self._configuration, *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            problems = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
            what = f"{program} {arguments[0]} failed for Debian {self.suite}"
            raise VMError(f"{what}: {' '.join(problems[:3])}")
        return done.stdout

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self._dir, name), "w", encoding="utf-8") as file:
            file.write(text)
