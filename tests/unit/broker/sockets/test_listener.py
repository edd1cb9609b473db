"""Listeners, and descriptors that peers pass."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.loop import Loop
from remo_broker.broker.sockets.listener import Listener, revoke
from tests.support.broker import listen
from tests.support.slow_descriptor import SlowDescriptor, require_refusal

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def listening(directory: pathlib.Path) -> Iterator[socket.socket]:
    """A listening socket as made by systemd, which does not refuse descriptors."""
    with listen(directory / "s") as listening:
        listening.setblocking(False)
        yield listening


@contextlib.contextmanager
def sent_before(listening: socket.socket) -> Iterator[socket.socket]:
    """A queued connection with a descriptor that takes long to close."""
    require_refusal()
    before = os.listdir("/proc/self/fd")
    with SlowDescriptor() as slow, socket.socket(socket.AF_UNIX) as client:
        client.connect(listening.getsockname())
        client.send(b"x" * 70_000)
        slow.send(client, b"x")
        yield client
    for kept in set(os.listdir("/proc/self/fd")) - set(before):
        with contextlib.suppress(OSError):  # the listing's own
            os.close(int(kept))


def test_descriptors_that_were_sent_before_the_broker_ran_are_not_closed(loop: Loop, listening: socket.socket) -> None:
    """Not while it serves; it accepts the later connections, and those refuse descriptors."""
    accepted: list[bytes] = []

    def on_accept(connection: object, _peer: object) -> None:
        assert isinstance(connection, socket.SocketType)
        accepted.append(connection.recv(100_000))
        connection.close()

    with (
        sent_before(listening) as client,
        socket.socket(socket.AF_UNIX) as other,
        socket.socket(socket.AF_UNIX) as late,
    ):
        other.connect(listening.getsockname())
        other.send(b"other")
        listener = Listener(loop, listening, on_accept)
        loop.turn()
        loop.turn()
        late.connect(listening.getsockname())
        with pytest.raises(PermissionError), open(os.devnull) as file:
            socket.send_fds(late, [b"x"], [file.fileno()])
        late.send(b"late")
        loop.turn()
        assert accepted == [b"other", b"late"]
        assert client.recv(1) == b""
        listener.close()


def test_revoking_a_listener_does_not_close_them_either(listening: socket.socket) -> None:
    with sent_before(listening) as client:
        revoke(listening)
        assert client.recv(1) == b""
