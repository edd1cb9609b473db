"""One connection over a real socket pair: writing, deadlines and closing."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import JournalTransport
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.decisions import Decisions
from remo_broker.broker.loop import Loop
from remo_broker.broker.projects import SHARE
from remo_broker.broker.secrets.memory import Arena
from remo_broker.broker.secrets.store import Snapshot, Store
from remo_broker.broker.sockets.connection import LINGER_SECONDS, PEER_SECONDS, Connection, Peer, Sweeper
from remo_broker.broker.sockets.project import ProjectConnection, ProjectServer
from remo_broker.protocol.config import Config
from tests.support.broker import registration

if TYPE_CHECKING:
    from collections.abc import Iterator

PING = b'{"op":"ping"}\n'
GET = b'{"op":"get","name":"A"}\n'


class Echo(Connection):
    """Sends back what it reads."""

    def readable(self) -> None:
        data = self.socket.recv(65536)
        if data:
            self.send(data)
        else:
            self.end()


class ConnectedPair:
    """A loop with a sweeper, and a pair of sockets on it."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        self.loop = Loop(self.bugs.append)
        self.sweeper = Sweeper(self.loop)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.settimeout(20)

    def turn(self) -> None:
        self.loop.after(0, lambda: None)  # so that it does not wait
        self.loop.turn()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self.loop.close()
        assert self.bugs == []


@pytest.fixture
def bench() -> Iterator[ConnectedPair]:
    bench = ConnectedPair()
    yield bench
    bench.close()


def fill(bench: ConnectedPair, connection: Connection) -> bytes:
    """Send until the kernel's buffer is full; return everything sent."""
    sent = b""
    while not connection.pending:
        sent += (line := b"%07d\n" % len(sent) * 512)
        connection.send(line)
    return sent


def receive(bench: ConnectedPair, length: int) -> bytes:
    got = b""
    while len(got) < length:
        got += bench.theirs.recv(65536)
        bench.turn()
    return got


def test_unsent_data_is_kept_in_order(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    sent = fill(bench, connection)
    connection.send(b"more\n")
    connection.send([b"head ", memoryview(b"value"), b" tail\n"])
    sent += b"more\nhead value tail\n"
    assert bench.sweeper.has(connection)
    assert receive(bench, len(sent)) == sent
    assert not connection.pending
    assert not bench.sweeper.has(connection)
    bench.theirs.sendall(b"and on\n")
    bench.turn()
    assert bench.theirs.recv(100) == b"and on\n"


def test_a_peer_that_does_not_read_is_not_read_from(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    sent = fill(bench, connection)
    bench.theirs.sendall(b"not yet\n")
    for _ in range(5):
        bench.turn()
    assert receive(bench, len(sent) + 8) == sent + b"not yet\n"


def test_a_snapshot_is_kept_while_a_reply_is_half_sent(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    snapshot = Snapshot(Arena(), [], {}, 1, 0)
    value = memoryview(b"x" * 300_000)
    connection.send([b"", value, b"\n"], snapshot)
    connection.send([b"", value, b"\n"], snapshot)
    assert snapshot.readers == 1
    receive(bench, 600_002)
    assert snapshot.readers == 0
    connection.send([b"", value, b"\n"], snapshot)
    connection.close()
    assert [snapshot.readers] == [0]
    snapshot.arena.SPARES = 0
    snapshot.arena.give_back(snapshot.arena.take())


def test_a_snapshot_is_not_kept_after_a_reply_sent_at_once(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    snapshot = Snapshot(Arena(), [], {}, 1, 0)
    connection.send([b"a", memoryview(b"b"), b"c\n"], snapshot)
    assert snapshot.readers == 0
    assert bench.theirs.recv(10) == b"abc\n"
    snapshot.arena.SPARES = 0
    snapshot.arena.give_back(snapshot.arena.take())


def pass_time(bench: ConnectedPair, seconds: float) -> None:
    """Move the deadlines instead of waiting for them."""
    for connection in bench.sweeper.due:
        bench.sweeper.due[connection] -= seconds
    bench.sweeper._sweep()


def test_a_peer_that_never_reads_is_disconnected(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    fill(bench, connection)
    pass_time(bench, PEER_SECONDS - 0.1)
    assert [connection.closed] == [False]
    pass_time(bench, 0.2)
    assert [connection.closed] == [True]
    connection.close()  # twice is fine
    connection.send(b"to nobody")


def test_a_final_reply_reaches_a_peer_that_is_still_sending(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    bench.theirs.sendall(b"x" * 100_000)
    connection.end_with(b"why\n")
    for _ in range(10):
        bench.turn()
        bench.turn()
        bench.theirs.sendall(b"x" * 50_000)
    assert bench.theirs.recv(100) == b"why\n"
    assert bench.theirs.recv(100) == b""
    assert not connection.closed
    pass_time(bench, LINGER_SECONDS + 0.1)
    assert connection.closed


def test_a_final_reply_waits_for_earlier_replies(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    sent = fill(bench, connection)
    connection.end_with(b"why\n")
    assert receive(bench, len(sent) + 4) == sent + b"why\n"
    bench.theirs.close()
    bench.turn()
    assert connection.closed


def test_a_peer_that_disconnects_closes_the_connection(bench: ConnectedPair) -> None:
    connection = Echo(bench.loop, bench.sweeper, bench.ours)
    bench.theirs.close()
    connection.send(b"x")
    assert connection.closed


def test_the_credentials_of_the_peer(bench: ConnectedPair) -> None:
    peer = Peer(bench.ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


# --- a project's client


class Breakable(JournalTransport):
    """Discards records; raises an error of its own once, after `breaks_in` calls."""

    breaks_in = 0

    def send(self, datagram: bytes, timeout_seconds: float) -> None:
        self.breaks_in -= 1
        if not self.breaks_in:
            raise ZeroDivisionError
        super().send(datagram, timeout_seconds)


@pytest.fixture
def transport() -> Breakable:
    return Breakable("/nowhere")


@pytest.fixture
def client(bench: ConnectedPair, transport: Breakable) -> Iterator[ProjectConnection]:
    arena = Arena()
    broker = Decisions(Config({"rate_limit_per_second": 0}), Store(arena, 900))
    trail = AuditTrail(transport, clock_usec=lambda: 0)
    server = ProjectServer(bench.loop, bench.sweeper, broker, trail, deny=False)
    client = ProjectConnection(
        server, broker.projects.register(registration("myrepo", "A")), bench.ours, Peer(bench.ours)
    )
    bench.turn()  # it is added to epoll at the end of the turn that accepts it
    yield client
    client.close()
    arena.SPARES = 0
    arena.give_back(arena.take())


def test_an_unfinished_request_is_dropped(bench: ConnectedPair, client: ProjectConnection) -> None:
    bench.theirs.sendall(PING + b'{"op":')
    bench.turn()
    assert bench.theirs.recv(1000).startswith(b'{"ok":true')
    pass_time(bench, PEER_SECONDS + 0.1)
    assert b'"too_slow"' in bench.theirs.recv(1000)
    assert bench.theirs.recv(1000) == b""


def test_a_client_that_sends_byte_by_byte_is_disconnected_at_the_deadline(
    bench: ConnectedPair, client: ProjectConnection
) -> None:
    """The deadline applies to the request, not to each byte."""
    for byte in (b"{", b'"', b"o", b"p"):
        bench.theirs.sendall(byte)
        bench.turn()
        pass_time(bench, PEER_SECONDS / 4 + 0.1)
    assert b'"too_slow"' in bench.theirs.recv(1000)


def test_a_client_that_pipelines_without_end_is_not_disconnected(
    bench: ConnectedPair, client: ProjectConnection
) -> None:
    """There is always an unfinished request, but never the same one."""
    for _ in range(10):
        bench.theirs.sendall(PING[6:] + PING + PING[:6] if client._unread else PING + PING[:6])
        bench.turn()
        assert bench.theirs.recv(1000).endswith(b"}\n")
        pass_time(bench, PEER_SECONDS / 2)
    assert not client.closed
    pass_time(bench, PEER_SECONDS)
    assert b'"too_slow"' in bench.theirs.recv(1000)


def test_a_silent_client_may_stay_connected(bench: ConnectedPair, client: ProjectConnection) -> None:
    pass_time(bench, 1000 * PEER_SECONDS)
    bench.theirs.sendall(PING)
    bench.turn()
    assert bench.theirs.recv(1000).startswith(b'{"ok":true')


def test_a_pipelining_client_gets_its_projects_share_of_a_turn(bench: ConnectedPair, client: ProjectConnection) -> None:
    bench.theirs.sendall(PING[:1])  # more is read at a time behind an unfinished request
    bench.turn()
    bench.theirs.sendall(PING[1:] + PING * 2 * SHARE)
    bench.turn()
    assert 0 < bench.theirs.recv(1 << 20).count(b"\n") <= SHARE


@pytest.mark.parametrize("breaks_in", [1, 2])
def test_a_bug_in_the_audit_ends_only_the_connection_of_that_record(
    bench: ConnectedPair, client: ProjectConnection, transport: Breakable, breaks_in: int
) -> None:
    """At the end of a turn, or while others wait for the next one. If it were kept, the client
    would take one reply for another."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(20)
        neighbour = client.server.broker.projects.register(registration("neighbour", "A"))
        other = ProjectConnection(client.server, neighbour, ours, Peer(ours))
        bench.turn()
        bench.theirs.sendall(GET * 2 * SHARE)
        transport.breaks_in = breaks_in
        while not bench.bugs:
            bench.turn()
        assert [type(bug) for bug in bench.bugs] == [ZeroDivisionError]
        bench.bugs.clear()
        assert client.closed
        theirs.sendall(PING * 2 * SHARE)
        answers = b""
        while answers.count(b"\n") < 2 * SHARE:
            bench.turn()
            answers += theirs.recv(65536)
        other.close()
