"""Leases: the visible behaviour of version 1's cache, without a second copy of any value.

The first get of a name starts a lease. Later gets within the lease report the time left and are
audited as served from `cache`. The first get after its end starts a new one. Times are seconds of a
monotonic clock that the caller reads.
"""

from __future__ import annotations


class Leases:
    """The leases of one project: at most `max_entries`; the oldest are dropped first."""

    __slots__ = ("max_entries", "ttl_seconds", "until")

    def __init__(self, ttl_seconds: int, max_entries: int) -> None:
        self.ttl_seconds = ttl_seconds
        self.max_entries = max_entries
        self.until: dict[str, float] = {}
        """Name to the end of its lease, in the order in which they began. The hot path reads it
        directly."""

    def begin(self, name: str, now: float, at_most: float | None = None) -> float:
        """Start a lease and return its length, capped at `at_most`. For a live lease, use `until`
        instead."""
        until = self.until
        until.pop(name, None)
        while len(until) >= self.max_entries:
            del until[next(iter(until))]
        left = self.ttl_seconds if at_most is None else min(self.ttl_seconds, at_most)
        until[name] = now + left
        return left

    def end(self, name: str) -> None:
        """Revoke a lease."""
        self.until.pop(name, None)

    def live(self, now: float) -> int:
        """How many leases are live. Drops those that have ended."""
        ended = [name for name, end in self.until.items() if end <= now]
        for name in ended:
            del self.until[name]
        return len(self.until)

    def resize(self, ttl_seconds: int, max_entries: int) -> None:
        """Set the limits for new leases. Running leases stay, except that the oldest are dropped if
        there are too many."""
        self.ttl_seconds = ttl_seconds
        self.max_entries = max_entries
        while len(self.until) > max_entries:
            del self.until[next(iter(self.until))]

    def clear(self) -> None:
        self.until.clear()
