"""Rules for every unit, whatever its purpose."""

from __future__ import annotations

import pytest

from tests.support.machine import REPOSITORY

UNITS = REPOSITORY / "units"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))


@pytest.mark.parametrize("unit", SERVICES)
def test_no_process_outlives_its_unit(unit: str) -> None:
    """systemd kills all of a unit's processes with it, unless it is told otherwise."""
    text = (UNITS / unit).read_text()
    assert "KillMode=" not in text
    assert "SendSIGKILL=" not in text


@pytest.mark.parametrize("unit", [one for one in SERVICES if "User=root\n" not in (UNITS / one).read_text()])
def test_no_process_of_its_user_elsewhere_keeps_it_from_starting(unit: str) -> None:
    """The kernel exempts root."""
    assert "LimitNPROC=infinity\n" in (UNITS / unit).read_text()


def test_the_limit_on_descriptors_in_flight_does_not_hold_for_the_helper() -> None:
    """Root of a container may have the highest limit itself, and so exceed any other. What the
    capability does takes a host that is no container."""
    assert "\nCapabilityBoundingSet=CAP_SYS_RESOURCE\n" in (UNITS / "remo-broker-bind@.service").read_text()
