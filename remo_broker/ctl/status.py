"""`remo-brokerctl status`: show broker status without starting it."""

from __future__ import annotations

import os
import stat

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.terminal import Colour, Output
from remo_broker.cli.text import escaped
from remo_broker.cli.times import ago, shown
from remo_broker.client.errors import ClientError, Unreachable
from remo_broker.ctl import socket_problems, units
from remo_broker.ctl.commands import EXIT_FAILED, EXIT_IDLE, EXIT_UNKNOWN
from remo_broker.ctl.journals import journalctl
from remo_broker.ctl.session import fetches, manages_units, open_client, open_output, socket_path
from remo_broker.protocol import paths
from remo_broker.protocol.replies import AuditStatus, BrokerStatus

PROTECTION = {
    "memfd_secret": (Colour.GREEN, "memory that not even root can read"),
    "mlock": (None, "locked and excluded from dumps, but root can read it; see MEMORY in remo-broker(8)"),
    "none": (Colour.YELLOW, "may be swapped out: raise LimitMEMLOCK= of the unit"),
}


def status(arguments: Arguments) -> int:
    output = open_output(arguments)
    path = socket_path(arguments)
    managed = manages_units(arguments)
    if managed:
        found = unit_states()
        if not found.runs:
            return show_stopped(output, path, found)
    try:
        with open_client(arguments) as client:
            running = client.status()
    except ClientError as error:
        if managed:
            # It may have exited before it replied, as a broker that cannot start does.
            found = unit_states()
            if not found.runs:
                return show_stopped(output, path, found)
        elif isinstance(error, Unreachable) and error.temporary and is_socket(path):
            return show_stopped(output, path, None)
        raise Problem(error.message, hint=error.hint, status=EXIT_UNKNOWN) from None
    return show_running(output, running)


def unit_states() -> units.UnitStates:
    try:
        return units.states()
    except OSError as error:
        raise Problem(f"cannot run systemctl: {os.strerror(error.errno or 0)}", status=EXIT_UNKNOWN) from None
    except ValueError as error:
        raise Problem(f"systemctl cannot show the units' state: {error}", status=EXIT_UNKNOWN) from None


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def show_stopped(output: Output, path: str, found: units.UnitStates | None) -> int:
    """The broker is not running: idle if its socket starts it. `found` is None without systemd."""
    colour = None
    if found is None:
        state, text = "stopped", "stopped; nothing listens on the socket"
    elif found.service == "failed":
        state, colour = "failed", Colour.RED
        text = f"cannot start: {found.why}" if found.why else f"failed; see '{journalctl()}'"
    elif found.admin_socket == "active":
        state, text = "idle", "idle; it holds no secrets, and the next connection starts it"
    else:
        state, text = "stopped", f"stopped; 'systemctl enable --now {paths.ADMIN_UNIT}' starts it on demand"
    if output.json != "off":
        output.show_json({"state": state, "socket_path": path} | ({"reason": found.why} if found and found.why else {}))
    else:
        output.line(f"{output.paint('○' if colour is None else '●', colour)} remo-broker")
        output.pairs([("State", output.paint(escaped(text), colour)), ("Socket", escaped(path))])
    return EXIT_FAILED if state == "failed" else EXIT_IDLE


def show_running(output: Output, found: BrokerStatus) -> int:
    """Return 0, or `EXIT_FAILED` if a project is not served."""
    unserved = {one.name: why for one in found.projects if (why := socket_problems.problem(one)) is not None}
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        output.show_json({"state": "running"} | fields | ({"unserved": unserved} if unserved else {}))
        return EXIT_FAILED if unserved else 0
    colour, protection = PROTECTION.get(found.memory_protection, (None, "unknown to this version of remo-brokerctl"))
    audit = output.paint("healthy", Colour.GREEN)
    if not found.audit.healthy:
        audit = output.paint(f"degraded, {trouble(found.audit)}", Colour.RED)
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
            ("Fetches", fetches(found.fetches_allowed, found.fetches_not_found, found.fetches_denied)),
            *(
                ("Waiting", f"{one.name} would allow more; see 'remo-brokerctl diff {one.name}'")
                for one in found.projects
                if one.manifest_waits
            ),
            *(("Not served", output.paint(f"{name}: {escaped(why)}", Colour.RED)) for name, why in unserved.items()),
            *(("Not saved", output.paint(unsaved(name), Colour.RED)) for name in found.unsaved or ()),
        ]
    )
    return EXIT_FAILED if unserved else 0


def unsaved(name: str) -> str:
    shown_name = escaped(name)
    return (
        f"{shown_name} was unregistered, but a restart would serve it again: the state directory cannot be written. "
        f"Free space there; 'remo-brokerctl unregister {shown_name}' tries again and says why it fails"
    )


def trouble(audit: AuditStatus) -> str:
    if audit.reason == "not_stored":
        return "the journal does not store the records (see MaxLevelStore=, Storage=, LogLevelMax=)"
    if audit.reason == "unchecked":
        return "not yet known whether the journal stores the records"
    return f"{audit.queued} records wait"


def sink(audit: AuditStatus) -> str:
    return escaped(audit.sink if audit.namespace is None else f"{audit.sink}, namespace {audit.namespace}")


def lost(output: Output, count: int) -> str:
    return ", " + output.paint(f"{count} records lost", Colour.RED) if count else ""
