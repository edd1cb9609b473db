"""Units of a test machine that load credentials from the broker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Machine

SOCKET = "/run/remo-broker/credentials.sock"
# systemd.exec(5): the exit status for a credential that cannot be set up.
EXIT_CREDENTIALS = "243"
RULES = """
[credentials."load@*.service"]
password = "PASSWORD"
key = "KEYSTORE"
user = "aws.user"
"""
WRITTEN = (
    "/run/systemd/system/load@* /run/systemd/system/other.service /run/systemd/system/new.service /run/loaded-* "
    "/etc/systemd/system/load@* /etc/systemd/system/multi-user.target.wants/load@*"
)


@contextlib.contextmanager
def open_host(machine: Machine) -> Iterator[Operator]:
    """An operator on a machine with rules for `load@`."""
    host = Operator(machine)
    host.configure(RULES)
    try:
        yield host
    finally:
        machine.systemctl("stop", "load@*.service", "other.service", "new.service", check=False)
        machine.systemctl("reset-failed", "load@*.service", "other.service", "new.service", check=False)
        machine.run(["sh", "-c", f"rm -rf {WRITTEN}"])
        machine.systemctl("daemon-reload")


def unit(machine: Machine, name: str, *credentials: str, directory: str = "/run/systemd/system") -> None:
    """A service that copies the credentials it gets, and stays."""
    lines = "".join(f"LoadCredential={one}:{SOCKET}\n" for one in credentials)
    target = f"/run/loaded-{name.partition('.')[0]}"
    machine.write(
        f"{directory}/{name}",
        f"[Install]\nWantedBy=multi-user.target\n[Service]\nType=oneshot\n{lines}RemainAfterExit=yes\nTimeoutStartSec=120s\n"
        f"ExecStart=/bin/cp -r ${{CREDENTIALS_DIRECTORY}} {target}\n",
    )
    machine.run(["rm", "-rf", target])
    machine.systemctl("daemon-reload")


def loaded(machine: Machine, name: str, credential: str) -> bytes:
    machine.wait_state(name, "active")
    return machine.path(f"/run/loaded-{name.partition('.')[0]}/{credential}").read_bytes()


def refusals(machine: Machine) -> list[tuple[str, str, str]]:
    # Another test of the same machine may have put records of its own into the journal.
    found = machine.journal("REMO_EVENT=fetch", "_SYSTEMD_UNIT=remo-broker.service")
    return [
        (one.get("REMO_UNIT", ""), one.get("REMO_CREDENTIAL", ""), one["REMO_REASON"])
        for one in found
        if one["REMO_OUTCOME"] != "ok"
    ]


def fails(machine: Machine, name: str, reason: str, credential: str = "password") -> None:
    """Start the unit: it must fail at the step CREDENTIALS, and the journal says why."""
    machine.systemctl("start", name, check=False)
    shown = machine.show(name, "ActiveState", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": EXIT_CREDENTIALS}
    assert (name, credential, reason) in refusals(machine)
    assert not machine.path(f"/run/loaded-{name.partition('.')[0]}").exists()
