"""`remo-brokerctl audit --mark-new`: write a notice-priority entry for each first fetch.

This keeps `journalctl -p notice` short. A timer runs it as a separate user that may read the
journal. The broker cannot do it: it forgets what it has seen at each start, and the process that
holds secrets does not read the journal.

Where the last run ended is kept as a time, because the journal is searched by time, and as the last
serial of each start of the broker. The clock can be set back: so each run looks back further than that
time, or an hour if the time is not past any more, and skips the serials that it knows.
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
from remo_broker.protocol.audit_records import SERIAL_FIELD, START_ID_FIELD, Event
from remo_broker.protocol.clock import now_usec

if TYPE_CHECKING:
    from remo_broker.ctl.audit_reader import Query, Record

JOURNAL_SOCKET = "/run/systemd/journal/socket"
# How far back to look if the last run left no mark, or one that is not past any more. The timer runs it
# every quarter of an hour.
FIRST_RUN_SECONDS = 3600
# How far to look back behind that mark: a clock that was set back by less leaves it in the past.
OVERLAP_SECONDS = 300
# Starts of the broker whose last serial is kept. An hour has far fewer.
MOST_STARTS = 100
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
    now = now_usec()
    progress = Progress(os.path.join(state, "since") if state else None)
    if query.since is None:
        query.since = progress.look_from(now)
    firsts = Firsts(query)
    count, last = 0, query.since
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        try:
            journal.connect(JOURNAL_SOCKET)
        except OSError as error:
            raise Problem(f"{JOURNAL_SOCKET}: {error.strerror}", hint="this needs a host that runs journald") from None
        for record in read(query):
            last = max(last, record.taken + 1)
            if progress.is_new(record) and firsts.is_first(record):
                journal.send(_entry(record))
                count += 1
    progress.save(min(last, now))
    return count


class Progress:
    """What the last run had seen, in the file `path`: a time, then a line for each start of the
    broker."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._since: int | None = None
        self._before: dict[str, int] = {}
        """By start: the last serial that the last run had seen."""
        with contextlib.suppress(OSError, ValueError):
            if path is not None:
                with open(path, encoding="ascii") as file:
                    since, *starts = file.read().splitlines()
                self._before = {start: int(serial) for start, _, serial in (one.partition(" ") for one in starts)}
                self._since = int(since)
        self._seen = dict(self._before)

    def look_from(self, now: int) -> int:
        if self._since is None or not 0 <= self._since <= now:
            return now - FIRST_RUN_SECONDS * USEC
        return max(0, self._since - OVERLAP_SECONDS * USEC)

    def is_new(self, record: Record) -> bool:
        """Whether the last run had not seen it."""
        start, serial = record.text(START_ID_FIELD), record.number(SERIAL_FIELD)
        if start is None or serial is None:  # of an earlier version
            return self._since is None or record.taken >= self._since
        seen = self._seen.pop(start, 0)
        self._seen[start] = max(seen, serial)  # the latest start is the last
        return serial > self._before.get(start, 0)

    def save(self, since: int) -> None:
        if self._path is None:
            return
        starts = list(self._seen.items())[-MOST_STARTS:]
        with open(self._path, "w", encoding="ascii") as file:
            file.write("".join([f"{since}\n", *(f"{start} {serial}\n" for start, serial in starts)]))


def _entry(record: Record) -> bytes:
    project, secret = record.project or "-", record.text("REMO_SECRET") or "-"
    text = f"{who(record)} fetched {secret} of project {project} for the first time."
    entry = audit_records.record(Event.FIRST_SEEN, text, project=project, secret=secret)
    for name in TAKEN_OVER:
        value = record.text(name)
        if value is not None:
            entry += audit_records.field(name, value)
    return entry + audit_records.field(audit_records.EVENT_TIME_FIELD, record.usec)
