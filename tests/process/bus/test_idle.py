"""When the idle service exits, and that no call is lost then."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import time

import pytest
from dbus_next.errors import DBusError

from remo_broker.bus import idle, wire
from remo_broker.bus.connection import Answer, Return, connect
from remo_broker.bus.idle import MANY_CALLERS, MAX_CALLERS, Callers
from remo_broker.protocol.replies import SyncedEvent
from tests.support.bus import BUS_NAME, MANAGER, ROOT, Bus, bus_service, other_client
from tests.support.machine import WAIT_SECONDS, poll
from tests.support.played_bus import call, connected
from tests.support.status import StatusPeer

# Short, but longer than a busy machine takes between two lines of a test.
IDLE_SECONDS = 2


def test_it_exits_some_time_after_the_last_call(bus: Bus, peer: StatusPeer) -> None:
    def is_kept_by_calls() -> bool:
        """False if this host was too slow to call often enough."""
        asked = time.monotonic()
        for _ in range(8):
            time.sleep(IDLE_SECONDS / 4)
            before, asked = asked, time.monotonic()
            answer = bus.busctl("get-property", BUS_NAME, ROOT, MANAGER, "SecretCount", check=False)
            if answer.returncode != 0 and time.monotonic() - before > IDLE_SECONDS:
                return False
            assert answer.stdout == "u 3\n"
        return True

    def once() -> bool:
        with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
            kept = is_kept_by_calls()
            assert service.wait() == 0
            assert not bus.has_owner()
            assert "Traceback" not in service.log
            return kept

    poll("calls that are often enough", once, 5 * WAIT_SECONDS)


def test_a_caller_that_stays_connected_keeps_it_running(bus: Bus, peer: StatusPeer) -> None:
    async def stay() -> None:
        async with other_client(bus) as client:
            await client.introspect(BUS_NAME, ROOT)
            await asyncio.sleep(3 * IDLE_SECONDS)
            assert service.process.poll() is None

    with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
        asyncio.run(stay())
        assert service.wait() == 0


def test_a_caller_does_not_keep_it_running_without_a_status(bus: Bus, peer: StatusPeer) -> None:
    async def stay() -> int:
        async with other_client(bus) as client:
            await client.introspect(BUS_NAME, ROOT)
            return await asyncio.to_thread(service.wait)

    peer.greeting = (SyncedEvent(),)
    with bus_service(bus, peer.path, f"--idle-exit-seconds={IDLE_SECONDS}") as service:
        assert asyncio.run(stay()) == 0


@pytest.mark.parametrize("seconds", [0, 3600])
def test_callers_that_left_are_forgotten_while_calls_continue(
    bus: Bus, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "LIST_SECONDS", 0.1)

    async def use() -> None:
        async with other_client(bus) as watching:
            connection = await connect(bus.address, lambda _call: Return(), lambda _signal: None)
            callers = Callers()
            idling = asyncio.create_task(callers.until_idle(connection, seconds, lambda: True))
            assert callers.called(watching.unique_name, now=0)
            for number in range(4 * MANY_CALLERS):
                assert callers.called(f":7.{number}", now=number)
                if number % MANY_CALLERS == 0:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(poll, "the others' end", lambda: callers._names == {watching.unique_name})
            idling.cancel()
            connection.close()
            await connection.closed

    asyncio.run(use())


def test_callers_beyond_the_limit_are_refused_and_none_forgotten() -> None:
    async def use() -> None:
        callers = Callers()
        assert callers.called(":1.1", now=0)
        answers = [callers.called(f":7.{number}", now=number) for number in range(2 * MAX_CALLERS)]
        assert answers.count(True) == MAX_CALLERS - 1
        assert callers.called(":1.1", now=0)
        assert not callers.called(":1.2", now=0)
        assert len(callers._names) == MAX_CALLERS

    asyncio.run(use())


def test_a_caller_missing_from_a_concurrent_listing_is_remembered(directory: pathlib.Path) -> None:
    """Its call arrives together with a list of names that lacks it."""

    async def use() -> set[str]:
        callers = Callers()

        def answer(call: wire.Incoming) -> Answer:
            callers.called(call.sender, asyncio.get_running_loop().time())
            return Return()

        async with connected(directory / "bus", answer) as (played, opened):
            idling = asyncio.create_task(callers.until_idle(opened, 0.01, lambda: True))
            callers.called(":1.8", now=0)
            asked = await played.message()
            names = wire.encode_body("as", [[":1.7"]])
            played.writer.write(wire.encode(wire.METHOD_RETURN, 2, "as", names, reply_serial=asked.serial))
            played.writer.write(call(5, sender=":1.9"))
            while (await played.message()).member != "ListNames":  # it has noticed a call, and checks again
                pass
            assert not idling.done()
            idling.cancel()
            return callers._names

    assert asyncio.run(use()) == {":1.9"}


def test_zero_seconds_means_never(bus: Bus, peer: StatusPeer) -> None:
    with bus_service(bus, peer.path, "--idle-exit-seconds=0") as service:
        time.sleep(2 * IDLE_SECONDS)
        assert service.process.poll() is None
        assert service.stop() == 0


def test_a_signal_ends_the_service(bus: Bus, peer: StatusPeer) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with bus_service(bus, peer.path) as service:
            service.process.send_signal(number)
            assert service.wait() == 0
            assert not bus.has_owner()


def test_it_notifies_systemd_before_it_releases_its_name(bus: Bus, peer: StatusPeer) -> None:
    """The messages that systemd receives on its notification socket."""
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


def test_calls_during_its_exit_are_answered_by_it_or_the_next_process(bus: Bus, peer: StatusPeer) -> None:
    """If the service has exited, the bus starts a new one."""

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


def test_a_signal_ends_the_service_during_its_start(bus: Bus, peer: StatusPeer) -> None:
    peer.answers = False
    with bus_service(bus, peer.path, named=False) as service:
        peer.wait_for_connects(1)
        assert service.stop() == 0


@pytest.mark.parametrize("wrong", ["-1", "1.5", "soon", ""])
def test_seconds_must_be_an_integer(bus: Bus, peer: StatusPeer, wrong: str) -> None:
    with bus_service(bus, peer.path, f"--idle-exit-seconds={wrong}", named=False) as service:
        assert service.wait() == 2
        assert "must be an integer number of seconds" in service.log
