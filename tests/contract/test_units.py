"""Rules for every unit, whatever its purpose."""

from __future__ import annotations

import pytest

from tests.support.machine import REPOSITORY

SERVICES = sorted(path.name for path in (REPOSITORY / "units").glob("*.service"))


@pytest.mark.parametrize("unit", SERVICES)
def test_no_process_outlives_its_unit(unit: str) -> None:
    """systemd kills all of a unit's processes with it, unless it is told otherwise."""
    text = (REPOSITORY / "units" / unit).read_text()
    assert "KillMode=" not in text
    assert "SendSIGKILL=" not in text
