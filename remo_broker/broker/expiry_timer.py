"""Wakes the broker when a secret expires on the wall clock or the boot clock, and when the wall
clock is set.

Uses timerfd. The loop's own timers run on the monotonic clock, which stops while the machine is
suspended, and they do not notice when the wall clock is set.
"""

from __future__ import annotations

import ctypes
import os
import time

from remo_broker.broker.loop import READ
from remo_broker.broker.sockets.connection import PEER_SECONDS, SWEEP_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Job, Loop

TFD_NONBLOCK, TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2
# By then, every answer that was half sent when a secret expired has been sent, or its connection
# closed.
HALF_SENT_SECONDS = PEER_SECONDS + 2 * SWEEP_SECONDS


class _Timer(ctypes.Structure):
    """struct itimerspec"""

    _fields_ = (
        ("interval_sec", ctypes.c_long),
        ("interval_nsec", ctypes.c_long),
        ("sec", ctypes.c_long),
        ("nsec", ctypes.c_long),
    )


class ExpiryTimer:
    """Calls `changed` after secrets have expired."""

    def __init__(self, loop: Loop, broker: Decisions, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._broker = broker
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._wall: int | None = None
        self._boot: int | None = None

    def arm(self) -> None:
        """Call this whenever the store has changed."""
        expiry = self._broker.store.next_expiry()
        if expiry is None and self._wall is None:
            return  # most hosts never need the timers
        if self._wall is None or self._boot is None:
            self._wall = self._create(time.CLOCK_REALTIME)
            self._boot = self._create(time.CLOCK_BOOTTIME)
        self._set(self._wall, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, expiry.wall_usec if expiry else 0)
        self._set(self._boot, TFD_TIMER_ABSTIME, expiry.boot_usec if expiry else 0)

    def _create(self, clock: int) -> int:
        descriptor: int = self._libc.timerfd_create(clock, TFD_NONBLOCK | TFD_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

        def ready() -> None:
            try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
                os.read(descriptor, 8)
            except OSError:
                pass  # ECANCELED: the clock was set
            # Only jobs change the store.
            self._loop.start(self._expire())

        self._loop.watch(descriptor, READ, ready)
        return descriptor

    def _set(self, descriptor: int, flags: int, usec: int) -> None:
        """Arm a timer; 0 disarms it."""
        spec = _Timer(0, 0, usec // 1_000_000, usec % 1_000_000 * 1000)
        if self._libc.timerfd_settime(descriptor, flags, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _expire(self) -> Job:
        yield None
        snapshot = self._broker.store.snapshot
        ended = self._broker.expire()
        self.arm()
        if ended:
            self._changed()
            if snapshot is not None and snapshot.stale:
                self._loop.after(HALF_SENT_SECONDS, snapshot.blank_stale)
