"""The broker's audit records, read back from the journal.

Matches inside the journal narrow the search, so a million entries of other units cost nothing.
Records are matched by the broker's user and by the group of its process, which nothing else is in.
journald sets these fields from what the kernel reports, so an entry that another process wrote does
not match, whatever its fields, even if it runs as the broker's user. Matching the unit would not be
enough: journald looks it up when it reads an entry, and omits it from the last entries of a broker
that was killed before then. Journals of other hosts are nevertheless matched by the unit, because
user and group have other numbers there.
"""

from __future__ import annotations

import grp
import heapq
import pwd
import re
import select
from itertools import islice
from typing import TYPE_CHECKING, Any

from remo_broker.cli.program import Problem
from remo_broker.cli.times import is_time
from remo_broker.ctl.journals import GROUP, open_journals
from remo_broker.ctl.units import SERVICE
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Decision, Event
from remo_broker.protocol.names import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from cysystemd.reader import JournalEntry, JournalReader, Rule

USER = "remo-broker"

# Shown without --all: what was handed out or refused.
ACCESS_EVENTS = (Event.FETCH, Event.RATE_LIMITED, Event.DENIALS_COUNTED, Event.PEER_REFUSED)
# How often a follower polls. This matters where the journal's file system has no inotify.
FOLLOW_SECONDS = 2.0
# Later than any entry.
END_OF_TIME = 2**62
# Longest part of a field that is shown; the broker writes no longer ones.
LONGEST_FIELD = 1000
# Digits of a 64-bit number.
LONGEST_NUMBER = 20

is_machine_id = re.compile(r"[0-9a-f]{32}").fullmatch


class Query:
    """What to look for. Times are microseconds since 1970, by the journal's clock."""

    def __init__(
        self,
        *,
        project: str | None = None,
        unit: str | None = None,
        secret: str | None = None,
        denied: bool = False,
        all_events: bool = False,
        since: int | None = None,
        until: int | None = None,
        lines: int | None = None,
        directory: str | None = None,
        namespace: str | None = None,
    ) -> None:
        self.project = project
        self.unit = unit
        self.secret = secret
        self.denied = denied
        self.all_events = all_events
        self.since = since
        self.until = until
        self.lines = lines
        self.directory = directory
        self.namespace = namespace

    def terms(self) -> list[list[tuple[str, str]]]:
        """The matches: every group must hold, through any one of its fields."""
        groups = self.writer()
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
        if self.unit is not None:
            groups.append([("REMO_UNIT", self.unit)])
        if self.secret is not None:
            groups.append([("REMO_SECRET", self.secret)])
        return groups

    def writer(self) -> list[list[tuple[str, str]]]:
        """The matches for what the broker wrote."""
        if self.directory is not None:
            return [[("_SYSTEMD_UNIT", SERVICE)]]
        uid, gid = broker_ids()
        return [[("_UID", str(uid))], [("_GID", str(gid))]]

    def holds(self, usec: int) -> bool:
        """Whether the span covers that time.

        Later entries may have earlier times, because a clock can be set back.
        """
        return (self.since is None or usec >= self.since) and (self.until is None or usec <= self.until)


class Record:
    """One entry. Text is printable ASCII whatever the journal holds; a missing field is None."""

    __slots__ = ("data", "taken", "usec")

    def __init__(self, entry: JournalEntry) -> None:
        self.data: dict[str, Any] = entry.data
        """The fields as they are in the journal, as text or bytes: for comparing records, not for
        display."""
        self.taken: int = entry.get_realtime_usec()
        """When journald received it. A record that waited for journald also has its own time."""
        own = self.number(audit_records.EVENT_TIME_FIELD) if audit_records.EVENT_TIME_FIELD in self.data else None
        self.usec: int = self.taken if own is None or not is_time(own) else own

    def text(self, field: str) -> str | None:
        found: Any = self.data.get(field)
        if isinstance(found, list):
            found = found[0]
        value: str | None = found.decode(errors="replace") if isinstance(found, bytes) else found
        if value is None or (value.isascii() and value.isprintable() and len(value) <= LONGEST_FIELD):
            return value
        return printable(value, LONGEST_FIELD)

    def number(self, field: str) -> int | None:
        value = self.data.get(field)
        if isinstance(value, (str, bytes)) and value.isascii() and value.isdigit() and len(value) <= LONGEST_NUMBER:
            return int(value)
        return None

    @property
    def project(self) -> str | None:
        """The project, or the systemd unit that loaded a credential."""
        return self.text("REMO_PROJECT") or self.text("REMO_UNIT")

    @property
    def event(self) -> str:
        return self.text("REMO_EVENT") or "-"


def broker_ids() -> tuple[int, int]:
    """The user of the broker's process, and the group. Raises `Problem`."""
    try:
        return pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid
    except KeyError:
        raise Problem(
            f"there is no user {USER} on this host, so no broker has recorded anything here",
            hint="read another host's journal with --directory",
        ) from None


def read(query: Query) -> Iterator[Record]:
    """The records in journal order; those of several journals, by the time journald got them."""
    return of_hosts(_merged(_open(query), query), query)


def of_hosts(found: Iterator[Record], query: Query) -> Iterator[Record]:
    """Without gathered entries that name no machine: journald names its own in each, and here they
    would pass for this host's."""
    if query.directory is None:
        return found
    return (record for record in found if is_machine_id(record.text("_MACHINE_ID") or ""))


def follow(query: Query) -> Iterator[Record]:
    """The last `query.lines` records, then each new one as it arrives. Never ends."""
    readers = _open(query)
    yield from of_hosts(_merged(readers, query), query)
    poll = select.poll()
    for reader in readers:
        poll.register(reader.fd, reader.events)
    while True:
        poll.poll(FOLLOW_SECONDS * 1000)
        for reader in readers:
            reader.process_events()
            yield from of_hosts(map(Record, reader), query)


def any_record(query: Query) -> bool:
    """Whether any record matches."""
    return next(_merged(_open(query), query), None) is not None


def open_readers(query: Query) -> list[JournalReader]:
    """Readers of all journals of the query, without its matches."""
    return open_journals(query.directory, query.namespace)


def earliest(readers: list[JournalReader], terms: list[list[tuple[str, str]]]) -> Record | None:
    """The first record that matches, found through the journal's index."""
    found = []
    for reader in readers:
        reader.clear_filter()
        reader.add_filter(_rule(terms))
        reader.seek_head()
        entry = reader.next()
        if entry is not None:
            found.append(Record(entry))
    return min(found, key=lambda record: record.taken, default=None)


def _open(query: Query) -> list[JournalReader]:
    readers = open_readers(query)
    terms = query.terms()
    for reader in readers:
        reader.add_filter(_rule(terms))
    return readers


def _rule(groups: list[list[tuple[str, str]]]) -> Rule:
    """The matches as cysystemd chains them: one by one, with `|` binding tighter than `&`."""
    from cysystemd.reader import Rule

    rule = None
    for group in groups:
        for place, (field, value) in enumerate(group):
            term = Rule(field, str(value))  # cysystemd rejects subclasses of str
            if rule is not None:
                term = rule & term if place == 0 else rule | term
            rule = term
    assert rule is not None
    return rule


def _merged(readers: list[JournalReader], query: Query) -> Iterator[Record]:
    if query.lines is not None:
        return iter(_last(readers, query, query.lines))
    each = [_between(reader, query) for reader in readers]
    return each[0] if len(each) == 1 else heapq.merge(*each, key=lambda record: record.taken)


def _between(reader: JournalReader, query: Query) -> Iterator[Record]:
    """The records within the span.

    An entry past the end of the span does not end the search: within a boot the clock may have been
    set back after it. Seeking is nevertheless safe: journald starts a new file when the clock goes
    back, and each file is searched on its own.
    """
    if query.since is not None:
        reader.seek_realtime_usec(query.since)
    else:
        reader.seek_head()
    for entry in reader:
        if query.holds(entry.get_realtime_usec()):
            yield Record(entry)


def _last(readers: list[JournalReader], query: Query, lines: int) -> list[Record]:
    """The last `lines` within the span, in journal order. Leaves the readers at their ends."""
    each = [_backwards(reader, query) for reader in readers]
    if len(each) == 1:
        found = list(islice(each[0], lines))
    else:
        found = list(islice(heapq.merge(*each, key=lambda record: record.taken, reverse=True), lines))
    for reader, records_of_it in zip(readers, each, strict=True):
        records_of_it.close()
        if lines == 0:  # nothing has moved to the end yet
            _to_end(reader)
    return found[::-1]


def _backwards(reader: JournalReader, query: Query) -> Generator[Record, None, None]:
    """Backwards from the last one. The reader is at its end afterwards, however far that went."""
    newest = None
    _to_end(reader, stay=False)
    try:
        while (entry := reader.previous()) is not None:
            newest = newest or entry.cursor
            if query.holds(entry.get_realtime_usec()):
                yield Record(entry)
    finally:
        if newest is None:
            reader.seek_head()
        else:
            reader.seek_cursor(newest)
            reader.next()


def _to_end(reader: JournalReader, *, stay: bool = True) -> None:
    # Not seek_tail(): some versions of cysystemd step back by one there and others do not.
    reader.seek_realtime_usec(END_OF_TIME)
    if stay and reader.previous() is None:
        reader.seek_head()
