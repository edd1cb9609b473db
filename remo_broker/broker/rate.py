"""A token bucket: a rate in requests per second, plus a burst. Times are seconds of a clock that
the caller reads."""

from __future__ import annotations

import math


class Bucket:
    """If `per_second` or `burst` is 0, there is no limit."""

    __slots__ = ("_at", "_tokens", "burst", "per_second")

    def __init__(self, per_second: int, burst: int) -> None:
        self.per_second = per_second if burst else 0
        self.burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        if not self.per_second:
            return True
        tokens = min(float(self.burst), self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if tokens < 1:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1
        return True

    def retry_after_seconds(self) -> int:
        """Whole seconds until a request can succeed again."""
        return max(1, math.ceil((1 - self._tokens) / self.per_second)) if self.per_second else 0
