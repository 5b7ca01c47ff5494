"""Settings of the whole test run: one thread a process, no timed tests, and a closing list of what did not run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two pytest processes share two cores; read when torch is first imported

import pytest
from hypothesis import settings

settings.register_profile("puffer-edge", deadline=None)
settings.load_profile("puffer-edge")

# With CI set nothing may be skipped, except for these reasons (regular expressions).
ALLOWED_IN_CI: tuple[str, ...] = ()

# What a reason for skipping contains, and the one command that removes it. The first match counts.
ENABLE = (
    (r"needs cc\b|host compiler", "install a C compiler (Debian: build-essential)"),
    (r"\bnode\b|npm|rp2040js", "install node 18 or newer with npm, then: make -B setup"),
    (r"gcc|g\+\+|qemu|objdump|toolchain|unix port", "make toolchains"),
    (r"could not import|extra|not installed|No module", "make -B setup"),
)


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    """Every file and link of the working tree that git tracks, or would at the next ``git add``."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted({name for name in listed.split("\0") if name and os.path.lexists(root / name)})


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose ``toolchain`` marker names a program that is not on the path."""
    programs = [program for marker in item.iter_markers("toolchain") for program in marker.args]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (toolchain)")


def skipped(terminal: pytest.TerminalReporter) -> dict[str, int]:
    """How many tests were skipped, by reason; a module that skips itself counts as one."""
    reasons: dict[str, int] = defaultdict(int)
    for report in terminal.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    return reasons


def command_for(reason: str) -> str:
    """The one command after which a test with this reason runs."""
    return next((command for pattern, command in ENABLE if re.search(pattern, reason)), "the reason says what is missing")


def forbidden(reasons: dict[str, int]) -> list[str]:
    """Reasons that make a run with CI set fail."""
    if os.environ.get("CI", "").lower() not in ("1", "true"):
        return []
    return [reason for reason in reasons if not any(re.search(pattern, reason) for pattern in ALLOWED_IN_CI)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn an unexpected skip into a failure of the run."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and session.exitstatus == pytest.ExitCode.OK and forbidden(skipped(terminal)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was not run, grouped by the command that enables it."""
    reasons = skipped(terminalreporter)
    if not reasons:
        return
    groups: dict[str, list[str]] = defaultdict(list)
    for reason, count in sorted(reasons.items()):
        groups[command_for(reason)].append(f"{count:4d} x {reason}")
    terminalreporter.section("not run on this machine")
    for command, lines in groups.items():
        terminalreporter.write_line(f"to run these:  {command}")
        for line in lines:
            terminalreporter.write_line(f"  {line}")
    if forbidden(reasons):
        terminalreporter.write_line("CI is set, and nothing may be skipped there: the run fails", red=True)
