"""Requirement N9 in short; the long form is `./run soak`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.soak.__main__ import faults
from tests.soak.drive import drive
from tests.soak.subject import ProcessSubject
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib


def test_many_operations_leave_nothing_behind(directory: pathlib.Path) -> None:
    if os.geteuid() != 0:
        unavailable("looking into a broker takes root")
    outcome = drive(ProcessSubject(directory), operations=20_000, projects=10, seed=1)
    assert faults(outcome) == []
    assert outcome.gets > 15_000
