"""Sockets of a registration that has ended are dead, wherever they are mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.operator import CONNECT, SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine
    from tests.support.operator import Operator


def refused(machine: Machine, path: str) -> bool:
    """Whether the socket at `path` is dead."""
    asked = machine.run(["/usr/bin/python3", "-ISc", CONNECT, path], check=False)
    return "ConnectionRefusedError" in asked.stderr or "FileNotFoundError" in asked.stderr


@pytest.fixture
def mounted(machine: Machine) -> Iterator[tuple[str, str]]:
    """The mounts of a container: a project's socket, and another's directory."""
    file, directory = "/run/old.sock", "/run/old"
    machine.run(["sh", "-c", f"touch {file}; mkdir -p {directory}"])
    yield file, f"{directory}/broker.sock"
    machine.run(["umount", "-q", file, directory], check=False)


@pytest.mark.parametrize(
    ("made_by", "ended_by"), [("units", "unregister"), ("broker", "unregister"), ("units", "replace")]
)
def test_an_old_mount_is_dead_after_unregistering(
    machine: Machine, operator: Operator, mounted: tuple[str, str], made_by: str, ended_by: str
) -> None:
    """Even if another directory gets the name, in this broker and the next, and the unit is still
    active."""
    operator.register("app", ["OWN"])
    if made_by == "units":
        machine.systemctl("stop", SERVICE)
        machine.systemctl("start", "remo-broker-client@app.socket")
        assert machine.systemctl("is-active", "remo-broker-mount@app.socket") == "active"
    operator.push({"OWN": "own", "THEIRS": "theirs"})
    file, inside = mounted
    machine.run(["mount", "--bind", operator.socket("app"), file])
    machine.run(
        ["mount", "--bind", operator.mount("app").removesuffix("/broker.sock"), inside.removesuffix("/broker.sock")]
    )
    for path in mounted:
        assert machine.ask(path, {"op": "get", "name": "OWN"})["value"] == "own"
    other = operator.manifest("app", ["THEIRS"], parent="/srv/other")
    if ended_by == "unregister":
        operator.do("unregister", name="app")
        assert refused(machine, file)
        assert refused(machine, inside)
    operator.do("register", name="app", project_path=other, replace=ended_by == "replace")
    for _ in range(2):
        operator.push({"OWN": "own", "THEIRS": "theirs"})
        assert operator.get("app", "THEIRS")["value"] == "theirs"
        assert machine.ask(operator.mount("app"), {"op": "get", "name": "THEIRS"})["value"] == "theirs"
        assert refused(machine, file)
        assert refused(machine, inside)
        machine.systemctl("restart", SERVICE)


def test_a_unit_of_a_project_that_is_registered_later_is_not_served(machine: Machine, operator: Operator) -> None:
    machine.systemctl("start", "remo-broker-client@app.socket")
    machine.run(["sh", "-c", f"touch /run/old.sock && mount --bind {operator.socket('app')} /run/old.sock"])
    try:
        assert machine.ask("/run/old.sock", {"op": "ping"})["reason"] == "not_registered"
        operator.register("app", ["A"])
        operator.push({"A": "a"})
        assert operator.get("app", "A")["value"] == "a"
        assert refused(machine, "/run/old.sock")
    finally:
        machine.run(["umount", "/run/old.sock"])
