"""Wakes the broker when a secret expires on the wall clock or the boot clock, and when the wall
clock is set.

Uses timerfd. The loop's own timers run on the monotonic clock, which stops while the machine is
suspended, and they do not notice when the wall clock is set.
"""

from __future__ import annotations

import time

from remo_broker.broker.loop import READ
from remo_broker.broker.sockets.connection import PEER_SECONDS, SWEEP_SECONDS
from remo_broker.broker.timer_descriptor import TimerDescriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Job, Loop

# By then, every answer that was half sent when a secret expired has been sent, or its connection
# closed.
HALF_SENT_SECONDS = PEER_SECONDS + 2 * SWEEP_SECONDS


class ExpiryTimer:
    """Calls `changed` after secrets have expired."""

    def __init__(self, loop: Loop, broker: Decisions, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._broker = broker
        self._changed = changed
        self._wall: TimerDescriptor | None = None
        self._boot: TimerDescriptor | None = None

    def arm(self) -> None:
        """Call this whenever the store has changed."""
        expiry = self._broker.store.next_expiry()
        if expiry is None and self._wall is None:
            return  # most hosts never need the timers
        if self._wall is None or self._boot is None:
            self._wall = self._create(time.CLOCK_REALTIME)
            self._boot = self._create(time.CLOCK_BOOTTIME)
        self._wall.set(expiry.wall_usec * 1000 if expiry else 0, cancel_on_set=True)
        self._boot.set(expiry.boot_usec * 1000 if expiry else 0)

    def _create(self, clock: int) -> TimerDescriptor:
        timer = TimerDescriptor(clock)

        def ready() -> None:
            timer.read()
            # Only jobs change the store.
            self._loop.start(self._expire())

        self._loop.watch(timer.descriptor, READ, ready)
        return timer

    def _expire(self) -> Job:
        yield None
        snapshot = self._broker.store.snapshot
        ended = self._broker.expire()
        self.arm()
        if ended:
            self._changed()
            if snapshot is not None and snapshot.stale:
                self._loop.after(HALF_SENT_SECONDS, snapshot.blank_stale)
