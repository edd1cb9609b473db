"""`remo-secret check`: an answer for each name, and no fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_check_fetches_nothing(place: ToolSetup) -> None:
    done = place.remo("check")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()][:2] == [["aws", "present"], ["REGISTRY", "present"]]
    assert "absent (optional)" in done.stdout
    assert "zq" not in done.stdout
    assert place.remo("check", "OTHER").returncode == 3
    place.broker.push({"aws": "x"})
    assert place.remo("check", "aws").returncode == 0
    assert place.remo("check", "REGISTRY").returncode == 4
    assert not place.broker.records("fetch")
