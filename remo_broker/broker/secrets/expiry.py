"""When secrets expire: the times that a push gives, and the clocks that decide.

Expiry times are wall-clock times, because that is the clock of the process that pushed. Setting
that clock back would delay an expiry, so each time is also kept as a time of the boot clock, which
cannot be set and which goes on while the machine is suspended. A secret expires at whichever of the
two comes first.
"""

from __future__ import annotations

import re

from remo_broker.protocol.clock import boot_usec, now_usec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 3339, with the `T` and the zone that it requires.
_time = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-](?:[01]\d|2[0-3]):[0-5]\d))",
    re.ASCII,
).fullmatch


def parse_time(text: str) -> int | None:
    """Microseconds since 1970 for an RFC 3339 time; None for anything else."""
    found = _time(text)
    if found is None:
        return None
    from datetime import datetime  # a millisecond, and most pushes have no times

    date, clock, fraction, _, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone or '+00:00'}")
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * 1_000_000 + int((fraction or ".0")[1:].ljust(6, "0")[:6])


class Expiry:
    """When one secret expires, in microseconds of the two clocks."""

    __slots__ = ("boot_usec", "wall_usec")

    def __init__(self, wall_usec: int, boot_usec: int) -> None:
        self.wall_usec = wall_usec
        self.boot_usec = boot_usec


class Clocks:
    """The two clocks, read together."""

    def __init__(self, wall: Callable[[], int] = now_usec, boot: Callable[[], int] = boot_usec) -> None:
        self._wall = wall
        self._boot = boot

    def expiry(self, at_usec: int) -> Expiry | None:
        """The expiry at a wall-clock time; None if it is past."""
        left = at_usec - self._wall()
        return Expiry(at_usec, self._boot() + left) if left > 0 else None

    def usec_left(self, expiry: Expiry) -> int:
        """Microseconds until the first of its two times; 0 or less if it is past."""
        return min(expiry.wall_usec - self._wall(), expiry.boot_usec - self._boot())
