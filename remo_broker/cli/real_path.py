"""`os.path.realpath`, for links of other people."""

from __future__ import annotations

import errno
import os


def real_path(path: str) -> str:
    """Before Python 3.13, it calls itself once per link and ends in RecursionError, where the kernel
    gives up after 40 links. Raises OSError."""
    try:
        return os.path.realpath(path)
    except RecursionError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
