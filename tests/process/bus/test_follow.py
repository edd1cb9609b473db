"""The service while the broker crashes, restarts, stops or exits when idle: what it shows, and when
it connects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.bus import follower
from remo_broker.bus.connection import Return, connect
from remo_broker.bus.follower import Follower
from remo_broker.bus.unit import HINT_SECONDS, BrokerUnit
from remo_broker.bus.wire import Incoming
from remo_broker.protocol.replies import Failure, SyncedEvent
from tests.support.bus import (
    MANAGER,
    PROGRAM,
    PROJECT,
    PROPERTIES,
    REPOSITORY,
    ROOT,
    Bus,
    BusProcess,
    bus_service,
    monitor,
)
from tests.support.machine import poll
from tests.support.status import IDLE, STOPPING, StatusPeer, broker_event, project_event
from tests.support.systemd1 import Systemd1, systemd1

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MYREPO = f"{ROOT}/project/myrepo"
UNAVAILABLE = "see `systemctl status remo-broker-status.socket remo-broker.service`"

# Long enough for a wrong connect to happen: twice the longest delay but one between two connects.
QUIET_SECONDS = 1.5


@pytest.fixture
def systemd(bus: Bus) -> Any:
    with systemd1(bus.address) as peer:
        yield peer


def is_stopped(bus: Bus) -> bool:
    return bool(bus.get("StartTimestamp") == 0)


def assert_shows_a_stopped_broker(bus: Bus) -> None:
    assert (bus.get("SecretCount"), bus.get("SecretsLoadedTimestamp"), bus.get("Generation")) == (0, 0, 0)
    assert bus.get("ProjectCount") == 1
    assert bus.get("SocketPath", MYREPO, PROJECT) == "/run/remo-broker/myrepo.sock"
    assert bus.get("Connections", MYREPO, PROJECT) == 0


def stays_quiet(peer: StatusPeer, connects: int) -> None:
    time.sleep(QUIET_SECONDS)
    assert peer.connects == connects


def test_one_connect_serves_all_calls(bus: Bus, peer: StatusPeer, service: BusProcess) -> None:
    for _ in range(20):
        bus.get("SecretCount")
    assert peer.connects == 1
    assert peer.asked == len(b'{"op":"watch"}\n')


# --- without systemd -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_a_broken_connection_is_reopened_without_a_signal_if_nothing_changed(
    bus: Bus, peer: StatusPeer, tmp_path: pathlib.Path
) -> None:
    with monitor(bus, tmp_path) as seen:
        peer.hang_up()
        peer.wait_for_connects(2)
        peer.tell(broker_event(secret_count=4))
        poll("a change", lambda: seen.changed("SecretCount"))
        assert seen.changed("SecretCount") == [4]
        assert len(seen.signals()) == 1


@pytest.mark.usefixtures("service")
def test_a_new_broker_signals_only_differences(bus: Bus, peer: StatusPeer, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        new = broker_event(start_usec=1_770_000_000_000_000, secret_count=0, generation=0)
        peer.greeting = (new, project_event("other"), SyncedEvent())
        peer.hang_up()
        poll("the new one", lambda: seen.changed("StartTimestamp") == [1_770_000_000_000_000])
        assert seen.members() == [
            "InterfacesRemoved",
            "ProjectRemoved",
            "InterfacesAdded",
            "ProjectAdded",
            "PropertiesChanged",
        ]
        assert bus.call(ROOT, MANAGER, "ListProjects") == [[["other", f"{ROOT}/project/other"]]]


@pytest.mark.usefixtures("service")
def test_without_a_listener_the_broker_counts_as_stopped(bus: Bus, peer: StatusPeer) -> None:
    peer.leave()
    poll("the stopped broker", lambda: is_stopped(bus))
    assert_shows_a_stopped_broker(bus)
    peer.listen()
    poll("the running broker", lambda: bus.get("SecretCount") == 3)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff\xfe\n",
        b"not json\n",
        b"{}\n",
        b"x" * 100_000,
        b'{"event":"project","name":"../../etc"}\n',
        b'{"ok":false,"code":"internal_error","message":"\x1b[2J"}\n',
    ],
    ids=["bytes", "text", "object", "endless", "project", "failure"],
)
def test_a_malformed_event_leads_to_a_reconnect(
    bus: Bus, peer: StatusPeer, service: BusProcess, nonsense: bytes
) -> None:
    peer.tell(nonsense)
    peer.wait_for_connects(2)
    assert bus.get("SecretCount") == 3
    assert service.log.isascii()
    assert "\x1b" not in service.log


@pytest.mark.parametrize(
    "greeting",
    [(), (SyncedEvent(),), (project_event(), SyncedEvent()), (Failure(code="internal_error", message="no"),)],
    ids=["silent", "empty", "no broker", "refusal"],
)
def test_calls_fail_while_the_status_is_unknown(
    bus: Bus, peer: StatusPeer, greeting: tuple[Any, ...], tmp_path: pathlib.Path
) -> None:
    peer.greeting = greeting
    with bus_service(bus, peer.path), monitor(bus, tmp_path) as seen:
        refusal = bus.refusal("get-property", "io.get2know.RemoBroker1", ROOT, MANAGER, "SecretCount")
        assert UNAVAILABLE in refusal
        peer.greeting = (broker_event(), project_event(), SyncedEvent())
        peer.hang_up()
        poll("the broker", lambda: seen.changed("SecretCount") == [3])
        assert bus.get("SecretCount") == 3
        assert seen.members() == ["InterfacesAdded", "ProjectAdded", "PropertiesChanged"]


def test_a_missing_socket(bus: Bus, tmp_path: pathlib.Path) -> None:
    with bus_service(bus, tmp_path / "nowhere.sock") as service:
        assert UNAVAILABLE in bus.refusal("get-property", "io.get2know.RemoBroker1", ROOT, MANAGER, "SecretCount")
        assert "nowhere.sock: [Errno 2]" in service.log


def test_a_broker_of_another_version_ends_the_service(bus: Bus, peer: StatusPeer, service: BusProcess) -> None:
    peer.greeting = (broker_event(broker_version="2.0.1"), SyncedEvent())
    peer.hang_up()
    assert service.wait() == 1
    assert "the broker now has another version" in service.log
    assert not bus.has_owner()


def test_an_unwritable_log_does_not_end_the_service(bus: Bus, peer: StatusPeer) -> None:
    """Standard error is like that after journald was stopped."""
    read, write = os.pipe()
    os.close(read)
    arguments = [f"--bus-address={bus.address}", f"--status-socket={peer.path}"]
    process = subprocess.Popen([*PROGRAM, *arguments], cwd=REPOSITORY, stderr=write)
    os.close(write)
    try:
        poll("the service to have its name", lambda: bus.has_owner() or process.poll() is not None)
        peer.leave()
        poll("the stopped broker", lambda: is_stopped(bus))
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


# --- with systemd ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_an_idle_broker_is_shown_and_not_woken(
    bus: Bus, peer: StatusPeer, systemd: Systemd1, tmp_path: pathlib.Path
) -> None:
    with monitor(bus, tmp_path) as seen:
        peer.tell(IDLE)
        systemd.is_now("inactive")
        poll("the idle broker", lambda: seen.changed("SecretCount") == [0])
        assert_shows_a_stopped_broker(bus)
        for _ in range(10):
            bus.get("SecretCount")
        stays_quiet(peer, connects=1)
        systemd.is_now("activating")
        peer.wait_for_connects(2)
        poll("the new broker", lambda: seen.changed("SecretCount") == [0, 3])
        assert systemd.subscriptions == 1


@pytest.mark.usefixtures("service")
def test_an_idle_exit_that_systemd_reports_late(bus: Bus, peer: StatusPeer, systemd: Systemd1) -> None:
    peer.tell(IDLE)
    poll("the idle broker", lambda: is_stopped(bus))
    stays_quiet(peer, connects=1)
    systemd.is_now("deactivating")
    systemd.is_now("inactive")
    stays_quiet(peer, connects=1)


def test_a_daemon_reexec_does_not_wake_an_idle_broker(bus: Bus, peer: StatusPeer, systemd: Systemd1) -> None:
    with bus_service(bus, peer.path):
        systemd.leave()  # before it asked for anything but systemd's presence
        peer.tell(IDLE)
        poll("the idle broker", lambda: is_stopped(bus))
        stays_quiet(peer, connects=1)
        systemd.is_now("inactive", tell=False)
        systemd.come_back()
        stays_quiet(peer, connects=1)
        systemd.is_now("activating")
        peer.wait_for_connects(2)
        poll("the new broker", lambda: bus.get("SecretCount") == 3)
        assert systemd.subscriptions == 2


@contextlib.asynccontextmanager
async def following(bus: Bus, peer: StatusPeer) -> AsyncIterator[None]:
    """A follower in this process, and its first connect."""
    unit: BrokerUnit | None = None

    def heard(signal: Incoming) -> None:
        if unit is not None:
            unit.on_signal(signal)

    connection = await connect(bus.address, lambda _call: Return(), heard)
    unit = BrokerUnit(connection)
    task = asyncio.create_task(Follower(str(peer.path), unit, lambda *_change: None).run())
    try:
        await asyncio.to_thread(peer.wait_for_connects, 1)
        yield
    finally:
        task.cancel()
        connection.close()
        await connection.closed


def test_a_broker_running_after_a_stop_is_a_new_one(
    bus: Bus, peer: StatusPeer, systemd: Systemd1, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart may be complete before the next query, and no time need pass after it."""
    monkeypatch.setattr(follower, "SETTLE_SECONDS", 3600)

    async def restart() -> None:
        async with following(bus, peer):
            before = systemd.asked
            systemd.is_now("deactivating", tell=False)
            peer.tell(STOPPING)
            await asyncio.to_thread(poll, "a question", lambda: systemd.asked > before)
            systemd.is_now("active")
            await asyncio.to_thread(peer.wait_for_connects, 2)

    asyncio.run(restart())


def test_a_restart_that_is_complete_before_the_first_query(
    bus: Bus, peer: StatusPeer, systemd: Systemd1, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd reports "active" throughout, first for one process and then for another."""
    monkeypatch.setattr(follower, "SETTLE_SECONDS", 3600)
    systemd.started_usec = broker_event().start_usec - 1

    async def restart() -> None:
        async with following(bus, peer):
            peer.tell(STOPPING)
            await asyncio.to_thread(stays_quiet, peer, connects=1)
            systemd.started_usec = broker_event().start_usec + 1
            systemd.is_now("active")
            await asyncio.to_thread(peer.wait_for_connects, 2)

    asyncio.run(restart())


@pytest.mark.usefixtures("service")
def test_a_stop_is_not_undone(bus: Bus, peer: StatusPeer, systemd: Systemd1) -> None:
    systemd.is_now("deactivating")
    peer.tell(STOPPING)
    peer.hang_up()
    systemd.is_now("inactive")
    poll("the stopped broker", lambda: is_stopped(bus))
    assert_shows_a_stopped_broker(bus)
    stays_quiet(peer, connects=1)
    systemd.is_now("active")
    poll("the running broker", lambda: bus.get("SecretCount") == 3)


@pytest.mark.usefixtures("service")
def test_after_a_crash_it_connects_when_the_broker_is_started_again(
    bus: Bus, peer: StatusPeer, systemd: Systemd1
) -> None:
    systemd.is_now("failed")
    peer.hang_up()
    poll("the crashed broker", lambda: is_stopped(bus))
    stays_quiet(peer, connects=1)
    systemd.is_now("activating")
    poll("the new broker", lambda: bus.get("SecretCount") == 3)


@pytest.mark.usefixtures("service")
def test_a_running_broker_that_does_not_reply_is_not_shown_as_stopped(
    bus: Bus, peer: StatusPeer, systemd: Systemd1
) -> None:
    peer.answers = False
    peer.hang_up()
    peer.wait_for_connects(2)
    assert bus.get("SecretCount") == 3, "the last that is known, for a while"
    get = ("get-property", "io.get2know.RemoBroker1", ROOT, MANAGER, "SecretCount")
    poll("the end of that", lambda: bus.busctl(*get, check=False).returncode)
    assert UNAVAILABLE in bus.refusal(*get)
    peer.answers = True
    peer.hang_up()
    poll("the broker", lambda: bus.busctl(*get, check=False).stdout == "u 3\n")
    assert systemd.asked < 10


@pytest.mark.usefixtures("service")
def test_forged_signals_do_not_start_the_broker(bus: Bus, peer: StatusPeer, systemd: Systemd1) -> None:
    systemd.is_now("inactive")
    peer.tell(IDLE)
    poll("the idle broker", lambda: is_stopped(bus))
    before, began = systemd.asked, time.monotonic()
    unit = "/org/freedesktop/systemd1/unit/remo_2dbroker_2eservice"
    forged = ("emit", "--destination=io.get2know.RemoBroker1", unit, PROPERTIES, "PropertiesChanged", "sa{sv}as")
    for _ in range(100):
        bus.busctl(*forged, "org.freedesktop.systemd1.Unit", "1", "ActiveState", "s", "active", "0")
    stays_quiet(peer, connects=1)
    assert systemd.asked - before <= (time.monotonic() - began) / HINT_SECONDS + 1
