"""When the service ends by itself, and that no call is lost when it does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import pytest
from dbus_next.errors import DBusError

from remo_broker.bus.idle import MAX_CALLERS, Callers
from remo_broker.messages import SyncedEvent
from tests.support.bus import BUS_NAME, MANAGER, ROOT, Bus, bus_service, other_client
from tests.support.status import StatusPeer

# Short, but longer than a busy machine takes from one line of a test to the next.
IDLE_SECONDS = 2


def test_it_ends_some_time_after_the_last_call(bus: Bus, peer: StatusPeer) -> None:
    with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
        for _ in range(8):
            time.sleep(IDLE_SECONDS / 4)
            assert bus.get("SecretCount") == 3
        assert service.wait() == 0
        assert not bus.has_owner()
        assert "Traceback" not in service.log


def test_a_caller_that_stays_keeps_it(bus: Bus, peer: StatusPeer) -> None:
    async def stay() -> None:
        async with other_client(bus) as client:
            await client.introspect(BUS_NAME, ROOT)
            await asyncio.sleep(3 * IDLE_SECONDS)
            assert service.process.poll() is None

    with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
        asyncio.run(stay())
        assert service.wait() == 0


def test_a_caller_does_not_keep_what_has_nothing_to_tell(bus: Bus, peer: StatusPeer) -> None:
    async def stay() -> int:
        async with other_client(bus) as client:
            await client.introspect(BUS_NAME, ROOT)
            return await asyncio.to_thread(service.wait)

    peer.greeting = (SyncedEvent(),)
    with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
        assert asyncio.run(stay()) == 0


def test_callers_without_end_are_not_remembered_without_end() -> None:
    async def call() -> int:
        callers = Callers()
        for number in range(2 * MAX_CALLERS):
            callers.called(f":1.{number}", now=number)
        return len(callers._names)

    assert asyncio.run(call()) == MAX_CALLERS


def test_zero_is_never(bus: Bus, peer: StatusPeer) -> None:
    with bus_service(bus, peer.path, "--idle-exit-seconds=0") as service:
        time.sleep(2 * IDLE_SECONDS)
        assert service.process.poll() is None
        assert service.stop() == 0


def test_a_signal_ends_it(bus: Bus, peer: StatusPeer) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with bus_service(bus, peer.path) as service:
            service.process.send_signal(number)
            assert service.wait() == 0
            assert not bus.has_owner()


def test_it_asks_to_be_ended_before_it_gives_up_its_name(bus: Bus, peer: StatusPeer) -> None:
    """What systemd hears, on a socket such as it gives to services."""
    path = peer.path.with_name("notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(20)
        os.environ["NOTIFY_SOCKET"] = str(path)
        try:
            with bus_service(bus, peer.path) as service:
                assert systemd.recv(1024) == b"STATUS=Following the broker"
                service.process.send_signal(signal.SIGTERM)
                assert systemd.recv(1024) == b"STOPPING=1"
        finally:
            del os.environ["NOTIFY_SOCKET"]


def test_calls_that_come_while_it_ends_are_answered_or_find_nobody(bus: Bus, peer: StatusPeer) -> None:
    """Never silence: for whoever finds nobody the bus starts a new one."""

    async def call_until_gone() -> set[str]:
        async with other_client(bus) as client:
            described = await client.introspect(BUS_NAME, ROOT)
            manager = client.get_proxy_object(BUS_NAME, ROOT, described).get_interface(MANAGER)

            async def keep_calling() -> str:
                while True:
                    try:
                        assert await asyncio.wait_for(manager.get_secret_count(), 20) == 3
                    except DBusError as error:
                        return str(error.type)

            callers = [asyncio.create_task(keep_calling()) for _ in range(40)]
            await asyncio.sleep(0.2)  # for the calls to come at all times
            service.process.send_signal(signal.SIGTERM)
            return set(await asyncio.gather(*callers))

    for _ in range(3):
        with bus_service(bus, peer.path) as service:
            assert asyncio.run(call_until_gone()) == {"org.freedesktop.DBus.Error.ServiceUnknown"}
            assert service.wait() == 0


def test_a_signal_ends_it_while_it_still_starts(bus: Bus, peer: StatusPeer) -> None:
    peer.answers = False
    with bus_service(bus, peer.path, named=False) as service:
        peer.wait_for_connects(1)
        assert service.stop() == 0


@pytest.mark.parametrize("wrong", ["-1", "1.5", "soon", ""])
def test_seconds_are_a_whole_number(bus: Bus, peer: StatusPeer, wrong: str) -> None:
    with bus_service(bus, peer.path, f"--idle-exit-seconds={wrong}", named=False) as service:
        assert service.wait() == 2
        assert "a whole number of seconds is wanted, 0 for never" in service.log
