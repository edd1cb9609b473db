"""A hostile caller costs the broker nothing and keeps no other user waiting, and memory does not
grow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from dbus_next.message import Message

from remo_broker.bus import wire
from remo_broker.bus.budget import MAX_USERS, Budget
from remo_broker.bus.connection import DRIVER, DRIVER_PATH
from remo_broker.protocol.replies import SyncedEvent
from tests.support.bus import BUS_NAME, MANAGER, PROPERTIES, ROOT, Bus, BusProcess, bus_service, other_client
from tests.support.machine import poll, unavailable
from tests.support.status import StatusPeer, broker_event, project_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"

# Replies of 400 KB each: far beyond the budget, even if each takes the service a quarter of a
# second.
REQUESTS = 20

FLOOD_SECONDS = 1.0
# The user "nobody", which every Debian has.
OTHER_USER = 65534
# Replies, and memory that Python keeps for later ones.
GROWTH_KIB = 24 * 1024


class Caller:
    """Makes calls byte by byte, each with the next serial number."""

    def __init__(self) -> None:
        self.serial = 1

    def ours(self, interface: str, member: str, signature: str = "", body: bytes = b"", path: str = ROOT) -> bytes:
        self.serial += 1
        fields = {"destination": BUS_NAME, "path": path, "interface": interface, "member": member}
        return wire.encode(wire.METHOD_CALL, self.serial, signature, body, **fields)


# Connects as another user, through a directory that only its parent can reach, and repeatedly sends
# what it reads from standard input, as fast as the bus accepts it. It never reads.
_FLOOD = """
import contextlib, socket, sys
calls = sys.stdin.buffer.read()
said = False
while True:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as bus:
        bus.settimeout(0.2)
        bus.connect(sys.argv[1])
        bus.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n" + bytes.fromhex(sys.argv[2]))
        bus.send(calls)
        if not said:
            said = print("sent", flush=True) is None
        while True:
            bus.sendall(calls)
"""
_DRIVER = {"destination": DRIVER, "path": DRIVER_PATH, "interface": DRIVER}
_HELLO = wire.encode(wire.METHOD_CALL, 1, "", b"", member="Hello", **_DRIVER)
# What a flood repeats: enough calls for each to have another signature, or this many bytes of large
# ones.
MAX_CALLS, MAX_BYTES = 200, 2**20


def everything(caller: Caller) -> bytes:
    return caller.ours(OBJECT_MANAGER, "GetManagedObjects")


def nothing(caller: Caller) -> bytes:
    return caller.ours(MANAGER, "NoSuchMethod")


def unknown_signatures(caller: Caller) -> bytes:
    signature = "".join("iu"[caller.serial >> bit & 1] for bit in range(40))
    return caller.ours(MANAGER, "GetProject", signature, bytes(160))


def great_bodies(caller: Caller) -> bytes:
    return caller.ours(PROPERTIES, "Get", "ss", wire.encode_body("ss", ["x" * 500_000] * 2))


def deep_bodies(caller: Caller) -> bytes:
    body = wire.encode_body("ss", [MANAGER, "Version"]) + b"\x01v\0" * 60 + b"\x01y\0\0"
    return caller.ours(PROPERTIES, "Set", "ssv", body)


@contextlib.contextmanager
def flood(bus: Bus, what: Callable[[Caller], bytes]) -> Iterator[None]:
    """Two processes of another user that send as fast as the bus accepts it, and read nothing."""
    caller = Caller()
    calls = b""
    while caller.serial <= MAX_CALLS and len(calls) < MAX_BYTES:
        calls += what(caller)
    bus.path.parent.chmod(0o711)
    directory = os.open(bus.path.parent, os.O_PATH)
    command = ["/usr/bin/python3", "-c", _FLOOD, f"/proc/self/fd/{directory}/{bus.path.name}", _HELLO.hex()]
    senders = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=OTHER_USER,
            group=OTHER_USER,
            pass_fds=[directory],
        )
        for _ in range(2)
    ]
    os.close(directory)
    try:
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write(calls)
            sender.stdin.close()
            assert sender.stdout is not None
            assert sender.stdout.readline() == b"sent\n"
        yield
        assert all(sender.poll() is None for sender in senders)
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()
            assert sender.stdout is not None
            sender.stdout.close()


def resident_kib(service: BusProcess) -> int:
    status = pathlib.Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


async def ask_everything(client: Any) -> str:
    """The name of the error that GetManagedObjects ends in, or "None"."""
    answer = await client.call(Message(BUS_NAME, ROOT, OBJECT_MANAGER, "GetManagedObjects"))
    return str(answer.error_name)


@pytest.mark.usefixtures("service")
def test_a_user_over_budget_is_refused_for_a_while(bus: Bus, peer: StatusPeer) -> None:
    peer.tell(*(project_event(f"project-{number}") for number in range(1000)))
    poll("the projects", lambda: bus.get("ProjectCount") == 1001)

    async def ask(times: int) -> list[str]:
        async with other_client(bus) as client:
            return await asyncio.gather(*(ask_everything(client) for _ in range(times)))

    answers = asyncio.run(ask(REQUESTS))
    assert set(answers) == {"None", LIMITS_EXCEEDED}
    assert answers[0] == "None"
    poll("an answer", lambda: asyncio.run(ask(1)) == ["None"])


@pytest.mark.usefixtures("service")
def test_connections_of_a_user_share_one_budget(bus: Bus, peer: StatusPeer) -> None:
    peer.tell(*(project_event(f"project-{number}") for number in range(1000)))
    poll("the projects", lambda: bus.get("ProjectCount") == 1001)

    async def ask() -> list[str]:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(other_client(bus)) for _ in range(REQUESTS)]
            return await asyncio.gather(*(ask_everything(client) for client in clients))

    assert set(asyncio.run(ask())) == {"None", LIMITS_EXCEEDED}


def test_the_number_of_users_remembered_is_bounded() -> None:
    budget = Budget()
    for uid in range(3 * MAX_USERS):
        budget.spend(uid, 10**9, now=uid / 1000)
        assert len(budget._full_at) <= MAX_USERS


@pytest.mark.parametrize(
    "what", [everything, nothing, unknown_signatures, great_bodies, deep_bodies], ids=lambda f: f.__name__
)
def test_a_flood_costs_the_broker_and_other_users_nothing(
    bus: Bus, peer: StatusPeer, what: Callable[[Caller], bytes]
) -> None:
    if os.geteuid() != 0:
        unavailable("the flood comes from another user, which only root can become")
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
        poll("the broker's last state", lambda: bus.get("SecretCount") == 5)
        assert resident_kib(service) - before < GROWTH_KIB
        assert peer.connects == 1
        assert peer.asked == len(b'{"op":"watch"}\n')
        assert service.log == "remo-broker-bus: Following the broker\n"
