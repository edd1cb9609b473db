"""When secrets expire: how a time is parsed, and which of the two clocks decides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.decisions import Decisions
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.expiry import Clocks, parse_time
from remo_broker.protocol.config import Config
from tests.support.broker import registration
from tests.support.stock import NOW, Stock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SECOND = 1_000_000


class Time:
    """Two clocks that the test sets."""

    def __init__(self) -> None:
        self.wall = NOW
        self.boot = 50 * SECOND
        self.monotonic = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.boot += int(seconds * SECOND)
        self.monotonic += seconds


def moment(usec: int) -> str:
    return datetime.fromtimestamp(usec / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Expiring:
    """A broker with one secret that expires in a minute, and one that does not expire."""

    def __init__(self) -> None:
        self.time = Time()
        self.stock = Stock(Clocks(lambda: self.time.wall, lambda: self.time.boot))
        self.broker = Decisions(Config({}), self.stock.store)
        self.project = self.broker.projects.register(registration("myrepo", "ENDS", "STAYS", ttl_seconds=900))
        self.push({"ENDS": moment(NOW + 60 * SECOND)})

    def push(self, expires: dict[str, Any]) -> None:
        document = {"secrets": {"ENDS": "zqMarker1qz", "STAYS": "zqMarker2qz"}, "expires": expires}
        self.stock.push_line(json.dumps(document).encode())
        self.broker.projects.end_leases()

    def get(self, name: str = "ENDS") -> dict[str, Any]:
        reply, _ = self.broker.get(self.project, name, self.time.monotonic)
        fields = json.loads(reply if isinstance(reply, bytes) else b"".join(bytes(part) for part in reply))
        assert isinstance(fields, dict)
        return fields

    def has_ended(self) -> bool:
        """Whether a get is refused because the secret has expired; every other reply has the
        value."""
        fields = self.get()
        assert fields["ok"] or (fields["code"], fields["reason"]) == ("not_found", "expired")
        return not fields["ok"]


@pytest.fixture
def expiring() -> Iterator[Expiring]:
    one = Expiring()
    yield one
    one.stock.close()


@pytest.mark.parametrize(
    ("text", "usec"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-05-31T02:30:00Z", 1_780_194_600 * SECOND),
        ("2026-05-31t02:30:00z", 1_780_194_600 * SECOND),
        ("2026-05-31T04:30:00+02:00", 1_780_194_600 * SECOND),
        ("2026-05-30T21:00:00-05:30", 1_780_194_600 * SECOND),
        ("2026-05-31T02:30:00.5Z", 1_780_194_600 * SECOND + 500_000),
        ("2026-05-31T02:30:00.123456789Z", 1_780_194_600 * SECOND + 123_456),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * SECOND),
        *((text, None) for text in ("", "2026-05-31", "2026-05-31T02:30:00", "2026-05-31 02:30:00Z")),
        *((text, None) for text in ("2026-02-30T00:00:00Z", "2026-05-31T24:00:01Z", "0000-01-01T00:00:00Z")),
        *(
            (text, None)
            for text in ("2026-05-31T02:30:00+24:00", "\uff11026-05-31T02:30:00Z", "1780194600", "tomorrow")
        ),
    ],
)
def test_times(text: str, usec: int | None) -> None:
    assert parse_time(text) == usec


def test_a_secret_expires_at_its_time_and_the_others_stay(expiring: Expiring) -> None:
    assert expiring.get()["expires_at"] == moment(NOW + 60 * SECOND)
    assert "expires_at" not in expiring.get("STAYS")
    expiring.time.passes(59.9)
    assert not expiring.has_ended()
    expiring.time.passes(0.2)
    assert expiring.has_ended()
    assert expiring.broker.expire() == 1
    assert expiring.has_ended()
    assert expiring.broker.explain(expiring.project, "ENDS", None).reason == "expired"
    assert expiring.get("STAYS")["ok"]
    assert expiring.stock.store.secret_count == 1
    expiring.push({})
    assert not expiring.has_ended()


def test_a_lease_never_ends_after_the_expiry(expiring: Expiring) -> None:
    assert expiring.get()["ttl_seconds"] == 60
    expiring.time.passes(10.5)
    assert expiring.get()["ttl_seconds"] == 49
    assert expiring.get("STAYS")["ttl_seconds"] == 900
    expiring.time.passes(49.4)
    assert expiring.get()["ttl_seconds"] == 0
    expiring.time.passes(0.2)
    assert expiring.get()["reason"] == "expired"


def test_setting_the_wall_clock_back_does_not_extend_the_time(expiring: Expiring) -> None:
    expiring.time.wall -= 3600 * SECOND
    expiring.time.passes(59)
    assert not expiring.has_ended()
    expiring.time.passes(2)
    assert expiring.has_ended()
    assert expiring.broker.expire() == 1


def test_setting_the_wall_clock_forward_expires_the_secret(expiring: Expiring) -> None:
    assert expiring.get()["ok"]
    expiring.time.wall += 3600 * SECOND
    assert expiring.broker.expire() == 1, "the timer fires when the clock is set"
    assert expiring.get()["reason"] == "expired", "although a lease was begun"


@pytest.mark.parametrize("clock", ["wall", "boot"])
def test_a_get_before_the_timer_fires_gets_no_expired_secret(expiring: Expiring, clock: str) -> None:
    """After the wall clock was set, or the machine was suspended: then the boot clock goes on, and
    the clock of the leases does not."""
    assert expiring.get()["ok"]
    setattr(expiring.time, clock, getattr(expiring.time, clock) + 61 * SECOND)
    assert expiring.has_ended()
    assert expiring.project.fetches_not_found == 1
    assert expiring.get("STAYS")["ok"]


@pytest.mark.parametrize("clock", ["wall", "boot"])
def test_a_get_before_the_timer_fires_promises_no_more_time_than_is_left(expiring: Expiring, clock: str) -> None:
    assert expiring.get()["ttl_seconds"] == 60
    setattr(expiring.time, clock, getattr(expiring.time, clock) + 45 * SECOND)
    assert expiring.get()["ttl_seconds"] == 15
    expiring.time.passes(5)
    assert expiring.get()["ttl_seconds"] == 10


def test_a_lease_ends_when_setting_the_clock_expires_its_secret(expiring: Expiring) -> None:
    assert expiring.get()["ttl_seconds"] == 60
    expiring.time.wall += 30 * SECOND
    assert expiring.broker.expire() == 0
    assert expiring.get()["ttl_seconds"] == 30


def test_an_expired_secret_is_overwritten(expiring: Expiring) -> None:
    snapshot = expiring.stock.snapshot()
    [view] = snapshot.views
    expiring.time.passes(61)
    expiring.broker.expire()
    assert b"zqMarker1qz" not in bytes(view)
    assert b"zqMarker2qz" in bytes(view)


def test_a_half_sent_reply_is_finished_first(expiring: Expiring) -> None:
    snapshot = expiring.stock.snapshot()
    [view] = snapshot.views
    snapshot.readers += 1
    expiring.time.passes(61)
    expiring.broker.expire()
    assert b"zqMarker1qz" in bytes(view)
    snapshot.finished_reading()
    assert b"zqMarker1qz" not in bytes(view)
    assert b"zqMarker2qz" in bytes(view)


def test_bundles_and_binaries_expire_too(expiring: Expiring) -> None:
    at = moment(expiring.time.wall + 60 * SECOND)
    document = {
        "secrets": {"ENDS": {"a": "zqMarker3qz"}},
        "secrets_b64": {"STAYS": "enFNYXJrZXI0cXo="},
        "expires": {"ENDS": at, "STAYS": at},
    }
    expiring.stock.push_line(json.dumps(document).encode())
    assert {expiring.get(name)["expires_at"] for name in ("ENDS", "STAYS")} == {at}
    views = expiring.stock.snapshot().views
    expiring.time.passes(61)
    assert expiring.broker.expire() == 2
    assert not [view for view in views if b"zqMarker3qz" in bytes(view) or b"enFNYXJrZXI0cXo" in bytes(view)]


@pytest.mark.parametrize(
    ("expires", "says"),
    [
        ({"OTHER": "2126-05-31T02:30:00Z"}, "OTHER"),
        ({"ENDS": "soon"}, "ENDS"),
        ({"ENDS": 1780194600}, "ENDS"),
        ({"ENDS": None}, "ENDS"),
        ({"ENDS": moment(NOW)}, "past"),
        ({"ENDS": moment(NOW - SECOND)}, "past"),
        ({"a b": "2126-05-31T02:30:00Z"}, "name 1 of expires"),
    ],
)
def test_a_push_with_an_invalid_time_is_refused(expiring: Expiring, expires: dict[str, Any], says: str) -> None:
    before = expiring.stock.store.snapshot
    with pytest.raises(Refused, match=says) as raised:
        expiring.push(expires)
    assert (raised.value.code, raised.value.reason) == ("invalid_payload", "bad_value")
    assert expiring.stock.store.snapshot is before


def test_expires_at_counts_towards_the_length_of_the_reply(expiring: Expiring) -> None:
    """A value that just fits one message no longer fits with an `expires_at`."""
    for length in range(65_400, 65_536):
        secrets = {"ENDS": "x" * length}
        try:
            document = {"secrets": secrets, "expires": {"ENDS": moment(NOW + 60 * SECOND)}}
            expiring.stock.push_line(json.dumps(document).encode())
        except Refused:
            break
        reply, _ = expiring.broker.get(expiring.project, "ENDS", 0.0)
        assert not isinstance(reply, bytes)
        assert sum(map(len, reply)) <= 65_536
    else:
        pytest.fail("no length was refused")
