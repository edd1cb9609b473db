"""`remo-secret check`: a result for each name, without a fetch."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from tests.support.machine import poll

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


def test_a_secret_that_has_expired(place: ToolSetup) -> None:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    request = {"op": "push-creds", "secrets": {"aws": "x"}, "expires": {"aws": at.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    assert place.broker.ask(request)["ok"]
    poll("the expiry", lambda: place.remo("check", "aws").stdout.split() == ["aws", "expired"])
    done = place.remo("check", "aws")
    assert done.returncode == 4
    assert not place.broker.records("fetch")


def test_it_waits_for_a_late_broker(place: ToolSetup) -> None:
    place.broker.ask({"op": "clear-creds"})
    assert place.remo("check", "aws").stdout.split() == ["aws", "absent"]
    assert place.remo("check", "--wait=0", "aws").returncode == 4
    place.broker.push({"aws": "x"})
    assert place.remo("check", "--wait=60", "aws").returncode == 0
