"""What a listener knows about how long its connections have waited.

This tells two processes with the same pid apart.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker import loop as loop_module
from remo_broker.broker.audit import identity
from remo_broker.broker.loop import READ, Loop
from remo_broker.broker.sockets.connection import Peer
from remo_broker.broker.sockets.listener import Listener
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Iterator


class Queue:
    """A loop with a listener, and the peers it has accepted, each with its turn."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.loop = Loop(self._bug)
        self.accepted: list[tuple[Peer, int]] = []
        self.may_accept = True
        self.path = str(directory / "s")
        self._clients: list[socket.socket] = []
        self._waiting = socket.socket(socket.AF_UNIX)
        self._waiting.bind(self.path)
        self._waiting.listen()
        self._waiting.setblocking(False)
        # Ready in every turn, so that no turn waits.
        self._read_end, write_end = os.pipe()
        os.close(write_end)
        self.loop.watch(self._read_end, READ, lambda: None)

    def serve(self) -> None:
        self.listener = Listener(
            self.loop,
            self._waiting,
            self._accepted,
            may_accept=lambda: self.may_accept,
        )

    def _accepted(self, connection: Accepted, peer: Peer) -> None:
        connection.close()
        self.accepted.append((peer, self.loop.turns))

    def connect(self) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.path)
        self._clients.append(client)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.turn()

    def accepts(self) -> bool:
        """Whether it has accepted anything after one more turn."""
        self.turns(1)
        return bool(self.accepted)

    def _bug(self, error: BaseException) -> None:
        raise error

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.listener.close()
        self.loop.forget(self._read_end)
        os.close(self._read_end)
        self.loop.close()


@pytest.fixture
def queue(tmp_path: pathlib.Path) -> Iterator[Queue]:
    with contextlib.closing(Queue(tmp_path)) as queue:
        yield queue


def test_connections_may_be_older_than_the_first_turn(queue: Queue) -> None:
    queue.connect()
    queue.connect()
    queue.serve()
    queue.turns(3)
    assert [(peer.since, turn) for peer, turn in queue.accepted] == [(-1, 1), (-1, 2)]


def test_a_connection_to_an_empty_queue_came_after_the_turn_that_saw_it_empty(queue: Queue) -> None:
    queue.serve()
    queue.turns(3)
    queue.connect()
    queue.turns(1)
    assert [(peer.since, turn) for peer, turn in queue.accepted] == [(3, 4)]


def test_a_connection_behind_others_may_be_as_old_as_they_are(queue: Queue) -> None:
    queue.serve()
    queue.turns(2)
    for _ in range(3):
        queue.connect()
    queue.turns(3)
    assert [(peer.since, turn) for peer, turn in queue.accepted] == [(2, 3), (2, 4), (2, 5)]
    queue.turns(1)
    queue.connect()
    queue.turns(1)
    assert queue.accepted[-1][0].since == 6


def test_an_accept_that_finds_the_queue_empty_dates_later_connections(queue: Queue) -> None:
    queue.serve()
    queue.turns(1)
    queue.connect()
    queue.listener.take_waiting()
    queue.connect()
    queue.turns(1)
    assert [(peer.since, turn) for peer, turn in queue.accepted] == [(-1, 1), (1, 2)]


def test_a_listener_that_may_not_accept_does_not_count_as_empty(queue: Queue) -> None:
    queue.serve()
    queue.turns(2)
    queue.connect()
    queue.may_accept = False
    queue.turns(1)
    queue.may_accept = True
    poll("the listener to be asked again", queue.accepts)
    assert queue.accepted[0][0].since == 2


def test_a_turn_with_too_many_events_sees_no_queue_empty(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.serve()
    queue.turns(2)
    monkeypatch.setattr(loop_module, "EVENTS_PER_TURN", 1)
    queue.turns(2)  # each is full of the one that is always ready
    monkeypatch.undo()
    queue.connect()
    queue.turns(1)
    assert queue.accepted[0][0].since < 3


def test_a_turn_accepts_few_connections_of_a_busy_queue(queue: Queue) -> None:
    """All other clients of the broker wait while it accepts."""
    for _ in range(100):
        queue.connect()
    queue.serve()
    queue.turns(40)
    turns = collections.Counter(turn for _, turn in queue.accepted)
    assert turns.total() == 100
    assert 1 < max(turns.values()) <= 32


class OfSomebody(Peer):
    """Another process that had this one's pid when it connected."""

    def __init__(self, since: int) -> None:
        self.fields = b""
        self.pid, self.uid, self.gid = os.getpid(), os.getuid(), os.getgid()
        self.since = since


class Gone:
    """The connection of a process that has ended."""

    def getsockopt(self, *_: int) -> int:
        raise ProcessLookupError(errno.ESRCH, "")


def test_an_identity_is_reused_only_for_a_younger_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        own = identity.peer_fields(ours, OfSomebody(-1), 5)
        if identity._last.turn != 5:
            pytest.skip("the kernel has no SO_PEERPIDFD")
        assert b"REMO_PEER_COMM=" in own
        assert identity.peer_fields(Gone(), OfSomebody(6), 7) == own  # type: ignore[arg-type]
        for since in (-1, 4, 5):
            assert identity.GONE in identity.peer_fields(Gone(), OfSomebody(since), 7)  # type: ignore[arg-type]
