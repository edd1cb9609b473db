"""`remo-brokerctl audit`: who was given what, and who was refused."""

from __future__ import annotations

import sys
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from remo_broker.cli.options import Arguments, Option, Usage
from remo_broker.cli.terminal import Colour, Output
from remo_broker.cli.times import FORMS, iso, parse, shown_short
from remo_broker.ctl.audit_journal import Query, Record, follow, read
from remo_broker.ctl.commands import (
    ALL_EVENTS,
    DEFAULT_FOLLOW_LINES,
    DENIED,
    DIRECTORY,
    FOLLOW,
    LINES,
    MOST_LINES,
    PROJECT_OPTION,
    SECRET_OPTION,
    SINCE,
    SUMMARY,
    UNTIL,
)
from remo_broker.ctl.session import checked_project, open_output, user, user_name
from remo_broker.protocol.names import counted
from remo_broker.protocol.records import Decision, Event, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER = ("TIME", "PROJECT", "SECRET", "DECISION", "REASON", "PEER")
# The columns are as wide as these many first rows need; a follower's are as wide as common names.
MEASURED_ROWS = 1000
COMMON_WIDTHS = (19, 16, 24, 8, 16, 4)


def audit(arguments: Arguments) -> None:
    output = open_output(arguments)
    following, summing = arguments.flag(FOLLOW), arguments.flag(SUMMARY)
    if following and (summing or arguments.flag(UNTIL)):
        raise Usage("--follow goes with neither --summary nor --until")
    if summing and arguments.flag(ALL_EVENTS):
        raise Usage("--summary counts what was given and refused; leave --all out")
    lines = arguments.number(LINES, 0, MOST_LINES)
    since, until = moment(arguments, SINCE), moment(arguments, UNTIL)
    if since is not None and until is not None and since > until:
        raise Usage("--since is later than --until")
    if following and since is None and lines is None:
        lines = DEFAULT_FOLLOW_LINES
    project = arguments.value(PROJECT_OPTION)
    query = Query(
        project=None if project is None else checked_project(project),
        secret=arguments.value(SECRET_OPTION),
        denied=arguments.flag(DENIED),
        all_events=arguments.flag(ALL_EVENTS),
        since=since,
        until=until,
        lines=lines,
        directory=arguments.value(DIRECTORY),
    )
    if following:
        show(output, follow(query), live=True)
        return
    records = read(query)
    with output.paged():
        if summing:
            show_summary(output, records)
        else:
            show(output, records, live=False)


def moment(arguments: Arguments, option: Option) -> int | None:
    text = arguments.value(option)
    if text is None:
        return None
    found = parse(text, time.time())
    if found is None:
        raise Usage(f"{option.name}: no time that is understood, from 1970 to 9998; write {FORMS}")
    return found


# --- one line a record -----------------------------------------------------------------------------------------------


def show(output: Output, records: Iterator[Record], *, live: bool) -> None:
    if output.json != "off":
        for record in records:
            output.show_json(fields(record))
            if live:
                sys.stdout.flush()
        return
    head: list[Record] = [] if live else list(islice(records, MEASURED_ROWS))
    rows = [cells(record) for record in head]
    widths = COMMON_WIDTHS if live else tuple(max(map(len, column)) for column in zip(HEADER, *rows, strict=True))
    if output.legend:
        output.line(output.paint(aligned(HEADER, widths), Colour.UNDERLINE))
    for record, row in chain(zip(head, rows, strict=True), ((record, cells(record)) for record in records)):
        output.line(output.paint(aligned(row, widths).rstrip(), colour(record)))
        if live:
            sys.stdout.flush()


def aligned(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))


def cells(record: Record) -> tuple[str, ...]:
    """One row. An event that is no fetch stands where a decision does, with what there is to say of it as the reason."""
    return (
        shown_short(record.usec),
        record.text("REMO_PROJECT") or "-",
        record.text("REMO_SECRET") or "-",
        record.text("REMO_DECISION") or record.event,
        record.text("REMO_REASON") or ", ".join(details(record)) or "-",
        peer(record),
    )


def details(record: Record) -> Iterator[str]:
    for field, word in (
        ("REMO_COUNT", "requests"),
        ("REMO_SECRET_COUNT", "secrets"),
        ("REMO_ALLOWLIST_SIZE", "names"),
        ("REMO_DROPPED", "records lost"),
    ):
        number = record.number(field)
        if number is not None:
            yield f"{word}: {number}"


def peer(record: Record) -> str:
    pid, uid = record.number("REMO_PEER_PID"), record.number("REMO_PEER_UID")
    return "-" if pid is None or uid is None else f"pid {pid}, uid {user(uid)}"


def colour(record: Record) -> Colour | None:
    if record.text("REMO_DECISION") == Decision.DENY or record.event in (
        Event.PEER_REFUSED.word,
        Event.RATE_LIMITED.word,
        Event.MANIFEST_INVALID.word,
        Event.DEGRADED.word,
    ):
        return Colour.RED
    return Colour.YELLOW if record.text("REMO_OUTCOME") == Outcome.NOT_FOUND else None


def fields(record: Record) -> dict[str, Any]:
    """A record for programs: every field that it has, under the name of the journal's without the prefix.

    Beside them the user's name, as it is here now.
    """
    found: dict[str, Any] = {"time": iso(record.usec), "event": record.event}
    for name in ("project", "secret", "decision", "outcome", "reason", "backend"):
        value = record.text(f"REMO_{name.upper()}")
        if value is not None:
            found[name] = value
    for name in (
        *("generation", "latency_usec", "count", "secret_count", "allowlist_size", "dropped"),
        *("peer_pid", "peer_uid", "peer_gid"),
    ):
        number = record.number(f"REMO_{name.upper()}")
        if number is not None:
            found[name] = number
    known = user_name(found["peer_uid"]) if "peer_uid" in found else None
    if known is not None:
        found["peer_user"] = known
    return found


# --- counts ----------------------------------------------------------------------------------------------------------


# What decides where a record is counted, and how.
KEY_FIELDS = ("REMO_PROJECT", "REMO_SECRET", "REMO_EVENT", "REMO_DECISION", "REMO_OUTCOME", "REMO_COUNT")


class Group:
    """Records that differ in nothing but time and peer."""

    __slots__ = ("count", "first", "last", "sample")

    def __init__(self, sample: Record) -> None:
        self.sample = sample
        self.count = 0
        self.first = self.last = sample.usec


def group(records: Iterable[Record]) -> Iterable[Group]:
    """A million records are looked at here, so each only as much as it takes to tell it from the others."""
    groups: dict[tuple[str | list[str] | None, ...], Group] = {}
    for record in records:
        key = tuple(map(record.data.get, KEY_FIELDS))
        try:
            one = groups.get(key)
        except TypeError:  # a field that stands twice, which no broker writes
            key = tuple(record.text(field) for field in KEY_FIELDS)
            one = groups.get(key)
        if one is None:
            one = groups[key] = Group(record)
        one.count += 1
        if record.usec < one.first:
            one.first = record.usec
        elif record.usec > one.last:
            one.last = record.usec
    return groups.values()


class Count:
    """What became of one secret's fetches by one project; refusals without a secret are counted under none."""

    __slots__ = ("allowed", "denied", "first", "last", "missing", "project", "secret")

    def __init__(self, project: str | None, secret: str | None) -> None:
        self.project = project
        self.secret = secret
        self.allowed = self.denied = self.missing = 0
        self.first = self.last = 0

    def add(self, group: Group) -> None:
        sample, number = group.sample, group.count
        if sample.event == Event.RATE_LIMITED.word:
            self.denied += number * (sample.number("REMO_COUNT") or 1)
        elif sample.event == Event.PEER_REFUSED.word or sample.text("REMO_DECISION") == Decision.DENY:
            self.denied += number
        elif sample.text("REMO_OUTCOME") == Outcome.NOT_FOUND:
            self.missing += number
        elif sample.event == Event.FETCH.word:
            self.allowed += number
        self.first = min(self.first or group.first, group.first)
        self.last = max(self.last, group.last)


def summarise(records: Iterable[Record]) -> list[Count]:
    """By project and secret; those with denials first, the most denied on top."""
    counts: dict[tuple[str | None, str | None], Count] = {}
    for one in group(records):
        key = one.sample.text("REMO_PROJECT"), one.sample.text("REMO_SECRET")
        count = counts.get(key)
        if count is None:
            count = counts[key] = Count(*key)
        count.add(one)
    return sorted(counts.values(), key=lambda one: (-one.denied, one.project or "", one.secret or ""))


def show_summary(output: Output, records: Iterable[Record]) -> None:
    counts = summarise(records)
    if output.json != "off":
        output.show_json(
            [
                {
                    "project": one.project,
                    "secret": one.secret,
                    "denied": one.denied,
                    "allowed": one.allowed,
                    "not_found": one.missing,
                    "first": iso(one.first),
                    "last": iso(one.last),
                }
                for one in counts
            ]
        )
        return
    output.table(
        ["PROJECT", "SECRET", "DENIED", "ALLOWED", "NOT FOUND", "FIRST", "LAST"],
        [
            [
                *(one.project or "-", one.secret or "-"),
                *(str(one.denied), str(one.allowed), str(one.missing)),
                *(shown_short(one.first), shown_short(one.last)),
            ]
            for one in counts
        ],
        f"{counted(len(counts), 'secret')} listed.",
    )
