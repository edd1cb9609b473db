"""The clocks. Times in messages and records are microseconds since 1970; durations use the
monotonic clock."""

from __future__ import annotations

import time
from time import monotonic

__all__ = ["monotonic", "now_usec", "timestamp"]


def now_usec() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def timestamp(usec: int) -> str:
    """A time in microseconds since 1970 as RFC 3339, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(usec // 1_000_000))
