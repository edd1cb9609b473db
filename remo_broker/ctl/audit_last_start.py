"""The broker's last start, as its state names it."""

from __future__ import annotations

import os
import stat

from remo_broker.ctl.journals import unit_namespace
from remo_broker.protocol import paths
from remo_broker.protocol.audit_records import JOURNAL, named_start, place

# More than an id and a namespace, which is part of a file name.
MAX_SIZE = 512


def last_start() -> str | None:
    """The id of the last start; None if it is unknown, as to all but root, or if its records are
    not in the unit's namespace."""
    # The broker can put a link there, or a FIFO.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.join(paths.STATE_DIR, paths.LAST_START_FILE), flags)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            text = file.read(MAX_SIZE).decode("ascii")
    except (OSError, ValueError):
        return None
    return named_start(text, place(JOURNAL, unit_namespace()))
