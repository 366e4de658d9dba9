"""Where nothing may be left out, RAWKM_NO_SKIPS=1 makes a run fail in which a test was skipped."""

from __future__ import annotations

import os

import pytest

_skipped: list[tuple[str, str]] = []


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too, but it has run.
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def _forbidden() -> bool:
    return os.environ.get("RAWKM_NO_SKIPS") == "1" and bool(_skipped)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _forbidden() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _forbidden():
        terminalreporter.section("skipped, though RAWKM_NO_SKIPS=1", red=True)
        for nodeid, reason in _skipped:
            terminalreporter.line(f"{nodeid}: {reason}")
