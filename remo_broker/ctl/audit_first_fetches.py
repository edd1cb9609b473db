"""Whether a fetch is the first of its kind: the first time a program or container gets a secret.

First means within the journal's retention. The broker cannot tell: it forgets at each start, and
the process that holds secrets does not read the journal. Here the journal's index answers, with one
lookup for each kind of fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remo_broker.ctl.audit_reader import Query, Record, earliest, open_readers
from remo_broker.protocol.audit_records import SERIAL_FIELD, START_ID_FIELD, Event, Outcome

if TYPE_CHECKING:
    from cysystemd.reader import JournalReader

# Two fetches are alike if these match: the program and where it runs, not its process. Gathered
# journals have several machines.
KIND = ("REMO_PROJECT", "REMO_SECRET", "REMO_PEER_COMM")
# Where it runs: the first of these that the record has. Sessions differ at each login; whose they
# are does not.
PLACES = ("REMO_PEER_CONTAINER", "REMO_PEER_OWNER_UID", "REMO_PEER_UNIT")
# Kinds looked up in one review, for each project and for all; further kinds are not marked. A lookup
# takes about a millisecond. Programs choose their names, so one project can have any number of kinds,
# and must not keep those of the others from being marked.
MOST_KINDS_OF_A_PROJECT = 500
MOST_KINDS = 10_000


class Firsts:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._readers: list[JournalReader] | None = None
        self._known: dict[tuple[str, ...], tuple[str | None, int | None]] = {}
        self._of_project: dict[str | None, int] = {}

    def is_first(self, record: Record) -> bool:
        kind = kind_of(record)
        if kind is None:
            return False
        if kind not in self._known:
            looked = self._of_project.get(record.project, 0)
            if looked >= MOST_KINDS_OF_A_PROJECT or len(self._known) >= MOST_KINDS:
                return False
            self._of_project[record.project] = looked + 1
            self._known[kind] = self._look(kind)
        return self._known[kind] == _number(record)

    def _look(self, kind: tuple[str, ...]) -> tuple[str | None, int | None]:
        if self._readers is None:
            self._readers = open_readers(self._query)
        terms = Query(directory=self._query.directory).writer()
        terms += [[("REMO_EVENT", Event.FETCH.word)], [("REMO_OUTCOME", Outcome.OK.value)]]
        terms += [[tuple(term.split("=", 1))] for term in kind]  # type: ignore[list-item]
        first = earliest(self._readers, terms)
        return (None, None) if first is None else _number(first)


def kind_of(record: Record) -> tuple[str, ...] | None:
    """The fields that identify a kind of fetch.

    None if nothing was handed out, or if the record does not name the program.
    """
    if record.text("REMO_OUTCOME") != Outcome.OK or record.text("REMO_PEER_COMM") is None:
        return None
    place = next((name for name in PLACES if record.text(name)), "REMO_PEER_UID")
    machine = ("_MACHINE_ID",) if record.text("_MACHINE_ID") else ()
    found = [(name, record.text(name)) for name in (*KIND, place, *machine)]
    return None if any(value is None for _, value in found) else tuple(f"{name}={value}" for name, value in found)


def _number(record: Record) -> tuple[str | None, int | None]:
    return record.text(START_ID_FIELD), record.number(SERIAL_FIELD)
