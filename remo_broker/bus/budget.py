"""How much one caller may be told: what is beyond it is refused in a few bytes.

A call of GetManagedObjects is small, its answer with a thousand projects is 400 KB, and dbus-broker queues tens of
thousands of calls of one caller before those of the next: for minutes nobody else would get an answer.
"""

from __future__ import annotations

# Bytes of answers a caller gets per second, and at once: small ones as fast as they can be asked for, the largest with a
# thousand projects twice a second. An answer may overdraw it, so that no answer is too large to be given.
BYTES_PER_SECOND = 1024 * 1024
BYTES_AT_ONCE = 1024 * 1024
# What any answer costs.
OVERHEAD = 200
# So much of an answer's body costs nothing more: a refusal would be of the same order, and `busctl tree` asks each of a
# thousand projects for its introspection data, which has some 2 KB.
SMALL = 4 * 1024
# Callers remembered. A bus has at most a few thousand connections at a time.
MAX_CALLERS = 4096


class Budget:
    """By the unique name of the caller. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        """When a caller will have its whole budget again; who is not in here has it."""

    def allows(self, caller: str, now: float) -> bool:
        """Whether the caller may have another answer."""
        return self._full_at.get(caller, now) - now < BYTES_AT_ONCE / BYTES_PER_SECOND

    def spend(self, caller: str, size: int, now: float) -> None:
        """The caller got an answer with a body of `size` bytes."""
        if len(self._full_at) >= MAX_CALLERS:
            self._full_at = {name: then for name, then in self._full_at.items() if then > now}
            if len(self._full_at) >= MAX_CALLERS:
                self._full_at.clear()
        cost = OVERHEAD + max(0, size - SMALL)
        self._full_at[caller] = max(self._full_at.get(caller, now), now) + cost / BYTES_PER_SECOND
