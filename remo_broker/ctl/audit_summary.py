"""Counts of the review, by project and secret, or by one of who, secret, project and day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.cli.times import USEC, iso, shown_short
from remo_broker.ctl.audit_requester import WHO_FIELDS, is_local, who, who_key
from remo_broker.protocol.audit_records import Decision, Event, Outcome
from remo_broker.protocol.names import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from remo_broker.cli.terminal import Output
    from remo_broker.ctl.audit_reader import Record

    Key = tuple[str | None, ...]

# The fields that decide where and how a record is counted.
KEY_FIELDS = (
    *WHO_FIELDS,
    *("REMO_PROJECT", "REMO_UNIT", "REMO_SECRET", "REMO_EVENT", "REMO_DECISION", "REMO_OUTCOME"),
    *("REMO_REASON", "REMO_COUNT"),
)
# Events that are refusals, whatever their other fields.
REFUSALS = frozenset({Event.RATE_LIMITED.word, Event.DENIALS_COUNTED.word, Event.PEER_REFUSED.word})
# Some zones are offset from others by a quarter of an hour.
QUARTER_USEC = 900 * USEC
ALLOWED, DENIED, MISSING = "allowed", "denied", "missing"
MOST_REMEMBERED = 100_000


class Group:
    """Records that differ only in time and process."""

    __slots__ = ("count", "first", "kind", "last", "quarters", "sample", "weight", "who")

    def __init__(self, sample: Record) -> None:
        self.sample = sample
        self.kind = _kind(sample)
        """The counter of `Count` that they belong to; None for events that are not counted."""
        self.weight = sample.number("REMO_COUNT") or 1
        """How many requests each of them stands for."""
        self.who = asked(sample)
        self.count = 0
        self.first = self.last = sample.usec
        self.quarters: dict[int, int] = {}
        """Number of records in each quarter of an hour since 1970, if requested."""


def _kind(record: Record) -> str | None:
    event = record.event
    if record.text("REMO_OUTCOME") == Outcome.NOT_FOUND:
        return MISSING
    if event in REFUSALS or record.text("REMO_DECISION") == Decision.DENY:
        return DENIED
    return ALLOWED if event == Event.FETCH.word else None


def group(records: Iterable[Record], *, by_time: bool = False) -> Iterable[Group]:
    """Group the records, which may come in any order.

    A million records may pass through here, so each is read only as far as needed to tell it from
    the others, and none but the first of each group is kept.
    """
    groups: dict[tuple[object, ...], Group] = {}
    for record in records:
        key: tuple[object, ...] = who_key(record.data.get, KEY_FIELDS)
        try:
            one = groups.get(key)
        except TypeError:  # a duplicate field, which no broker writes
            key = who_key(record.text, KEY_FIELDS)
            one = groups.get(key)
        if one is None:
            one = groups[key] = Group(record)
        usec = record.usec
        one.count += 1
        if by_time:
            quarter = usec // QUARTER_USEC
            one.quarters[quarter] = one.quarters.get(quarter, 0) + 1
        if usec < one.first:
            one.first = usec
        elif usec > one.last:
            one.last = usec
    return groups.values()


class Count:
    """Outcomes of the fetches under one key; refusals without a secret count under none."""

    __slots__ = ("allowed", "denied", "first", "key", "last", "missing", "who")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.allowed = self.denied = self.missing = 0
        self.first = self.last = 0
        self.who: dict[str, int] = {}

    def add(self, group: Group, number: int, first: int, last: int) -> None:
        number *= group.weight
        if group.kind == ALLOWED:
            self.allowed += number
        elif group.kind == DENIED:
            self.denied += number
        elif group.kind == MISSING:
            self.missing += number
        if not self.first or first < self.first:
            self.first = first
        self.last = max(self.last, last)
        self.who[group.who] = self.who.get(group.who, 0) + number

    def most(self) -> str:
        """The most frequent requester and how many others: `npm in container web and 2 more`."""
        name = max(self.who, key=lambda one: (self.who[one], one))
        more = len(self.who) - 1
        return f"{name} and {more} more" if more else name


_asked: dict[tuple[object, ...], str] = {}


def asked(record: Record) -> str:
    """`who`, and the host if it is another one; computed once for all similar records.

    A duplicate field is a list; such records are too few to cache.
    """
    key = who_key(record.data.get)
    try:
        found = _asked.get(key)
    except TypeError:
        return _asked_on_host(record)
    if found is None:
        if len(_asked) >= MOST_REMEMBERED:
            _asked.clear()
        found = _asked[key] = _asked_on_host(record)
    return found


def _asked_on_host(record: Record) -> str:
    return who(record) if is_local(record) else f"{who(record)} on {record.text('_HOSTNAME') or '-'}"


KEYS: dict[str, tuple[list[str], Callable[[Group], Key]]] = {
    "": (["PROJECT", "SECRET"], lambda one: (one.sample.project, one.sample.text("REMO_SECRET"))),
    "who": (["WHO"], lambda one: (one.who,)),
    "secret": (["SECRET"], lambda one: (one.sample.text("REMO_SECRET"),)),
    "project": (["PROJECT"], lambda one: (one.sample.project,)),
    "day": (["DAY"], lambda _: ("",)),
}
NOUNS = {"": "secret", "who": "program", "secret": "secret", "project": "project", "day": "day"}


def summarise(records: Iterable[Record], by: str = "") -> list[Count]:
    """Those with denials first, most denied on top; days in order."""
    key_of = KEYS[by][1]
    counts: dict[Key, Count] = {}
    if by == "day":
        return _by_day(records)
    for one in group(records):
        key = key_of(one)
        count = counts.get(key)
        if count is None:
            count = counts[key] = Count(key)
        count.add(one, one.count, one.first, one.last)
    return sorted(counts.values(), key=lambda one: (-one.denied, *(part or "" for part in one.key)))


def _by_day(records: Iterable[Record]) -> list[Count]:
    counts: dict[str, Count] = {}
    for one in group(records, by_time=True):
        for quarter, number in one.quarters.items():
            begin = max(one.first, quarter * QUARTER_USEC)
            end = min(one.last, (quarter + 1) * QUARTER_USEC - 1)
            day = shown_short(begin)[:10]
            count = counts.get(day)
            if count is None:
                count = counts[day] = Count((day,))
            count.add(one, number, begin, end)
    return [counts[day] for day in sorted(counts)]


def show_summary(output: Output, records: Iterable[Record], by: str = "") -> int:
    """Print the counts. Return the number of rows."""
    counts = summarise(records, by)
    names = KEYS[by][0]
    if output.json != "off":
        output.show_json([_json(one, names, by) for one in counts])
        return len(counts)
    shows_who = by != "who"
    output.table(
        [*names, "DENIED", "ALLOWED", "NOT FOUND", "FIRST", "LAST", *(["WHO"] if shows_who else [])],
        [
            [
                *(part or "-" for part in one.key),
                *(str(one.denied), str(one.allowed), str(one.missing)),
                *(shown_short(one.first), shown_short(one.last)),
                *([one.most()] if shows_who else []),
            ]
            for one in counts
        ],
        f"{counted(len(counts), NOUNS[by])} listed.",
    )
    return len(counts)


def _json(one: Count, names: list[str], by: str) -> dict[str, object]:
    keys = {name.lower(): part for name, part in zip(names, one.key, strict=True)}
    counts: dict[str, object] = {
        "denied": one.denied,
        "allowed": one.allowed,
        "not_found": one.missing,
        "first": iso(one.first),
        "last": iso(one.last),
    }
    return keys | counts | ({} if by == "who" else {"who": one.who})
