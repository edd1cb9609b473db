"""A malformed bus: whatever it does while connecting, the process soon exits and logs why."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker.bus.connection import HUNG_UP
from tests.support.bus import Bus, BusProcess, bus_service, unix_address
from tests.support.machine import poll
from tests.support.status import StatusPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK = b"OK 0123456789abcdef0123456789abcdef\r\n"

# CONNECT_SECONDS, plus time for the rest on a slow machine.
DEADLINE_SECONDS = 20
# A process that spins until its deadline takes five seconds; starting Python takes a fifth of one.
CPU_SECONDS = 3


@contextlib.contextmanager
def pretender(path: pathlib.Path, behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A socket that handles every connection with `behave`; yields its address."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    behave(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield unix_address(path)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def eof_at_once(_connection: socket.socket) -> None:
    pass


def eof_after_a_request(connection: socket.socket) -> None:
    connection.recv(1024)


def eof_in_a_line(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(OK[:10])


def eof_after_authentication(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(OK)
    connection.recv(1024)


def eof_in_a_message(connection: socket.socket) -> None:
    eof_after_authentication(connection)
    connection.sendall(b"l\x02\x01\x01\x10\0\0\0\x01\0\0\0\x20\0\0\0")


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"\0\xff\xfe garbage \x1b[2J\r\n")
    connection.recv(1024)


def garbage_without_end(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\xff" * 4096)


def garbage_after_authentication(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(OK + b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.recv(1024)


def a_message_of_128_gib(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(OK + b"l\x02\x01\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\x7f")
    connection.recv(1024)


def refusal(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"REJECTED DBUS_COOKIE_SHA1\r\n")
    connection.recv(1024)


def silence(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def silence_after_authentication(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(OK)
    silence(connection)


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (eof_at_once, ""),  # its own request may fail first
        (eof_after_a_request, HUNG_UP),
        (eof_in_a_line, HUNG_UP),
        (eof_after_authentication, HUNG_UP),
        (eof_in_a_message, HUNG_UP),
        (garbage, "the bus refuses user"),
        (garbage_without_end, "the bus sent something that is not D-Bus"),
        (garbage_after_authentication, "the bus sent something that is not D-Bus"),
        (a_message_of_128_gib, "the bus sent a message longer than D-Bus allows"),
        (refusal, "the bus refuses user"),
        (silence, "no answer in 5 s"),
        (silence_after_authentication, "no answer in 5 s"),
    ],
)
def test_the_process_ends(
    tmp_path: pathlib.Path, peer: StatusPeer, behave: Callable[[socket.socket], None], why: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        pretender(tmp_path / "bus.sock", behave) as address,
        bus_service(address, peer.path, named=False) as service,
    ):
        assert service.wait(DEADLINE_SECONDS) == 1
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
    (line,) = service.log.splitlines()
    assert line.startswith("remo-broker-bus: cannot connect to the bus (")
    assert why in line
    assert line.endswith("is it running? See `systemctl status dbus.service`")
    assert line.isprintable()


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "tcp:host=localhost,port=1", "nonsense", "unix:"])
def test_no_bus(peer: StatusPeer, address: str) -> None:
    with bus_service(address, peer.path, named=False) as service:
        assert service.wait() == 1
        assert "cannot connect to the bus" in service.log


def test_the_next_address_is_tried(bus: Bus, peer: StatusPeer) -> None:
    with bus_service(bus, peer.path, f"--bus-address=unix:path=/nowhere/bus;{bus.address}"):
        assert bus.get("SecretCount") == 3


def test_the_service_exits_with_the_bus(bus: Bus, service: BusProcess) -> None:
    bus.stop()
    assert service.wait() == 0
    assert HUNG_UP in service.log


def test_garbage_in_mid_stream_ends_the_service(tmp_path: pathlib.Path, bus: Bus, peer: StatusPeer) -> None:
    """The stream is correct at first, then interrupted by data that is not D-Bus."""
    spoil = threading.Event()

    def relay(connection: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as upstream:
            upstream.connect(str(bus.path))
            connection.setblocking(False)
            upstream.setblocking(False)
            while not spoil.wait(0.01):
                for source, target in ((connection, upstream), (upstream, connection)):
                    with contextlib.suppress(BlockingIOError):
                        if not (data := source.recv(65536)):
                            return
                        target.sendall(data)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.setblocking(True)
            connection.recv(1024)

    with (
        pretender(tmp_path / "relay.sock", relay) as address,
        bus_service(address, peer.path, named=False) as service,
    ):
        poll("the name", bus.has_owner)
        assert bus.get("SecretCount") == 3
        spoil.set()
        assert service.wait() == 1
        assert "the bus sent something that is not D-Bus" in service.log
