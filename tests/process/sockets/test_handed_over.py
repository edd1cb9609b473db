"""Sockets that systemd hands over: operations.md, with this process in systemd's place."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Link, ask, inside, listen, registration, settle
from tests.support.projects import make_project
from tests.support.units import Units

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket


def test_sockets_are_served_as_they_were_handed_over(
    start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    units.add("client-myrepo")
    inodes = [path.stat().st_ino for path in sorted(units.directory.iterdir())]
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
    broker.push({"A": "a"})
    assert broker.get("A")["value"] == "a"
    assert ask(broker.status_socket, {"op": "status"})["project_count"] == 1
    assert "FDSTORE" not in [key for one in notify.read() for key in one]  # systemd holds it already
    broker.stop()
    assert [path.stat().st_ino for path in sorted(units.directory.iterdir())] == inodes


def test_who_connects_before_the_start_is_served(start_broker: StartBroker, units: Units) -> None:
    units.add("client-myrepo")
    with Link(units.directory / "admin.sock") as operator, Link(units.directory / "myrepo.sock") as client:
        operator.send({"op": "status"})
        client.send({"op": "ping"})
        start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets)
        assert operator.reply()["ok"]
        assert client.reply()["project"] == "myrepo"


def test_without_a_control_socket_it_makes_its_own(
    start_broker: StartBroker, directory: pathlib.Path, notify: NotifySocket
) -> None:
    with contextlib.closing(Units(directory)) as units:
        units.add("client-myrepo")
        broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
        assert broker.status()["project_count"] == 1
        assert ask(broker.project(), {"op": "ping"})["ok"]


def test_only_what_was_handed_over_to_this_process_is_taken(start_broker: StartBroker) -> None:
    broker = start_broker(environment={"LISTEN_FDS": "3", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b:c"})
    assert broker.status()["ok"]
    assert broker.notes() == []


def test_a_project_that_is_not_registered(start_broker: StartBroker, units: Units) -> None:
    """Its socket unit is there, the registration is not: whatever is asked is denied, then closed."""
    units.add("client-myrepo")
    broker = start_broker(listeners=units.sockets)
    broker.push({"A": "a"})
    for line in (b'{"op":"get","name":"A"}\n', b'{"op":"ping"}\n', b"garbage\n", b"{", b'{"op":"info"}\n' * 5):
        with Link(broker.project()) as client:
            client.send(line)
            client.say_no_more()
            (answer,) = client.rest().splitlines()
        refusal = json.loads(answer)
        assert (refusal["ok"], refusal["code"], refusal["reason"]) == (False, "denied", "not_registered")
    (record,) = broker.records("fetch")  # the others are no fetches
    assert (record["REMO_PROJECT"], record["REMO_SECRET"], record["REMO_DECISION"]) == ("myrepo", "A", "deny")
    assert (record["REMO_OUTCOME"], record["REMO_REASON"], record["PRIORITY"]) == ("denied", "not_registered", "4")
    assert {"REMO_LATENCY_USEC", "REMO_GENERATION", "REMO_PEER_PID"} <= set(record)


def test_registering_and_unregistering_on_a_unit_s_socket(
    start_broker: StartBroker, units: Units, directory: pathlib.Path, notify: NotifySocket
) -> None:
    units.add("client-myrepo")
    broker = start_broker(listeners=units.sockets, notify=notify)
    inode = broker.project().stat().st_ino
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    assert broker.get("A")["reason"] == "no_snapshot"
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    assert broker.get("A")["reason"] == "not_registered"
    assert broker.project().stat().st_ino == inode  # not the broker's to remove
    assert notify.stored == {}


def test_strange_descriptors_are_closed_and_said(
    start_broker: StartBroker, units: Units, directory: pathlib.Path
) -> None:
    with contextlib.ExitStack() as stack:

        def bound(name: str, style: int = socket.SOCK_STREAM) -> socket.socket:
            made = stack.enter_context(socket.socket(socket.AF_UNIX, style))
            made.bind(str(directory / name))
            return made

        strange = {
            "unknown": stack.enter_context(listen(directory / "1")),
            "client-": stack.enter_context(listen(directory / "2")),
            "client-../x": stack.enter_context(listen(directory / "3")),
            "client-MyRepo": stack.enter_context(listen(directory / "4")),
            "client-datagram": bound("5", socket.SOCK_DGRAM),
            "client-idle": bound("6"),
        }
        passed = [*units.sockets.items(), *strange.items(), ("admin", stack.enter_context(listen(directory / "7")))]
        broker = start_broker(listeners=passed)
        assert broker.status()["ok"]
        notes = broker.notes()
        assert len(notes) == len(strange) + 1
        for name, note in zip([*strange, "admin"], notes, strict=True):
            assert f"Descriptor {name} " in note
            assert note.endswith("closed.")
        inode = os.fstat(strange["unknown"].fileno()).st_ino
        held = [os.readlink(entry.path) for entry in os.scandir(inside(broker.pid, "fd"))]
        assert f"socket:[{inode}]" not in held


# A launcher that listens itself and executes the broker, as systemd-socket-activate(1) does: `LAUNCHER NAME=PATH ... -- COMMAND`.
_LAUNCHER = """
import os, socket, sys
split = sys.argv.index("--")
names = []
for number, pair in enumerate(sys.argv[1:split], 3):
    name, _, path = pair.partition("=")
    names.append(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    os.dup2(listening.detach(), 100 + number)
for number in range(3, 3 + len(names)):
    os.dup2(100 + number, number)
    os.close(100 + number)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[split + 1], sys.argv[split + 1 :])
"""


def launcher(directory: pathlib.Path, *names: str) -> list[str]:
    (directory / "s").mkdir()
    pairs = [f"{name}={directory}/s/{name.removeprefix('client-')}.sock" for name in names]
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, *pairs, "--"]


@pytest.mark.parametrize("told", [True, False])
def test_what_a_launcher_has_made_is_not_the_broker_s(
    start_broker: StartBroker, directory: pathlib.Path, notify: NotifySocket, *, told: bool
) -> None:
    """Nobody else holds it: it is served for good, and it is not the broker's to remove."""
    broker = start_broker(
        through=launcher(directory, "status", "client-myrepo", "admin"),  # the last is waited for
        projects=[registration("myrepo", "A")],
        notify=notify if told else None,
        idle_exit_seconds=1,
    )
    inode = broker.project().stat().st_ino
    assert broker.get("A")["reason"] == "no_snapshot"
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    assert broker.get("A")["reason"] == "not_registered"
    assert broker.project().stat().st_ino == inode
    assert notify.stored == {}
    settle(2.5)
    assert broker.process.poll() is None
    broker.stop()
    assert broker.project().exists()


def test_a_socket_that_a_unit_has_put_in_its_place_is_left(
    start_broker: StartBroker, directory: pathlib.Path, units: Units, notify: NotifySocket
) -> None:
    """systemd unlinks what is in its way: what the broker had bound is then no longer what the path leads to."""
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
    broker.project().unlink()
    units.add("client-myrepo")
    inode = broker.project().stat().st_ino
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    assert broker.project().stat().st_ino == inode
