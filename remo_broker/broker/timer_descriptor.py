"""timerfd_create(2), which Python has from 3.13 on only."""

from __future__ import annotations

import ctypes
import os

TFD_NONBLOCK, TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Specification(ctypes.Structure):
    """struct itimerspec"""

    _fields_ = (
        ("interval_sec", ctypes.c_long),
        ("interval_nsec", ctypes.c_long),
        ("sec", ctypes.c_long),
        ("nsec", ctypes.c_long),
    )


class TimerDescriptor:
    """A descriptor that is readable from a time of `clock` on."""

    __slots__ = ("descriptor",)

    def __init__(self, clock: int) -> None:
        self.descriptor: int = _libc.timerfd_create(clock, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, nsec: int, *, cancel_on_set: bool = False) -> None:
        """Set the time; 0 for none. `cancel_on_set`: readable as well when the clock is set."""
        specification = _Specification(0, 0, nsec // 1_000_000_000, nsec % 1_000_000_000)
        flags = TFD_TIMER_ABSTIME | (TFD_TIMER_CANCEL_ON_SET if cancel_on_set else 0)
        if _libc.timerfd_settime(self.descriptor, flags, ctypes.byref(specification), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def read(self) -> None:
        """Call this when it is readable, so that it no longer is."""
        try:  # noqa: SIM105 - importing contextlib costs the start a millisecond
            os.read(self.descriptor, 8)
        except OSError:
            pass  # ECANCELED: the clock was set

    def close(self) -> None:
        os.close(self.descriptor)
