"""The guest that each directory needs, and what must be as before when a test is over."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import lib

HERE = Path(__file__).parent
IN_GUEST = os.path.exists("/vm/settings")


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


def _mounted(filesystem: str) -> bool:
    return any(line.split()[2] == filesystem for line in Path("/proc/mounts").read_text().splitlines())


def _with_kprobe_multi() -> bool:
    return _release() >= (6, 12)


_MULTI = ("-k 6.12 or -k 7.2, with tracefs", lambda: _with_kprobe_multi() and _mounted("tracefs"))

# directory: (how its guest must have been started, whether this one was)
GUESTS: dict[str, tuple[str, Callable[[], bool]]] = {
    "rules": ("any", lambda: True),
    "audit": ("--with bpftool --with bpftrace --with libbpf-tools, and 1.5 GB", lambda: shutil.which("bpftool") is not None),
    "fuzz": ("any", lambda: True),
    "any": ("with tracefs", lambda: _mounted("tracefs")),
    "multi": _MULTI,
    "ends": _MULTI,
    "whole": _MULTI,
    "rights": _MULTI,
    "rec": _MULTI,
    "smp": ("with --smp 2", lambda: _mounted("tracefs") and os.cpu_count() == 2),
    "asm": ("-k 7.2", lambda: _release() >= (7, 2)),
    "minimal": ("with --minimal, -k 6.12 or -k 7.2", lambda: _with_kprobe_multi() and not _mounted("tracefs")),
    "cost": ("-k 6.12, with one processor", lambda: _release() == (6, 12) and os.cpu_count() == 1),
    "links": ("with tracefs", lambda: _mounted("tracefs")),
    "bench": ("with tracefs", lambda: _mounted("tracefs")),
    "kills": ("with tracefs", lambda: _mounted("tracefs")),
    "old": ("-k 6.1 or -k 5.10", lambda: not _with_kprobe_multi()),
}


def _asked_for(config: pytest.Config) -> bool:
    """Whether the command line names something in here, rather than all tests."""
    paths = [Path(str(arg).partition("::")[0]).resolve() for arg in config.args]
    return any(path.is_relative_to(HERE) for path in paths)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Out of a guest, a run of all tests goes without these."""
    if not IN_GUEST and collection_path.is_relative_to(HERE) and not _asked_for(config):
        return True
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not IN_GUEST and not _asked_for(terminalreporter.config):
        terminalreporter.line("tests/vm was left out: its tests run in guests (tests/vm/__init__.py says how)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for directory in sorted({item.path.relative_to(HERE).parts[0] for item in items if item.path.is_relative_to(HERE)}):
        how, right = GUESTS[directory]
        if not IN_GUEST or not right():
            raise pytest.UsageError(f"tests/vm/{directory} runs in a guest started {how}: see tests/vm/__init__.py")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test: no program, map, link or process more than before, and no complaint in the kernel's log."""
    with lib.KernelLog() as log:
        before = lib.Inventory()
        yield
        left = lib.Inventory().since(before)
        deadline = time.monotonic() + 5
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = lib.Inventory().since(before)
        assert not left, f"left behind: {left}"
        assert not log.trouble(), log.trouble()


@pytest.fixture(scope="session")
def functions() -> dict[str, list[str]]:
    """The functions that the kernel can trace, by name: the module of each instance, "" for the kernel image."""
    return lib.traceable()
