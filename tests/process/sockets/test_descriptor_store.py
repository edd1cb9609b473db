"""Listeners in systemd's descriptor store, with the test in systemd's role."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Link, ask, registration, settle
from tests.support.machine import poll
from tests.support.projects import make_project

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket
    from tests.support.units import Units

GET = {"op": "get", "name": "A"}


def test_a_project_registered_at_run_time_survives_a_restart(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    for name in ("client-myrepo", "mount-myrepo"):
        notify.wait_for(FDSTORE="1", FDNAME=name)
    sockets = (broker.project(), broker.mount())
    inodes = [path.stat().st_ino for path in sockets]
    broker.stop()
    with Link(broker.project()) as waiting, Link(broker.mount()) as mounted:  # no broker runs, and no client is refused
        waiting.send(GET)
        mounted.send(GET)
        broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
        assert waiting.reply()["reason"] == mounted.reply()["reason"] == "no_snapshot"
    assert [path.stat().st_ino for path in sockets] == inodes
    assert broker.notes() == []
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    for name in ("client-myrepo", "mount-myrepo"):
        notify.wait_for(FDSTOREREMOVE="1", FDNAME=name)
    assert notify.stored == {}
    assert not any(path.exists() for path in sockets)


def test_a_removed_socket_is_recreated(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """By a reload and by a restart. Clients that hold the removed one are still served on it."""
    broker = start_broker(listeners=units.sockets, notify=notify)
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    mounted = directory / "mounted"
    os.link(broker.project(), mounted)
    broker.project().unlink()
    assert broker.ask({"op": "reload", "name": "myrepo"})["ok"]
    assert [ask(path, {"op": "ping"})["project"] for path in (broker.project(), mounted)] == ["myrepo"] * 2
    poll("both to be stored", lambda: notify.read() and len(notify.stored["client-myrepo"]) == 2)
    broker.project().unlink()
    broker.stop()
    broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
    assert [ask(path, {"op": "ping"})["project"] for path in (broker.project(), mounted)] == ["myrepo"] * 2
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    assert not broker.project().exists()
    notify.wait_for(FDSTOREREMOVE="1", FDNAME="client-myrepo")
    assert notify.stored == {}


def test_a_stored_socket_of_no_project_is_dropped(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """Its project is not registered any more, and no unit holds it: it would stay forever."""
    before = start_broker(projects=[registration("gone", "A")], listeners=units.sockets, notify=notify)
    notify.wait_for(FDSTORE="1", FDNAME="client-gone")
    before.stop()
    (before.state / "registrations.json").unlink()
    broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
    notify.wait_for(FDSTOREREMOVE="1", FDNAME="client-gone")
    assert not broker.project("gone").exists()
    (note,) = broker.notes()
    assert "gone" in note


def test_the_exit_waits_until_listeners_are_stored(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """systemd is busy, as during a restart of many units: a listener that it does not have yet
    would be lost."""
    broker = start_broker(listeners=units.sockets, notify=notify)
    notify.wait_for(READY="1")
    notify.fill()
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    inode = broker.project().stat().st_ino
    broker.signal(signal.SIGTERM)
    settle(0.5)
    notify.wait_for(FDSTORE="1", FDNAME="client-myrepo")
    assert broker.wait() == 0
    (descriptor,) = notify.stored["client-myrepo"]
    with socket.socket(fileno=os.dup(descriptor)) as kept:
        assert kept.getsockname() == str(broker.project())
    assert broker.project().stat().st_ino == inode


@pytest.mark.parametrize("name", ["client-myrepo", "mount-myrepo"])
def test_a_unit_started_and_stopped_leaves_no_unserved_socket(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path, name: str
) -> None:
    """systemd keeps the store across a stop, and lets the unit create its own file at the same
    path."""
    broker = start_broker(listeners=units.sockets, notify=notify)
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    notify.wait_for(FDSTORE="1", FDNAME=name)
    place = broker.project() if name == "client-myrepo" else broker.mount()
    broker.stop()
    place.unlink()
    units.add(name)
    broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
    assert ask(place, {"op": "ping"})["project"] == "myrepo"
    broker.stop()
    units.sockets.pop(name).close()
    broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
    assert ask(place, {"op": "ping"})["project"] == "myrepo"
