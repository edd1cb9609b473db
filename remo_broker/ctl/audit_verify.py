"""`remo-brokerctl audit --verify`: find records missing from the journal, by their serials.

Each start of the broker numbers its records from 1. A missing number is a record that was lost,
removed or never written; a duplicate number with different content is a forgery or damage. journald
itself sometimes writes an entry twice when it starts a new file. Those entries are identical; they
are reported but do not count as a fault.

If all records of a start are gone, no number is missing. So each start names the one before it, and
the state names the last one. Both also say if that one ended while journald did not accept its
records: then its last ones are missing, at least one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.cli.terminal import Colour
from remo_broker.cli.times import iso, shown
from remo_broker.protocol.audit_records import (
    PREVIOUS_SERIAL_FIELD,
    PREVIOUS_START_FIELD,
    SERIAL_FIELD,
    START_ID_FIELD,
    Event,
)
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.names import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remo_broker.cli.terminal import Output
    from remo_broker.ctl.audit_reader import Record

EXIT_INCOMPLETE = 1


class Gap:
    """Missing serials, `first` to `last` or more, and the times of the records around them."""

    __slots__ = ("after", "before", "first", "last", "or_more")

    def __init__(self, first: int, last: int, after: int, before: int, *, or_more: bool = False) -> None:
        self.first, self.last = first, last
        self.after, self.before = after, before
        self.or_more = or_more

    def __len__(self) -> int:
        return self.last - self.first + 1


class Start:
    """The records of one start of the broker."""

    def __init__(self, start_id: str) -> None:
        self.start_id = start_id
        self.seen: dict[int, tuple[int, int]] = {}
        """By serial: the time, and a hash of the record's content."""
        self.twice = 0
        """Duplicate records with identical content."""
        self.forged: list[int] = []
        """Serials of duplicates with different content."""
        self.began = False
        """Something was recorded other than that it failed to start: a start that fails is not
        named by the next one, and names none."""
        self.ended = False
        self.previous: str | None = None
        """The id of the start before it, if its first record is there and names one."""
        self.waited_before = 0
        """A serial that the start before it had reached when its last records began to wait."""
        self.machine: str | None = None
        self.dropped = 0
        """Records that the broker itself reported as lost."""

    def add(self, serial: int, record: Record) -> None:
        content = hash(
            tuple(sorted((key, str(value)) for key, value in record.data.items() if key.startswith("REMO_")))
        )
        known = self.seen.get(serial)
        if known is None:
            self.seen[serial] = record.usec, content
        elif known[1] == content:
            self.twice += 1
        else:
            self.forged.append(serial)
        self.machine = record.text("_MACHINE_ID")
        self.began = self.began or record.text("REMO_REASON") != Reason.NOT_STARTED.value
        if record.event == Event.STARTED.word:
            self.previous = record.text(PREVIOUS_START_FIELD)
            self.waited_before = record.number(PREVIOUS_SERIAL_FIELD) or 0
        elif record.event == Event.STOPPED.word:
            self.ended = True
        elif record.event == Event.RECOVERED.word:
            self.dropped += record.number("REMO_DROPPED") or 0

    @property
    def begin(self) -> int:
        return min((usec for usec, _ in self.seen.values()), default=0)

    def gaps(self, *, from_first: bool, up_to: int | None, waiting: int = 0) -> list[Gap]:
        """The missing serials.

        Counts from the first record of the start if `from_first`, and up to the serial `up_to` if
        known. It ended while records waited if `waiting`, which is a serial that it had reached.
        """
        serials = sorted(self.seen)
        found = []
        expected = 1 if from_first or not serials else serials[0]
        before = 0
        for serial in serials:
            usec = self.seen[serial][0]
            if serial > expected:
                found.append(Gap(expected, serial - 1, before, usec))
            expected, before = serial + 1, usec
        if up_to is not None and up_to >= expected:
            found.append(Gap(expected, up_to, before, 0))
        elif waiting:
            found.append(Gap(expected, max(expected, waiting), before, 0, or_more=True))
        return found


class Verification:
    def __init__(self) -> None:
        self.starts: dict[str, Start] = {}
        self.records = 0
        self.unnumbered = 0
        """Records of a version that had no serials."""

    def add(self, record: Record) -> None:
        self.records += 1
        start_id, serial = record.text(START_ID_FIELD), record.number(SERIAL_FIELD)
        if start_id is None or serial is None:
            self.unnumbered += 1
            return
        start = self.starts.get(start_id)
        if start is None:
            start = self.starts[start_id] = Start(start_id)
        start.add(serial, record)

    def lost_starts(self, *, whole: bool, last: str | None) -> list[tuple[str, int]]:
        """The starts of which no record is there: the id, and the begin of the start that names it.

        `last` is the id of the last start, 0 its begin. Unless `whole`, the search may have begun
        after the end of the start that is named first; a host's other starts are within it.
        """
        earliest: dict[str | None, Start] = {}
        for start in self.starts.values():
            known = earliest.get(start.machine)
            if start.began and (known is None or start.begin < known.begin):
                earliest[start.machine] = start
        found = [
            (start.previous, start.begin)
            for start in self.starts.values()
            if start.previous is not None
            and start.previous not in self.starts
            and (whole or earliest.get(start.machine) is not start)
        ]
        if last is not None and last not in self.starts:
            found.append((last, 0))
        return found

    def ended_waiting(self) -> dict[str, int]:
        """The starts that ended while their last records waited, by id: a serial that they had
        reached."""
        return {
            start.previous: start.waited_before
            for start in self.starts.values()
            if start.previous is not None and start.waited_before
        }


def verify(
    output: Output,
    records: Iterable[Record],
    *,
    from_first: bool,
    whole: bool,
    running: tuple[str, int] | None,
    bounded: bool,
    last: tuple[str, int] | None = None,
    may_run: bool = False,
) -> int:
    """Report what is missing. The exit status tells whether anything is.

    `from_first`: the search covers each start from its first record on; `whole`: and all starts
    before. `running` is the id and the last
    serial of the running broker, `last` the id of the last one, which may have ended, and a serial of
    its records that waited then, or 0. `bounded`: later records were not requested. `may_run`: without
    `running`, a host's last start may still run.
    """
    found = Verification()
    for record in records:
        found.add(record)
    if running is not None and not bounded and running[0] not in found.starts and running[1]:
        found.starts[running[0]] = Start(running[0])
    waiting = found.ended_waiting()
    if last is not None and not bounded and (running is None or running[0] != last[0]):
        waiting[last[0]] = last[1]
    results = []
    for start in found.starts.values():
        up_to = running[1] if running is not None and running[0] == start.start_id and not bounded else None
        waited = waiting.get(start.start_id, 0)
        results.append((start, start.gaps(from_first=from_first, up_to=up_to, waiting=waited)))
    missing = sum(len(gap) for _, gaps in results for gap in gaps)
    forged = sum(len(start.forged) for start in found.starts.values())
    lost = found.lost_starts(whole=whole, last=None if bounded or last is None else last[0])
    if output.json != "off":
        output.show_json(_json(found, results, running, missing, lost))
    else:
        _show(output, found, results, running, may_run=may_run)
        for start_id, before in lost:
            when = f", before {shown(before)}" if before else ", the last one"
            output.line(output.paint(f"missing: all records of start {start_id[:12]}{when}", Colour.RED))
        verdict = f"{counted(found.records, 'record')} of {counted(len(found.starts), 'start')}"
        if missing or forged or lost:
            more = f"; {counted(len(lost), 'whole start')} missing, or more" if lost else ""
            output.line(
                output.paint(
                    f"{verdict}: {missing} missing, {forged} with the serial of another record{more}.", Colour.RED
                )
            )
        else:
            output.line(output.paint(f"{verdict}: none is missing.", Colour.GREEN))
    return EXIT_INCOMPLETE if missing or forged or lost else 0


def _show(
    output: Output,
    found: Verification,
    results: list[tuple[Start, list[Gap]]],
    running: tuple[str, int] | None,
    *,
    may_run: bool,
) -> None:
    newest = {start.machine: start for start in sorted(found.starts.values(), key=lambda start: start.begin)}
    for start, gaps in results:
        first = start.begin
        now = running is not None and running[0] == start.start_id
        state = "is running" if now else "ended cleanly" if start.ended else "did not end cleanly"
        if not now and not start.ended and may_run and running is None and newest[start.machine] is start:
            state = "may be running"
        output.line(f"Start {start.start_id[:12]} of {shown(first)}: {counted(len(start.seen), 'record')}, {state}")
        for gap in gaps:
            numbers = f"serial {gap.first}" if len(gap) == 1 else f"serials {gap.first} to {gap.last}"
            numbers += " or more, which waited for journald when it ended" if gap.or_more else ""
            when = f", between {shown(gap.after)} and {shown(gap.before)}"
            if not gap.after:
                when = ", all before the first one present" if gap.before else ""
            elif not gap.before:
                when = f", after {shown(gap.after)}"
            output.line(output.paint(f"  missing: {numbers}{when}", Colour.RED))
        if gaps and start.dropped:
            output.line(f"  the broker itself counted at most {start.dropped} as lost")
        for serial in start.forged:
            output.line(output.paint(f"  serial {serial} occurs twice, with different contents", Colour.RED))
        if start.twice:
            output.line(f"  {counted(start.twice, 'record')} written twice by journald, alike")
    if found.unnumbered:
        output.line(f"{counted(found.unnumbered, 'record')} without a serial, of an earlier version")


def _json(
    found: Verification,
    results: list[tuple[Start, list[Gap]]],
    running: tuple[str, int] | None,
    missing: int,
    lost: list[tuple[str, int]],
) -> dict[str, object]:
    return {
        "records": found.records,
        "missing": missing,
        "missing_starts": [
            {"start_id": start_id, "before": iso(before) if before else None} for start_id, before in lost
        ],
        "unnumbered": found.unnumbered,
        "starts": [
            {
                "start_id": start.start_id,
                "records": len(start.seen),
                "running": running is not None and running[0] == start.start_id,
                "ended": start.ended,
                "dropped": start.dropped,
                "written_twice": start.twice,
                "conflicting_serials": start.forged,
                "gaps": [
                    {"first": gap.first, "last": gap.last, "after": iso(gap.after), "before": iso(gap.before)}
                    | ({"or_more": True} if gap.or_more else {})
                    for gap in gaps
                ],
            }
            for start, gaps in results
        ],
    }
