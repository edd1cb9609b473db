"""What systemd hands over and is told: operations.md, with this process in systemd's place."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.daemon import IDLE_STATUS
from tests.support.broker import Broker, Link, ask, inside, listen, registration, run_to_end, settle, short_directory
from tests.support.machine import poll
from tests.support.projects import make_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket

GET = {"op": "get", "name": "A"}


class Units:
    """Socket units: listening sockets by their descriptor names, held by this process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory / "s"
        self.directory.mkdir(exist_ok=True)
        self.sockets: dict[str, socket.socket] = {}

    def add(self, name: str) -> None:
        self.sockets[name] = listen(self.directory / f"{name.removeprefix('client-')}.sock")

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()


@pytest.fixture
def units(directory: pathlib.Path) -> Iterator[Units]:
    with contextlib.closing(Units(directory)) as units:
        units.add("admin")
        units.add("status")
        yield units


def statuses(notify: NotifySocket) -> list[str]:
    return [one["STATUS"] for one in notify.read() if "STATUS" in one]


# --- sockets that are handed over


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
        through=launcher(directory, "admin", "client-myrepo", "status"),  # the last is waited for
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


# --- what it tells


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


def test_why_it_does_not_start_is_told(directory: pathlib.Path, notify: NotifySocket) -> None:
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


def test_changes_are_told_once_a_second(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    began = time.monotonic()
    with Link(broker.admin) as operator:
        while time.monotonic() - began < 1.5:
            pushed = operator.ask({"op": "push-creds", "secrets": {}})
            notify.read()
    poll("the last", lambda: f"(generation {pushed['generation']})" in statuses(notify)[-1])
    assert pushed["generation"] > 50
    assert 2 <= len(statuses(notify)) <= 2 + (time.monotonic() - began)


def test_the_watchdog(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    start_broker(listeners=units.sockets, notify=notify, environment={"WATCHDOG_USEC": "200000"})

    def pats() -> int:
        return sum("WATCHDOG" in one for one in notify.read())

    began = time.monotonic()
    before = pats()
    poll("the watchdog to be patted", lambda: pats() >= before + 5)
    assert time.monotonic() - began < 3  # five times in half a second, on an idle machine


def test_a_reload_is_told(start_broker: StartBroker, units: Units, notify: NotifySocket) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    broker.signal(signal.SIGHUP)
    notify.wait_for(RELOADING="1")
    poll("the end of the reload", lambda: sum("READY" in one for one in notify.read()) == 2)
    order = [next(iter(one)) for one in notify.read() if {"READY", "RELOADING"} & one.keys()]
    assert order == ["READY", "RELOADING", "READY"]


def test_a_manager_that_does_not_listen_stops_nothing(
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


# --- the descriptor store


def test_a_project_registered_while_it_runs_outlives_a_restart(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    broker = start_broker(listeners=units.sockets, notify=notify)
    path = make_project(directory / "myrepo", "A")
    assert broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})["ok"]
    stored = notify.wait_for(FDSTORE="1")
    assert stored["FDNAME"] == "client-myrepo"
    (descriptor,) = notify.stored["client-myrepo"]
    inode = broker.project().stat().st_ino
    broker.stop()
    assert broker.project().stat().st_ino == inode
    with Link(broker.project()) as waiting:  # nothing runs, and nobody is refused
        waiting.send(GET)
        with socket.socket(fileno=os.dup(descriptor)) as kept:
            broker = start_broker(listeners=[*units.sockets.items(), ("client-myrepo", kept)], notify=notify)
            assert waiting.reply()["reason"] == "no_snapshot"
    assert broker.project().stat().st_ino == inode
    assert broker.notes() == []
    assert broker.ask({"op": "unregister", "name": "myrepo"})["ok"]
    removed = notify.wait_for(FDSTOREREMOVE="1")
    assert removed["FDNAME"] == "client-myrepo"
    assert notify.stored == {}
    assert not broker.project().exists()


def test_a_stored_socket_of_nobody_is_dropped(
    start_broker: StartBroker, units: Units, notify: NotifySocket, directory: pathlib.Path
) -> None:
    """Its project is registered no more, and no unit holds it: it would stay for ever."""
    before = start_broker(projects=[registration("gone", "A")], listeners=units.sockets, notify=notify)
    notify.wait_for(FDSTORE="1", FDNAME="client-gone")
    (descriptor,) = notify.stored["client-gone"]
    before.stop()
    (before.state / "registrations.json").unlink()
    with socket.socket(fileno=os.dup(descriptor)) as kept:
        broker = start_broker(listeners=[*units.sockets.items(), ("client-gone", kept)], notify=notify)
    notify.wait_for(FDSTOREREMOVE="1", FDNAME="client-gone")
    assert not broker.project("gone").exists()
    (note,) = broker.notes()
    assert "gone" in note


# --- idle


def test_idle_exit_when_it_may_and_not_when_it_may_not(directory: pathlib.Path) -> None:
    """All at once, as each takes its time: who is free to go goes after a second, who is not stays."""
    with contextlib.ExitStack() as stack:

        def started(*, handed_over: bool = True, seconds: int = 1, **options: object) -> Broker:
            place = stack.enter_context(short_directory())
            listeners: dict[str, socket.socket] = {}
            if handed_over:
                units = stack.enter_context(contextlib.closing(Units(place)))
                for name in ("admin", "status", "client-held"):
                    units.add(name)
                listeners = units.sockets
            broker = Broker(place, listeners=listeners, idle_exit_seconds=seconds, **options)  # type: ignore[arg-type]
            stack.callback(broker.close)
            return broker.start()

        free = started()
        registered = started(projects=[registration("held", "A")])
        watched = started()
        watcher = stack.enter_context(Link(watched.status_socket))
        watcher.send({"op": "watch"})
        emptied = started()
        emptied.push({"A": "a"})
        emptied.ask({"op": "clear-creds"})
        going = [free, registered, watched, emptied]

        secrets = started()
        secrets.push({"A": "a"})
        client = started(projects=[registration("held", "A")])
        stack.enter_context(Link(client.project("held")))
        operator = started()
        stack.enter_context(Link(operator.admin))
        own_listener = started(projects=[registration("own", "A")])
        own_sockets = started(handed_over=False)
        never = started(seconds=0)
        busy = started()
        staying = [secrets, client, operator, own_listener, own_sockets, never, busy]

        def gone() -> bool:
            busy.status()
            return all(broker.process.poll() is not None for broker in going)

        poll("those who may go", gone)
        until = time.monotonic() + 1
        poll("another second", lambda: gone() and time.monotonic() > until)
        assert [broker.wait() for broker in going] == [IDLE_STATUS] * len(going)
        events = [json.loads(line) for line in watcher.rest().splitlines()]
        assert events[-1] == {"event": "stopping", "idle": True}
        assert [broker.process.poll() for broker in staying] == [None] * len(staying)
        assert all((broker.sockets / "admin.sock").exists() for broker in going)

        secrets.ask({"op": "clear-creds"})
        assert secrets.wait() == busy.wait() == IDLE_STATUS
