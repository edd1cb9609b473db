"""A machine of their own for the faults, which leave scars; and the figures at the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import journald
from tests.faults.figures import SEED, Figures
from tests.system.conftest import machine, machines

if TYPE_CHECKING:
    from tests.support.machine import Machine

__all__ = ["machine", "machines"]

_figures = Figures()
# A journal of some hundred thousand records, none of them thrown away before they are counted.
_JOURNAL = "[Journal]\nSystemMaxUse=1G\n"


@pytest.fixture
def figures() -> Figures:
    return _figures


@pytest.fixture(autouse=True)
def _room_for_records(machine: Machine) -> None:
    if not machine.path("/etc/systemd/journald.conf.d/room.conf").exists():
        machine.write("/etc/systemd/journald.conf.d/room.conf", _JOURNAL)
        journald.restart(machine)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures.lines:
        terminalreporter.section(f"faults: figures, with REMO_FAULTS_SEED={SEED}")
        for line in _figures.lines:
            terminalreporter.write_line(line)
