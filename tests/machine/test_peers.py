"""The kinds of requesters on a developer's host, each started as it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import engines
from tests.support.engines import BUSYBOX, WITH_TOOLS, SessionPodman, run_in_scope
from tests.support.machine import SOURCE
from tests.support.operator import Operator
from tests.support.user_session import USER, logged_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine.conftest import Machines
    from tests.support.machine import Machine
    from tests.support.user_session import Session

AUDIT = ("remo-brokerctl", "audit", "--project=watched")


@pytest.fixture(scope="module")
def session(machines: Machines) -> Iterator[Session]:
    with logged_in(machines("dbus-daemon")) as session:
        yield session


def identity(machine: Machine) -> dict[str, Any]:
    """The peer in the only record, without the fields that differ between processes."""
    [record] = Operator(machine).review("--project=watched")
    told = {name: value for name, value in record.items() if name.startswith("peer_")}
    return {name: told[name] for name in told.keys() - {"peer_pid", "peer_gid", "peer_pidfd_inode"}}


def shown(machine: Machine, *command: str) -> str:
    """The row of the only record in the review."""
    [row] = machine.run([*command, *AUDIT, "--no-legend", "--full"]).stdout.splitlines()
    return row


def test_a_container_of_rootless_podman(machine: Machine, session: Session, watched: str) -> None:
    podman = SessionPodman(machine, session)
    create = podman.argv(BUSYBOX, engines.mounts("watched"), "remo-secret", "get", "TOKEN")
    create[create.index("run")] = "create"
    create[create.index("--rm")] = "--name=web-1"
    container = machine.run(create).stdout.strip()
    try:
        started = machine.run([*podman.environment, "podman", "start", "--attach", container])
        assert started.stdout == "value"
        found = identity(machine)
        # Its uid is one of those mapped for the user.
        assert found.pop("peer_uid") >= 100_000
        assert found == {
            "peer_comm": "remo-secret",
            "peer_container": container,
            "peer_unit": session.manager,
            "peer_user_unit": f"libpod-{container}.scope",
        }
        # A user's name for a container is shown only to that user.
        assert f"remo-secret in {container[:12]} of user@{session.uid}" in shown(machine)
        assert f"remo-secret in web-1 of user@{session.uid}" in shown(machine, *session.become)
    finally:
        machine.run([*podman.environment, "podman", "rm", "--force", container])


def test_a_unit_of_a_users_own_systemd(machine: Machine, session: Session, watched: str) -> None:
    machine.run(session.in_unit("editor.service", "remo-secret", "get", "--socket", watched, "TOKEN"))
    assert identity(machine) == {
        "peer_comm": "remo-secret",
        "peer_uid": session.uid,
        "peer_user": USER,
        "peer_unit": session.manager,
        "peer_user_unit": "editor.service",
    }
    assert f"remo-secret in editor of user@{session.uid}" in shown(machine)


def test_a_login_session(machine: Machine, session: Session, watched: str) -> None:
    machine.run(session.in_login(f"remo-secret get --socket {watched} TOKEN"))
    found = identity(machine)
    unit = found.pop("peer_unit")
    assert unit.startswith("session-")
    assert unit.endswith(".scope")
    assert found == {
        "peer_comm": "remo-secret",
        "peer_uid": session.uid,
        "peer_user": USER,
        "peer_owner_uid": session.uid,
    }
    assert f"remo-secret in session of uid {session.uid} ({USER})" in shown(machine)


def test_a_container_in_a_container(machine: Machine, watched: str) -> None:
    """The inner one is the outer one's claim; the host knows only the outer one."""
    inner = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--volatile=overlay"]
    inner += [f"--directory={engines.root_on_machine(WITH_TOOLS)}", "--machine=inner"]
    inner += [f"--bind-ro={source}:{target}" for source, target in engines.mounts("watched").items()]
    outer = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--volatile=yes"]
    outer += ["--directory=/", "--machine=outer", "--bind-ro=/etc/machine-id", f"--bind-ro={SOURCE}"]
    outer += [f"--bind-ro={source}" for source in engines.mounts("watched")]
    command = [*outer, *inner, "remo-secret", "get", "TOKEN"]
    assert run_in_scope(machine, "machine-outer.scope", "--slice=machine.slice", *command) == "value"
    found = identity(machine)
    assert found.pop("peer_uid") == 0
    assert found == {
        "peer_comm": "remo-secret",
        "peer_container": "outer",
        "peer_unit": "machine-outer.scope",
        "peer_user": "root",
    }
    assert "remo-secret in outer" in shown(machine)
