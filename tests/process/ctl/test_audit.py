"""The review of records: rows, JSON and counts.

The journal itself is read in tests/machine/test_ctl.py.
"""

from __future__ import annotations

import grp
import json
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.cli.program import Problem
from remo_broker.cli.terminal import Output
from remo_broker.ctl import audit, audit_reader, audit_requester, audit_table, journals
from remo_broker.ctl.audit_reader import Query, Record
from remo_broker.ctl.audit_summary import show_summary, summarise

if TYPE_CHECKING:
    from collections.abc import Iterator

USEC = 1780221600 * 1_000_000


class Entry:
    """An entry as cysystemd returns it: text fields, lists for duplicate fields, and the journal's
    own time."""

    def __init__(self, usec: int = USEC, **fields: str | list[str]) -> None:
        self.data = {name if name.startswith("_") else f"REMO_{name.upper()}": value for name, value in fields.items()}
        self._usec = usec

    def get_realtime_usec(self) -> int:
        return self._usec


def fetch(
    secret: str | list[str], decision: str = "allow", outcome: str = "ok", usec: int = USEC, **fields: str | list[str]
) -> Record:
    peer = {"peer_pid": "7", "peer_uid": "0", "peer_gid": "0"}
    given = {"event": "fetch", "project": "p", "secret": secret, "decision": decision, "outcome": outcome}
    return Record(Entry(usec, **(given | peer | fields)))


def table(records: list[Record], **options: Any) -> Iterator[str]:
    audit_table.show(Output(json_mode="off", legend=False, pager=False), iter(records), **({"live": False} | options))
    yield ""


def test_a_record_that_waited_shows_the_time_of_its_event() -> None:
    """Records that journald accepted late show the time at which they were made."""
    assert fetch("A", event_usec=str(USEC - 5)).usec == USEC - 5
    for odd in ("yesterday", "0", "9" * 18, "9" * 5000):
        assert fetch("A", event_usec=odd).usec == USEC
    assert audit.fields(fetch("A", event_usec=str(USEC - 5)))["time"] == "2026-05-31T09:59:59.999995Z"


@pytest.mark.parametrize("odd", ["\x1b[2J", "a\nb", "\u202ex", "é", "x" * 5000])
def test_every_field_is_escaped_for_the_terminal(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the journal holds: the broker writes printable ASCII, but the review does not rely
    on it."""
    record = fetch(odd, project=odd, reason=odd, decision=odd, event=odd)
    list(table([record]))
    list(table([record], live=True))
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert out.count("\n") == 2
    assert all(str(value).isascii() and len(str(value)) <= 1000 for value in audit.fields(record).values())


def test_the_first_of_duplicate_fields_counts() -> None:
    record = fetch(["A", "B"], peer_uid=["0", "1"])
    assert record.text("REMO_SECRET") == "A"
    assert audit_requester.peer(record) == "-"
    [count] = summarise([record, fetch("A")])
    assert (count.key[1], count.allowed) == ("A", 2)


def test_other_events(capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        Record(Entry(event="fetch.rate_limited", project="p", count="40", peer_pid="7", peer_uid="4294967294")),
        Record(Entry(event="peer.refused", project="p")),
        Record(Entry(event="secrets.pushed", secret_count="3", generation="8")),
        Record(Entry(event="manifest.reloaded", project="p", allowlist_size="2")),
        Record(Entry(event="audit.recovered", dropped="9")),
    ]
    list(table(records))
    rows = [line.split(None, 2)[2] for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(row.split()) for row in rows] == [
        "p - fetch.rate_limited requests: 40 pid 7, uid 4294967294",
        "p - peer.refused - -",
        "- - secrets.pushed secrets: 3 -",
        "p - manifest.reloaded names: 2 -",
        "- - audit.recovered records lost: 9 -",
    ]
    assert audit.fields(records[2]) == {
        "time": "2026-05-31T10:00:00.000000Z",
        "event": "secrets.pushed",
        "generation": 8,
        "secret_count": 3,
    }


def test_summary() -> None:
    records = [
        fetch("A", usec=USEC + 3),
        fetch("B", outcome="not_found", usec=USEC + 2),
        fetch("A", usec=USEC + 1),
        fetch("C", decision="deny", outcome="denied"),
        fetch("D", decision="deny", outcome="denied"),
        fetch("D", decision="deny", outcome="denied", usec=USEC + 9),
        Record(Entry(event="fetch.rate_limited", project="q", count="40")),
        Record(Entry(event="fetch.rate_limited", project="q", count="2")),
        Record(Entry(event="peer.refused", project="q")),
    ]
    found = [(*one.key, one.denied, one.allowed, one.missing) for one in summarise(records)]
    assert found == [
        ("q", None, 43, 0, 0),
        ("p", "D", 2, 0, 0),
        ("p", "C", 1, 0, 0),
        ("p", "A", 0, 2, 0),
        ("p", "B", 0, 0, 1),
    ]
    [count] = [one for one in summarise(records) if one.key[1] == "A"]
    assert (count.first, count.last) == (USEC + 1, USEC + 3)
    assert summarise([]) == []


def test_summary_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(Output(json_mode="short", legend=True, pager=False), [fetch("A")])
    assert json.loads(capsys.readouterr().out) == [
        {
            "project": "p",
            "secret": "A",
            "denied": 0,
            "allowed": 1,
            "not_found": 0,
            "first": "2026-05-31T10:00:00.000000Z",
            "last": "2026-05-31T10:00:00.000000Z",
            "who": {"pid 7, uid 0 (root)": 1},
        }
    ]


def test_every_query_is_bound_to_the_user_and_group_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_reader, "USER", "nobody")
    monkeypatch.setattr(audit_reader, "GROUP", "daemon")
    for query in (Query(), Query(all_events=True), Query(denied=True), Query(project="p", secret="s", denied=True)):
        assert query.terms()[:2] == [[("_UID", "65534")], [("_GID", str(grp.getgrnam("daemon").gr_gid))]]
    assert Query(project="p", secret="s").terms()[3:] == [[("REMO_PROJECT", "p")], [("REMO_SECRET", "s")]]


def test_where_no_broker_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_reader, "USER", "no-such-user")
    with pytest.raises(Problem, match="no user no-such-user on this host"):
        Query().terms()
    monkeypatch.setattr(journals, "DIRECTORIES", ("/nowhere",))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Problem, match="this host has no journal"):
        journals.open_journals(None, None)
    with pytest.raises(Problem, match="/nowhere: no such directory"):
        journals.open_journals("/nowhere", None)
