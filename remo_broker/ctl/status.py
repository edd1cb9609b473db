"""`remo-brokerctl status`: how the broker is, without waking it."""

from __future__ import annotations

import os
import stat

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.terminal import Colour, Output
from remo_broker.cli.text import escaped
from remo_broker.cli.times import ago, shown
from remo_broker.client.errors import ClientError, Unreachable
from remo_broker.ctl.commands import EXIT_FAILED, EXIT_IDLE, EXIT_UNKNOWN
from remo_broker.ctl.journals import journalctl
from remo_broker.ctl.session import manages_units, open_client, open_output, socket_path, systemctl
from remo_broker.protocol.ops import AuditStatus, BrokerStatus

SERVICE = "remo-broker.service"
ADMIN_UNIT = "remo-broker-admin.socket"
RUNNING_STATES = ("active", "activating", "reloading", "deactivating", "refreshing")

PROTECTION = {
    "memfd_secret": (Colour.GREEN, "memory that not even root can read"),
    "mlock": (None, "locked and kept out of dumps; root could read it, this kernel has no memfd_secret"),
    "none": (Colour.YELLOW, "may be swapped out: raise LimitMEMLOCK= of the unit"),
}


def status(arguments: Arguments) -> int:
    output = open_output(arguments)
    path = socket_path(arguments)
    managed = manages_units(arguments)
    if managed:
        service, unit = unit_states()
        if service not in RUNNING_STATES:
            return show_stopped(output, path, service, unit)
    try:
        with open_client(arguments) as client:
            found = client.status()
    except ClientError as error:
        if managed:
            # It may have ended before it answered, as one does that cannot start.
            service, unit = unit_states()
            if service not in RUNNING_STATES:
                return show_stopped(output, path, service, unit)
        elif isinstance(error, Unreachable) and error.temporary and is_socket(path):
            return show_stopped(output, path, "inactive", None)
        raise Problem(error.message, hint=error.hint, status=EXIT_UNKNOWN) from None
    show_running(output, found)
    return 0


def unit_states() -> tuple[str, str]:
    """The states of the service and of its admin socket, as systemd calls them; between two failures it is failed."""
    try:
        answer = systemctl("show", "--property=ActiveState,SubState", SERVICE, ADMIN_UNIT)
    except OSError as error:
        raise Problem(f"cannot run systemctl: {os.strerror(error.errno or 0)}", status=EXIT_UNKNOWN) from None
    units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in answer.stdout.strip().split("\n\n")]
    if answer.returncode != 0 or len(units) != 2 or not all("ActiveState" in unit for unit in units):
        reason = answer.stderr.strip() or "it printed no state"
        raise Problem(f"systemctl cannot show the units' state: {reason}", status=EXIT_UNKNOWN)
    service, socket = units
    state = "failed" if service.get("SubState") == "auto-restart" else service["ActiveState"]
    return state, socket["ActiveState"]


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def show_stopped(output: Output, path: str, service: str, unit: str | None) -> int:
    """A broker that does not run: idle when its socket waits for the next connect. `unit` is None without systemd."""
    if service == "failed":
        state, colour, text = "failed", Colour.RED, f"failed; see '{journalctl()}'"
    elif unit is None:
        state, colour, text = "stopped", None, "stopped; nobody listens on the socket"
    elif unit == "active":
        state, colour, text = "idle", None, "idle; it holds no secrets, and the next connect starts it"
    else:
        state, colour, text = (
            "stopped",
            None,
            f"stopped; 'systemctl enable --now {ADMIN_UNIT}' makes it start on demand",
        )
    if output.json != "off":
        output.show_json({"state": state, "socket_path": path})
    else:
        output.line(f"{output.paint('○' if colour is None else '●', colour)} remo-broker")
        output.pairs([("State", output.paint(text, colour)), ("Socket", escaped(path))])
    return EXIT_FAILED if state == "failed" else EXIT_IDLE


def show_running(output: Output, found: BrokerStatus) -> None:
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        output.show_json({"state": "running"} | fields)
        return
    colour, protection = PROTECTION.get(found.memory_protection, (None, "of a kind that this program does not know"))
    audit = output.paint("healthy", Colour.GREEN)
    if not found.audit.healthy:
        audit = output.paint(f"degraded, {found.audit.queued} records wait", Colour.RED)
    secrets = "none; waiting for a push"
    if found.secrets_loaded_usec:
        loaded = f"{shown(found.secrets_loaded_usec)}; {ago(found.secrets_loaded_usec)}"
        secrets = f"{found.secret_count} since {loaded}, generation {found.generation}"
    output.line(f"{output.paint('●', Colour.GREEN)} remo-broker {escaped(found.broker_version)}")
    output.pairs(
        [
            (
                "State",
                f"{output.paint('running', Colour.GREEN)} since {shown(found.start_usec)}; {ago(found.start_usec)}",
            ),
            ("Protocol", str(found.protocol_version)),
            ("Secrets", secrets),
            ("Memory", f"{output.paint(escaped(found.memory_protection), colour)}, {protection}"),
            ("Audit", f"{audit}, to {sink(found.audit)}" + lost(output, found.audit.dropped)),
            ("Projects", str(found.project_count)),
            ("Fetches", f"{found.fetches_allowed} allowed, {found.fetches_denied} denied"),
        ]
    )


def sink(audit: AuditStatus) -> str:
    return escaped(audit.sink if audit.namespace is None else f"{audit.sink}, namespace {audit.namespace}")


def lost(output: Output, count: int) -> str:
    return ", " + output.paint(f"{count} records lost", Colour.RED) if count else ""
