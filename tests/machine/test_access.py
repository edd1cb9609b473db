"""Who may use which socket: modes and owners of the files, and the uids that a project allows."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.operator import ADMIN, STATUS

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

# Prints whether a connect by that user succeeds.
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def _owner(machine: Machine, path: str) -> tuple[str, str, str]:
    mode, user, group = machine.run(["stat", "-c", "%a %U %G", path]).stdout.split()
    return mode, user, group


@pytest.fixture
def users(machine: Machine) -> None:
    """dev and guest may use the projects' sockets, sidecar the admin socket."""
    for name, group in (("dev", "remo-broker"), ("guest", "remo-broker"), ("sidecar", "remo-broker-admin")):
        machine.run(["useradd", "--no-create-home", "--groups", group, name], check=False)


def test_modes_and_owners(machine: Machine, operator: Operator) -> None:
    operator.register("unit", ["A"])
    machine.systemctl("stop", "remo-broker.service")
    machine.systemctl("start", "remo-broker-client@unit.socket")
    operator.register("running", ["A"])
    for path in ("/run/remo-broker", "/run/remo-broker/internal"):
        assert _owner(machine, path) == ("755", "root", "root")
    assert _owner(machine, "/run/remo-broker/mount") == ("750", "root", "remo-broker")
    for helper in ("bind", "manifest"):
        assert _owner(machine, f"/run/remo-broker/internal/{helper}.sock") == ("660", "root", "remo-broker-private")
    assert _owner(machine, "/run/remo-broker/internal/enable.sock") == ("660", "root", "remo-broker-admin")
    assert _owner(machine, ADMIN) == ("660", "root", "remo-broker-admin")
    assert _owner(machine, STATUS) == ("600", "remo-broker-bus", "remo-broker-bus")
    for project in ("unit", "running"):
        assert _owner(machine, operator.socket(project)) == ("660", "root", "remo-broker")
        assert _owner(machine, operator.mount(project)) == ("666", "root", "remo-broker")
        directory = operator.mount(project).removesuffix("/broker.sock")
        assert _owner(machine, directory)[:2] == ("755", "root")
    assert _owner(machine, "/var/lib/remo-broker") == ("770", "root", "remo-broker-private")
    for state in machine.path("/var/lib/remo-broker").iterdir():
        assert stat.S_IMODE(state.stat().st_mode) == 0o600


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("nobody", set()),
        ("remo-broker", set()),
        ("remo-broker-manifest", set()),
        ("dev", {"project"}),
        ("sidecar", {"admin"}),
        ("remo-broker-bus", {"status"}),
    ],
)
@pytest.mark.parametrize("made_by", ["broker", "unit"])
def test_who_may_connect(machine: Machine, operator: Operator, user: str, may: set[str], made_by: str) -> None:
    sockets = {"admin": ADMIN, "status": STATUS, "project": operator.register("app", ["A"])}
    if made_by == "unit":
        machine.systemctl("stop", "remo-broker.service")
        machine.systemctl("start", "remo-broker-client@app.socket")
    for kind, path in sockets.items():
        tried = machine.run(["/usr/bin/python3", "-ISc", CONNECT, path], user=user, check=False)
        assert (tried.returncode == 0) == (kind in may), (kind, tried.stderr)
        assert tried.returncode == 0 or "PermissionError" in tried.stderr


@pytest.mark.usefixtures("users")
def test_a_uid_that_the_project_does_not_allow(machine: Machine, operator: Operator) -> None:
    dev, _ = machine.ids("dev")
    guest, _ = machine.ids("guest")
    path = operator.register("app", ["A"], allowed_uids=[dev])
    operator.push({"A": "for dev"})
    assert operator.get("app", "A", user="dev")["value"] == "for dev"
    for request in ({"op": "get", "name": "A"}, {"op": "ping"}, {"op": "nonsense"}):
        assert machine.ask(path, request, user="guest")["code"] == "peer_unexpected"
    entries = machine.journal("REMO_EVENT=peer.refused", "REMO_PROJECT=app")
    assert {entry["REMO_PEER_UID"] for entry in entries} == {str(guest)}
    assert not [e for e in machine.journal("REMO_EVENT=fetch", "REMO_PROJECT=app") if e["REMO_PEER_UID"] == str(guest)]
    # Including root: only listed uids may.
    assert machine.ask(path, {"op": "ping"})["code"] == "peer_unexpected"
    # The list survives a restart.
    machine.systemctl("restart", "remo-broker.service")
    assert machine.ask(path, {"op": "ping"}, user="guest")["code"] == "peer_unexpected"
    assert machine.ask(path, {"op": "ping"}, user="dev")["ok"] is True


def test_the_connection_of_a_refused_peer_is_closed(machine: Machine, operator: Operator) -> None:
    path = operator.register("app", ["A"], allowed_uids=[65534])
    with machine.connect(path) as client, client.makefile("rb") as answers:
        client.sendall(b'{"op":"ping"}\n{"op":"ping"}\n')
        assert json.loads(answers.readline())["code"] == "peer_unexpected"
        assert answers.readline() == b""


def test_a_drop_in_changes_who_may_connect(machine: Machine, operator: Operator) -> None:
    """What the comment in the template unit promises."""
    operator.override("remo-broker-client@app.socket", "[Socket]\nSocketGroup=nogroup\nSocketMode=0666\n")
    operator.register("app", ["A"])
    machine.systemctl("stop", "remo-broker.service")
    machine.systemctl("start", "remo-broker-client@app.socket")
    assert _owner(machine, operator.socket("app")) == ("666", "root", "nogroup")
    assert machine.ask(operator.socket("app"), {"op": "ping"}, user="nobody")["ok"] is True
