"""How many bytes of replies one user may receive; beyond that, a call gets a short error.

A GetManagedObjects call is small, but its reply with a thousand projects is 400 KB, and dbus-broker
queues tens of thousands of one sender's calls ahead of the next sender's: other users would wait
minutes for a reply. The budget is per user, not per connection, because opening another connection
is free.
"""

from __future__ import annotations

# Bytes of replies that a user may receive per second, and in one burst: small replies as fast as
# they are requested, the largest (a thousand projects) twice a second. One reply may overdraw the
# budget, so no reply is too large to send.
BYTES_PER_SECOND = 1024 * 1024
BYTES_AT_ONCE = 1024 * 1024
# The cost of any reply.
OVERHEAD = 200
# The first bytes of a reply's body are free: an error would be about as long, and `busctl tree`
# requests the introspection data of each of a thousand projects, about 2 KB each.
SMALL = 4 * 1024
# The most users to remember. Beyond this, users with a full budget are forgotten first.
MAX_USERS = 4096


class Budget:
    """Budgets by the caller's uid. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._full_at: dict[int, float] = {}
        """When a user's budget will be full again. A user who is not listed has a full budget."""

    def allows(self, uid: int, now: float) -> bool:
        """Whether the user may receive another reply."""
        return self._full_at.get(uid, now) - now < BYTES_AT_ONCE / BYTES_PER_SECOND

    def spend(self, uid: int, size: int, now: float) -> None:
        """Charge the user for a reply whose body has `size` bytes."""
        if len(self._full_at) >= MAX_USERS:
            self._full_at = {user: then for user, then in self._full_at.items() if then > now}
            if len(self._full_at) >= MAX_USERS:
                self._full_at.clear()
        cost = OVERHEAD + max(0, size - SMALL)
        self._full_at[uid] = max(self._full_at.get(uid, now), now) + cost / BYTES_PER_SECOND
