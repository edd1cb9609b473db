"""Query and change the broker's systemd units on this host."""

from __future__ import annotations

import os
import subprocess

from remo_broker.protocol import paths

SERVICE = "remo-broker.service"
RUNNING_STATES = ("active", "activating", "reloading", "deactivating", "refreshing")
# The broker writes this before the reason it cannot start.
NOT_STARTED = "Not started: "


def is_systemd_there() -> bool:
    return os.path.isdir(paths.SYSTEMD_MARK)


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl and capture its output. Raises OSError."""
    return subprocess.run(
        ["systemctl", "--no-ask-password", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


class UnitStates:
    """The states of the service and of its admin socket, in systemd's terms."""

    def __init__(self, service: dict[str, str], admin_socket: str) -> None:
        status = service.get("StatusText", "")
        self.why = status.removeprefix(NOT_STARTED) if status.startswith(NOT_STARTED) else ""
        """Why the broker could not start, if it gave a reason."""
        # While a start fails, and between two failed starts, the service is `activating`.
        failing = service.get("SubState", "").startswith("auto-restart") or bool(self.why)
        self.service = "failed" if failing else service["ActiveState"]
        self.admin_socket = admin_socket

    @property
    def runs(self) -> bool:
        return self.service in RUNNING_STATES

    @property
    def cannot_start(self) -> bool:
        return self.service == "failed" or bool(self.why)


def states() -> UnitStates:
    """The current states.

    Raises OSError if systemctl cannot be run, and ValueError with its message if it
    does not show them.
    """
    answer = systemctl("show", "--property=ActiveState,SubState,StatusText", SERVICE, paths.ADMIN_UNIT)
    units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in answer.stdout.strip().split("\n\n")]
    if answer.returncode != 0 or len(units) != 2 or not all("ActiveState" in unit for unit in units):
        raise ValueError(answer.stderr.strip() or "it printed no state")
    return UnitStates(units[0], units[1]["ActiveState"])
