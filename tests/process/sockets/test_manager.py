"""Notifications to systemd, with the test in its role."""

from __future__ import annotations

import pathlib
import signal
import time
from typing import TYPE_CHECKING

from tests.support.broker import Link, registration, run_to_end
from tests.support.machine import poll
from tests.support.projects import make_project
from tests.support.units import Units

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket


def statuses(notify: NotifySocket) -> list[str]:
    return [one["STATUS"] for one in notify.read() if "STATUS" in one]


def test_ready_and_status(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    first = notify.wait_for(READY="1")
    assert first["STATUS"].startswith("Serving 0 projects, no secrets yet, memory ")
    broker.push({"A": "a"})
    poll("the count of secrets", lambda: "1 secret (generation 1)" in statuses(notify)[-1])
    path = make_project(directory / "myrepo", "A")
    broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})
    poll("the count of projects", lambda: "Serving 1 project, " in statuses(notify)[-1])
    broker.push({"A": "a", "B": "b"})
    poll("the count of secrets", lambda: "2 secrets (generation 2)" in statuses(notify)[-1])
    assert len(notify.read()) < 10
    broker.stop()
    assert notify.read()[-1] == {"STOPPING": "1"}


def test_the_reason_for_a_failed_start_is_reported(directory: pathlib.Path, notify: NotifySocket) -> None:
    """`systemctl status` shows it while systemd waits before the next attempt."""
    path = directory / "config.toml"
    path.write_text("colour = 'red'\n")
    done = run_to_end("--config", str(path), environment={"NOTIFY_SOCKET": str(notify.path)})
    (message,) = notify.read()
    assert message == {"STATUS": f"Not started: {done.stderr.strip().removeprefix('remo-broker: ')}"}
    assert message["STATUS"].startswith(f"Not started: {path}: colour: unknown")


def test_ready_means_that_every_socket_listens(
    start_broker: StartBroker, directory: pathlib.Path, notify: NotifySocket
) -> None:
    names = [f"p{number}" for number in range(50)]
    broker = start_broker(projects=[registration(name, "A") for name in names], notify=notify)
    for path in (broker.admin, broker.status_socket, *map(broker.project, names)):
        with Link(path):
            pass


def test_changes_are_sent_once_a_second(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    began = time.monotonic()
    generation = 0
    with Link(broker.admin) as operator:
        while time.monotonic() - began < 1.5 or generation <= 50:
            generation = operator.ask({"op": "push-creds", "secrets": {}})["generation"]
            notify.read()
    poll("the last", lambda: f"(generation {generation})" in statuses(notify)[-1])
    assert 2 <= len(statuses(notify)) <= 2 + (time.monotonic() - began)


def test_the_watchdog(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    start_broker(listeners=units.sockets, notify=notify, environment={"WATCHDOG_USEC": "200000"})

    def fed() -> int:
        return sum("WATCHDOG" in one for one in notify.read())

    before = fed()
    poll("the watchdog to be fed", lambda: fed() >= before + 5)


def test_a_reload_is_sent(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    broker.signal(signal.SIGHUP)
    notify.wait_for(RELOADING="1")
    poll("the end of the reload", lambda: sum("READY" in one for one in notify.read()) == 2)
    order = [next(iter(one)) for one in notify.read() if {"READY", "RELOADING"} & one.keys()]
    assert order == ["READY", "RELOADING", "READY"]


def test_a_manager_that_does_not_listen_does_not_stop_the_broker(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    notify.close()
    broker.push({"A": "a"})
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    assert broker.get("A")["value"] == "a"
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    broker.stop()
