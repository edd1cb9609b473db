"""Whatever an operator does to the units: projects are served, or the status shows what is down and
how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.machine import poll, systemd_version
from tests.support.operator import ADMIN, SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

ADMIN_UNIT, STATUS_UNIT = "remo-broker-admin.socket", "remo-broker-status.socket"
CLIENT_UNIT, MOUNT_UNIT = "remo-broker-client@app.socket", "remo-broker-mount@app.socket"
HELPERS = ("remo-broker-bind.socket", "remo-broker-manifest.socket")
# FileDescriptorStorePreserve= came with this version of systemd.
PRESERVES = 254
# More than the 2 s that a client may wait for the reason, as the machine may be busy; less than its
# own 30 s.
SAID_WITHIN = 25


def registered(machine: Machine, operator: Operator) -> None:
    """A project registered as `remo-brokerctl register` does it, with a secret."""
    operator.register("app", ["A"])
    machine.systemctl("enable", CLIENT_UNIT)
    operator.push({"A": "a"})


def is_served(machine: Machine, operator: Operator, *, helpers: bool = True) -> None:
    """Whether everything is served, by any process; with `helpers` also a reload, which needs
    them."""
    operator.push({"A": "a"})
    for path in (operator.socket("app"), operator.mount("app")):
        assert machine.ask(path, {"op": "get", "name": "A"})["value"] == "a"
    assert machine.ask("/run/remo-broker/status.sock", {"op": "status"})["project_count"] == 1
    assert operator.do("status").get("unserved_count", 0) == 0
    if helpers:
        operator.do("reload", name="app")


@pytest.mark.parametrize("from_units", [False, True])
@pytest.mark.parametrize("unit", [ADMIN_UNIT, STATUS_UNIT, CLIENT_UNIT, MOUNT_UNIT])
def test_sockets_that_are_stopped_and_started_again(
    machine: Machine, operator: Operator, unit: str, *, from_units: bool
) -> None:
    """While the broker runs, it listens itself and loses nothing; afterwards the units do."""
    registered(machine, operator)
    if from_units:
        machine.systemctl("stop", SERVICE)
        machine.systemctl("start", ADMIN_UNIT, CLIENT_UNIT)
        operator.push({"A": "a"})
    pid = operator.main_pid()
    for verbs in (("restart",), ("stop",), ("start",), ("disable", "--now"), ("enable", "--now")):
        machine.systemctl(*verbs, unit, check=False)
        assert operator.get("app", "A")["value"] == "a"
        is_served(machine, operator, helpers=False)
    assert operator.main_pid() == pid
    for verb in ("restart", "stop", "start"):
        machine.systemctl(verb, SERVICE)
        if verb != "stop":
            is_served(machine, operator, helpers=verb == "start")


def test_helpers_that_are_stopped_are_named(machine: Machine, operator: Operator) -> None:
    path = operator.manifest("app", ["A"])
    operator.do("status")  # a start of the broker starts them too
    for unit in HELPERS[::-1]:
        machine.systemctl("stop", unit)
        refusal = operator.ask("register", name="app", project_path=path)
        assert f"systemctl start {unit}" in refusal["message"]
        machine.systemctl("start", unit)
    operator.do("register", name="app", project_path=path)
    is_served(machine, operator)
    machine.systemctl("stop", *HELPERS)
    machine.systemctl("restart", SERVICE)
    is_served(machine, operator)


def test_a_stop_leaves_the_sockets_to_their_units(machine: Machine, operator: Operator) -> None:
    """Or to the descriptor store, if systemd keeps it: then containers that have them mounted are
    not affected."""
    registered(machine, operator)
    preserved = operator.store_is_preserved
    assert preserved == (systemd_version() >= PRESERVES), "the drop-in is installed where systemd knows its setting"
    before = [operator.inode(path) for path in (operator.socket("app"), operator.mount("app"))]
    machine.systemctl("stop", SERVICE)
    if not preserved:
        for unit in (CLIENT_UNIT, MOUNT_UNIT):
            machine.wait_state(unit, "active")
        assert machine.ask(operator.socket("app"), {"op": "ping"})["project"] == "app"
    machine.systemctl("start", SERVICE)
    is_served(machine, operator)
    if preserved:
        assert [operator.inode(path) for path in (operator.socket("app"), operator.mount("app"))] == before


def test_another_target_and_back(machine: Machine, operator: Operator) -> None:
    registered(machine, operator)
    machine.write("/run/systemd/system/bare.target", "[Unit]\nRequires=basic.target\nAllowIsolate=yes\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("isolate", "bare.target")
    machine.systemctl("isolate", "multi-user.target")
    poll("the machine", lambda: machine.systemctl("is-active", "multi-user.target", check=False) == "active")
    is_served(machine, operator)


def test_a_mounted_directory_survives_a_stop(machine: Machine, operator: Operator) -> None:
    """A container with the mount sees the new socket."""
    registered(machine, operator)
    directory = operator.mount("app").removesuffix("/broker.sock")
    machine.run(["sh", "-c", f"mkdir -p /run/inside && mount --bind {directory} /run/inside"])
    try:
        for verbs in (("stop", "start"), ("restart",)):
            for verb in verbs:
                machine.systemctl(verb, SERVICE)
            assert machine.ask("/run/inside/broker.sock", {"op": "ping"})["project"] == "app"
    finally:
        machine.run(["umount", "/run/inside"])


def test_a_directory_in_place_of_a_socket_is_reported(machine: Machine, operator: Operator) -> None:
    """Also at a start, whichever process should create the socket."""
    registered(machine, operator)
    machine.systemctl("stop", SERVICE, CLIENT_UNIT, MOUNT_UNIT)
    machine.run(["sh", "-c", f"rm -f {operator.socket('app')} && mkdir {operator.socket('app')}"])
    assert machine.systemctl("is-active", CLIENT_UNIT, check=False) != "active"
    machine.systemctl("start", CLIENT_UNIT, check=False)
    status = operator.do("status")
    assert status["projects"][0]["unserved"] == operator.socket("app")
    shown = machine.run(["remo-brokerctl", "status"], check=False)
    assert shown.returncode == 1
    refusal = operator.ask("reload", name="app")
    assert f"rmdir {operator.socket('app')}" in refusal["message"]
    machine.run(["rmdir", operator.socket("app")])
    operator.do("reload", name="app")
    is_served(machine, operator)
    assert machine.run(["remo-brokerctl", "status"]).returncode == 0


def test_a_broken_configuration_is_reported_to_clients(machine: Machine, operator: Operator) -> None:
    registered(machine, operator)
    operator.stop_for_good()
    machine.systemctl("start", CLIENT_UNIT)
    operator.configure("idle_exit_secnds = 1\n")
    for arguments, stdin in ((["list"], ""), (["push"], '{"A":"a"}')):
        said = machine.run(["remo-brokerctl", *arguments], stdin=stdin, check=False, timeout=SAID_WITHIN)
        assert said.returncode != 0
        assert "idle_exit_secnds" in said.stderr
    for path in (operator.socket("app"), operator.mount("app")):
        refusal = machine.ask(path, {"op": "get", "name": "A"})
        assert (refusal["code"], refusal["reason"]) == ("internal_error", "not_started")
        assert "idle_exit_secnds" not in refusal["message"]
    assert machine.path(ADMIN).is_socket()
    operator.configure("idle_exit_seconds = 60\n")
    # An earlier attempt may still reply.
    poll("the next try", lambda: operator.ask("status")["ok"])
    is_served(machine, operator)
