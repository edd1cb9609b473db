"""busctl on a real bus, and dbus-next's own client."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest

from remo_broker.bus.connection import DRIVER
from remo_broker.protocol.replies import RemovedEvent
from tests.support.bus import (
    BUS_NAME,
    MANAGER,
    PROJECT,
    PROPERTIES,
    ROOT,
    Bus,
    BusProcess,
    bus_service,
    monitor,
    other_client,
)
from tests.support.machine import poll
from tests.support.status import StatusPeer, broker_event, project_event

MYREPO = f"{ROOT}/project/myrepo"

pytestmark = pytest.mark.usefixtures("service")


def test_every_property_with_its_type(bus: Bus) -> None:
    def shown(path: str, interface: str) -> dict[str, str]:
        names = [line.split()[0] for line in bus.busctl("introspect", BUS_NAME, path, interface).stdout.splitlines()]
        properties = [name[1:] for name in names if name.startswith(".")]
        properties = [name for name in properties if name not in {"ListProjects", "GetProject"}]
        properties = [name for name in properties if name not in {"ProjectAdded", "ProjectRemoved"}]
        lines = bus.busctl("get-property", BUS_NAME, path, interface, *properties).stdout.splitlines()
        return dict(zip(properties, lines, strict=True))

    assert shown(ROOT, MANAGER) == {
        "AuditDropped": "t 0",
        "AuditHealthy": "b true",
        "CredentialsRefused": "t 0",
        "CredentialsServed": "t 0",
        "FetchesAllowed": "t 41",
        "FetchesDenied": "t 2",
        "Generation": "t 7",
        "MemoryProtection": 's "memfd_secret"',
        "ProjectCount": "u 1",
        "ProtocolVersion": "u 2",
        "SecretCount": "u 3",
        "SecretsLoadedTimestamp": "t 1760000100000000",
        "StartTimestamp": "t 1760000000000000",
        "Version": 's "2.0.0"',
    }
    assert shown(MYREPO, PROJECT) == {
        "AllowlistSize": "u 2",
        "CacheEntries": "u 1",
        "Connections": "u 1",
        "FetchesAllowed": "t 40",
        "FetchesDenied": "t 1",
        "LastFetchTimestamp": "t 1760000200000000",
        "Name": 's "myrepo"',
        "SocketPath": 's "/run/remo-broker/myrepo.sock"',
    }


def test_the_tree(bus: Bus, peer: StatusPeer) -> None:
    peer.tell(project_event("7-zip"))
    poll("the project", lambda: bus.get("ProjectCount") == 2)
    assert bus.busctl("--list", "tree", BUS_NAME).stdout.split() == [
        "/",
        "/io",
        "/io/get2know",
        ROOT,
        f"{ROOT}/project",
        f"{ROOT}/project/_37_2dzip",
        MYREPO,
    ]


def test_the_tree_of_a_thousand_projects(bus: Bus, peer: StatusPeer) -> None:
    """busctl introspects each of them without pausing."""
    peer.tell(*(project_event(f"project-{number}") for number in range(999)))
    poll("the projects", lambda: bus.get("ProjectCount") == 1000)
    shown = bus.busctl("--list", "tree", BUS_NAME).stdout.split()
    assert sum(path.startswith(f"{ROOT}/project/") for path in shown) == 1000


def test_introspection_has_the_flags(bus: Bus) -> None:
    lines = bus.busctl("introspect", BUS_NAME, ROOT, MANAGER).stdout.splitlines()
    flags = {line.split()[0][1:]: line.split()[-1] for line in lines if " property " in line}
    assert flags.pop("Version") == flags.pop("ProtocolVersion") == "const"
    assert {name for name, flag in flags.items() if flag == "-"} == {
        *("AuditDropped", "CredentialsRefused", "CredentialsServed", "FetchesAllowed", "FetchesDenied")
    }
    assert set(flags.values()) == {"-", "emits-change"}


def test_calls(bus: Bus) -> None:
    assert bus.call(ROOT, MANAGER, "ListProjects") == [[["myrepo", MYREPO]]]
    assert bus.call(ROOT, MANAGER, "GetProject", "s", "myrepo") == [MYREPO]
    (objects,) = bus.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert list(objects) == [MYREPO]
    assert objects[MYREPO][PROJECT]["Name"] == {"type": "s", "data": "myrepo"}
    assert bus.call("/", "org.freedesktop.DBus.Peer", "Ping") is None
    (machine_id,) = bus.call("/", "org.freedesktop.DBus.Peer", "GetMachineId")
    assert machine_id == pathlib.Path("/etc/machine-id").read_text().strip()


def test_refusals(bus: Bus) -> None:
    set_it = ("set-property", BUS_NAME, ROOT, MANAGER, "SecretCount", "u", "9")
    assert "remo-brokerctl" in bus.refusal(*set_it)
    assert bus.get("SecretCount") == 3
    unknown = ("call", BUS_NAME, ROOT, MANAGER, "GetProject", "s", "other")
    assert bus.refusal(*unknown).endswith("No project of this name is registered; ListProjects lists those that are.")


def test_a_call_that_expects_no_reply_gets_none(bus: Bus, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        bus.busctl("--expect-reply=no", "call", BUS_NAME, ROOT, MANAGER, "ListProjects")
        bus.busctl("--expect-reply=no", "call", BUS_NAME, ROOT, MANAGER, "NoSuchMethod")
        bus.call(ROOT, MANAGER, "GetProject", "s", "myrepo")
        answers = poll(
            "the answer",
            lambda: [one for one in seen.messages() if one["type"] == "method_return" and one["sender"] != DRIVER],
        )
        assert [one["payload"]["data"] for one in answers] == [[MYREPO]]
        assert not [one for one in seen.messages() if one["type"] == "error" and one["sender"] != DRIVER]


def test_changes_are_signalled(bus: Bus, peer: StatusPeer, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        peer.tell(broker_event(secret_count=5, generation=8))
        poll("the push", lambda: seen.changed("SecretCount") == [5])
        peer.tell(project_event("other"))
        poll("the project", lambda: seen.changed("ProjectCount") == [2])
        peer.tell(project_event("other", allowlist_size=9))
        poll("the reload", lambda: seen.changed("AllowlistSize", f"{ROOT}/project/other") == [9])
        peer.tell(project_event("other", allowlist_size=9, fetches_allowed=1000, connections=12))
        peer.tell(RemovedEvent(name="other"))
        poll("its end", lambda: seen.changed("ProjectCount") == [2, 1])
        assert seen.members() == [
            "PropertiesChanged",
            "InterfacesAdded",
            "ProjectAdded",
            "PropertiesChanged",
            "PropertiesChanged",
            "InterfacesRemoved",
            "ProjectRemoved",
            "PropertiesChanged",
        ]


def test_a_project_replaced_at_once_is_announced(bus: Bus, peer: StatusPeer, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        peer.tell(RemovedEvent(name="myrepo"), project_event(allowlist_size=5))
        poll("both", lambda: len(seen.members()) == 4)
        assert seen.members() == ["InterfacesRemoved", "ProjectRemoved", "InterfacesAdded", "ProjectAdded"]
        assert bus.get("AllowlistSize", MYREPO, PROJECT) == 5


def test_another_client_library_reads_everything(bus: Bus, peer: StatusPeer) -> None:
    async def use() -> None:
        async with other_client(bus) as client:
            described = await client.introspect(BUS_NAME, ROOT)
            proxy = client.get_proxy_object(BUS_NAME, ROOT, described)
            manager, properties = proxy.get_interface(MANAGER), proxy.get_interface(PROPERTIES)
            changes: asyncio.Queue[Any] = asyncio.Queue()
            added: asyncio.Queue[Any] = asyncio.Queue()
            properties.on_properties_changed(lambda name, new, old: changes.put_nowait((name, new, old)))
            manager.on_project_added(lambda name, path: added.put_nowait((name, path)))
            assert await manager.get_secret_count() == 3
            assert await manager.get_audit_healthy() is True
            assert await manager.call_list_projects() == [["myrepo", MYREPO]]
            peer.tell(project_event("second"))
            assert await asyncio.wait_for(added.get(), 20) == ("second", f"{ROOT}/project/second")
            interface, changed, invalidated = await asyncio.wait_for(changes.get(), 20)
            assert (interface, list(changed), invalidated) == (MANAGER, ["ProjectCount"], [])

    asyncio.run(use())


def test_a_second_service_does_not_take_the_name(
    bus: Bus, peer: StatusPeer, service: BusProcess, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "second.sock").symlink_to(peer.path)
    with bus_service(bus, tmp_path / "second.sock", named=False) as second:
        assert second.wait() == 1
        assert "see `busctl status io.get2know.RemoBroker1`" in second.log
    assert service.process.poll() is None
    assert bus.get("SecretCount") == 3
