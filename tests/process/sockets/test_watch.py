"""`watch` on the admin and on the project socket, and secrets that expire while they are
watched."""

from __future__ import annotations

import select
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.connection import PEER_SECONDS
from tests.support.broker import WAIT_SECONDS, Broker, Link, registration
from tests.support.machine import poll
from tests.support.projects import make_project, register
from tests.support.timing import shortest

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

WATCH = {"op": "watch"}


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    return start_broker(
        projects=[registration("myrepo", "A", "B"), registration("other", "C")], rate_limit_per_second=0
    )


def test_the_admin_socket_shows_the_store(broker: Broker) -> None:
    with Link(broker.admin) as link:
        first = link.ask(WATCH)
        start = broker.status()["start_usec"]
        assert first == {"ok": True, "start_usec": start, "generation": 0, "secret_count": 0, "secrets_loaded_usec": 0}
        broker.push({"A": "x", "B": "y"})
        status = broker.status()
        pushed = link.reply()
        assert pushed == first | {
            "generation": 1,
            "secret_count": 2,
            "secrets_loaded_usec": status["secrets_loaded_usec"],
            "event": "pushed",
        }
        broker.ask({"op": "clear-creds"})
        assert link.reply() == pushed | {"secret_count": 0, "secrets_loaded_usec": 0, "event": "cleared"}


def test_other_requests_on_the_same_connection(broker: Broker) -> None:
    with Link(broker.admin) as link:
        link.ask(WATCH)
        link.send({"op": "push-creds", "secrets": {"A": "x"}})
        lines = [link.reply(), link.reply()]
        assert sorted("event" in line for line in lines) == [False, True]
        assert "broker_version" in link.ask({"op": "status"})
    with Link(broker.project()) as link:
        link.send(b'{"op":"get","name":"A"}\n{"op":"watch"}\n{"op":"ping"}\n')
        assert link.reply()["value"] == "x"
        assert link.reply()["allowlist"] == ["A", "B"]
        assert link.reply()["project"] == "myrepo"


def test_a_projects_watch_shows_its_own_changes(
    broker: Broker, start_broker: StartBroker, directory: pathlib.Path
) -> None:
    project = make_project(directory / "live", "A", "B")
    register(broker, project)
    with Link(broker.project("live")) as link:
        first = link.ask(WATCH)
        start = broker.status()["start_usec"]
        assert first == {
            "ok": True,
            "project": "live",
            "start_usec": start,
            "generation": 0,
            "ready": False,
            "allowlist": ["A", "B"],
        }
        broker.push({"A": "x", "C": "never shown"})
        assert link.reply() == first | {"generation": 1, "ready": True, "event": "pushed"}
        make_project(project, "B")
        assert broker.ask({"op": "reload", "name": "live"})["ok"]
        assert link.reply() == first | {"generation": 1, "ready": True, "allowlist": ["B"], "event": "reloaded"}
        broker.ask({"op": "clear-creds"})
        assert link.reply()["ready"] is False
        assert broker.status()["projects"][0]["connections"] == 1
        assert broker.ask({"op": "unregister", "name": "live"})["ok"]
        assert link.rest() == b""
    assert not broker.records("fetch")


def test_a_half_closed_connection_still_receives(broker: Broker) -> None:
    for path in (broker.admin, broker.project()):
        with Link(path) as link:
            link.ask(WATCH)
            link.say_no_more()
            broker.push({"A": "x"})
            assert link.reply()["event"] == "pushed"
    poll("the connections to be gone", lambda: broker.status()["projects"][0]["connections"] == 0)


def test_the_brokers_exit_ends_the_stream(broker: Broker) -> None:
    def stopped_after() -> float:
        with Link(broker.admin) as admin, Link(broker.project()) as project:
            admin.ask(WATCH)
            project.ask(WATCH)
            began = time.monotonic()
            broker.stop()
            took = time.monotonic() - began
            assert admin.rest() == project.rest() == b""
        broker.start()
        return took

    assert shortest(stopped_after, below=PEER_SECONDS) < PEER_SECONDS, "nobody waits for a watcher"


@pytest.mark.parametrize("socket", ["admin", "project"])
def test_a_second_watch_replaces_the_first(broker: Broker, socket: str) -> None:
    with Link(broker.admin if socket == "admin" else broker.project()) as link:
        for _ in range(2):
            assert link.ask(WATCH)["ok"]
        broker.push({"A": "a"})
        assert "generation" in link.reply()
        assert "event" not in link.ask({"op": "ping"}), "the change is told once"


def test_a_watcher_that_does_not_read_is_disconnected(broker: Broker) -> None:
    """Unread data first fills the kernel's small buffer."""
    with Link(broker.admin) as admin, Link(broker.project()) as project:
        for link in (admin, project):
            link.send(WATCH)
        for number in range(200):
            broker.push({"A": str(number)})
        for link in (admin, project):
            poll("the broker to give up", lambda link=link: _hung_up(link), WAIT_SECONDS)  # type: ignore[misc]
            assert len(link.rest().splitlines()) < 150, "states, not history"


def _hung_up(link: Link) -> bool:
    peer = select.poll()
    peer.register(link.socket, 0)
    return bool(peer.poll(0))


def test_a_slow_reader_gets_the_latest_state(broker: Broker) -> None:
    with Link(broker.admin) as link:
        link.send(WATCH)
        for number in range(100):
            broker.push({"A": str(number)})
        while link.reply()["generation"] < 100:
            pass


def test_one_push_reaches_many_watchers(broker: Broker) -> None:
    links = [Link(broker.project()) for _ in range(200)]
    try:
        for link in links:
            link.ask(WATCH)
        broker.push({"A": "x"})
        assert {link.reply()["generation"] for link in links} == {1}
    finally:
        for link in links:
            link.close()


def test_a_secret_expires(broker: Broker) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    text = at.isoformat(timespec="milliseconds")
    request = {"op": "push-creds", "secrets": {"A": "x", "B": "y"}, "expires": {"A": text}}
    assert broker.ask(request)["ok"]
    with Link(broker.project()) as link:
        found = link.ask({"op": "get", "name": "A"})
        assert found["ttl_seconds"] <= 1
        assert found["expires_at"] == at.strftime("%Y-%m-%dT%H:%M:%SZ")
        poll("the secret to end", lambda: "reason" in link.ask({"op": "get", "name": "A"}))
        assert datetime.now(UTC) >= at.replace(microsecond=at.microsecond // 1000 * 1000)
        assert link.ask({"op": "get", "name": "A"})["reason"] == "expired"
        assert link.ask({"op": "get", "name": "B"})["value"] == "y"
    poll("the count to fall", lambda: broker.status()["secret_count"] == 1)
    [record] = {one["REMO_REASON"] for one in broker.records("fetch", secret="A", outcome="not_found")}
    assert record == "expired"


def test_a_past_time_is_refused(broker: Broker) -> None:
    reply = broker.ask({"op": "push-creds", "secrets": {"A": "x"}, "expires": {"A": "2020-01-01T00:00:00Z"}})
    assert (reply["code"], reply["reason"]) == ("invalid_payload", "bad_value")
    assert broker.status()["secret_count"] == 0
