"""`remo-brokerctl register` and `unregister` on a real host: the units of a project's sockets, and
who may change them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.machine.test_ctl import brokerctl, says
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator


def test_register_enables_and_unregister_disables(machine: Machine, operator: Operator) -> None:
    path = operator.manifest("tools-a", ["TOKEN"])
    unit = "remo-broker-client@tools-a.socket"
    text = says(machine, "register", path)
    for fact in ("/run/remo-broker/tools-a.sock", "TOKEN", f"Enabled {unit}"):
        assert fact in text
    assert machine.systemctl("is-enabled", unit) == "enabled"
    assert machine.systemctl("is-active", unit, check=False) == "inactive", "the broker has the socket until then"
    # As after a reboot: the unit holds the socket.
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", unit)
    assert machine.run(["remo-secret", "list", f"--socket={operator.socket('tools-a')}"]).stdout == "TOKEN\n"
    assert says(machine, "unregister", "tools-a").splitlines() == [
        "Unregistered tools-a.",
        f"Disabled {unit}: systemd does not open the socket any more.",
    ]
    assert machine.systemctl("is-enabled", unit, check=False) == "disabled"
    assert machine.systemctl("is-active", unit, check=False) == "inactive"
    found = json.loads(says(machine, "register", path, "--no-enable", "-j"))
    assert (found["unit"], found["unit_enabled"]) == (None, False)
    assert machine.systemctl("is-enabled", unit, check=False) == "disabled"


@pytest.fixture
def member(machine: Machine) -> str:
    """An ordinary user in the group remo-broker-admin."""
    machine.run(["usermod", "--append", "--groups", "remo-broker-admin", "games"])
    return "games"


def test_a_member_of_the_group_registers_permanently(machine: Machine, operator: Operator, member: str) -> None:
    """The sockets survive a reboot, so that containers started then find them."""
    path = operator.manifest("tools-b", ["TOKEN"])
    done = brokerctl(machine, "register", path, user=member)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Enabled remo-broker-client@tools-b.socket" in done.stdout
    machine.reboot()
    for socket in (operator.socket("tools-b"), operator.mount("tools-b")):
        assert machine.path(socket).is_socket()
    assert machine.systemctl("is-active", SERVICE, check=False) == "inactive"
    assert machine.ask(operator.mount("tools-b"), {"op": "ping"})["project"] == "tools-b"
    done = brokerctl(machine, "unregister", "tools-b", user=member)
    assert (done.returncode, done.stderr) == (0, "")
    for unit in ("remo-broker-client@tools-b.socket", "remo-broker-mount@tools-b.socket"):
        assert machine.systemctl("is-enabled", unit, check=False) == "disabled"
        assert machine.systemctl("is-active", unit, check=False) == "inactive"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("enable stranger", "not registered"),
        ("enable ../../ssh", "not a valid name"),
        ("enable tools-b.socket ssh.service", "not a valid name"),
        ("enable $(touch${IFS}/run/evaluated)", "not a valid name"),
        ("disable ssh.service", "not a valid name"),
        ("mask tools-b", "not a valid request"),
        ("enable", "not a valid name"),
    ],
)
def test_the_helper_changes_units_of_registered_projects_and_no_others(
    machine: Machine, operator: Operator, member: str, line: str, answer: str
) -> None:
    operator.register("tools-b", ["TOKEN"])
    ask = "import socket, sys; s = socket.socket(1); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode() + b'\\n'); "
    ask += "print(s.makefile().read().strip())"
    enabled = machine.run(["find", "/etc/systemd/system", "-type", "l"]).stdout
    helper = "/run/remo-broker/internal/enable.sock"
    assert machine.run(["/usr/bin/python3", "-ISc", ask, helper, line], user=member).stdout.strip() == answer
    assert machine.run(["find", "/etc/systemd/system", "-type", "l"]).stdout == enabled
    assert not machine.path("/run/evaluated").exists()
    for outsider in ("nobody", "remo-broker", "remo-broker-manifest"):
        refused = machine.run(["/usr/bin/python3", "-ISc", ask, helper, line], user=outsider, check=False)
        assert "PermissionError" in refused.stderr


def test_a_half_done_register_is_reported(machine: Machine, operator: Operator, member: str) -> None:
    """Without the helper, systemd refuses: the remaining command is printed, and the status is not
    0."""
    machine.systemctl("stop", "remo-broker-enable.socket")
    path = operator.manifest("tools-b", ["TOKEN"])
    done = brokerctl(machine, "register", path, user=member)
    assert done.returncode == 1
    assert "/run/remo-broker/tools-b.sock" in done.stdout
    assert done.stderr.splitlines()[1] == "Hint: run 'sudo systemctl enable remo-broker-client@tools-b.socket'"


def test_a_left_over_unit_is_disabled(machine: Machine, operator: Operator) -> None:
    """The broker has forgotten the project, or never knew it: the unit would open its socket at
    every boot."""
    path = operator.manifest("tools-b", ["TOKEN"])
    unit = "remo-broker-client@tools-b.socket"
    says(machine, "register", path)
    operator.do("unregister", name="tools-b")
    left = brokerctl(machine, "unregister", "tools-b", "--no-enable")
    assert (left.returncode, machine.systemctl("is-enabled", unit)) == (1, "enabled")
    assert says(machine, "unregister", "tools-b").splitlines() == [
        "The broker does not know tools-b; its unit was left over.",
        f"Disabled {unit}: systemd does not open the socket any more.",
    ]
    assert machine.systemctl("is-enabled", unit, check=False) == "disabled"
    again = brokerctl(machine, "unregister", "tools-b")
    assert (again.returncode, again.stdout) == (1, "")
    assert "'remo-brokerctl list' shows" in again.stderr
    machine.systemctl("stop", SERVICE)  # systemd opens no socket for a running service
    machine.systemctl("start", unit)
    found = json.loads(says(machine, "unregister", "tools-b", "-j"))
    assert found == {"name": "tools-b", "unregistered": False, "unit": unit, "unit_disabled": True}
    assert machine.systemctl("is-active", unit, check=False) == "inactive"
