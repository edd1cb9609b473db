"""status, show, explain, and the stream of the status socket."""

from __future__ import annotations

import json
import os
import pathlib
import time
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol.shared_limits import MAX_MESSAGE
from tests.support.broker import Broker, Link, ask, registration
from tests.support.machine import poll
from tests.support.projects import make_project
from tests.support.timing import shortest

if TYPE_CHECKING:
    from typing import Any

    from tests.conftest import StartBroker

GET = b'{"op":"get","name":"A"}\n'

# Version 2 always had the first ones, in this order; additions follow.
FIELDS = [
    "ok",
    "broker_version",
    "protocol_version",
    "uptime_seconds",
    "secrets_loaded_at",
    "secret_count",
    "projects",
    "start_usec",
    "secrets_loaded_usec",
    "generation",
    "memory_protection",
    "audit",
    "fetches_allowed",
    "fetches_denied",
    "fetches_not_found",
    "credentials_served",
    "credentials_refused",
    "project_count",
    "unserved_count",
]
PROJECT_FIELDS = [
    "name",
    "socket_path",
    "allowlist_size",
    "cache_entries",
    "connections",
    "fetches_allowed",
    "fetches_denied",
    "last_fetch_usec",
    "fetches_not_found",
]


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    return start_broker(projects=[registration("myrepo", "A", "B"), registration("other", "SECRET_NAME")])


def test_an_empty_broker(start_broker: StartBroker) -> None:
    before = time.time_ns() // 1000
    broker = start_broker()
    status = broker.status()
    assert list(status) == FIELDS
    assert (status["broker_version"], status["protocol_version"], status["uptime_seconds"]) == ("2.0.0", 2, 0)
    assert before <= status["start_usec"] <= time.time_ns() // 1000
    assert (status["secrets_loaded_at"], status["secrets_loaded_usec"]) == (None, 0)
    assert (status["secret_count"], status["generation"], status["project_count"], status["projects"]) == (0, 0, 0, [])
    audit = status["audit"]
    assert (audit["healthy"], audit["sink"], audit["queued"], audit["dropped"]) == (True, "stderr", 0, 0)
    assert (audit["serial"], len(audit["start_id"])) == (1, 32)  # the record of the start
    assert status["memory_protection"] in ("memfd_secret", "mlock", "none")


def test_counters(broker: Broker) -> None:
    broker.push({"A": "a", "SECRET_NAME": "s"})
    with Link(broker.project()) as client:
        for name in ("A", "A", "B", "C", "no name"):
            client.ask({"op": "get", "name": name})
        status = broker.status()
        mine, other = status["projects"]
        assert list(mine) == PROJECT_FIELDS
        assert (mine["name"], mine["socket_path"]) == ("myrepo", str(broker.project()))
        assert (mine["allowlist_size"], mine["cache_entries"], mine["connections"]) == (2, 1, 1)
        assert (mine["fetches_allowed"], mine["fetches_denied"], mine["fetches_not_found"]) == (3, 2, 1)
        assert abs(mine["last_fetch_usec"] - time.time_ns() // 1000) < 5_000_000
        assert (other["fetches_allowed"], other["last_fetch_usec"], other["connections"]) == (0, 0, 0)
        assert (status["fetches_allowed"], status["fetches_denied"]) == (3, 2)
    broker.ask({"op": "unregister", "name": "myrepo"})
    status = broker.status()
    assert (status["fetches_allowed"], status["fetches_denied"]) == (3, 2)  # an unregistered project still counts
    assert status["fetches_not_found"] == 1


def test_both_sockets_give_the_same_status_without_names(broker: Broker) -> None:
    broker.push({"SECRET_NAME": "secret value", "b": {"SECRET_FIELD": "x"}})
    one, other = broker.status(), ask(broker.status_socket, {"op": "status"})
    assert one == other
    text = json.dumps(one)
    assert "SECRET" not in text
    assert "secret value" not in text


def test_uptime(broker: Broker) -> None:
    poll("a second", lambda: broker.status()["uptime_seconds"] == 1)


def pages(link: Link) -> list[dict[str, Any]]:
    found = []
    after = None
    while True:
        link.send({"op": "status"} | ({"after": after} if after else {}))
        line = link.line()
        assert len(line) <= MAX_MESSAGE
        found.append(json.loads(line))
        after = found[-1].get("projects_next")
        if after is None:
            return found
        assert len(found) < 50


def test_a_thousand_projects_come_in_pages(start_broker: StartBroker) -> None:
    names = sorted(f"p{number}" + "x" * (number % 60) for number in range(1000))
    broker = start_broker(projects=[registration(name, "A") for name in names])
    for path in (broker.admin, broker.status_socket):
        with Link(path) as link:
            found = pages(link)
        assert [one["name"] for page in found for one in page["projects"]] == names
        assert 3 < len(found) < 10
        assert {page["project_count"] for page in found} == {1000}
        for page in found[:-1]:
            assert page["projects_next"] == page["projects"][-1]["name"]
    assert broker.ask({"op": "status", "after": names[-1]})["projects"] == []
    assert broker.ask({"op": "status", "after": "p1"})["projects"][0]["name"] > "p1"
    with Link(broker.project(names[500])) as client:
        assert client.ask({"op": "ping"})["project"] == names[500]


# --- show and explain


def test_show(broker: Broker) -> None:
    shown = broker.ask({"op": "show", "name": "myrepo"})
    assert list(shown) == [
        "ok",
        "name",
        "socket_path",
        "project_path",
        "allowlist",
        "ttl_seconds",
        "max_entries",
        "allowed_uids",
        *PROJECT_FIELDS[3:],
    ]
    assert (shown["allowlist"], shown["project_path"]) == (["A", "B"], "/nowhere")


def test_explain(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A", "B", allowed_uids=[os.getuid(), 54321])])

    def why(secret: str, uid: int | None = None) -> tuple[str, str, str]:
        request: dict[str, Any] = {"op": "explain", "name": "myrepo", "secret": secret}
        reply = broker.ask(request | ({"uid": uid} if uid is not None else {}))
        assert list(reply) == ["ok", "decision", "outcome", "reason", "generation"]
        return reply["decision"], reply["outcome"], reply["reason"]

    assert why("A") == ("allow", "not_found", "no_snapshot")
    broker.push({"A": "a"})
    assert why("A") == ("allow", "ok", "in_manifest")
    assert why("B") == ("allow", "not_found", "not_in_snapshot")
    assert why("C") == ("deny", "denied", "not_in_manifest")
    assert why("no name") == ("deny", "denied", "invalid_name")
    assert why("A", 54321) == ("allow", "ok", "in_manifest")
    assert why("A", 54322) == ("deny", "denied", "uid_not_allowed")
    assert broker.records("fetch") == []
    assert broker.status()["fetches_allowed"] == 0
    assert broker.ask({"op": "explain", "name": "nobody", "secret": "A"})["code"] == "project_unknown"
    for wrong in ({"name": "myrepo"}, {"name": "myrepo", "secret": 5}, {"name": "myrepo", "secret": "A", "uid": -1}):
        assert broker.ask({"op": "explain", **wrong})["code"] == "protocol_error"


# --- the stream


class Watcher:
    """A connection that watches, and the state that its events add up to."""

    def __init__(self, broker: Broker) -> None:
        self.link = Link(broker.status_socket)
        self.link.send({"op": "watch"})
        self.events: list[dict[str, Any]] = []
        self.broker: dict[str, Any] = {}
        self.projects: dict[str, dict[str, Any]] = {}

    def next(self) -> dict[str, Any]:
        event = json.loads(self.link.line())
        assert isinstance(event, dict)
        self.events.append(event)
        if event["event"] == "broker":
            self.broker = event
        elif event["event"] == "project":
            self.projects[event["name"]] = event
        elif event["event"] == "removed":
            del self.projects[event["name"]]
        return event

    def until(self, **wanted: Any) -> dict[str, Any]:
        while not wanted.items() <= (event := self.next()).items():
            pass
        return event


@pytest.fixture
def watcher(broker: Broker) -> Any:
    watcher = Watcher(broker)
    yield watcher
    watcher.link.close()


def test_a_watch_begins_with_the_current_state(watcher: Watcher) -> None:
    watcher.until(event="synced")
    assert [event["event"] for event in watcher.events] == ["broker", "project", "project", "synced"]
    assert sorted(watcher.projects) == ["myrepo", "other"]
    assert list(watcher.projects["myrepo"])[: len(PROJECT_FIELDS)] == PROJECT_FIELDS
    assert (watcher.broker["secret_count"], watcher.broker["audit_healthy"]) == (0, True)


def test_changes_come_at_once_and_counters_within_a_second(
    broker: Broker, watcher: Watcher, directory: pathlib.Path
) -> None:
    watcher.until(event="synced")
    generations = iter(range(1, 1000))

    def eight_pushes() -> float:
        began = time.monotonic()
        for generation in islice(generations, 8):
            broker.push({"A": "a"})
            event = watcher.until(event="broker", generation=generation)
            assert event["secrets_loaded_usec"] > 0
        return time.monotonic() - began

    # Counters alone would send one a second.
    assert shortest(eight_pushes, below=7) < 7
    watcher.events.clear()
    broker.ask({"op": "clear-creds"})
    assert watcher.until(event="broker", secret_count=0)["secrets_loaded_usec"] == 0
    path = make_project(directory / "third", "A", "B", "C")
    broker.ask({"op": "register", "name": "third", "project_path": str(path)})
    assert watcher.until(event="project", name="third")["allowlist_size"] == 3
    make_project(path, "A")
    broker.ask({"op": "reload", "name": "third"})
    assert watcher.until(event="project", name="third")["allowlist_size"] == 1
    broker.ask({"op": "unregister", "name": "third"})
    watcher.until(event="removed", name="third")
    with Link(broker.project()) as client:
        client.send(GET * 200)
        for _ in range(200):
            client.reply()
        watcher.until(event="broker", fetches_allowed=200)
        event = watcher.until(event="project", name="myrepo", fetches_allowed=200)
        assert event["connections"] == 1
    watcher.until(event="project", name="myrepo", connections=0)
    assert len(watcher.events) < 40  # not one for each get


def test_counters_alone_are_sent_once_a_second_however_much_else_changes(
    broker: Broker, watcher: Watcher, directory: pathlib.Path
) -> None:
    watcher.until(event="synced")
    began, changed = time.monotonic(), 20
    broker.push({"A": "a"})
    path = make_project(directory / "third", "A")
    broker.ask({"op": "register", "name": "third", "project_path": str(path)})
    with Link(broker.project()) as client:
        for number in range(changed):
            client.send(GET)
            client.reply()
            broker.push({"A": "a"})  # ends the lease, which changes another counter of the project
            client.send(GET)
            client.reply()
            make_project(path, *f"A{number}")
            broker.ask({"op": "reload", "name": "third"})  # which changes another counter of the broker
        watcher.until(event="project", name="myrepo", fetches_allowed=2 * changed)
    seconds = time.monotonic() - began
    assert sum(event.get("name") == "myrepo" for event in watcher.events) <= seconds + 2
    changes = 2 * (changed + 1)  # the pushes, and the registration with its reloads
    assert len(watcher.events) <= changes + 2 * (seconds + 2) + 4


def test_without_a_change_nothing_is_sent(broker: Broker, watcher: Watcher) -> None:
    watcher.until(event="synced")
    watcher.link.socket.settimeout(1.5)
    with pytest.raises(TimeoutError):
        watcher.next()


def test_a_watch_ends_with_a_final_event(broker: Broker, watcher: Watcher) -> None:
    watcher.until(event="synced")
    broker.stop()
    assert watcher.next() == {"event": "stopping", "idle": False}
    assert watcher.link.rest() == b""


def test_a_watcher_may_close_its_sending_side(broker: Broker, watcher: Watcher) -> None:
    """As `printf … | socat -` does: it sends nothing more, and listens."""
    watcher.link.say_no_more()
    watcher.until(event="synced")
    broker.push({"A": "a"})
    watcher.until(event="broker", secret_count=1)


def test_a_disconnected_watcher_costs_nothing(broker: Broker, watcher: Watcher) -> None:
    """It closes one direction, then both: epoll would report that forever."""
    watcher.link.say_no_more()
    watcher.until(event="synced")
    before = broker.descriptors()
    watcher.link.close()
    poll("its end", lambda: broker.descriptors() == before - 1)
    used = broker.processor_seconds()
    time.sleep(0.5)
    assert broker.processor_seconds() - used < 0.2


def test_a_watcher_that_does_not_read_gets_the_latest(start_broker: StartBroker) -> None:
    """It costs the broker nothing, delays no other client, and gets the current state when it reads
    again."""
    names = [f"p{number}" for number in range(1000)]
    broker = start_broker(projects=[registration(name, "A") for name in names])
    watcher = Watcher(broker)
    for number in range(20):
        broker.push({f"N{item}": "x" for item in range(number)})
    watcher.until(event="synced")
    assert len(watcher.projects) == 1000
    while watcher.broker["generation"] < 20:
        watcher.next()
    assert watcher.broker["secret_count"] == 19
    watcher.link.close()


def test_a_watch_and_requests_on_one_connection(broker: Broker, watcher: Watcher) -> None:
    watcher.until(event="synced")
    status = watcher.link.ask({"op": "status"})
    assert status["project_count"] == 2
    refusal = watcher.link.ask({"op": "get", "name": "A"})
    assert (refusal["code"], refusal["reason"]) == ("protocol_error", "unknown_op")
    broker.push({"A": "a"})
    watcher.until(event="broker", secret_count=1)


def test_a_socket_that_clients_cannot_connect_to_is_shown(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """Removed, or replaced by a directory, as container engines do; until a reload can recreate
    it."""
    path = make_project(directory / "myrepo", "A")
    projects = [registration("myrepo", "A", project_path=str(path)), registration("other", "A")]
    broker = start_broker(projects=projects)

    def unserved() -> list[str | None]:
        status = broker.status()
        assert status.get("unserved_count", 0) == sum("unserved" in one for one in status["projects"])
        shown = broker.ask({"op": "show", "name": "myrepo"})
        assert shown.get("unserved") == status["projects"][0].get("unserved")
        return [one.get("unserved") for one in status["projects"]]

    for socket_file in (broker.project(), broker.mount()):
        assert unserved() == [None, None]
        socket_file.unlink()
        assert unserved() == [str(socket_file), None]
        socket_file.mkdir()
        assert unserved() == [str(socket_file), None]
        refusal = broker.ask({"op": "reload", "name": "myrepo"})
        assert refusal["reason"] == "socket_unavailable"
        assert f"rmdir {socket_file}" in refusal["message"]
        socket_file.rmdir()
        assert broker.ask({"op": "reload", "name": "myrepo"})["ok"]
