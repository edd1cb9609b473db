"""The clocks, which nothing else reads. Times in messages and records are microseconds since 1970.

Durations use the monotonic clock, or the boot clock where they go on while the machine is
suspended.
"""

from __future__ import annotations

import time
from time import monotonic

__all__ = ["boot_seconds", "boot_usec", "monotonic", "now_usec", "timestamp"]


def now_usec() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def boot_usec() -> int:
    """Microseconds since boot, including time suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def boot_seconds() -> float:
    """Seconds since boot, including time suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def timestamp(usec: int) -> str:
    """A time in microseconds since 1970 as RFC 3339, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(usec // 1_000_000))
