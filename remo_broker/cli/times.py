"""Points in time in the syntax of systemd.time(7), for `--since`, `--until` and display.

Local times go through mktime(3), as in systemd, so that both agree about hours that a zone skips or
repeats.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from remo_broker.protocol.clock import now_usec

if TYPE_CHECKING:
    from collections.abc import Iterator

USEC = 1_000_000
# The end of the year 9998: later times cannot be shown in every time zone.
LATEST_USEC = 253_370_764_799 * USEC
ZONES = "/usr/share/zoneinfo"
FORMS = "'2026-05-31 02:30', '02:30', 'today', 'yesterday', '2h ago', '-30min' or '@1780194600'"

_UNITS = {
    "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
    "month": 2629800, "months": 2629800, "M": 2629800,
    "y": 31557600, "year": 31557600, "years": 31557600,
}  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WORDS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_span = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Zµμ]*)\s*")
_CLOCK = r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]?\d)(?::(?P<second>[0-5]?\d|60)(?P<fraction>\.\d+)?)?"
_DATE = r"(?P<year>\d{2}|\d{4})-(?P<month>0?[1-9]|1[0-2])-(?P<day>0?[1-9]|[12]\d|3[01])"
_forms = tuple(
    re.compile(form, re.IGNORECASE).fullmatch
    for form in (
        rf"{_DATE}(?:(?:\s+|T){_CLOCK})?",
        rf"(?P<name>{'|'.join(_MONTHS)})\s+(?P<day>0?[1-9]|[12]\d|3[01])\s+{_CLOCK}",
        _CLOCK,
    )
)
_offset = re.compile(r"(?P<sign>[+-])(?P<hours>[01]\d|2[0-3])(?::?(?P<minutes>[0-5]\d))?").fullmatch
# An offset or Z may directly follow a time of day, as in RFC 3339.
_suffix = re.compile(r"(?P<time>.*\d:\d{1,2}(?:\.\d+)?)(?P<zone>Z|[+-]\d{2}(?::?\d{2})?)", re.IGNORECASE).fullmatch
_zone_name = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*").fullmatch


def parse(text: str, now: float) -> int | None:
    """Microseconds since 1970 for a time as users write it.

    None if it is invalid, before 1970 or after 9998. `now` is seconds since 1970.
    """
    try:
        usec = _timestamp(text.strip(), now)
    except (ValueError, OverflowError, OSError):
        return None
    return usec if usec is not None and 0 <= usec <= LATEST_USEC else None


def _timestamp(text: str, now: float) -> int | None:
    if text == "now":
        return int(now * USEC)
    if text.startswith("@"):
        return _usec(text[1:])
    sign, span = 0, ""
    if text.startswith(("-", "+")):
        sign, span = (1 if text[0] == "+" else -1), text[1:]
    elif text.endswith((" ago", " left")):
        span, _, word = text.rpartition(" ")
        sign = 1 if word == "left" else -1
    if sign:
        seconds = _seconds(span)
        return None if seconds is None else int((now + sign * seconds) * USEC)
    return _with_zone(text, now)


def _usec(number: str) -> int | None:
    """Seconds with a fraction, to the microsecond: a float has too few digits."""
    whole, _, fraction = number.partition(".")
    whole = whole or ("0" if fraction else "")
    if not (whole.isascii() and whole.isdigit() and (fraction or "0").isascii() and (fraction or "0").isdigit()):
        return None
    return int(whole) * USEC + _fraction(fraction)


def _fraction(digits: str) -> int:
    return round(int(digits) * USEC / 10 ** len(digits)) if digits else 0


def _with_zone(text: str, now: float) -> int | None:
    """A date or time, optionally followed by a zone."""
    attached = _suffix(text)
    rest, _, word = (attached["time"], "", attached["zone"]) if attached else text.rpartition(" ")
    rest = rest.rstrip()
    if not rest:
        return _local(text, now)
    if word.upper() in ("UTC", "Z"):
        return _in_zone(rest, now, "UTC0")
    usec = _by_abbreviation(rest, word, now)
    if usec is not None:
        return usec
    offset = _offset(word)
    if offset is not None:
        # POSIX counts zones westwards.
        west = "-" if offset["sign"] == "+" else "+"
        return _in_zone(rest, now, f"<ISO>{west}{offset['hours']}:{offset['minutes'] or '00'}")
    if _zone_name(word) and os.path.isfile(f"{ZONES}/{word}"):
        return _in_zone(rest, now, f":{word}")
    for daylight, name in enumerate(time.tzname):
        # Summer time in winter, and the reverse: systemd accepts both.
        if word.upper() == name.upper():
            return _local(rest, now, daylight)
    return _local(text, now)


def _by_abbreviation(text: str, word: str, now: float) -> int | None:
    """A time with the abbreviation of local time then: it selects one of two repeated hours.

    Not by `time.tzname`, which knows two names, while a zone may have had others.
    """
    near = None
    for daylight in (0, 1):
        usec = _local(text, now, daylight)
        local = None if usec is None else time.localtime(usec // USEC)
        if local is not None and local.tm_zone.upper() == word.upper():
            if local.tm_isdst == daylight:
                return usec
            near = usec  # an hour that the zone skips
    return near if word.isalpha() else None


def _in_zone(text: str, now: float, zone: str) -> int | None:
    with _zone(zone):
        return _local(text, now)


@contextmanager
def _zone(zone: str) -> Iterator[None]:
    """Switch local time to `zone` for the block, as systemd does.

    Safe because these programs have one thread.
    """
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def _local(text: str, now: float, daylight: int = -1) -> int | None:
    """A date, a time or both in local time.

    `daylight` is `tm_isdst`: it selects one of two repeated hours.
    """
    today = time.localtime(now)
    if text in _WORDS:
        return _mktime(today.tm_year, today.tm_mon, today.tm_mday + _WORDS[text], 0, 0, 0, daylight)
    day, _, rest = text.partition(" ")
    weekday = _weekday(day)
    if weekday is not None:
        text = rest.lstrip()
    for form in _forms:
        found = form(text)
        if found is not None:
            break
    else:
        return None
    given = found.groupdict()
    month = _MONTHS.index(given["name"].lower()) + 1 if given.get("name") else int(given.get("month") or today.tm_mon)
    year = _year(given["year"]) if given.get("year") else today.tm_year
    day_of_month = int(given.get("day") or today.tm_mday)
    hour, minute, second = (int(given[name] or 0) for name in ("hour", "minute", "second"))
    usec = _mktime(year, month, day_of_month, hour, minute, second, daylight)
    if usec is None or (weekday is not None and time.localtime(usec // USEC).tm_wday != weekday):
        return None
    return usec + _fraction((given["fraction"] or ".")[1:])


def _weekday(word: str) -> int | None:
    lower = word.lower()
    return next((number for number, day in enumerate(_DAYS) if lower in (day, day[:3])), None)


def _year(digits: str) -> int:
    """Two-digit years as in strptime(3)."""
    year = int(digits)
    return year if len(digits) == 4 else year + (1900 if year >= 69 else 2000)


def _mktime(year: int, month: int, day: int, hour: int, minute: int, second: int, daylight: int) -> int | None:
    # mktime(3) chooses between two repeated hours by the call before it: start as a new process
    # would.
    with _zone("UTC0"):
        time.mktime((1970, 1, 1, 0, 0, 0, 0, 0, 0))
    try:
        return int(time.mktime((year, month, day, hour, minute, second, 0, 0, daylight))) * USEC
    except OverflowError:  # the zone has no such time
        return None


def _seconds(text: str) -> float | None:
    """`1h 30min` in seconds."""
    total, position = 0.0, 0
    while position < len(text):
        found = _span.match(text, position)
        if found is None or found.group(2) not in _UNITS:
            return None
        total += float(found.group(1)) * _UNITS[found.group(2)]
        position = found.end()
    return total if text.strip() else None


def shown(usec: int) -> str:
    """`Sun 2026-05-31 02:30:00 CEST`, or `-` for never (0)."""
    return _at(usec).astimezone().strftime("%a %Y-%m-%d %H:%M:%S %Z") if is_time(usec) else "-"


def shown_short(usec: int) -> str:
    """`2026-05-31 02:30:00` in local time: for tables."""
    return _at(usec).astimezone().strftime("%Y-%m-%d %H:%M:%S") if is_time(usec) else "-"


def iso(usec: int) -> str | None:
    """`2026-05-31T02:30:00.123456Z` for programs; None for never."""
    return _at(usec).isoformat(timespec="microseconds").replace("+00:00", "Z") if is_time(usec) else None


def is_time(usec: int) -> bool:
    """Whether the time can be shown; 0 is never."""
    return 0 < usec <= LATEST_USEC


def _at(usec: int) -> datetime:
    return datetime.fromtimestamp(usec // USEC, UTC) + timedelta(microseconds=usec % USEC)


def ago(usec: int, now: float | None = None) -> str:
    """`2h 5min ago`: the two largest parts."""
    seconds = max(0, (now_usec() if now is None else int(now * USEC)) - usec) // USEC
    parts = []
    for name, size in (("y", 31557600), ("month", 2629800), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2] or ["0s"]) + " ago"
