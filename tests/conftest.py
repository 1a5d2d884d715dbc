"""Guards the event loop from slow key work, and counts skips by reason at the end of a run; in CI only vectors and real MDM servers may be skipped."""

import os
import re
from collections.abc import Iterator

import pytest
import structlog

from tests import key_guard

ALLOWED_SKIPS = {"vectors": r"vectors are absent", "peer_server": r"not on PATH"}

key_guard.install()


@pytest.fixture(autouse=True)
def logs_as_ever() -> Iterator[None]:
    """A command line under test configures logging; the next test finds it as it was."""
    yield
    structlog.reset_defaults()


def _kind(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if "peer_server" in report.keywords and re.search(ALLOWED_SKIPS["peer_server"], reason):
        return "peer_server"
    if re.search(ALLOWED_SKIPS["vectors"], reason):
        return "vectors"
    return "other"


def _skips(terminal: pytest.TerminalReporter) -> dict[str, int]:
    counts = {"peer_server": 0, "vectors": 0, "other": 0}
    for report in terminal.stats.get("skipped", []):
        counts[_kind(report)] += 1
    return counts


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        isinstance(terminal, pytest.TerminalReporter)
        and os.environ.get("CI") == "true"
        and not hasattr(session.config, "workerinput")
        and _skips(terminal)["other"]
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line: what ran, and what was skipped and why."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(terminal, pytest.TerminalReporter) or hasattr(config, "workerinput"):
        return
    stats = {name: len(terminal.stats.get(name, [])) for name in ("passed", "failed", "error")}
    skips = _skips(terminal)
    failed = stats["failed"] + stats["error"]
    terminal.write_line(f"{stats['passed']} passed, {failed} failed, {sum(skips.values())} skipped")
    terminal.write_line(
        f"skips: {skips['peer_server']} peer_server, {skips['vectors']} vectors, {skips['other']} other"
    )
