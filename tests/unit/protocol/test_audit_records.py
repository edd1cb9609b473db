"""Audit records, parsed by the rules of journald's native protocol."""

from __future__ import annotations

import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.broker.audit.journal import fields_of
from remo_broker.broker.sockets import credentials
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Backend, Decision, Event, Outcome
from tests.support.machine import REPOSITORY
from tests.support.native import fields

# These are an interface and never change.
WORDS = [
    "fetch",
    "fetch.first_seen",
    "fetch.rate_limited",
    "fetch.denials_counted",
    "peer.refused",
    "secrets.pushed",
    "secrets.cleared",
    "project.registered",
    "project.unregistered",
    "manifest.reloaded",
    "manifest.invalid",
    "manifest.waits",
    "broker.started",
    "broker.stopped",
    "audit.degraded",
    "audit.probe",
    "audit.recovered",
]

field_names = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(field_names, texts, max_size=6))
def test_any_field_survives_a_round_trip(given_fields: dict[str, str]) -> None:
    data = b"".join(audit_records.field(name, value) for name, value in given_fields.items())
    assert list(fields(data)) == [(name, value.encode()) for name, value in given_fields.items()]
    assert fields_of(data) == given_fields


@pytest.mark.parametrize("value", ["a\nREMO_DECISION=allow", "\n", "\n\n", "a=b", "=", "", "a\n\nMESSAGE=forged", "\0"])
def test_no_value_forges_a_field(value: str) -> None:
    data = audit_records.field("REMO_SECRET", value) + audit_records.field("PRIORITY", 4)
    assert list(fields(data)) == [("REMO_SECRET", value.encode()), ("PRIORITY", b"4")]


def test_a_value_with_a_newline_is_length_prefixed() -> None:
    assert audit_records.field("A", "b\nc") == b"A\n\x03\x00\x00\x00\x00\x00\x00\x00b\nc\n"
    assert audit_records.field("A", 5) == b"A=5\n"


def test_a_surrogate_can_be_recorded() -> None:
    assert list(fields(audit_records.field("A", "\udce9"))) == [("A", b"\\udce9")]


def test_events_are_those_of_the_specification() -> None:
    assert [event.word for event in Event] == WORDS
    identifiers = [event.message_id for event in Event]
    assert len(set(identifiers)) == len(WORDS)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in identifiers)


def test_every_event_is_explained_in_the_catalog() -> None:
    (catalog,) = REPOSITORY.glob("units/*.catalog")
    explained = re.findall("^-- ([0-9a-f]{32})$", pathlib.Path(catalog).read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(event.message_id for event in Event)


def test_every_reason_of_a_refused_credential_is_explained_in_the_catalog() -> None:
    entry = (
        (REPOSITORY / "units/remo-broker.catalog").read_text().split(Event.FETCH.message_id)[1].partition("\n-- ")[0]
    )
    assert [
        reason for reason in credentials._WHY if not re.search(f"^[a-z_, ]*{reason}[a-z_, ]*: ", entry, re.MULTILINE)
    ] == []


def test_priorities() -> None:
    """6 allowed, 4 denied or refused, 5 control plane, 3 degraded."""
    wanted = dict.fromkeys(WORDS, 5) | {
        "fetch": 6,
        "audit.probe": 6,
        "fetch.rate_limited": 4,
        "fetch.denials_counted": 4,
        "peer.refused": 4,
        "manifest.invalid": 4,
        "audit.degraded": 3,
    }
    assert {event.word: event.priority for event in Event} == wanted


def whole(head: bytes) -> dict[str, str]:
    return fields_of(head + audit_records.peer_fields(1, 2, 3) + audit_records.latency_field(45))


def test_a_fetch_that_is_served() -> None:
    head = audit_records.fetch_head(
        "myrepo", "AWS", Decision.ALLOW, Outcome.OK, audit_records.IN_MANIFEST, 7, Backend.CACHE
    )
    assert whole(head) == {
        "MESSAGE": "Project myrepo fetched AWS.",
        "MESSAGE_ID": Event.FETCH.message_id,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "remo-broker",
        "REMO_EVENT": "fetch",
        "REMO_PROJECT": "myrepo",
        "REMO_SECRET": "AWS",
        "REMO_DECISION": "allow",
        "REMO_OUTCOME": "ok",
        "REMO_REASON": "in_manifest",
        "REMO_GENERATION": "7",
        "REMO_BACKEND": "cache",
        "REMO_PEER_PID": "1",
        "REMO_PEER_UID": "2",
        "REMO_PEER_GID": "3",
        "REMO_LATENCY_USEC": "45",
    }


def test_a_fetch_that_is_denied_or_finds_nothing() -> None:
    denied = whole(audit_records.fetch_head("p", "A", Decision.DENY, Outcome.DENIED, "not_in_manifest", 7))
    assert (denied["PRIORITY"], denied["REMO_DECISION"], denied["REMO_OUTCOME"]) == ("4", "deny", "denied")
    assert "REMO_BACKEND" not in denied
    missing = whole(
        audit_records.fetch_head("p", "A", Decision.ALLOW, Outcome.NOT_FOUND, "no_snapshot", 7, Backend.STORE)
    )
    assert (missing["PRIORITY"], missing["REMO_DECISION"], missing["REMO_OUTCOME"]) == ("6", "allow", "not_found")


@given(texts)
def test_any_name_is_recorded_printable_and_short(name: str) -> None:
    record = whole(audit_records.fetch_head("p", name, Decision.DENY, Outcome.DENIED, "invalid_name", 7))
    assert re.fullmatch("[ -~]{0,128}", record["REMO_SECRET"])
    assert re.fullmatch("[ -~]*", record["MESSAGE"])
    assert record["REMO_DECISION"] == "deny"
    assert len(record) == 15


def test_a_note_is_no_event() -> None:
    assert fields_of(audit_records.note(3, "a\nb")) == {
        "MESSAGE": "a\nb",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "remo-broker",
    }
