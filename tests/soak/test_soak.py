"""Requirement N9 in short; the long form is `./run soak`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.__main__ import faults
from tests.soak.drive import drive
from tests.soak.subject import ProcessSubject
from tests.support.privileges import require_tracing

if TYPE_CHECKING:
    import pathlib


def test_many_operations_leave_nothing_behind(directory: pathlib.Path) -> None:
    require_tracing()
    outcome = drive(ProcessSubject(directory), operations=20_000, projects=10, seed=1)
    assert faults(outcome) == []
    assert outcome.gets > 15_000
