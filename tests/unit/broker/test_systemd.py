"""Passed descriptors and messages to systemd."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.connection import accept
from remo_broker.broker.systemd import Manager, listening_socket
from tests.support.broker import listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.notify import NotifySocket


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_listening_unix_stream_socket_is_accepted(directory: pathlib.Path) -> None:
    with listen(directory / "s") as original:
        descriptor = os.dup(original.fileno())
        os.set_inheritable(descriptor, True)
        taken = listening_socket(descriptor)
        assert taken is not None
        assert taken.fileno() == descriptor
        assert not os.get_inheritable(descriptor)
        assert not taken.getblocking()
        with pytest.raises(BlockingIOError):
            accept(taken)
        taken.close()


@pytest.mark.parametrize("kind", ["file", "pipe", "tcp", "datagram", "packets", "not listening", "connected"])
def test_anything_else_is_closed(directory: pathlib.Path, kind: str) -> None:
    other: int | None = None
    if kind == "file":
        descriptor = os.open("/dev/null", os.O_RDONLY)
    elif kind == "pipe":
        descriptor, other = os.pipe()
    elif kind == "connected":
        one, two = socket.socketpair()
        descriptor, other = one.detach(), two.detach()
    else:
        family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
        style = {"datagram": socket.SOCK_DGRAM, "packets": socket.SOCK_SEQPACKET}.get(kind, socket.SOCK_STREAM)
        made = socket.socket(family, style)
        made.bind(("127.0.0.1", 0) if kind == "tcp" else str(directory / "s"))
        if kind in ("tcp", "packets"):
            made.listen()
        descriptor = made.detach()
    assert listening_socket(descriptor) is None
    assert not is_open(descriptor)
    if other is not None:
        os.close(other)


def test_a_listener_may_be_closed_before_the_manager_has_it(
    directory: pathlib.Path, notify: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager's queue is full. A copy of the descriptor waits; without it, the listener would
    be lost."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(notify.path))
    manager = Manager()
    again: list[Callable[[], None]] = []
    manager.later = lambda _seconds, call: again.append(call)
    while not again:
        manager.ready("x" * 1000)
    with listen(directory / "kept") as kept, listen(directory / "dropped") as dropped:
        manager.keep("client", "kept", kept.fileno())
        manager.keep("client", "dropped", dropped.fileno())
        inode = os.fstat(kept.fileno()).st_ino
    manager.drop("client", "dropped")
    lacked = manager.lacks_listeners
    while again:
        notify.read()
        again.pop()()
    notify.wait_for(FDSTOREREMOVE="1", FDNAME="client-dropped")
    assert (lacked, manager.lacks_listeners) == (True, False)
    (descriptor,) = notify.stored.pop("client-kept")
    assert os.fstat(descriptor).st_ino == inode
    os.close(descriptor)
    assert notify.stored == {}
    manager.close()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
def test_a_message_that_cannot_be_sent_now_is_sent_later(
    notify: NotifySocket, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """If it were lost, the connection would not be stored, and its unit would start with an empty
    credential."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(notify.path))
    manager = Manager()
    later: list[Callable[[], None]] = []
    manager.later = lambda _seconds, call: later.append(call)

    class Short:
        """The manager's socket while the kernel lacks resources."""

        def sendmsg(self, *_: object) -> int:
            raise OSError(number, "no memory")

    real, manager._socket = manager._socket, Short()  # type: ignore[assignment]
    here, there = socket.socketpair()
    with here, there:
        manager.hold("credential", "1", here.fileno())
        lacked = manager.lacks_listeners
        manager._socket = real
        later.pop()()
        assert (lacked, manager.lacks_listeners) == (True, False)
        notify.wait_for(FDSTORE="1", FDNAME="credential-1")
    manager.close()


def test_too_many_descriptors_in_flight_do_not_hold_up_the_watchdog(
    notify: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process of the same uid can keep it so, and systemd would kill the broker."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(notify.path))
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    manager = Manager()
    later: list[Callable[[], None]] = []
    manager.later = lambda _seconds, call: later.append(call)
    real = manager._socket
    assert real is not None
    send = real.sendmsg

    class PassesNone:
        def sendmsg(self, data: list[bytes], rights: list[object], flags: int, address: str) -> int:
            if rights:
                raise OSError(errno.ETOOMANYREFS, "too many")
            return send(data, [], flags, address)

    manager._socket = PassesNone()  # type: ignore[assignment]
    here, there = socket.socketpair()
    with here, there:
        manager.hold("credential", "1", here.fileno())
        manager.hold("credential", "2", there.fileno())
        manager.feed_watchdog()
        notify.wait_for(WATCHDOG="1")
        assert manager.lacks_listeners
        manager._socket = real
        later.pop(0)()
        notify.wait_for(FDSTORE="1", FDNAME="credential-1")
        notify.wait_for(FDSTORE="1", FDNAME="credential-2")
    manager.close()
