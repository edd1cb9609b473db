"""`./run install` over another version in use: units that have moved, sockets with clients, a
sidecar, another Python. One upgrade tests everything that an upgrade must keep, because an
installation is expensive."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import INSTALL_SECONDS, install, pip_environment
from tests.support.load import ConnectionLoad
from tests.support.machine import SOURCE, poll
from tests.support.operator import ADMIN, SERVICE, STATUS, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

LIB = "/usr/lib/remo-broker"
UNITS = "/usr/lib/systemd/system"
# Only in the older version: a socket and a helper with other names, a drop-in for the helper, and a
# program.
MOVED = "remo-broker-moved.socket"
MOVED_SOCKET = "/run/remo-moved.sock"
HELPER = "remo-broker-former.service"
OLD_FILES = {
    f"{UNITS}/{MOVED}": f"[Socket]\nListenStream={MOVED_SOCKET}\nService={SERVICE}\n[Install]\nWantedBy=sockets.target\n",
    f"{UNITS}/{HELPER}": "[Service]\nExecStart=/bin/sleep infinity\n",
    f"{UNITS}/{HELPER}.d/more.conf": "[Service]\nNice=1\n",
    "/usr/bin/remo-former": "#!/bin/sh\n",
    "/usr/share/remo-broker/former": "",
}
RUNTIME, PLANTED = "/run/remo-broker", "planted"
# Only in the new version.
NEW_SOCKET = "remo-broker-status.socket"


@pytest.fixture
def older(machine: Machine, operator: Operator) -> str:
    """The machine with an older version that runs and has clients; yields the socket of its
    project."""
    for path, text in OLD_FILES.items():
        machine.write(path, text)
    machine.run(["usermod", "-g", "remo-broker", "remo-broker"])
    machine.run(["sh", "-c", f"printf '%s\\n' {' '.join(OLD_FILES)} >>{LIB}/installed-files"])
    machine.systemctl("disable", "--now", NEW_SOCKET)
    machine.run(["rm", "-f", f"{UNITS}/{NEW_SOCKET}", STATUS])
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--now", MOVED)
    machine.systemctl("start", HELPER)
    machine.run(["remo-sidecar", "set", "TOKEN"], stdin="sealed")
    path = operator.register("app", ["TOKEN"])
    machine.systemctl("enable", "remo-broker-client@app.socket")
    operator.register("kept", ["TOKEN"])  # its sockets are in the descriptor store
    poll("the sidecar's push", lambda: value(operator, "app") == "sealed")
    # Its broker owns the directories of the sockets, and may have been taken over.
    owned = f"{RUNTIME} {RUNTIME}/mount/kept"
    machine.run(["sh", "-c", f"chown remo-broker {owned} && ln -s /etc {RUNTIME}/{PLANTED}"])
    return path


def value(operator: Operator, project: str) -> str | None:
    found: str | None = operator.get(project, "TOKEN").get("value")
    return found


@contextlib.contextmanager
def mounted(machine: Machine, directory: str) -> Iterator[str]:
    """The directory as mounted in a container."""
    machine.run(["sh", "-c", f"mkdir -p /run/inside && mount --bind {directory} /run/inside"])
    try:
        yield "/run/inside"
    finally:
        machine.run(["umount", "/run/inside"])


def test_an_upgrade_under_load(machine: Machine, operator: Operator, older: str) -> None:
    paths = (ADMIN, older, *map(operator.mount, ("app", "kept")), operator.socket("kept"), "/run/remo-broker")
    inodes = [operator.inode(one) for one in paths]
    before = operator.main_pid()
    loads = [ConnectionLoad(machine, one) for one in (ADMIN, older, operator.socket("kept"))]
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(mounted(machine, operator.mount("kept").removesuffix("/broker.sock")))
        for load in loads:
            stack.enter_context(load)
        # Independent of the operator's umask.
        command = f"umask 077 && exec {SOURCE}/run install"
        machine.run(["sh", "-c", command], env=pip_environment(), timeout=INSTALL_SECONDS)
        served = [load.answers for load in loads]
        poll("answers", lambda: all(one.answers > old for one, old in zip(loads, served, strict=True)))
        assert machine.ask(f"{container}/broker.sock", {"op": "ping"})["project"] == "kept"

    # No client is affected.
    assert [load.refused for load in loads] == [[], [], []]
    assert operator.main_pid() not in {0, before}
    assert [operator.inode(one) for one in paths] == inodes
    assert machine.systemctl("is-enabled", "remo-broker-client@app.socket") == "enabled"
    for project in ("app", "kept"):
        poll("the sidecar's push to the new broker", lambda project=project: value(operator, project) == "sealed")  # type: ignore[misc]

    assert machine.run(["id", "-gn", "remo-broker"]).stdout.strip() == "remo-broker-daemon"

    # Root follows no link of the older version's broker, which can put none there any more.
    assert (
        machine.run(["find", RUNTIME, "(", "!", "-user", "root", "-o", "-type", "l", ")", "!", "-type", "s"]).stdout
        == ""
    )

    # Units that the new version lacks are stopped and removed.
    for unit in (MOVED, HELPER):
        poll(f"the end of {unit}", lambda unit=unit: machine.systemctl("is-active", unit, check=False) == "inactive")  # type: ignore[misc]
    for path in (*OLD_FILES, f"{UNITS}/{HELPER}.d", f"{LIB}.old", f"{LIB}.new"):
        assert not machine.path(path).exists()
    assert machine.run(["find", "/etc/systemd/system", "-name", MOVED]).stdout == ""
    unreadable = machine.run(["find", LIB, "/usr/share/remo-broker", "!", "-perm", "-004"])
    assert unreadable.stdout == ""

    # Sockets that the older version lacked listen: they belong to the enabled set.
    assert machine.systemctl("is-enabled", NEW_SOCKET) == "enabled"
    assert machine.ask(STATUS, {"op": "status"})["ok"] is True


def test_an_installation_for_another_python_is_replaced(machine: Machine, operator: Operator, older: str) -> None:
    """After an upgrade of the distribution no program starts; the sockets listen, and clients wait
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
    poll("the sidecar's push to the new broker", lambda: value(operator, "app") == "sealed")
