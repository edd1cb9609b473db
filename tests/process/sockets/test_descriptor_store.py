"""Listeners in systemd's descriptor store, with this process in systemd's place."""

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


def test_a_project_registered_while_it_runs_outlives_a_restart(
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
    with Link(broker.project()) as waiting, Link(broker.mount()) as mounted:  # nothing runs, and nobody is refused
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


def test_a_socket_that_was_removed_comes_back(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """With a reload, and with a restart. Who has the one that was removed is still served on it."""
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


def test_a_stored_socket_of_nobody_is_dropped(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """Its project is registered no more, and no unit holds it: it would stay for ever."""
    before = start_broker(projects=[registration("gone", "A")], listeners=units.sockets, notify=notify)
    notify.wait_for(FDSTORE="1", FDNAME="client-gone")
    before.stop()
    (before.state / "registrations.json").unlink()
    broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
    notify.wait_for(FDSTOREREMOVE="1", FDNAME="client-gone")
    assert not broker.project("gone").exists()
    (note,) = broker.notes()
    assert "gone" in note


def test_the_end_waits_for_what_is_to_be_stored(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """systemd is busy, as it is while many units are restarted: a listener that it has not been
    given yet would be lost."""
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
def test_a_unit_that_came_and_went_leaves_no_socket_that_nobody_serves(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path, name: str
) -> None:
    """systemd keeps the store over a stop, and lets the unit put its own file at the same path."""
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
