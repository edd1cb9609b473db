"""Times in systemd's syntax."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time
from datetime import UTC, datetime

import pytest

from remo_broker.cli.times import ZONES, ago, iso, parse, shown, shown_short
from tests.support.machine import unavailable

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
        (".5h ago", NOW - 1800),
        ("5min  ago", NOW - 300),
        # A time zone with summer time, if tzdata has it; else the name of this zone's standard
        # time.
        ("2026-05-31 11:00 CET", NOW - 3600 if pathlib.Path(ZONES, "CET").exists() else NOW),
        ("2026-01-31 13:00 CEST", NOW - 120 * 86400 + 3600),
        ("@1780221600", NOW),
        ("@.5", 0.5),
        ("@0", 0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse(text, NOW) == int(seconds * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow-ish", "-", "ago", "-5 parsecs", "25:00", "2026-13-01", "@x", "@1e400", "1h ago ago", "@nan"),
        # Times that no journal can have: it would take them for others.
        *(
            "@-1",
            "@1e12",
            "1969-12-31 UTC",
            "0000-01-01",
            "0001-01-01",
            "9999-12-31 23:59:59 UTC",
            "100y ago",
            "+9000y",
        ),
        *("@.", "@", "2026-05-31 12:00 +25:00", "2026-05-31 12:00 AEST"),
        *("-" + "9" * 400 + "y", "+" + "9" * 400 + "s", "@" + "9" * 5000),
    ],
)
def test_invalid_times(text: str) -> None:
    assert parse(text, NOW) is None


FIXED_ZONES = [
    "UTC0",
    "AAA12:13BBB12:10,J1/0,J331/0:04",
    "CET-1CEST-2,J1/0,J331/3",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "<+0330>-3:30<+0430>,J79/24,J263/24",
    "NZST-12NZDT,M9.5.0,M4.1.0/3",
]
NAMED_ZONES = [
    *("Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Sao_Paulo", "America/St_Johns"),
    *("Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Africa/Casablanca", "Asia/Kathmandu"),
]
# Samoa skipped a day in 2011.
YEARS = (2011, 2026)
HOUR = 3600


def set_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    if not zone[0].isupper() or "/" not in zone or "," in zone:
        pass
    elif not pathlib.Path(ZONES, zone).exists():
        unavailable("tzdata is not installed")
    monkeypatch.setenv("TZ", zone)
    time.tzset()


def by_systemd(texts: list[str]) -> list[int | None]:
    """systemd's interpretation of each, in this process's zone."""
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "timestamp", "--", *texts],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    found: dict[str, int] = {}
    block = ""
    for line in done.stdout.splitlines():
        name, _, value = line.strip().partition(": ")
        if name in ("Original form", "Normalized form"):
            block = value if name == "Original form" or not block else block
        elif name == "UNIX seconds":
            seconds, _, fraction = value.removeprefix("@").partition(".")
            found[block] = int(seconds) * SECOND + int((fraction or "0").ljust(6, "0"))
        elif not line:
            block = ""
    return [found.get(text) for text in texts]


def changes(year: int) -> list[int]:
    """The minutes of that year at which this process's zone changes its offset or name."""
    start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    hours = [at for at in range(start, start + 365 * 86400, HOUR) if _offset(at) != _offset(at + HOUR)]
    return [next(at for at in range(hour, hour + HOUR + 60, 60) if _offset(at) != _offset(hour)) for hour in hours]


def _offset(seconds: int) -> tuple[int, str]:
    local = time.localtime(seconds)
    return local.tm_gmtoff, local.tm_zone


def as_shown(text: str, usec: int) -> bool:
    return text.endswith(" UTC") or time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(usec // SECOND)) == text


def wall_clocks() -> list[str]:
    """Local times around every change, skipped and repeated ones, with the zone and without."""
    texts: dict[str, None] = {}
    for year in YEARS if os.environ["TZ"] == "Pacific/Apia" else YEARS[-1:]:
        for change in changes(year)[:4]:
            for at in (change - 1, change):
                offset, name = _offset(at)
                for minutes in (-45, -1, 0, 15):
                    clock = datetime.fromtimestamp(change + minutes * 60 + offset, UTC)
                    texts[clock.strftime("%Y-%m-%d %H:%M:%S")] = None
                    texts[clock.strftime("%Y-%m-%d %H:%M ") + name] = None
                    texts[clock.strftime("%Y-%m-%d")] = None
    return list(texts)


@pytest.mark.parametrize("zone", FIXED_ZONES + NAMED_ZONES)
def test_skipped_and_repeated_hours_are_read_as_by_systemd(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    set_zone(monkeypatch, zone)
    differences = []
    compared = 0
    for text in [*wall_clocks(), "2026-07-01 12:00", "2026-01-01 12:00 UTC"]:
        (expected,) = by_systemd([text])
        # systemd accepts the two abbreviations in use today, even at times at which they are not in
        # use.
        if expected is None or (text.count(" ") == 2 and not as_shown(text, expected)):
            continue
        compared += 1
        if parse(text, NOW) != expected:
            differences.append((text, parse(text, NOW), expected))
    assert differences == []
    assert compared


@pytest.mark.parametrize("text", ["yesterday", "today", "tomorrow", "02:30", "00:02", "today UTC", "tomorrow UTC"])
@pytest.mark.parametrize(
    "zone", ["AAA12:13BBB12:10,J1/0,J{day}/0:04", "CET-1CEST-2,J1/0,J{day}/3", "A-3B,J{day}/0,J365/24"]
)
@pytest.mark.parametrize("days", [-1, 0, 1])
def test_words_and_clocks_on_a_day_on_which_the_clock_changes(
    monkeypatch: pytest.MonkeyPatch, text: str, zone: str, days: int
) -> None:
    today = datetime.now(UTC)
    day = today.timetuple().tm_yday + days - (today.year % 4 == 0 and today.month > 2)
    set_zone(monkeypatch, zone.format(day=min(max(day, 1), 365)))
    before = time.localtime().tm_mday
    found, (expected,) = parse(text, time.time()), by_systemd([text])
    if before == time.localtime().tm_mday:  # not midnight just now
        assert found == expected


SYSTEMD_FORMS = [
    *("2026-11-27 11:55:54", "2026-11-27 11:55", "2026-11-27", "26-11-27 11:55", "26-11-27", "2026-1-2 3:4"),
    *("Fri 2026-11-27 11:55:54", "friday 2026-11-27", "FRI 2026-11-27 11:55", "Thu 2026-11-26"),
    *("2026-11-27 11:55:54.5", "2026-11-27 11:55:54.123456", "2026-11-27  11:55", "2026-02-30", "2026-11-27 11:55:60"),
    *("Fri 2026-11-27 11:55:54 UTC", "2026-11-27 11:55 UTC", "2026-07-01 12:00 CEST"),
    *("Nov 27 11:55:54", "Nov 27 11:55:54.5", "@1795780554.25"),
]


@pytest.mark.parametrize("text", SYSTEMD_FORMS)
def test_dates_are_read_as_by_systemd(text: str) -> None:
    if not pathlib.Path(ZONES, "Europe/Berlin").exists():
        unavailable("tzdata is not installed")
    (expected,) = by_systemd([text])
    assert expected is not None
    assert parse(text, time.time()) == expected


def test_utc_is_accepted_in_lower_case_as_by_older_systemd() -> None:
    """systemd 252 accepts it, 262 does not."""
    assert parse("2026-11-27 11:55 utc", NOW) == parse("2026-11-27 11:55 UTC", NOW) is not None


@pytest.mark.parametrize(
    "text",
    ["now", "2h ago", "-30min", "+3h", "5min 3s ago", "1.5h ago", "3h left", "- 1h", "-1month", "90 ago", "5us ago"],
)
def test_time_spans_are_read_as_by_systemd(text: str) -> None:
    before = time.time()
    (expected,) = by_systemd([text])
    after = time.time()
    early, late = parse(text, before), parse(text, after)
    assert expected is not None
    assert early is not None
    assert late is not None
    assert early - 1 <= expected <= late + 1


@pytest.mark.parametrize(
    "text", ["Thu 2026-11-27 11:55:54", "2026-11-27 24:00", "@1.5 UTC", "now UTC", "friday", "1h", "TODAY"]
)
def test_what_systemd_refuses_is_refused(text: str) -> None:
    assert by_systemd([text]) == [None]
    assert parse(text, time.time()) is None


@pytest.mark.parametrize("zone", FIXED_ZONES + NAMED_ZONES)
def test_a_shown_time_can_be_parsed(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    set_zone(monkeypatch, zone)
    for year in YEARS:
        for change in [*changes(year), int(NOW)]:
            for seconds in (change - 2 * HOUR, change - HOUR, change - 1, change, change + HOUR):
                usec = seconds * SECOND
                assert parse(shown(usec), NOW) == usec, shown(usec)
                assert parse(str(iso(usec + 123_456)), NOW) == usec + 123_456


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-31T12:00:00+02:00", NOW),
        ("2026-05-31 12:00:00 +0200", NOW),
        ("2026-05-31 12:00 +02", NOW),
        ("2026-05-31T06:30:00-03:30", NOW),
        ("2026-05-31T10:00:00.000Z", NOW),
        ("Sun 2026-05-31 12:00 CEST", NOW),
        # 252 refuses these three, though systemd.time(7) has them.
        ("2026-05-31 06:00 America/New_York", NOW),
        ("2026-05-31 15:45:00 Asia/Kathmandu", NOW),
        ("2026-01-31 12:00 CET", NOW - 120 * 86400 + 3600),
    ],
)
def test_offsets(text: str, seconds: float) -> None:
    assert parse(text, NOW) == int(seconds * SECOND)


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
