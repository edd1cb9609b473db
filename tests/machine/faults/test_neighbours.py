"""Faults of the bus, its service, status clients and process 1 do not affect clients that fetch
secrets."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from remo_broker.broker.sockets.status import MAX_CONNECTIONS
from tests.machine.faults.figures import LONG, SEED, Figures
from tests.machine.faults.scene import FaultMachine, longest_wait, summed
from tests.support.broker import registration
from tests.support.host_memory import protection
from tests.support.machine import poll
from tests.support.processes import children
from tests.support.timing import shortest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import StartBroker
    from tests.support.machine import Machine
    from tests.support.notify import NotifySocket

    Trouble = Callable[[FaultMachine], contextlib.AbstractContextManager[object]]

CLIENTS = 10
# A thousand gets a second: enough to notice a process that takes the processor from the clients,
# and not their own load.
PAUSE_SECONDS = 0.01
PHASE_SECONDS = 5.0 if LONG else 0.7
# If nothing has to be waited for, only the machine is slow. A client that did wait would do so for
# a whole phase.
ANSWER_SECONDS = 0.6
STATUS = "/run/remo-broker/status.sock"
# More replies than any socket buffers.
UNREAD = 2000


@contextlib.contextmanager
def nothing(scene: FaultMachine) -> Iterator[None]:
    yield


@contextlib.contextmanager
def bus_stopped(scene: FaultMachine) -> Iterator[None]:
    scene.machine.run(["systemctl", "stop", "dbus.socket", "dbus.service"])
    try:
        yield
    finally:
        scene.machine.run(["systemctl", "start", "dbus.socket", "dbus.service"])


@contextlib.contextmanager
def bus_restarted(scene: FaultMachine) -> Iterator[None]:
    for _ in range(3):
        scene.machine.systemctl("restart", "dbus.service")
        scene.bus_says("SecretCount")
    yield


_FLOOD = """
import select, socket, sys
sys.path.append("/usr/lib/remo-broker/lib/python3.%d/site-packages" % sys.version_info[1])
from remo_broker.bus import wire
caller = socket.socket(socket.AF_UNIX)
caller.connect("/run/dbus/system_bus_socket")
caller.settimeout(5)
caller.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n")
bus = dict(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus", interface="org.freedesktop.DBus")
caller.sendall(wire.encode(wire.METHOD_CALL, 1, member="Hello", **bus))
ours = dict(destination="io.get2know.RemoBroker1", path="/io/get2know/RemoBroker1")
call = wire.encode(wire.METHOD_CALL, 2, interface="org.freedesktop.DBus.ObjectManager", member="GetManagedObjects", **ours)
print("flooding", flush=True)
try:
    while not select.select([sys.stdin], [], [], 0)[0]:
        caller.sendall(call)
except OSError:
    pass
"""


@contextlib.contextmanager
def bus_flooded(scene: FaultMachine) -> Iterator[None]:
    """By two clients that call as fast as they can and read nothing."""
    floods = [scene.machine.popen(["/usr/bin/python3", "-c", _FLOOD], user="nobody") for _ in range(2)]
    try:
        for flood in floods:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "flooding\n"
        yield
    finally:
        for flood in floods:
            flood.communicate()


@contextlib.contextmanager
def bus_service_stopped(scene: FaultMachine) -> Iterator[None]:
    """The reader of the status hangs, with a stream of unread changes."""
    poll("the status on the bus", lambda: scene.bus_says("SecretCount"))
    [pid] = [
        child
        for child in children(scene.machine.leader)
        if pathlib.Path(f"/proc/{child}/comm").read_text() == "remo-broker-bus\n"[:15] + "\n"
    ]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def status_unread(scene: FaultMachine) -> Iterator[None]:
    """The maximum number of status clients: they watch, request more than a socket buffers, and
    read nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            client = stack.enter_context(scene.machine.connect(STATUS))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.sendall(b'{"op":"watch"}\n' + b'{"op":"status"}\n' * UNREAD)
        yield


@contextlib.contextmanager
def process_1_stopped(scene: FaultMachine) -> Iterator[None]:
    os.kill(scene.machine.leader, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(scene.machine.leader, signal.SIGCONT)


TROUBLES: list[Trouble] = [
    nothing,
    bus_stopped,
    bus_restarted,
    bus_flooded,
    bus_service_stopped,
    status_unread,
    process_1_stopped,
]


def _slowest_answer(scene: FaultMachine, trouble: Trouble) -> float:
    """The slowest reply in seconds, for clients that fetch during the fault. All must be
    answered."""
    name = getattr(trouble, "__name__", "")
    with scene.load(CLIENTS, SEED, pause_seconds=PAUSE_SECONDS) as load:
        with trouble(scene):
            until = time.monotonic() + PHASE_SECONDS
            while time.monotonic() < until:
                scene.push()  # a change for the watchers
                time.sleep(0.02)
        seen = load.finish()
    assert [error for client in seen for error in client["errors"]] == [], name
    assert sum(sum(client["unanswered"].values()) for client in seen) == 0, name
    assert summed(seen, "refused") == {}, name
    assert set(summed(seen, "words")) == {"ok", "not_in_manifest"}, name
    return longest_wait(seen)


def test_clients_of_the_sockets_are_not_affected(machine: Machine, figures: Figures) -> None:
    scene = FaultMachine(machine)
    pid = scene.pid()
    slowest = {}
    for trouble in TROUBLES:
        name = getattr(trouble, "__name__", "")
        slowest[name] = shortest(partial(_slowest_answer, scene, trouble), below=ANSWER_SECONDS)
        assert slowest[name] < ANSWER_SECONDS, name
    figures.tell(f"slowest answer: {', '.join(f'{name} {1000 * taken:.0f} ms' for name, taken in slowest.items())}")
    assert scene.pid() == pid
    assert scene.status()["audit"]["healthy"]
    poll("the bus to tell the truth again", lambda: scene.bus_says("Generation") == f"t {scene.status()['generation']}")


def test_the_broker_does_not_wait_for_a_manager_that_does_not_read(
    start_broker: StartBroker, notify: NotifySocket
) -> None:
    """However many changes there are; when it reads again, it gets the current state."""
    broker = start_broker(notify=notify, projects=[registration("myrepo", "A")])
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as another:
        another.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # its queue is full
            for _ in range(10_000):
                another.sendto(b"STATUS=not the broker's", str(notify.path))
    for number in range(5):
        broker.push({"A": str(number)})
        assert broker.get("A")["value"] == str(number)
        time.sleep(0.12)  # longer than changes are joined
    notify.wait_for(STATUS=f"Serving 1 project, 1 secret (generation 5), memory {protection()}")
    # One message may have fitted at once; of the others, the newest is sent.
    assert json.dumps(notify.messages).count("(generation") <= 2
