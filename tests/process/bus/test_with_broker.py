"""The real broker behind the real service: its activity is visible on the bus, and no secret is."""

from __future__ import annotations

import json
import pathlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import registration
from tests.support.bus import BUS_NAME, MANAGER, PROJECT, ROOT, Bus, BusProcess, bus_service, monitor
from tests.support.machine import poll

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.broker import Broker

MYREPO = f"{ROOT}/project/myrepo"
NAMES = ("SENTINEL_NAME_ONE", "SENTINEL_NAME_TWO")
VALUE = "sentinel-value-8317"
SENTINEL = re.compile("sentinel", re.IGNORECASE)


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    return start_broker(projects=[registration("myrepo", *NAMES)])


@pytest.fixture
def service(bus: Bus, broker: Broker) -> Iterator[BusProcess]:
    with bus_service(bus, broker.status_socket) as running:
        yield running


def manifest(directory: pathlib.Path, name: str, *secrets: str) -> pathlib.Path:
    file = directory / name / ".devcontainer/remo-broker.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    names = json.dumps(list(secrets))
    file.write_text(f'schema_version = 1\n[project]\nname = "{name}"\n[allowlist]\nsecrets = {names}\n')
    return directory / name


@pytest.mark.usefixtures("service")
def test_every_property_equals_the_status(bus: Bus, broker: Broker) -> None:
    broker.push({NAMES[0]: VALUE, NAMES[1]: VALUE})
    assert broker.get(NAMES[0])["value"] == VALUE
    assert broker.get("OTHER")["code"] == "denied"
    poll("the counters", lambda: bus.get("FetchesDenied") == 1)
    status = broker.status()
    (project,) = status["projects"]
    assert bus.get("Version") == status["broker_version"]
    assert bus.get("ProtocolVersion") == status["protocol_version"]
    assert bus.get("StartTimestamp") == status["start_usec"]
    assert bus.get("SecretCount") == status["secret_count"] == 2
    assert bus.get("SecretsLoadedTimestamp") == status["secrets_loaded_usec"] > 0
    assert bus.get("Generation") == status["generation"]
    assert bus.get("ProjectCount") == status["project_count"] == 1
    assert bus.get("MemoryProtection") == status["memory_protection"]
    assert bus.get("AuditHealthy") == status["audit"]["healthy"]
    assert bus.get("AuditDropped") == status["audit"]["dropped"]
    assert bus.get("FetchesAllowed") == status["fetches_allowed"] == 1
    assert bus.get("Name", MYREPO, PROJECT) == "myrepo"
    assert bus.get("SocketPath", MYREPO, PROJECT) == project["socket_path"]
    assert bus.get("AllowlistSize", MYREPO, PROJECT) == project["allowlist_size"] == 2
    assert bus.get("CacheEntries", MYREPO, PROJECT) == project["cache_entries"] == 1
    assert bus.get("FetchesAllowed", MYREPO, PROJECT) == project["fetches_allowed"] == 1
    assert bus.get("FetchesDenied", MYREPO, PROJECT) == project["fetches_denied"] == 1
    # The broker computes it anew each time, from the time passed since.
    assert bus.get("LastFetchTimestamp", MYREPO, PROJECT) == pytest.approx(project["last_fetch_usec"], abs=1_000_000)


@pytest.mark.usefixtures("service")
def test_the_brokers_activity_is_signalled(bus: Bus, broker: Broker, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        broker.push({NAMES[0]: VALUE})
        poll("the push", lambda: seen.changed("SecretCount") == [1])
        other = manifest(tmp_path, "other", "A")
        assert broker.ask({"op": "register", "name": "other", "project_path": str(other)})["ok"]
        poll("the project", lambda: seen.changed("ProjectCount") == [2])
        manifest(tmp_path, "other", "A", "B")
        assert broker.ask({"op": "reload", "name": "other"})["ok"]
        poll("the reload", lambda: seen.changed("AllowlistSize", f"{ROOT}/project/other") == [2])
        assert broker.ask({"op": "unregister", "name": "other"})["ok"]
        poll("its end", lambda: seen.changed("ProjectCount") == [2, 1])
        assert broker.ask({"op": "clear-creds"})["ok"]
        poll("the clearing", lambda: seen.changed("SecretCount") == [1, 0])
        members = [member for member in seen.members() if member != "PropertiesChanged"]
        assert members == ["InterfacesAdded", "ProjectAdded", "InterfacesRemoved", "ProjectRemoved"]


def test_a_restart_of_the_broker(bus: Bus, broker: Broker, service: BusProcess) -> None:
    broker.push({NAMES[0]: VALUE})
    poll("the push", lambda: bus.get("SecretCount") == 1)
    began = bus.get("StartTimestamp")
    broker.stop()
    poll("the stopped broker", lambda: bus.get("StartTimestamp") == 0)
    assert (bus.get("SecretCount"), bus.get("ProjectCount")) == (0, 1)
    broker.start()
    poll("the new one", lambda: bus.get("StartTimestamp") > began)
    broker.push({NAMES[0]: VALUE})
    poll("the push", lambda: bus.get("SecretCount") == 1)
    assert service.process.poll() is None


def test_a_crash_of_the_broker(bus: Bus, broker: Broker, service: BusProcess) -> None:
    broker.push({NAMES[0]: VALUE})
    broker.process.kill()
    broker.wait()
    poll("the dead broker", lambda: bus.get("SecretCount") == 0)
    broker.start()
    poll("the new one", lambda: bus.get("StartTimestamp") > 0)


@pytest.mark.usefixtures("service")
def test_no_message_contains_a_secret(bus: Bus, broker: Broker, tmp_path: pathlib.Path) -> None:
    with monitor(bus, tmp_path) as seen:
        broker.push({NAMES[0]: VALUE, NAMES[1]: {"SENTINEL_FIELD": VALUE}})
        for name in (*NAMES, "SENTINEL_DENIED"):
            broker.get(name)
        registered = manifest(tmp_path, "other", *NAMES)
        broker.ask({"op": "register", "name": "other", "project_path": str(registered)})
        poll("all that", lambda: bus.get("ProjectCount") == 2)
        said = []
        for path in bus.busctl("--list", "tree", BUS_NAME).stdout.split():
            said.append(bus.busctl("introspect", "--xml-interface", BUS_NAME, path).stdout)
            said.append(bus.busctl("call", BUS_NAME, path, "org.freedesktop.DBus.Properties", "GetAll", "s", "").stdout)
        said.append(bus.busctl("call", BUS_NAME, ROOT, MANAGER, "ListProjects").stdout)
        said.append(
            bus.busctl("call", BUS_NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").stdout
        )
        for path in (ROOT, MYREPO):  # it does not know names of secrets
            done = bus.busctl("get-property", BUS_NAME, path, MANAGER, "secret_names", check=False)
            said += [done.stdout, done.stderr]
        said += [json.dumps(message) for message in seen.messages() if message.get("sender") != "monitor"]
    assert "FetchesDenied" in "".join(said)
    assert not [text for text in said if SENTINEL.search(text)]


def test_the_broker_imports_nothing_for_the_bus(bus: Bus, start_broker: StartBroker) -> None:
    broker = start_broker(environment={"PYTHONPROFILEIMPORTTIME": "1"})
    with bus_service(bus, broker.status_socket):
        broker.push({NAMES[0]: VALUE})
        poll("the push", lambda: bus.get("SecretCount") == 1)
        processes = {entry["pid"] for entry in json.loads(bus.busctl("list", "--json=short").stdout) if "pid" in entry}
        assert broker.pid not in processes
    imported = {line.rpartition("|")[2].strip() for line in broker.log.read_text().splitlines() if "|" in line}
    assert "remo_broker.broker.sockets.status" in imported
    assert not {name for name in imported if name.startswith(("dbus", "asyncio", "remo_broker.bus"))}
