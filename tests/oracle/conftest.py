"""Compiled BPF objects for all tests here, which need LLVM 19 (Debian's llvm-19 and clang-19)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.corpus import compiled, missing_tools, packaged


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    if missing_tools():
        pytest.skip(f"not installed: {', '.join(missing_tools())} (apt: llvm-19 clang-19)")


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An object each, from the sources here and from Debian's packages."""
    return [*compiled(tmp_path_factory.mktemp("compiled")), *packaged(tmp_path_factory.mktemp("packaged"))]
