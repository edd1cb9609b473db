"""A separate machine for the fault tests, which damage it, and the figures at the end of the
run."""

from __future__ import annotations

import pytest

from tests.machine.conftest import machine, machines
from tests.machine.faults.figures import SEED, Figures

__all__ = ["machine", "machines"]

_figures = Figures()


@pytest.fixture
def figures() -> Figures:
    return _figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures.lines:
        terminalreporter.section(f"faults: figures, with REMO_FAULTS_SEED={SEED}")
        for line in _figures.lines:
            terminalreporter.write_line(line)
