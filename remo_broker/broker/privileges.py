"""Drops the one capability that systemd starts the broker with."""

from __future__ import annotations

import ctypes
import os

# capset(2): _LINUX_CAPABILITY_VERSION_3, whose sets are two words each.
VERSION = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def drop_capabilities() -> None:
    """Drop all capabilities for good. Raises OSError.

    The unit gives the broker one capability, which it does not use. It only keeps the broker's own
    user from tracing the broker from exec on: the kernel lets a process be traced only by one that
    has all of its capabilities. Call this once the kernel refuses tracers for another reason.
    """
    if _libc.capset((ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")
