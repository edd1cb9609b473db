"""Sockets that systemd passes, with the test in systemd's role."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Link, ask, inside, listen, registration, settle
from tests.support.projects import make_project, register
from tests.support.units import Units

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket


def test_passed_sockets_are_served_unchanged(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    units.add("client-myrepo")
    units.add("mount-myrepo")
    inodes = [path.stat().st_ino for path in sorted(units.directory.rglob("*"))]
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
    broker.push({"A": "a"})
    assert broker.get("A")["value"] == ask(broker.mount(), {"op": "get", "name": "A"})["value"] == "a"
    assert ask(broker.status_socket, {"op": "status"})["project_count"] == 1
    assert "FDSTORE" not in [key for one in notify.read() for key in one]  # systemd holds it already
    broker.stop()
    assert [path.stat().st_ino for path in sorted(units.directory.rglob("*"))] == inodes


def test_a_client_that_connects_before_the_start_is_served(start_broker: StartBroker, units: Units) -> None:
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


def test_only_descriptors_passed_to_this_process_are_used(start_broker: StartBroker) -> None:
    broker = start_broker(environment={"LISTEN_FDS": "3", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b:c"})
    assert broker.status()["ok"]
    assert broker.notes() == []


def test_denials_of_long_names_on_a_socket_that_is_not_registered_are_counted(
    start_broker: StartBroker, units: Units
) -> None:
    """After the first few, as those of a project are."""
    units.add("client-myrepo")
    broker = start_broker(listeners=units.sockets)
    for number in range(50):
        assert ask(broker.project(), {"op": "get", "name": f"{number:0100}"})["reason"] == "not_registered"
    broker.stop()
    recorded = [one for one in broker.records("fetch") if one["REMO_PROJECT"] == "myrepo"]
    counted = sum(int(one["REMO_COUNT"]) for one in broker.records("fetch.denials_counted"))
    assert len(recorded) < 20
    assert len(recorded) + counted == 50


def test_a_project_that_is_not_registered(start_broker: StartBroker, units: Units) -> None:
    """It has a socket unit but no registration: every request is denied, and the connection
    closed."""
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
    (record,) = broker.records("fetch")  # the others are not fetches
    assert (record["REMO_PROJECT"], record["REMO_SECRET"], record["REMO_DECISION"]) == ("myrepo", "A", "deny")
    assert (record["REMO_OUTCOME"], record["REMO_REASON"], record["PRIORITY"]) == ("denied", "not_registered", "4")
    assert {"REMO_LATENCY_USEC", "REMO_GENERATION", "REMO_PEER_PID"} <= set(record)


def test_a_unit_s_listener_is_not_served_to_a_later_registration(
    start_broker: StartBroker, units: Units, directory: pathlib.Path, notify: NotifySocket
) -> None:
    """It is older than the registration, so its mounts belong to an earlier one."""
    units.add("client-myrepo")
    broker = start_broker(listeners=units.sockets, notify=notify)
    mounted = directory / "mounted"
    os.link(broker.project(), mounted)
    assert ask(mounted, {"op": "ping"})["reason"] == "not_registered"
    assert register(broker, make_project(directory / "myrepo", "A"))["ok"]
    assert broker.get("A")["reason"] == "no_snapshot"
    with pytest.raises(ConnectionRefusedError):
        Link(mounted)


def test_unregistering_revokes_a_units_listener(
    start_broker: StartBroker, units: Units, directory: pathlib.Path, notify: NotifySocket
) -> None:
    """Neither this broker nor the next one serves it to another directory of the same name."""
    units.add("client-myrepo")
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
    broker.push({"A": "a"})
    mounted = directory / "mounted"
    os.link(broker.project(), mounted)
    with Link(mounted) as client:
        assert client.ask({"op": "get", "name": "A"})["value"] == "a"
        assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
        assert client.rest() == b""
    for restarted in (False, True):
        if restarted:
            broker.stop()
            # The unit is still active, so systemd hands its listener over again.
            listeners = [*units.sockets.items(), *notify.listeners()]
            broker = start_broker(listeners=listeners, notify=notify)
        else:
            assert register(broker, make_project(directory / "other" / "myrepo", "A"))["ok"]
        broker.push({"A": "of the other"})
        assert broker.get("A")["value"] == "of the other"
        with pytest.raises(ConnectionRefusedError):
            Link(mounted)


def test_no_directory_is_made_beside_a_listener_that_the_broker_was_not_passed(
    start_broker: StartBroker, units: Units, directory: pathlib.Path, notify: NotifySocket
) -> None:
    """It cannot revoke that, and would serve it to another project once it is passed it. systemd starts no unit beside
    a broker that runs; another manager may."""
    first = registration("myrepo", "A", project_path="/first/myrepo")
    broker = start_broker(projects=[first], listeners=units.sockets, notify=notify)
    broker.mount().unlink()
    units.add("mount-myrepo")
    os.link(broker.mount(), directory / "mounted")
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    other = make_project(directory / "other" / "myrepo", "A")
    refusal = register(broker, other)
    assert (refusal["reason"], str(broker.mount()) in refusal["message"]) == ("socket_unavailable", True)
    units.sockets.pop("mount-myrepo").close()
    assert register(broker, other)["ok"]
    assert ask(broker.mount(), {"op": "ping"})["ok"]
    with pytest.raises(ConnectionRefusedError):
        Link(directory / "mounted")


def test_a_revoked_listener_is_not_served_although_it_is_at_its_path(start_broker: StartBroker, units: Units) -> None:
    """As after an unregister interrupted by a crash: the registration is back, and the unit still
    has its dead socket."""
    units.add("client-myrepo")
    units.sockets["client-myrepo"].shutdown(socket.SHUT_RDWR)
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets)
    broker.push({"A": "a"})
    assert broker.get("A")["value"] == "a"


def test_clients_waiting_at_a_revoked_listener_are_refused(
    start_broker: StartBroker, units: Units, directory: pathlib.Path
) -> None:
    units.add("client-myrepo")
    broker = start_broker(listeners=units.sockets)
    broker.signal(signal.SIGSTOP)
    with Link(broker.project()) as waiting, Link(broker.admin) as operator:
        path = make_project(directory / "myrepo", "A")
        operator.send({"op": "register", "name": "myrepo", "project_path": str(path)})
        waiting.send({"op": "ping"})
        broker.signal(signal.SIGCONT)
        assert operator.reply()["ok"]
        assert b'"project"' not in waiting.rest()


@pytest.mark.parametrize("kind", ["client", "mount"])
def test_a_stored_listener_without_registration_is_revoked_and_the_units_is_served(
    start_broker: StartBroker, units: Units, directory: pathlib.Path, notify: NotifySocket, kind: str
) -> None:
    """Since systemd 254, the store outlives a stop. If the state was then lost and the units were
    started, clients waiting there are not refused."""
    broker = start_broker(listeners=units.sockets, notify=notify)
    assert register(broker, make_project(directory / "myrepo", "A"))["ok"]
    mounted = directory / "mounted"
    os.link(broker.mount() if kind == "mount" else broker.project(), mounted)
    broker.stop()
    stored = notify.listeners()
    assert {name for name, _ in stored} == {"client-myrepo", "mount-myrepo"}
    (broker.state / "registrations.json").unlink()
    for path in (broker.project(), broker.mount()):
        path.unlink()  # systemd unlinks an existing file
    units.add("client-myrepo")
    units.add("mount-myrepo")
    path = broker.mount() if kind == "mount" else broker.project()
    with Link(path) as waiting, Link(mounted) as forgotten:
        for one in waiting, forgotten:
            one.send({"op": "ping"})
        broker = start_broker(listeners=[*units.sockets.items(), *stored], notify=notify)
        assert waiting.reply()["reason"] == "not_registered"
        with pytest.raises(ConnectionResetError):
            forgotten.reply()
    assert ask(path, {"op": "ping"})["reason"] == "not_registered"
    with pytest.raises(ConnectionRefusedError):
        Link(mounted)
    assert notify.listeners() == []
    assert register(broker, make_project(directory / "other" / "myrepo", "A"))["ok"]
    assert ask(path, {"op": "ping"})["ok"]


def test_unknown_descriptors_are_closed_and_logged(
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


# A launcher that listens and then executes the broker, as systemd-socket-activate(1) does:
# `LAUNCHER NAME=PATH ... -- COMMAND`.
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
def test_sockets_of_a_launcher_are_served_forever(
    start_broker: StartBroker, directory: pathlib.Path, notify: NotifySocket, *, told: bool
) -> None:
    """No other process holds them, so the broker does not exit; and it did not create them, so it
    does not remove them."""
    broker = start_broker(
        through=launcher(directory, "status", "client-myrepo", "admin"),  # the last one is waited for
        projects=[registration("myrepo", "A")],
        notify=notify if told else None,
        idle_exit_seconds=1,
    )
    assert broker.get("A")["reason"] == "no_snapshot"
    settle(2.5)
    assert broker.process.poll() is None
    broker.stop()
    assert broker.project().exists()


def test_a_socket_created_by_a_unit_at_the_same_path_is_left(
    start_broker: StartBroker, directory: pathlib.Path, units: Units, notify: NotifySocket
) -> None:
    """systemd unlinks an existing file: the path then no longer leads to the broker's socket."""
    broker = start_broker(projects=[registration("myrepo", "A")], listeners=units.sockets, notify=notify)
    broker.project().unlink()
    units.add("client-myrepo")
    inode = broker.project().stat().st_ino
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    assert broker.project().stat().st_ino == inode
