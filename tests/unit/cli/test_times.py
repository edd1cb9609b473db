"""Times as systemd writes them."""

from __future__ import annotations

import subprocess
import time
from datetime import datetime

import pytest

from remo_broker.cli.times import ago, iso, parse, shown, shown_short

# Sun 2026-05-31 12:00:00 CEST
NOW = 1780221600.0
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", NOW),
        ("today", NOW - 12 * 3600),
        ("yesterday", NOW - 36 * 3600),
        ("2026-05-31 12:00:00", NOW),
        ("2026-05-31 12:00", NOW),
        ("2026-05-31", NOW - 12 * 3600),
        ("2026-05-31 10:00:00 UTC", NOW),
        ("2026-05-31T10:00:00Z", NOW),
        ("2026-05-31T12:00:00+02:00", NOW),
        ("2026-01-31 12:00", NOW - 120 * 86400 + 3600),
        ("12:00", NOW),
        ("9:30:15", NOW - 2.5 * 3600 + 15),
        ("-2h", NOW - 7200),
        ("- 1h 30min", NOW - 5400),
        ("+1min", NOW + 60),
        ("2 hours ago", NOW - 7200),
        ("1d12h ago", NOW - 36 * 3600),
        ("90 ago", NOW - 90),
        ("0.5s ago", NOW - 0.5),
        ("@1780221600", NOW),
        ("@0", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse(text, NOW) == int(seconds * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow-ish", "-", "ago", "-5 parsecs", "25:00", "2026-13-01", "@x", "@1e400", "1h ago ago", "@nan"),
        # Times that no journal has: it would take them for others.
        *("@-1", "@1e12", "1969-12-31 UTC", "0001-01-01", "9999-12-31 23:59:59 UTC", "100y ago", "+9000y"),
        *("-" + "9" * 400 + "y", "+" + "9" * 400 + "s", "@" + "9" * 5000),
    ],
)
def test_no_times(text: str) -> None:
    assert parse(text, NOW) is None


@pytest.mark.parametrize(
    "text", ["yesterday", "2h ago", "-30min", "2026-05-31 02:30", "@1780194600", "02:30", "-1month"]
)
def test_as_systemd_reads_them(text: str) -> None:
    done = subprocess.run(["systemd-analyze", "timestamp", "--", text], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no systemd-analyze here")
    wanted = next(line.split("@", 1)[1] for line in done.stdout.splitlines() if "UNIX seconds" in line)
    found = parse(text, time.time())
    assert found is not None
    assert abs(found / SECOND - float(wanted)) < 10


def test_shown() -> None:
    usec = int(NOW * SECOND) + 123
    assert shown(usec) == "Sun 2026-05-31 12:00:00 CEST"
    assert shown_short(usec) == "2026-05-31 12:00:00"
    assert iso(usec) == "2026-05-31T10:00:00.000123Z"
    for never in (0, -1, 10**18, 10**30):
        assert (shown(never), shown_short(never), iso(never)) == ("-", "-", None)
    assert shown(parse("@253370764799", NOW) or 0).startswith("Fri 9999-01-01")
    assert datetime.fromisoformat(str(iso(usec))).timestamp() == pytest.approx(NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s ago"),
        (-5, "0s ago"),
        (59, "59s ago"),
        (3661, "1h 1min ago"),
        (90061, "1d 1h ago"),
        (5e7, "1y 7month ago"),
    ],
)
def test_ago(seconds: float, text: str) -> None:
    assert ago(int((NOW - seconds) * SECOND), NOW) == text
