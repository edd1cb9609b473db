"""The bus policy, on a bus that denies by default as the system bus does: who may own the name, who
may call what."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from remo_broker.bus.interfaces import BUS_NAME, MANAGER, OBJECT_MANAGER
from tests.support.bus import POLICY, PROGRAM, ROOT, Bus, BusProcess, bus_service, private_bus
from tests.support.machine import unavailable
from tests.support.status import StatusPeer, project_event, status_peer

if TYPE_CHECKING:
    from collections.abc import Iterator

# A user without a rule in any policy, in place of the service's user, which this host may lack.
UNPRIVILEGED = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
STAND_IN = ("setpriv", "--reuid=1", "--regid=1", "--clear-groups")  # "daemon" wherever there is a /etc/passwd

# Not a monitor, which sees everything: an ordinary client that adds a match and prints the first
# three signals.
_LISTENER = f"""
import asyncio, sys
import remo_broker.bus
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

async def listen():
    bus = await MessageBus(bus_address=sys.argv[1]).connect()
    heard = asyncio.Queue()
    def take(message):
        if message.message_type is MessageType.SIGNAL and message.path == {ROOT!r}:
            heard.put_nowait(message.member)
    bus.add_message_handler(take)
    driver = dict(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus", interface="org.freedesktop.DBus")
    rule = "type='signal',sender='{BUS_NAME}'"
    await bus.call(Message(member="AddMatch", signature="s", body=[rule], **driver))
    print("listening", flush=True)
    for _ in range(3):
        print(await asyncio.wait_for(heard.get(), 20), flush=True)

asyncio.run(listen())
"""

# The service's user, owning the service's name, sends an ordinary client first a signal that is not
# the service's, then one that is.
_FORGER = f"""
import asyncio, sys
import remo_broker.bus
from dbus_next import Message, MessageType
from dbus_next.aio import MessageBus

async def forge():
    service = await MessageBus(bus_address=sys.argv[1]).connect()
    await service.request_name({BUS_NAME!r})
    client = await MessageBus(bus_address=sys.argv[1]).connect()
    heard = asyncio.Queue()
    client.add_message_handler(lambda message: heard.put_nowait(message.interface) if message.path == {ROOT!r} else None)
    for interface in ("org.example.Forged", {MANAGER.name!r}):
        signal = Message(
            message_type=MessageType.SIGNAL, destination=client.unique_name, path={ROOT!r}, interface=interface, member="Any"
        )
        await service.send(signal)
    print(await asyncio.wait_for(heard.get(), 20))

asyncio.run(forge())
"""


@pytest.fixture
def peer(directory: pathlib.Path) -> Iterator[StatusPeer]:
    """A peer in a directory that other users may enter."""
    with status_peer(directory / "status.sock") as listening:
        yield listening


@pytest.fixture
def bus(directory: pathlib.Path, peer: StatusPeer) -> Iterator[Bus]:
    if os.geteuid() != 0:
        unavailable("being several users takes root")
    if shutil.which("setpriv") is None:
        unavailable("setpriv is not installed here")
    policy = POLICY.read_text()
    assert 'user="remo-broker-bus"' in policy
    peer.path.chmod(0o666)
    with private_bus(directory, policy=policy.replace('user="remo-broker-bus"', 'user="daemon"')) as running:
        yield running


@pytest.fixture
def service(bus: Bus, peer: StatusPeer) -> Iterator[BusProcess]:
    if not pathlib.Path(sys.executable).stat().st_mode & 1:
        unavailable(f"{sys.executable} cannot be run by others")
    with bus_service(bus, peer.path, user=STAND_IN) as running:
        yield running


def test_only_the_services_user_may_own_the_name(bus: Bus, peer: StatusPeer) -> None:
    for other in ((), UNPRIVILEGED):
        with bus_service(bus, peer.path, named=False, user=other) as service:
            assert service.wait() == 1
            assert "is its policy file in /usr/share/dbus-1/system.d" in service.log
    with bus_service(bus, peer.path, user=STAND_IN):
        assert bus.has_owner()


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("user", [(), UNPRIVILEGED, STAND_IN], ids=["root", "nobody", "itself"])
def test_every_user_may_read_and_no_user_may_do_anything_else(bus: Bus, user: tuple[str, ...]) -> None:
    allowed = [
        ("get-property", BUS_NAME, ROOT, MANAGER.name, "SecretCount"),
        ("introspect", BUS_NAME, ROOT),
        ("tree", BUS_NAME),
        ("call", BUS_NAME, ROOT, MANAGER.name, "ListProjects"),
        ("call", BUS_NAME, ROOT, MANAGER.name, "GetProject", "s", "myrepo"),
        ("call", BUS_NAME, ROOT, OBJECT_MANAGER.name, "GetManagedObjects"),
        ("call", BUS_NAME, "/", "org.freedesktop.DBus.Peer", "Ping"),
        ("call", BUS_NAME, "/", "org.freedesktop.DBus.Peer", "GetMachineId"),
    ]
    for call in allowed:
        bus.busctl(*call, user=user)
    denied = [
        ("set-property", BUS_NAME, ROOT, MANAGER.name, "SecretCount", "u", "1"),
        ("call", BUS_NAME, ROOT, MANAGER.name, "Push"),
        ("call", BUS_NAME, ROOT, "org.example.Other", "ListProjects"),
        ("call", BUS_NAME, ROOT, "org.freedesktop.DBus.Debug.Stats", "GetStats"),
    ]
    for call in denied:
        done = bus.busctl(*call, user=user, check=False)
        assert done.returncode != 0
        assert "Access denied" in done.stderr or "rejected send" in done.stderr, done.stderr


@pytest.mark.usefixtures("service")
def test_signals_reach_every_user(bus: Bus, peer: StatusPeer) -> None:
    with subprocess.Popen(
        [*UNPRIVILEGED, sys.executable, "-c", _LISTENER, bus.address], stdout=subprocess.PIPE
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"listening\n"
        peer.tell(project_event("other"))
        heard = [listener.stdout.readline().decode().strip() for _ in range(3)]
    assert heard == ["InterfacesAdded", "ProjectAdded", "PropertiesChanged"]


def test_only_the_services_own_signals_are_delivered(bus: Bus) -> None:
    """A process that takes over its name cannot use it to reach other users' programs."""
    done = subprocess.run(
        [*STAND_IN, sys.executable, "-c", _FORGER, bus.address], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{MANAGER.name}\n"


def test_every_rule_names_its_destination_and_messages() -> None:
    rules = [rule for policy in ET.parse(POLICY).getroot() for rule in policy]
    assert len(rules) > 10
    for rule in rules:
        about = {rule.get("own"), rule.get("send_destination"), rule.get("receive_sender")}
        assert about - {None} == {BUS_NAME}, rule.attrib
        if rule.tag == "allow" and rule.get("own") is None:
            assert rule.get("send_type") or rule.get("receive_type"), rule.attrib
        if rule.tag == "allow" and rule.get("send_type") == "method_call":
            assert rule.get("send_interface"), rule.attrib
            assert rule.get("send_member") not in {None, "Set"}, rule.attrib


def test_the_tested_program_is_the_installed_one() -> None:
    unit = (POLICY.parents[1] / "units/remo-broker-bus.service").read_text()
    assert "ExecStart=/usr/bin/remo-broker-bus\n" in unit
    assert PROGRAM[-1] == "remo_broker.bus.main"
