"""The direction of imports: a module stands on the layers below it and on its own package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rawkm"

# From the ground up. What stands in one line does not know of each other.
LAYERS = [
    {"errors"},
    # Bytes in, bytes out: no fds, no ctypes, no root.
    {"uapi", "btf"},
    {"asm"},
    # Calls as lines of a file; what a kernel says to a call, and why.
    {"recording", "rules"},
    # The seam to the operating system, and what is read through it.
    {"syscall"},
    {"host"},
    # Things with an fd.
    {"handle", "answer"},
    {"maps", "objects"},
    {"prog"},
    {"link", "buffers"},
    # The jobs. Probing a feature means doing it, so features stand above all that can be done.
    {"targets", "programs"},
    {"scope", "stops", "trigger"},
    {"features"},
    {"backend"},
    {"session", "doctor", "bench"},
    {"budget"},
    {"audit"},
    {"fuzz", "why"},
    {"cli"},
    # The public API and the entry point.
    {"__init__", "__main__"},
]
HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}

# Who alone may import what, at run time.
OWNERS = {
    "ctypes": {"syscall"},
    "_ctypes": {"syscall"},
    "mmap": {"syscall"},
    "select": {"syscall"},
    "fcntl": {"syscall"},
    "resource": {"syscall"},
    "construct": {"uapi", "btf"},
    "argparse": {"cli"},
}

# What a command may see of the world it sees through the seam, or it could not be replayed: only these, which are not, do without.
OUTSIDE = {"time", "signal", "_signal", "subprocess", "socket", "_socket", "tempfile", "shutil", "glob", "pathlib", "select"}
UNSEEN = {"syscall", "fuzz", "audit"}
# Of os, names of things and what prints need no seam.
HARMLESS = {"os.strerror", "os.fsdecode", "os.fsencode", "os.path"}
MAY_USE_OS = {
    "cli/main.py",  # output that nobody wants
    "cli/audit_cmd.py",  # what it watches are processes
    "recording/header.py",  # of which machine a recording is
    "recording/repro_runtime.py",  # a script's, not ours
    "host/facts.py",  # for the models of fuzzing
}

# Packages that a user of most of rawkm need not have: only inside of functions.
LAZY = {"pyroute2", "hypothesis"}

# Dear to import. What describes layouts by construct is dear anyway, and no start of a trace waits for it.
DEAR = {"dataclasses", "enum", "inspect", "pathlib", "asyncio", "logging", "subprocess"}


class Import:
    """``module`` in full; ``typing``: for the type checker only; ``lazy``: inside of a function."""

    def __init__(self, importer: Path, module: str, line: int, *, typing: bool, lazy: bool) -> None:
        self.importer = importer.relative_to(PACKAGE)
        self.module = module
        self.line = line
        self.typing = typing
        self.lazy = lazy

    def __repr__(self) -> str:
        return f"rawkm/{self.importer}:{self.line} imports {self.module}"

    @property
    def unit(self) -> str:
        """The package or module of rawkm that imports."""
        return self.importer.parts[0].removesuffix(".py")

    @property
    def target(self) -> str | None:
        """The one that is imported, None when it is none of rawkm's."""
        parts = self.module.split(".")
        if parts[0] != "rawkm":
            return None
        return parts[1] if len(parts) > 1 and parts[1] in HEIGHT else "__init__"


def imports_of(path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, typing: bool, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(path, alias.name, child.lineno, typing=typing, lazy=lazy)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module, f"{path}: relative imports hide where they go"
                for alias in child.names:
                    yield Import(path, f"{child.module}.{alias.name}", child.lineno, typing=typing, lazy=lazy)
            elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), True, lazy)
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), typing, lazy)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, typing, lazy or inside)

    yield from walk(ast.parse(path.read_text()), False, False)


IMPORTS = [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path)]


def test_every_part_has_its_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == set(HEIGHT)


@pytest.mark.parametrize("unit", [unit for units in LAYERS for unit in sorted(units)])
def test_imports_go_down(unit: str) -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.unit == unit
        and found.target not in (None, unit)
        and HEIGHT[found.target or ""] >= HEIGHT[unit]
        # The command line tells the version.
        and not (unit == "cli" and found.module == "rawkm.__version__")
    ]
    assert wrong == []


def test_owners() -> None:
    wrong = [
        found
        for found in IMPORTS
        if not found.typing and found.unit not in OWNERS.get(found.module.partition(".")[0], {found.unit})
    ]
    assert wrong == []


def test_packages_that_most_users_need_not_have() -> None:
    eager = [i for i in IMPORTS if i.module.partition(".")[0] in LAZY and not (i.typing or i.lazy)]
    assert [i for i in eager if i.unit != "fuzz"] == []
    # In there, hypothesis is what modules are made of: then they are themselves what others import lazily, and the package too.
    made = {f"rawkm.{str(i.importer.with_suffix('')).replace('/', '.')}" for i in eager}
    assert "rawkm.fuzz.explore" in made and "rawkm.fuzz.__init__" not in made
    # A campaign may stand on such modules: it is itself what the command line imports lazily.
    wrong = [i for i in IMPORTS if not (i.typing or i.lazy) and i.unit != "fuzz" and i.module.startswith("rawkm.fuzz.")]
    assert wrong == []
    package = [i for i in IMPORTS if str(i.importer) == "fuzz/__init__.py" and not (i.typing or i.lazy)]
    assert [i for i in package if i.target == "fuzz"] == [] and made


def test_what_is_dear() -> None:
    described = OWNERS["construct"]
    wrong = [i for i in IMPORTS if i.module.partition(".")[0] in DEAR and not i.typing and i.unit not in described]
    assert wrong == []


def test_the_walk_sees_what_it_should() -> None:
    """A test of imports that finds none passes always."""
    seen = {(str(i.importer), i.module) for i in IMPORTS}
    assert ("syscall/live.py", "ctypes") in seen
    assert ("prog.py", "rawkm.uapi.packed") in seen
    assert {i.unit for i in IMPORTS} >= set(HEIGHT) - {"__init__"}
    by_name = {i.module: i for i in IMPORTS if str(i.importer) == "targets/resolve.py"}
    assert by_name["rawkm.syscall.kernel.Kernel"].typing
    assert by_name["rawkm.host.kallsyms"].lazy
    assert by_name["rawkm.host.tracefs.TraceFs"].target == "host"


def test_the_world_is_seen_through_the_seam() -> None:
    wrong = [
        found
        for found in IMPORTS
        if not found.typing
        and found.unit not in UNSEEN
        and str(found.importer) not in MAY_USE_OS
        and found.module.partition(".")[0] in OUTSIDE
    ]
    assert wrong == []


def test_os_is_used_for_names_only() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if path.relative_to(PACKAGE).parts[0] in UNSEEN or name in MAY_USE_OS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            used = ""
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                used = f"os.{node.attr}"
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                wrong += [f"{name}: os.{alias.name}" for alias in node.names if f"os.{alias.name}" not in HARMLESS]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                used = "open()"
            if used and used not in HARMLESS:
                wrong.append(f"{name}: {used}")
    # The recordings that a command is given are none of its run's own business.
    assert set(wrong) <= {"cli/replay_cmd.py: open()"}
