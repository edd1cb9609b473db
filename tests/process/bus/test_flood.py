"""Callers that mean no good: the broker does not notice, others are served, memory stays."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from dbus_next.message import Message

from remo_broker.bus import wire
from remo_broker.bus.budget import BYTES_AT_ONCE, BYTES_PER_SECOND, MAX_CALLERS, Budget
from remo_broker.protocol.ops import SyncedEvent
from tests.support.bus import BUS_NAME, MANAGER, PROPERTIES, ROOT, Bus, Service, bus_service, other_client
from tests.support.machine import poll
from tests.support.status import StatusPeer, broker_event, project_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

FLOOD_SECONDS = 2.0
# Answers, and what Python keeps for the next ones.
GROWTH_KIB = 24 * 1024


class Stranger:
    """A connection that speaks D-Bus byte by byte and reads nothing that it does not want to."""

    def __init__(self, bus: Bus) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(bus.path))
        self.socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        self.serial = 0
        driver = {"path": "/org/freedesktop/DBus", "interface": "org.freedesktop.DBus"}
        self.socket.sendall(self.frame(b"", destination="org.freedesktop.DBus", member="Hello", **driver))

    def frame(self, body: bytes, signature: str = "", **fields: str) -> bytes:
        self.serial += 1
        return wire.encode(wire.METHOD_CALL, self.serial, signature, body, **fields)

    def ours(self, interface: str, member: str, signature: str = "", body: bytes = b"", path: str = ROOT) -> bytes:
        return self.frame(body, signature, destination=BUS_NAME, path=path, interface=interface, member=member)


def everything(stranger: Stranger) -> bytes:
    return stranger.ours(OBJECT_MANAGER, "GetManagedObjects")


def nothing(stranger: Stranger) -> bytes:
    return stranger.ours(MANAGER, "NoSuchMethod")


def unknown_signatures(stranger: Stranger) -> bytes:
    signature = "".join("iu"[stranger.serial >> bit & 1] for bit in range(40))
    return stranger.ours(MANAGER, "GetProject", signature, bytes(160))


def great_bodies(stranger: Stranger) -> bytes:
    return stranger.ours(PROPERTIES, "Get", "ss", wire.encode_body("ss", ["x" * 500_000] * 2))


def deep_bodies(stranger: Stranger) -> bytes:
    body = wire.encode_body("ss", [MANAGER, "Version"]) + b"\x01v\0" * 60 + b"\x01y\0\0"
    return stranger.ours(PROPERTIES, "Set", "ssv", body)


@contextlib.contextmanager
def flood(bus: Bus, what: Callable[[Stranger], bytes]) -> Iterator[None]:
    """Two strangers who send as fast as the bus takes it, and read nothing."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                stranger = Stranger(bus)
                with stranger.socket:
                    stranger.socket.settimeout(0.2)
                    while not over.is_set():
                        stranger.socket.sendall(what(stranger))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def resident_kib(service: Service) -> int:
    status = pathlib.Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.usefixtures("service")
def test_who_asks_for_too_much_is_refused_and_others_are_not(bus: Bus, peer: StatusPeer) -> None:
    peer.tell(*(project_event(f"project-{number}") for number in range(1000)))
    poll("the projects", lambda: bus.get("ProjectCount") == 1001)

    async def ask() -> list[str]:
        async with other_client(bus) as client:

            async def one() -> str:
                call = Message(BUS_NAME, ROOT, OBJECT_MANAGER, "GetManagedObjects")
                answer = await client.call(call)
                return str(answer.error_name)

            answers = await asyncio.gather(*(one() for _ in range(20)))
            assert bus.get("ProjectCount") == 1001
            await asyncio.sleep(BYTES_AT_ONCE / BYTES_PER_SECOND + 1)  # what the last answer may have overdrawn
            assert await one() == "None"
            return answers

    answers = asyncio.run(ask())
    assert set(answers) == {"None", "org.freedesktop.DBus.Error.LimitsExceeded"}
    assert answers[0] == "None"
    assert answers.count("None") < len(answers) / 2


def test_callers_are_not_remembered_without_end() -> None:
    budget = Budget()
    for number in range(3 * MAX_CALLERS):
        budget.spend(f":1.{number}", 10**9, now=number / 1000)
        assert len(budget._full_at) <= MAX_CALLERS


@pytest.mark.parametrize(
    "what", [everything, nothing, unknown_signatures, great_bodies, deep_bodies], ids=lambda f: f.__name__
)
def test_a_flood_costs_the_broker_nothing(bus: Bus, peer: StatusPeer, what: Callable[[Stranger], bytes]) -> None:
    projects = [project_event(f"project-{number}") for number in range(200)]
    peer.greeting = (broker_event(), *projects, SyncedEvent())
    with bus_service(bus, peer.path) as service:
        bus.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        before = resident_kib(service)
        with flood(bus, what):
            end = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < end:
                peer.tell(broker_event(secret_count=5))
                assert bus.get("ProjectCount") == 200
        assert bus.get("SecretCount") == 5
        assert resident_kib(service) - before < GROWTH_KIB
        assert peer.connects == 1
        assert peer.asked == len(b'{"op":"watch"}\n')
        assert service.log == "remo-broker-bus: Following the broker\n"
