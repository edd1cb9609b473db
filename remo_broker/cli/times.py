"""Points in time as systemd.time(7) writes them: for `--since` and `--until`, and for people to read."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

USEC = 1_000_000
# The end of the year 9998: later ones cannot be shown in every time zone.
LATEST_USEC = 253_370_764_799 * USEC
_UNITS = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3,
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
    "month": 2629800, "months": 2629800, "M": 2629800,
    "y": 31557600, "year": 31557600, "years": 31557600,
}  # fmt: skip
_span = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_clock = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?").fullmatch
FORMS = "'2026-05-31 02:30', '02:30', 'today', 'yesterday', '2h ago', '-30min' or '@1780194600'"


def parse(text: str, now: float) -> int | None:
    """Microseconds since 1970 for a time as users write it; None where it is none, or before 1970 or after 9998.

    `now` is seconds since 1970.
    """
    try:
        seconds = _timestamp(text.strip(), now)
        usec = None if seconds is None else int(seconds * USEC)
    except (ValueError, OverflowError, OSError):
        return None
    return usec if usec is not None and 0 <= usec <= LATEST_USEC else None


def _timestamp(text: str, now: float) -> float | None:
    if text.startswith("@"):
        return float(text[1:])
    if text.startswith(("-", "+")):
        span = _seconds(text[1:])
        return None if span is None else now + (span if text[0] == "+" else -span)
    if text.endswith(" ago"):
        span = _seconds(text.removesuffix(" ago"))
        return None if span is None else now - span
    moment = _moment(text, datetime.fromtimestamp(now).astimezone())
    return None if moment is None else moment.timestamp()


def _moment(text: str, now: datetime) -> datetime | None:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    word = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}.get(text)
    if word is not None:
        return word
    clock = _clock(text)
    if clock is not None:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        return midnight.replace(hour=hour, minute=minute, second=second)
    if text.endswith(" UTC"):
        return datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.astimezone()


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
    """Whether it is a time that can be shown; 0 is never."""
    return 0 < usec <= LATEST_USEC


def _at(usec: int) -> datetime:
    return datetime.fromtimestamp(usec / USEC, UTC)


def ago(usec: int, now: float | None = None) -> str:
    """`2h 5min ago`: the two largest parts."""
    seconds = max(0, int((time.time() if now is None else now) - usec / USEC))
    parts = []
    for name, size in (("y", 31557600), ("month", 2629800), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2] or ["0s"]) + " ago"
