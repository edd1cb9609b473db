"""The installed status service: activated by a call on a real system bus, of either kind, and
confined."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.bus.interfaces import BUS_NAME, MANAGER, OBJECT_MANAGER, PROJECT
from remo_broker.bus.paths import ROOT, project_path
from tests.support.bus_user import BusUser
from tests.support.installation import restore
from tests.support.machine import Machine, poll
from tests.support.operator import ADMIN, SERVICE, STATUS, Operator

if TYPE_CHECKING:
    from tests.machine.conftest import Machines
    from tests.support.machine import Bus

BUS_SERVICE = "remo-broker-bus.service"
PROPERTIES = "org.freedesktop.DBus.Properties"
MAX_EXPOSURE = 1.0
# Enough for a long reply to a flood.
PROJECTS = 5

# A name and a value that nothing on the bus may contain.
SENTINEL = re.compile("sentinel", re.IGNORECASE)

# The most that an unprivileged user can send from one process: calls as fast as the bus accepts
# them, without reading a reply.
_FLOOD = f"""
import socket, sys, time
sys.path.append("/usr/lib/remo-broker/lib/python3.%d/site-packages" % sys.version_info[1])
from remo_broker.bus import wire
caller = socket.socket(socket.AF_UNIX)
caller.connect("/run/dbus/system_bus_socket")
caller.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n")
driver = dict(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus", interface="org.freedesktop.DBus")
caller.sendall(wire.encode(wire.METHOD_CALL, 1, member="Hello", **driver))
caller.settimeout(0.2)
everything = dict(destination="{BUS_NAME}", path="{ROOT}", interface="{OBJECT_MANAGER.name}", member="GetManagedObjects")
end, serial = time.monotonic() + 2, 1
while time.monotonic() < end:
    serial += 1
    try:
        caller.sendall(wire.encode(wire.METHOD_CALL, serial, **everything))
    except TimeoutError:
        pass
    except OSError:
        break
print(serial)
"""


@pytest.fixture(params=["dbus-daemon", "dbus-broker"])
def machine(machines: Machines, request: pytest.FixtureRequest) -> Machine:
    """The machine after `./run install` and the one command, once with each system bus."""
    bus: Bus = request.param
    machine = machines(bus)
    if not machine.path("/usr/lib/remo-broker").exists():
        restore(machine)
    machine.reset("remo-broker-admin.socket")
    return machine


# For tests that do not depend on the kind of bus.
one_bus = pytest.mark.parametrize("machine", ["dbus-daemon"], indirect=True)


@pytest.fixture
def bus(machine: Machine) -> BusUser:
    return BusUser(machine)


def bus_pid(machine: Machine) -> int:
    return int(machine.show(BUS_SERVICE, "MainPID")["MainPID"])


# --- on demand -------------------------------------------------------------------------------------------------------


def test_the_machine_has_the_intended_bus(machine: Machine) -> None:
    command = machine.show("dbus.service", "ExecStart")["ExecStart"]
    assert f"/usr/bin/{machine.bus}" in command


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_first_call_on_a_cold_host(machine: Machine, bus: BusUser, operator: Operator, user: str) -> None:
    assert machine.systemctl("is-active", SERVICE, BUS_SERVICE, check=False) == "inactive\ninactive"
    printed = bus.busctl("get-property", BUS_NAME, ROOT, MANAGER.name, "SecretCount", user=user)
    assert printed == "u 0\n"
    assert machine.systemctl("is-active", SERVICE, BUS_SERVICE) == "active\nactive"
    assert machine.show(BUS_SERVICE, "StatusText")["StatusText"] == "Following the broker"
    pids = bus.pids()
    assert bus_pid(machine) in pids
    assert operator.main_pid() not in pids


@one_bus
def test_the_broker_imports_nothing_for_the_bus(machine: Machine, bus: BusUser, operator: Operator) -> None:
    operator.override(SERVICE, "[Service]\nEnvironment=PYTHONPROFILEIMPORTTIME=1\n")
    assert bus.get("SecretCount") == 0
    lines = [str(entry["MESSAGE"]) for entry in machine.journal(f"_PID={operator.main_pid()}")]
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "remo_broker.broker.sockets.status" in imported
    assert not {name for name in imported if name.startswith(("dbus", "asyncio", "pydantic", "remo_broker.bus"))}


def test_it_exits_when_idle_and_the_next_call_starts_it(machine: Machine, bus: BusUser, operator: Operator) -> None:
    override = "[Service]\nExecStart=\nExecStart=/usr/bin/remo-broker-bus --idle-exit-seconds=1\n"
    operator.override(BUS_SERVICE, override)
    assert bus.get("SecretCount") == 0
    machine.wait_state(BUS_SERVICE, "inactive")
    assert machine.show(BUS_SERVICE, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    operator.push({"A": "x"})
    assert bus.get("SecretCount") == 1


def test_no_call_is_lost_while_it_comes_and_goes(machine: Machine, bus: BusUser, operator: Operator) -> None:
    """Calls at any moment of its exit are answered, by this process or the next."""
    operator.override(BUS_SERVICE, "[Unit]\nStartLimitIntervalSec=0\n")
    assert bus.get("SecretCount") == 0
    call = f"busctl get-property {BUS_NAME} {ROOT} {MANAGER.name} SecretCount"
    loop = f"while [ ! -e /tmp/enough ]; do {call} || exit 1; done"
    callers = [machine.popen(["sh", "-c", loop]) for _ in range(3)]
    try:
        for _ in range(12):
            pid = bus_pid(machine)
            machine.run(["kill", str(pid)], check=False)
            poll("the next one", lambda pid=pid: bus_pid(machine) not in {0, pid})  # type: ignore[misc]
            machine.wait_state(BUS_SERVICE, "active")
    finally:
        machine.write("/tmp/enough", "")
        said = [caller.communicate(timeout=60) for caller in callers]
        machine.path("/tmp/enough").unlink()
    for caller, (answers, errors) in zip(callers, said, strict=True):
        assert (caller.returncode, errors) == (0, "")
        assert set(answers.splitlines()) == {"u 0"}


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_an_unprivileged_user_reads_everything_and_sets_nothing(bus: BusUser, operator: Operator) -> None:
    operator.register("my-repo", ["A", "B"])
    operator.push({"A": "x"})
    path = project_path("my-repo")
    assert bus.busctl("--list", "tree", BUS_NAME, user="nobody").split()[-1] == path
    poll("the push", lambda: bus.get("SecretCount", user="nobody") == 1)
    status = operator.do("status")
    assert bus.get("StartTimestamp", user="nobody") == status["start_usec"]
    assert bus.get("MemoryProtection", user="nobody") == status["memory_protection"]
    introspected = bus.busctl("introspect", BUS_NAME, ROOT, user="nobody")
    for one in MANAGER.properties:
        [line] = [line for line in introspected.splitlines() if line.startswith(f".{one.name} ")]
        assert line.split()[1:3] == ["property", one.signature]
    assert bus.get("AllowlistSize", path, PROJECT.name, user="nobody") == 2
    listed = bus.busctl("call", BUS_NAME, ROOT, MANAGER.name, "ListProjects", user="nobody")
    assert listed == f'a(so) 1 "my-repo" "{path}"\n'
    unknown = bus.busctl("call", BUS_NAME, ROOT, MANAGER.name, "GetProject", "s", "x", user="nobody", check=False)
    assert "No project of this name is registered" in unknown
    for user in ("nobody", None):
        set_it = ("set-property", BUS_NAME, ROOT, MANAGER.name, "SecretCount", "u", "9")
        assert "Access denied" in bus.busctl(*set_it, user=user, check=False)
        assert "Access denied" in bus.busctl("call", BUS_NAME, ROOT, MANAGER.name, "Push", user=user, check=False)
    assert bus.get("SecretCount") == 1


def test_changes_are_signalled(bus: BusUser, operator: Operator) -> None:
    assert bus.get("SecretCount") == 0
    with bus.monitor() as seen:
        operator.register("other", ["A"])
        poll("the project", lambda: seen.changed("ProjectCount") == [1])
        operator.push({"A": "x", "B": "y"})
        poll("the push", lambda: seen.changed("SecretCount") == [2])
        operator.do("clear-creds")
        poll("the clearing", lambda: seen.changed("SecretCount") == [2, 0])
        operator.do("unregister", name="other")
        poll("its end", lambda: seen.changed("ProjectCount") == [1, 0])
        told = [member for member in seen.members() if member != "PropertiesChanged"]
        assert told == ["InterfacesAdded", "ProjectAdded", "InterfacesRemoved", "ProjectRemoved"]
        added = next(one for one in seen.signals() if one["member"] == "ProjectAdded")
        assert added["payload"] == {"type": "so", "data": ["other", project_path("other")]}


def test_no_message_contains_a_secret(bus: BusUser, operator: Operator) -> None:
    assert bus.get("SecretCount") == 0
    with bus.monitor() as seen:
        operator.register("myrepo", ["SENTINEL_ONE", "SENTINEL_TWO"])
        operator.push({"SENTINEL_ONE": "sentinel-value", "SENTINEL_TWO": {"SENTINEL_FIELD": "sentinel-value"}})
        for name in ("SENTINEL_ONE", "SENTINEL_TWO", "SENTINEL_THREE"):
            operator.get("myrepo", name)
        poll("the fetches", lambda: bus.get("FetchesDenied") == 1)
        for path in bus.busctl("--list", "tree", BUS_NAME).split():
            bus.busctl("introspect", BUS_NAME, path)
            bus.busctl("call", BUS_NAME, path, PROPERTIES, "GetAll", "s", "")
        bus.busctl("call", BUS_NAME, ROOT, OBJECT_MANAGER.name, "GetManagedObjects")
        bus.busctl("call", BUS_NAME, ROOT, MANAGER.name, "GetProject", "s", "myrepo")
        poll("the last answer", lambda: "method_return" in seen.text() and "GetProject" in seen.text())
        assert not SENTINEL.search(seen.text())


# --- the broker's life -----------------------------------------------------------------------------------------------


def fall_asleep(machine: Machine, bus: BusUser, operator: Operator) -> None:
    """The idle broker, with one project, exits, and the bus shows that."""
    operator.configure("idle_exit_seconds = 1\n")
    operator.register("myrepo", ["A"])
    # As after a boot: systemd listens for the project, so the broker may exit.
    operator.stop_for_good()
    machine.systemctl("start", "remo-broker-client@myrepo.socket")
    assert bus.get("ProjectCount") == 1
    machine.wait_state(SERVICE, "inactive")
    poll("the idle broker", lambda: bus.get("StartTimestamp") == 0)


@one_bus
def test_an_idle_broker_is_shown_and_not_started(machine: Machine, bus: BusUser, operator: Operator) -> None:
    fall_asleep(machine, bus, operator)
    pid = bus_pid(machine)
    for _ in range(20):
        assert (bus.get("SecretCount"), bus.get("ProjectCount")) == (0, 1)
        time.sleep(0.1)
    assert machine.systemctl("is-active", SERVICE, check=False) == "inactive"
    operator.push({"A": "x"})  # another client starts it
    poll("the push", lambda: bus.get("SecretCount") == 1)
    assert bus_pid(machine) == pid


@pytest.mark.parametrize("how", ["daemon-reload", "daemon-reexec"])
def test_a_daemon_reexec_does_not_start_an_idle_broker(
    machine: Machine, bus: BusUser, operator: Operator, how: str
) -> None:
    fall_asleep(machine, bus, operator)
    pid, woken = bus_pid(machine), machine.show(SERVICE, "InvocationID")
    for _ in range(4):  # it is off the bus only for a moment
        machine.systemctl(how)
        time.sleep(0.5)
    assert machine.systemctl("is-active", SERVICE, check=False) == "inactive"
    assert machine.show(SERVICE, "InvocationID") == woken
    operator.push({"A": "x"})  # and the service finds it again
    poll("the push", lambda: bus.get("SecretCount") == 1)
    assert bus_pid(machine) == pid


@one_bus
def test_a_stop_is_not_undone(machine: Machine, bus: BusUser, operator: Operator) -> None:
    operator.push({"A": "x"})
    assert bus.get("SecretCount") == 1
    machine.systemctl("stop", SERVICE)
    poll("the stopped broker", lambda: bus.get("SecretCount") == 0)
    time.sleep(1)
    assert machine.systemctl("is-active", SERVICE, check=False) == "inactive"
    assert machine.show(BUS_SERVICE, "StatusText")["StatusText"] == "The broker is not running"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_new_broker_is_followed(machine: Machine, bus: BusUser, operator: Operator, how: str) -> None:
    operator.register("myrepo", ["A"])
    operator.push({"A": "x"})
    assert bus.get("SecretCount") == 1
    began, pid = bus.get("StartTimestamp"), bus_pid(machine)
    with bus.monitor() as seen:
        if how == "restart":
            machine.systemctl("restart", SERVICE)
        else:
            machine.run(["kill", "-KILL", str(operator.main_pid())])
        poll("the new broker", lambda: bus.get("StartTimestamp") > began)
        assert (bus.get("SecretCount"), bus.get("ProjectCount")) == (0, 1)
        poll("the end of the secrets", lambda: seen.changed("SecretCount") == [0])
        assert "ProjectRemoved" not in seen.members()
        operator.push({"A": "x"})
        poll("the push", lambda: seen.changed("SecretCount") == [0, 1])
    assert bus_pid(machine) == pid


@one_bus
def test_an_unreachable_broker_is_reported(machine: Machine, bus: BusUser) -> None:
    machine.systemctl("stop", "remo-broker-status.socket")
    machine.systemctl("mask", "--runtime", "remo-broker-status.socket")
    try:
        refusal = bus.busctl("get-property", BUS_NAME, ROOT, MANAGER.name, "SecretCount", check=False)
        assert "see `systemctl status remo-broker-status.socket remo-broker.service`" in refusal
        assert bus.busctl("call", BUS_NAME, ROOT, "org.freedesktop.DBus.Peer", "Ping") == ""
    finally:
        machine.systemctl("unmask", "--runtime", "remo-broker-status.socket")
    machine.systemctl("restart", "remo-broker-status.socket")
    assert bus.get("SecretCount") == 0


@one_bus
def test_a_recreated_status_socket_is_found(machine: Machine, bus: BusUser) -> None:
    assert bus.get("SecretCount") == 0
    machine.systemctl("stop", SERVICE)
    before = machine.path(STATUS).stat().st_ino
    machine.systemctl("restart", "remo-broker-status.socket")
    assert machine.path(STATUS).stat().st_ino != before
    assert bus.get("StartTimestamp") > 0


# --- faults and abuse ------------------------------------------------------------------------------------------------


def test_a_new_bus_does_not_affect_the_sockets(machine: Machine, bus: BusUser, operator: Operator) -> None:
    operator.register("myrepo", ["A"])
    operator.push({"A": "x"})
    assert bus.get("SecretCount") == 1
    pid, began = bus_pid(machine), operator.main_pid()
    machine.systemctl("restart", "dbus.service")
    assert operator.get("myrepo", "A")["value"] == "x"
    poll("the old service's end", lambda: bus_pid(machine) != pid)
    poll("the new bus", lambda: "SecretCount" in bus.busctl("introspect", BUS_NAME, ROOT, check=False))
    assert bus.get("SecretCount") == 1
    assert operator.main_pid() == began


def test_a_flood_by_an_unprivileged_user(machine: Machine, bus: BusUser, operator: Operator) -> None:
    for number in range(PROJECTS):
        operator.register(f"project-{number}", ["A"])
    assert bus.get("ProjectCount") == PROJECTS

    def processor_ticks() -> int:
        fields = machine.path(f"/proc/{operator.main_pid()}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    pid, before = bus_pid(machine), processor_ticks()
    flood = machine.popen(["/usr/bin/python3", "-c", _FLOOD], user="nobody")
    while flood.poll() is None:  # dbus-broker queues the flood's calls ahead of this one: it may take seconds
        assert bus.get("ProjectCount", user="daemon") == PROJECTS
    sent = int(flood.communicate()[0])
    assert sent > 200
    # A hundred ticks a second: the cost of following the broker, and next to nothing more, whatever
    # was sent.
    assert processor_ticks() - before < 30
    assert bus.get("ProjectCount") == PROJECTS
    assert bus_pid(machine) == pid


# --- confinement -----------------------------------------------------------------------------------------------------


@one_bus
def test_exposure(machine: Machine, bus: BusUser) -> None:
    assert bus.get("SecretCount") == 0
    assert machine.run(["systemd-analyze", "verify", "--man=no", BUS_SERVICE]).stderr == ""
    shown = machine.run(["systemd-analyze", "security", "--no-pager", BUS_SERVICE]).stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", shown)
    assert found is not None
    assert float(found[1]) <= MAX_EXPOSURE


@one_bus
def test_what_the_process_may_do(machine: Machine, bus: BusUser, operator: Operator) -> None:
    operator.register("myrepo", ["A"])
    assert bus.get("SecretCount") == 0
    pid = bus_pid(machine)
    lines = machine.path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    uid, gid = machine.ids("remo-broker-bus")
    assert status["Uid"] == "\t".join([str(uid)] * 4)
    assert status["Groups"].split() in ([], [str(gid)])
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    # In the service's namespace, even root sees only the status socket of the broker.
    def inside(*command: str) -> str:
        done = machine.run(["nsenter", "-t", str(pid), "-m", "-n", "--", *command], check=False)
        return done.stdout + done.stderr

    assert inside("ls", "-A", "/run/remo-broker") == "status.sock\n"
    assert inside("ls", "-A", "/var") == "tmp\n"
    assert inside("ls", "-A", "/home") == ""
    assert inside("ls", "-A", "/sys/class/net") == "lo\n"
    assert "Read-only" in inside("touch", "/run/remo-broker/x")
    assert "Read-only" in inside("touch", "/etc/x")
    for path in (ADMIN, operator.socket("myrepo")):
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        assert "FileNotFoundError" in inside("/usr/bin/python3", "-c", connect)


def test_only_the_services_user_may_own_the_name(machine: Machine, bus: BusUser) -> None:
    for user in ("nobody", "root"):
        done = machine.run(["/usr/bin/remo-broker-bus"], user=user, check=False)
        assert done.returncode == 1
        assert "does not let user" in done.stderr
    assert bus.get("SecretCount") == 0
