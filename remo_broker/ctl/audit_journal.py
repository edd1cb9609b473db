"""The broker's audit records, read back from the journal.

Everything is narrowed down by matches inside the journal, so that a million entries of others cost nothing. Records are
bound to the broker's user, which nothing else runs as, by the field that journald sets from what the kernel says: an entry
that somebody else wrote, with whatever fields, does not match. Not by the unit: journald looks that up when it reads an
entry, and leaves it out of the last ones of a broker that was killed before.
"""

from __future__ import annotations

import glob
import os
import pwd
import select
from typing import TYPE_CHECKING

from remo_broker.cli.program import Problem
from remo_broker.cli.times import is_time
from remo_broker.protocol import records
from remo_broker.protocol.names import printable
from remo_broker.protocol.records import Decision, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cysystemd.reader import JournalEntry, JournalReader, Rule

USER = "remo-broker"

# What is shown without --all: what somebody was given or refused.
ACCESS_EVENTS = (Event.FETCH, Event.RATE_LIMITED, Event.PEER_REFUSED)
FILES = ("/var/log/journal/*/system.journal", "/run/log/journal/*/system.journal")
# How often a follower looks of itself, beside being woken: where the journal is on a file system without inotify.
FOLLOW_SECONDS = 2.0
# Later than any entry.
END_OF_TIME = 2**62
# As much of a field as is shown; the broker writes no longer ones.
LONGEST_FIELD = 1000
# Of 64 bits.
LONGEST_NUMBER = 20


class Query:
    """What to look for. Times are microseconds since 1970, by the clock of the journal's entries."""

    def __init__(
        self,
        *,
        project: str | None = None,
        secret: str | None = None,
        denied: bool = False,
        all_events: bool = False,
        since: int | None = None,
        until: int | None = None,
        lines: int | None = None,
        directory: str | None = None,
    ) -> None:
        self.project = project
        self.secret = secret
        self.denied = denied
        self.all_events = all_events
        self.since = since
        self.until = until
        self.lines = lines
        self.directory = directory

    def terms(self) -> list[list[tuple[str, str]]]:
        """The matches: every group must hold, and of each group any field."""
        groups = [[("_UID", str(broker_uid()))]]
        if self.denied:
            groups.append(
                [
                    ("REMO_DECISION", Decision.DENY),
                    ("REMO_EVENT", Event.RATE_LIMITED.word),
                    ("REMO_EVENT", Event.PEER_REFUSED.word),
                    *([("REMO_EVENT", Event.MANIFEST_INVALID.word)] if self.all_events else []),
                ]
            )
        else:
            events = tuple(Event) if self.all_events else ACCESS_EVENTS
            groups.append([("REMO_EVENT", event.word) for event in events])
        if self.project is not None:
            groups.append([("REMO_PROJECT", self.project)])
        if self.secret is not None:
            groups.append([("REMO_SECRET", self.secret)])
        return groups


class Record:
    """One entry. Text is printable ASCII whatever the journal holds; what a record lacks is None."""

    __slots__ = ("data", "usec")

    def __init__(self, entry: JournalEntry) -> None:
        self.data: dict[str, str | list[str]] = entry.data
        """The fields as they are in the journal: to tell records apart by, not to be shown."""
        # A record that waited for journald has its own time.
        own = self.number(records.EVENT_TIME_FIELD)
        self.usec: int = entry.get_realtime_usec() if own is None or not is_time(own) else own

    def text(self, field: str) -> str | None:
        value = self.data.get(field)
        if isinstance(value, list):
            value = value[0]
        if value is None or (value.isascii() and value.isprintable() and len(value) <= LONGEST_FIELD):
            return value
        return printable(value, LONGEST_FIELD)

    def number(self, field: str) -> int | None:
        value = self.data.get(field)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= LONGEST_NUMBER:
            return int(value)
        return None

    @property
    def event(self) -> str:
        return self.text("REMO_EVENT") or "-"


def broker_uid() -> int:
    try:
        return pwd.getpwnam(USER).pw_uid
    except KeyError:
        raise Problem(f"there is no user {USER} here, so no broker of this host has recorded anything") from None


def read(query: Query) -> Iterator[Record]:
    """The records in the order of the journal."""
    return _between(open_journal(query), query)


def follow(query: Query) -> Iterator[Record]:
    """The last `query.lines` records, then each new one as it comes, for ever."""
    reader = open_journal(query)
    yield from _between(reader, query)
    poll = select.poll()
    poll.register(reader.fd, reader.events)
    while True:
        poll.poll(FOLLOW_SECONDS * 1000)
        reader.process_events()
        yield from map(Record, reader)


def open_journal(query: Query) -> JournalReader:
    """A reader with the query's matches. Raises `Problem` where there is no journal to read."""
    try:
        from cysystemd.reader import JournalOpenMode, JournalReader
    except ImportError:
        raise Problem(
            "the Python package cysystemd is missing, which reads the journal; install remo-broker anew"
        ) from None
    reader = JournalReader()
    if query.directory is not None:
        if not os.path.isdir(query.directory):
            raise Problem(f"{query.directory}: no such directory")
        reader.open_directory(query.directory)
    else:
        _require_permission()
        reader.open(JournalOpenMode.SYSTEM)
    reader.add_filter(_rule(query.terms()))
    return reader


def _require_permission() -> None:
    """Without permission the journal looks empty, and an empty audit is the wrong answer."""
    found = [path for pattern in FILES for path in glob.glob(pattern)]
    if any(os.access(path, os.R_OK) for path in found):
        return
    if found or os.geteuid() != 0:
        raise Problem("the journal is not for you; use sudo, or join the group systemd-journal")
    raise Problem("this host has no journal; without one the broker's records are on its standard error")


def _rule(groups: list[list[tuple[str, str]]]) -> Rule:
    """The matches as cysystemd chains them: it takes one after the other, `|` binding tighter than `&`."""
    from cysystemd.reader import Rule

    rule = None
    for group in groups:
        for place, (field, value) in enumerate(group):
            term = Rule(field, str(value))  # cysystemd takes no subclass of str
            if rule is not None:
                term = rule & term if place == 0 else rule | term
            rule = term
    assert rule is not None
    return rule


def _between(reader: JournalReader, query: Query) -> Iterator[Record]:
    if query.lines is not None:
        _seek_last(reader, query.lines, query.until)
    elif query.since is not None:
        reader.seek_realtime_usec(query.since)
    else:
        reader.seek_head()
    for entry in reader:
        taken = entry.get_realtime_usec()
        if query.until is not None and taken > query.until:
            return
        if query.since is None or taken >= query.since:
            yield Record(entry)


def _seek_last(reader: JournalReader, lines: int, until: int | None) -> None:
    """To before the last `lines` entries."""
    # Not seek_tail(), which steps back by one in some versions of cysystemd and not in others.
    reader.seek_realtime_usec(END_OF_TIME if until is None else until + 1)
    if reader.skip_previous(lines + 1) <= lines:
        reader.seek_head()
