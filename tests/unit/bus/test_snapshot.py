"""Events of the status socket, read strictly, and the snapshots they make."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.bus.events import BadEvent, decode
from remo_broker.bus.interfaces import MANAGER, PROJECT
from remo_broker.bus.paths import project_path
from remo_broker.bus.service import all_properties
from remo_broker.bus.snapshot import Draft, StatusSnapshot
from remo_broker.bus.wire import encode_body
from remo_broker.protocol.replies import Failure, RemovedEvent, StoppingEvent, SyncedEvent
from tests.support.status import broker_event, project_event


def line(event: Any, /, **changes: Any) -> bytes:
    return json.dumps(event.to_json() | changes).encode()


def snapshot_of(*events: Any) -> StatusSnapshot:
    draft = Draft()
    draft.take(events)
    return draft.finish()


@pytest.mark.parametrize(
    "event",
    [broker_event(), project_event(), RemovedEvent(name="myrepo"), SyncedEvent(), StoppingEvent(idle=True)],
    ids=lambda event: type(event).__name__,
)
def test_every_event_is_read(event: Any) -> None:
    assert decode(line(event)) == event
    assert decode(line(event, added_later=[1, {"a": None}])) == event


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "unknown event"),
        (b'{"event":["broker"]}', "unknown event"),
        (b'{"event":"broker"}', "broker_version is missing"),
        (line(broker_event(), secret_count="3"), "secret_count is not int"),
        (line(broker_event(), secret_count=True), "secret_count is not int"),
        (line(broker_event(), secret_count=3.0), "secret_count is not int"),
        (line(broker_event(), audit_healthy=1), "audit_healthy is not bool"),
        (line(broker_event(), secret_count=-1), "SecretCount out of range"),
        (line(broker_event(), secret_count=2**32), "SecretCount out of range"),
        (line(broker_event(), generation=2**64), "Generation out of range"),
        (line(broker_event(), broker_version="2\0"), "Version out of range"),
        (line(broker_event(), memory_protection="\udc80"), "MemoryProtection out of range"),
        (line(project_event(), socket_path="/run/\x1b[2J"), "SocketPath out of range"),
        (line(project_event(), connections=2**32), "Connections out of range"),
        (line(project_event(), name="../x"), "a project of the name ../x"),
        (line(project_event(), name="\x1b[2J"), r"a project of the name \x1b[2J"),
        (line(Failure(code="internal_error", message="no\n")), r"internal_error: no\n"),
    ],
)
def test_a_malformed_event_is_refused_in_one_line(bad: bytes, why: str) -> None:
    with pytest.raises(BadEvent) as refusal:
        decode(bad)
    assert why in str(refusal.value)
    assert str(refusal.value).isprintable()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([broker_event(), project_event()]), st.data())
def test_every_accepted_event_can_be_sent_on_the_bus(event: Any, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(event.FIELDS)))
    value = data.draw(_JSON | st.integers(0, 2**65) | st.text())
    try:
        read = decode(line(event, **{field: value}))
    except BadEvent:
        return
    snapshot = snapshot_of(broker_event(), read)
    encode_body("a{sv}", [all_properties(MANAGER, snapshot)])
    for project in snapshot.projects.values():
        encode_body("oa{sv}", [project_path(project.name), all_properties(PROJECT, project)])


def test_events_make_snapshots() -> None:
    first = snapshot_of(broker_event(), project_event("a"), project_event("b"))
    assert list(first.projects) == ["a", "b"]
    draft = Draft(first)
    draft.take([project_event("b", connections=9), RemovedEvent(name="a"), RemovedEvent(name="never")])
    second = draft.finish()
    assert list(first.projects) == ["a", "b"], "a snapshot never changes"
    assert list(second.projects) == ["b"]
    assert second.projects["b"].connections == 9
    assert second.broker == first.broker
    assert draft.replaced == {"a"}


def test_projects_alone_are_not_a_snapshot() -> None:
    with pytest.raises(ValueError, match="before its own"):
        snapshot_of(project_event())


def test_a_stopped_broker_holds_no_secrets_and_keeps_its_registrations() -> None:
    running = snapshot_of(broker_event(audit_healthy=False, audit_dropped=5), project_event())
    stopped = running.stopped()
    manager = {one.name: one.value(stopped) for one in MANAGER.properties}
    assert manager == {
        "Version": "2.0.0",
        "ProtocolVersion": 2,
        "StartTimestamp": 0,
        "SecretCount": 0,
        "SecretsLoadedTimestamp": 0,
        "Generation": 0,
        "ProjectCount": 1,
        "MemoryProtection": "memfd_secret",
        "AuditHealthy": True,
        "AuditDropped": 0,
        "FetchesAllowed": 0,
        "FetchesDenied": 0,
        "CredentialsServed": 0,
        "CredentialsRefused": 0,
    }
    project = {one.name: one.value(stopped.projects["myrepo"]) for one in PROJECT.properties}
    assert project == {
        "Name": "myrepo",
        "SocketPath": "/run/remo-broker/myrepo.sock",
        "AllowlistSize": 2,
        "CacheEntries": 0,
        "Connections": 0,
        "FetchesAllowed": 0,
        "FetchesDenied": 0,
        "LastFetchTimestamp": 0,
    }
