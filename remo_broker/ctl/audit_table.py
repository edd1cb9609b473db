"""The review as a table: one row per record, 100 columns; long runs of one denial share a row."""

from __future__ import annotations

import os
import sys
from collections import deque
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING

from remo_broker.cli.terminal import Colour, Output
from remo_broker.cli.times import USEC, shown_short
from remo_broker.ctl.audit_requester import who, who_key
from remo_broker.protocol.audit_records import Decision, Event, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from remo_broker.ctl.audit_reader import Record

HEADER = ("TIME", "PROJECT", "SECRET", "OUTCOME", "REASON", "WHO")
# Column widths come from this many first rows; a follower's fit common names.
MEASURED_ROWS = 1000
COMMON_WIDTHS = (19, 12, 20, 9, 15, 15)
WIDTH = 100
# Minimum width of each column when the table is too wide; the widest shrinks first.
LEAST = (19, 8, 14, 9, 11, 28)
HOSTS_LEAST = (8, 19, 8, 12, 9, 10, 22)
ELLIPSIS = "..."
# Appended to the outcome of a first fetch.
NEW = ", new"

# At least this many denials of the same project, program and reason share a row,
COLLAPSED = 10
# if no more than this passes between two of them,
RUN_USEC = 60 * USEC
# and if no more rows than this are held back until a run has ended.
HELD_ROWS = 10_000

_REFUSALS = (
    Event.PEER_REFUSED.word,
    Event.RATE_LIMITED.word,
    Event.DENIALS_COUNTED.word,
    Event.MANIFEST_INVALID.word,
    Event.DEGRADED.word,
)


class Run:
    """Denials of the same kind in sequence; others may come in between."""

    __slots__ = ("count", "first", "last", "rest")

    def __init__(self, record: Record) -> None:
        self.first = self.last = record
        self.count = 1
        self.rest = [record]
        """All of them, while they are few enough for a row each."""

    def add(self, record: Record) -> None:
        self.last = record
        self.count += 1
        if self.count < COLLAPSED:
            self.rest.append(record)


def show(
    output: Output,
    records: Iterator[Record],
    *,
    live: bool,
    full: bool = False,
    hosts: bool = False,
    is_first: Callable[[Record], bool] = lambda _: False,
) -> int:
    """Print the records, marking those that are the first of their kind.

    Return the number of records.
    """
    runs = map(Run, records) if live or full else collapsed(records)
    head: list[Run] = [] if live else list(islice(runs, MEASURED_ROWS))
    prefix = ("HOST",) if hosts else ()
    header = prefix + HEADER

    def rows(some: Iterable[Run]) -> Iterator[tuple[tuple[str, ...], Record]]:
        for run in some:
            for record in run.rest if run.count < COLLAPSED else [run.first]:
                host = (record.text("_HOSTNAME") or "-",) if hosts else ()
                row = cells(record) if run.count < COLLAPSED else run_cells(run)
                if run.count < COLLAPSED and is_first(record):
                    row = (*row[:3], f"{row[3]}{NEW}", *row[4:])
                yield host + row, record

    measured = list(rows(head))
    if live:
        widths = (12,) * hosts + COMMON_WIDTHS
    else:
        widths = tuple(max(map(len, column)) for column in zip(header, *(row for row, _ in measured), strict=True))
    if not full:
        widths = fitted(widths, LEAST if not hosts else HOSTS_LEAST, table_width())
    if output.legend and (live or measured):
        output.line(output.paint(aligned(header, widths, cut=not full), Colour.UNDERLINE))
    count = 0
    for row, record in chain(measured, rows(runs)):
        count += 1
        output.line(output.paint(aligned(row, widths, cut=not full).rstrip(), colour(record)))
        if live:
            sys.stdout.flush()
    if output.legend and not live and not count:
        output.line("-- No entries --")
    return count


def table_width() -> int:
    try:
        return max(WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return WIDTH


def fitted(widths: tuple[int, ...], least: tuple[int, ...], total: int) -> tuple[int, ...]:
    """The widths reduced to fit `total`, widest first, none below its minimum."""
    found = list(widths)
    excess = sum(found) + 2 * (len(found) - 1) - total
    while excess > 0:
        spare = [width - minimum for width, minimum in zip(found, least, strict=True)]
        widest = spare.index(max(spare))
        if spare[widest] <= 0:
            break
        found[widest] -= 1
        excess -= 1
    return tuple(found)


def aligned(row: Iterable[str], widths: tuple[int, ...], *, cut: bool) -> str:
    return "  ".join(
        (shortened(cell, width) if cut else cell).ljust(width) for cell, width in zip(row, widths, strict=True)
    )


def shortened(cell: str, width: int) -> str:
    """Its beginning and its end, because names with a common prefix differ at the end."""
    if len(cell) <= width:
        return cell
    tail = (width - len(ELLIPSIS)) // 3
    return cell[: width - len(ELLIPSIS) - tail] + ELLIPSIS + cell[len(cell) - tail :]


def collapsed(records: Iterable[Record]) -> Iterator[Run]:
    """Runs in the order of their first records; a record that is not a denial is a run of one."""
    waiting: deque[Run] = deque()
    runs: dict[tuple[str | None, ...], Run] = {}
    for record in records:
        key = denial_key(record)
        run = None if key is None else runs.get(key)
        if run is not None and 0 <= record.usec - run.last.usec <= RUN_USEC:
            run.add(record)
        else:
            run = Run(record)
            waiting.append(run)
            if key is not None:
                runs[key] = run
        yield from _ended(waiting, runs, record.usec)
    yield from waiting


def _ended(waiting: deque[Run], runs: dict[tuple[str | None, ...], Run], now: int) -> Iterator[Run]:
    """The runs at the front that cannot grow any more."""
    while waiting:
        run = waiting[0]
        key = denial_key(run.first)
        if key is not None and runs.get(key) is run:
            if abs(now - run.last.usec) <= RUN_USEC and len(waiting) <= HELD_ROWS:
                return
            del runs[key]
        yield waiting.popleft()


def denial_key(record: Record) -> tuple[str | None, ...] | None:
    """What the denials of a run have in common; None if the record is not a denial."""
    if record.text("REMO_DECISION") != Decision.DENY or record.event != Event.FETCH.word:
        return None
    return (
        *(record.text(field) for field in ("REMO_PROJECT", "REMO_REASON", "_HOSTNAME")),
        *who_key(record.text),
    )


def cells(record: Record) -> tuple[str, ...]:
    """One row. Other events put their text where a fetch has its outcome and reason."""
    return (
        shown_short(record.usec),
        record.project or "-",
        record.text("REMO_SECRET") or "-",
        record.text("REMO_OUTCOME") or record.event,
        record.text("REMO_REASON") or ", ".join(details(record)) or "-",
        who(record, brief=True),
    )


def run_cells(run: Run) -> tuple[str, ...]:
    _, project, first, outcome, reason, asked = cells(run.first)
    last = run.last.text("REMO_SECRET") or "-"
    names = first if first == last else f"{first} ... {last}"
    return span(run.first.usec, run.last.usec), project, f"{run.count:,} x {names}", outcome, reason, asked


def span(first: int, last: int) -> str:
    """`05-31 12:03 to 12:04`: as wide as a time."""
    begin, end = (datetime.fromtimestamp(usec / USEC).astimezone() for usec in (first, last))
    same_day = begin.date() == end.date()
    return f"{begin:%m-%d %H:%M} to {end:%H:%M}" if same_day else f"{begin:%m-%d %H:%M} to {end:%m-%d}"


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


def colour(record: Record) -> Colour | None:
    if record.text("REMO_DECISION") == Decision.DENY or record.event in _REFUSALS:
        return Colour.RED
    return Colour.YELLOW if record.text("REMO_OUTCOME") == Outcome.NOT_FOUND else None
