"""A user of a test machine who is logged in: with a systemd of their own, as on a developer's host.

A test machine boots without logind, which most tests do not need.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.machine import poll, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

# Who is logged in: in the group that may mount a project's sockets.
USER = "alice"
LOGIND = "systemd-logind.service"

# As a unit: a process that enters a machine from outside is in none of its control groups, and
# logind refuses a process that it cannot find there.
IN_UNIT = ("systemd-run", "--wait", "--quiet", "--pipe", "--collect")

_BEGIN = f"""
id {USER} >/dev/null 2>&1 || useradd --create-home --groups remo-broker,systemd-journal {USER}
systemctl --quiet unmask {LOGIND}
systemctl start {LOGIND}
loginctl enable-linger {USER}
"""
_END = f"""
loginctl disable-linger {USER}
systemctl stop user@$(id -u {USER}).service user-runtime-dir@$(id -u {USER}).service {LOGIND}
systemctl --quiet mask {LOGIND}
"""


class Session:
    """The user's processes, started as the user's own systemd and a login start them."""

    def __init__(self, machine: Machine) -> None:
        self.uid, _ = machine.ids(USER)
        self.manager = f"user@{self.uid}.service"
        self.runtime = f"/run/user/{self.uid}"
        self.environment = (
            *("env", f"HOME=/home/{USER}", f"USER={USER}", f"XDG_RUNTIME_DIR={self.runtime}"),
            f"DBUS_SESSION_BUS_ADDRESS=unix:path={self.runtime}/bus",
        )
        self.become = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups", *self.environment)

    def in_unit(self, unit: str, *command: str) -> list[str]:
        """The command line that runs `command` in a unit of the user's own."""
        run = ("systemd-run", "--user", "--wait", "--quiet", "--pipe", "--collect", f"--unit={unit}")
        return [*IN_UNIT, *self.become, *run, *command]

    def in_login(self, command: str) -> list[str]:
        """The command line that logs in and runs `command`, a shell's."""
        return [*IN_UNIT, "su", "--login", "--command", command, USER]


@contextlib.contextmanager
def logged_in(machine: Machine) -> Iterator[Session]:
    libraries = machine.path("/usr/lib")
    if not any(libraries.glob("*/security/pam_systemd.so")) or not (libraries / "systemd/user/dbus.socket").exists():
        unavailable("libpam-systemd or dbus-user-session is not in this machine: ./run test installs them")
    machine.run([*IN_UNIT, "sh", "-ec", _BEGIN])
    try:
        session = Session(machine)
        machine.wait_state(session.manager, "active")
        poll("the user's bus", machine.path(f"{session.runtime}/bus").exists)
        yield session
    finally:
        machine.run([*IN_UNIT, "sh", "-c", _END])
