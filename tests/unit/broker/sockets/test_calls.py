"""What a get costs, in function calls that the broker makes for it, both Python's and C's.

One more call fails the test. To add one, raise the number here, and say in the commit what the call
is for.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import JournalTransport
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.decisions import Decisions
from remo_broker.broker.loop import Loop
from remo_broker.broker.sockets.connection import Peer, Sweeper
from remo_broker.broker.sockets.listener import Listener
from remo_broker.broker.sockets.project import ProjectConnection, ProjectServer
from remo_broker.protocol.config import Config
from tests.support.broker import registration
from tests.support.stock import Stock

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator
    from types import FrameType

GET = b'{"op":"get","name":"A"}\n'
ROUNDS = 20

# From the event to the end of the turn, once warm.
CALLS_OF_A_GET = 28
# From the event of the listener to the close, without what the audit reads about the peer in /proc.
CALLS_OF_A_CONNECTION = 61


class Counter:
    """Counts calls by `sys.setprofile`; identifying the peer counts as one."""

    def __init__(self) -> None:
        self.calls = 0
        self._inside_identity = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        is_identity = frame.f_code.co_filename.endswith("identity.py")
        if event in ("call", "c_call") and not is_identity:
            self.calls += 1

    def of(self, act: Callable[[], object]) -> int:
        before = self.calls
        sys.setprofile(self)
        try:
            act()
        finally:
            sys.setprofile(None)
        return self.calls - before


class CountedServer:
    """A loop with a project's listener, and a journal that accepts everything."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(directory / "journal"))
        self.stock = Stock()
        self.stock.push({"A": "a"})
        self.loop = Loop(self._bug)
        sweeper = Sweeper(self.loop)
        broker = Decisions(Config({"rate_limit_per_second": 0}), self.stock.store)
        project = broker.projects.register(registration("myrepo", "A"))
        self.transport = JournalTransport(str(directory / "journal"))
        trail = AuditTrail(self.transport, clock_usec=lambda: 0)
        self.server = ProjectServer(self.loop, sweeper, broker, trail, deny=False)
        self.path = str(directory / "s")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.path)
        listening.listen()
        listening.setblocking(False)

        def accepted(connection: socket.socket, peer: Peer) -> None:
            ProjectConnection(self.server, project, connection, peer)

        self.listener = Listener(self.loop, listening, accepted)  # type: ignore[arg-type]

    def _bug(self, error: BaseException) -> None:
        raise error

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.path)
        client.sendall(GET)
        return client

    def taken(self) -> None:
        assert self.journal.recv(65536)

    def close(self) -> None:
        for connection in list(self.server.connections):
            connection.close()
        self.listener.close()
        assert self.transport._socket is not None
        self.transport._socket.close()
        self.journal.close()
        self.loop.close()
        self.stock.close()


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Iterator[CountedServer]:
    with contextlib.closing(CountedServer(tmp_path)) as scene:
        yield scene


def test_calls_of_a_get_on_an_open_connection(scene: CountedServer) -> None:
    counter = Counter()
    with scene.connect() as client:
        counts = []
        for _ in range(ROUNDS):
            counts.append(counter.of(scene.loop.turn))
            assert client.recv(1000).startswith(b'{"ok":true')
            scene.taken()
            client.sendall(GET)
    assert min(counts) <= CALLS_OF_A_GET


def test_calls_of_connect_get_and_close(scene: CountedServer) -> None:
    counter = Counter()
    counts = []
    for _ in range(ROUNDS):
        with scene.connect() as client:
            count = counter.of(scene.loop.turn)
            assert client.recv(1000).startswith(b'{"ok":true')
            scene.taken()
        count += counter.of(scene.loop.turn)
        assert not scene.server.connections
        counts.append(count)
    assert min(counts) <= CALLS_OF_A_CONNECTION
