"""How much one user may receive: an answer beyond that is refused in a few bytes.

A GetManagedObjects call is small, but its answer with a thousand projects is 400 KB, and dbus-broker
queues tens of thousands of calls of one sender ahead of the next sender's: nobody else would get an
answer for minutes. The budget belongs to a user, not to a connection: opening another connection is free.
"""

from __future__ import annotations

# Bytes of answers that a user may receive per second, and in one burst: small answers as fast as they are requested,
# the largest one (a thousand projects) twice a second. One answer may overdraw it, so that no answer is too large to send.
BYTES_PER_SECOND = 1024 * 1024
BYTES_AT_ONCE = 1024 * 1024
# What any answer costs.
OVERHEAD = 200
# The first bytes of an answer's body are free: a refusal would be about as long, and `busctl tree` requests the
# introspection data of each of a thousand projects, some 2 KB each.
SMALL = 4 * 1024
# Users remembered. When there are more, those that have their whole budget are forgotten first.
MAX_USERS = 4096


class Budget:
    """By the caller's uid. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._full_at: dict[int, float] = {}
        """When a user will have the whole budget again. A user who is missing here has it now."""

    def allows(self, uid: int, now: float) -> bool:
        """Whether the user may receive another answer."""
        return self._full_at.get(uid, now) - now < BYTES_AT_ONCE / BYTES_PER_SECOND

    def spend(self, uid: int, size: int, now: float) -> None:
        """Charge the user for an answer whose body has `size` bytes."""
        if len(self._full_at) >= MAX_USERS:
            self._full_at = {user: then for user, then in self._full_at.items() if then > now}
            if len(self._full_at) >= MAX_USERS:
                self._full_at.clear()
        cost = OVERHEAD + max(0, size - SMALL)
        self._full_at[uid] = max(self._full_at.get(uid, now), now) + cost / BYTES_PER_SECOND
