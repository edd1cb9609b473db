"""`./run install` over another version that is in use: units that have moved since, sockets with
clients, another Python."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import install
from tests.support.load import ConnectionLoad
from tests.support.machine import poll
from tests.support.operator import ADMIN, SERVICE, STATUS, Operator

if TYPE_CHECKING:
    from tests.support.machine import Machine

LIB = "/usr/lib/remo-broker"
UNITS = "/usr/lib/systemd/system"
# What the older version had: a socket and a helper of other names, a drop-in for the latter, and a
# program.
MOVED = "remo-broker-moved.socket"
MOVED_SOCKET = "/run/remo-moved.sock"
HELPER = "remo-broker-former.service"
OLD_FILES = {
    f"{UNITS}/{MOVED}": f"[Socket]\nListenStream={MOVED_SOCKET}\nService={SERVICE}\n[Install]\nWantedBy=sockets.target\n",
    f"{UNITS}/{HELPER}": "[Service]\nExecStart=/bin/sleep infinity\n",
    f"{UNITS}/{HELPER}.d/more.conf": "[Service]\nNice=1\n",
    "/usr/bin/remo-former": "#!/bin/sh\n",
}
# What the new version has and the older one lacked.
NEW_SOCKET = "remo-broker-status.socket"


@pytest.fixture
def older(machine: Machine, operator: Operator) -> str:
    """The machine with an older version that runs and has clients; the socket of its project."""
    for path, text in OLD_FILES.items():
        machine.write(path, text)
    machine.run(["sh", "-c", f"printf '%s\\n' {' '.join(OLD_FILES)} >>{LIB}/installed-files"])
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--now", MOVED)
    machine.systemctl("start", HELPER)
    path = operator.register("app", ["TOKEN"])
    machine.systemctl("enable", "remo-broker-client@app.socket")
    return path


def test_clients_notice_nothing(machine: Machine, operator: Operator, older: str) -> None:
    sockets = (ADMIN, STATUS, older, operator.mount("app"))
    inodes = [operator.inode(one) for one in sockets]
    before = operator.main_pid()
    loads = [ConnectionLoad(machine, one) for one in (ADMIN, older)]
    with contextlib.ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        install(machine)
        served = [load.answers for load in loads]
        poll("answers", lambda: all(one.answers > old for one, old in zip(loads, served, strict=True)))
    assert [load.refused for load in loads] == [[], []]
    assert operator.main_pid() not in {0, before}
    assert [operator.inode(one) for one in sockets] == inodes
    assert operator.get("app", "TOKEN")["reason"] == "no_snapshot"


def test_what_has_moved_is_stopped_and_removed(machine: Machine, older: str) -> None:
    install(machine)
    for unit in (MOVED, HELPER):
        poll(f"the end of {unit}", lambda unit=unit: machine.systemctl("is-active", unit, check=False) == "inactive")  # type: ignore[misc]
    for path in OLD_FILES:
        assert not machine.path(path).exists()
    assert not machine.path(f"{UNITS}/{HELPER}.d").exists()
    assert machine.run(["find", "/etc/systemd/system", "-name", MOVED]).stdout == ""
    assert machine.systemctl("is-enabled", "remo-broker-client@app.socket") == "enabled"


def test_a_socket_that_the_older_version_lacked_listens_afterwards(
    machine: Machine, operator: Operator, older: str
) -> None:
    """It is part of what was enabled once, so nobody has to type the command again."""
    machine.systemctl("stop", SERVICE)
    machine.systemctl("disable", "--now", NEW_SOCKET)
    machine.run(["rm", "-f", f"{UNITS}/{NEW_SOCKET}", STATUS])
    machine.systemctl("daemon-reload")
    install(machine)
    assert machine.systemctl("is-enabled", NEW_SOCKET) == "enabled"
    assert machine.ask(STATUS, {"op": "status"})["ok"] is True


def test_what_was_made_for_another_python_is_replaced(machine: Machine, operator: Operator, older: str) -> None:
    """The release was upgraded: no program starts, the sockets listen, and those who connect wait
    for the new version."""
    broken = (
        f"cd {LIB}/lib && mv python3.* python3.9 && sed -i 's/^if sys.version_info.*/if True:/' /usr/bin/remo-broker"
    )
    machine.run(["sh", "-c", broken])
    machine.systemctl("kill", "--signal=KILL", SERVICE)
    with machine.connect(older) as waiting, waiting.makefile("rb") as answers:
        waiting.sendall(b'{"op":"ping"}\n')
        install(machine)
        assert b'"ok":true' in answers.readline()
    assert machine.run(["sh", "-c", f"cd {LIB}/lib && echo python3.*"]).stdout != "python3.9\n"
    assert operator.get("app", "TOKEN")["reason"] == "no_snapshot"
