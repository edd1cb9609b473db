"""`remo-brokerctl audit --mark-new`: write a notice-priority entry for each first fetch.

This keeps `journalctl -p notice` short. A timer runs it as a separate user that may read the
journal. The broker cannot do it: it forgets what it has seen at each start, and the process that
holds secrets does not read the journal.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from remo_broker.cli.program import Problem
from remo_broker.cli.times import USEC
from remo_broker.ctl.audit_first_fetches import Firsts
from remo_broker.ctl.audit_reader import read
from remo_broker.ctl.audit_requester import who
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Event
from remo_broker.protocol.clock import now_usec

if TYPE_CHECKING:
    from remo_broker.ctl.audit_reader import Query, Record

JOURNAL_SOCKET = "/run/systemd/journal/socket"
# How far back to look if the last run left no mark.
FIRST_RUN_SECONDS = 3600
# Fields that an entry copies from the fetch.
TAKEN_OVER = (
    *("REMO_GENERATION", "REMO_PEER_PID", "REMO_PEER_UID", "REMO_PEER_GID", "REMO_PEER_UNIT", "REMO_PEER_USER_UNIT"),
    *("REMO_PEER_OWNER_UID", "REMO_PEER_CONTAINER", "REMO_PEER_COMM", "REMO_PEER_EXE", "REMO_PEER_PIDFD_INODE"),
)


def mark(query: Query) -> int:
    """Write the entries and return their number.

    If systemd provides a state directory, the next run continues from there.
    """
    state = os.environ.get("STATE_DIRECTORY")
    path = os.path.join(state, "since") if state else None
    if query.since is None:
        query.since = _since(path)
    firsts = Firsts(query)
    count, last = 0, query.since
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        try:
            journal.connect(JOURNAL_SOCKET)
        except OSError as error:
            raise Problem(f"{JOURNAL_SOCKET}: {error.strerror}", hint="this needs a host that runs journald") from None
        for record in read(query):
            last = max(last, record.taken + 1)
            if firsts.is_first(record):
                journal.send(_entry(record))
                count += 1
    if path is not None:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(last))
    return count


def _since(path: str | None) -> int:
    with contextlib.suppress(OSError, ValueError):
        if path is not None:
            with open(path, encoding="ascii") as file:
                return int(file.read())
    return now_usec() - FIRST_RUN_SECONDS * USEC


def _entry(record: Record) -> bytes:
    project, secret = record.project or "-", record.text("REMO_SECRET") or "-"
    text = f"{who(record)} fetched {secret} of project {project} for the first time."
    entry = audit_records.record(Event.FIRST_SEEN, text, project=project, secret=secret)
    for name in TAKEN_OVER:
        value = record.text(name)
        if value is not None:
            entry += audit_records.field(name, value)
    return entry + audit_records.field(audit_records.EVENT_TIME_FIELD, record.usec)
