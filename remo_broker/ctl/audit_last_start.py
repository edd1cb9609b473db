"""The broker's last start, as its state names it."""

from __future__ import annotations

import os

from remo_broker.cli.input_files import read_in_place
from remo_broker.ctl.journals import unit_namespace
from remo_broker.protocol import paths
from remo_broker.protocol.audit_records import JOURNAL, named_start, place

# More than an id and a namespace, which is part of a file name.
MAX_SIZE = 512


def last_start() -> tuple[str, int] | None:
    """The id of the last start, and a serial of its records that were waiting for journald when it
    ended, or 0. None if it is unknown, as to all but root, or if its records are not in the unit's
    namespace."""
    content = read_in_place(os.path.join(paths.STATE_DIR, paths.LAST_START_FILE), MAX_SIZE)
    if content is None or not content.isascii():
        return None
    return named_start(content.decode("ascii"), place(JOURNAL, unit_namespace()))
