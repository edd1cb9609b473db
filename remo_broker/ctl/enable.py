"""Enable and disable the units of a project's sockets: as root with systemctl, as anyone else
through the host's helper, which remo-broker-admin may use."""

from __future__ import annotations

import os

from remo_broker.client.connection import connect
from remo_broker.client.errors import ClientError
from remo_broker.ctl.units import systemctl
from remo_broker.protocol import paths
from remo_broker.protocol.clock import monotonic

HELPER = paths.internal_socket(paths.SOCKET_DIR, paths.ENABLE_SOCKET)
# Longer than the helper may run.
SECONDS = 90.0
# An answer is one line of systemctl's.
MAX_ANSWER = 4096
DONE = "done"


def socket_unit(project: str) -> str:
    return f"remo-broker-client@{project}.socket"


def command(verb: str, project: str) -> list[str]:
    """The arguments of systemctl. Enabling does not start the unit: the broker holds the socket."""
    if verb == "enable":
        return [verb, socket_unit(project)]
    # Its other unit is disabled with it, but not stopped.
    return [verb, "--now", socket_unit(project), f"remo-broker-mount@{project}.socket"]


def change(verb: str, project: str) -> str | None:
    """Enable the project's units, or disable and stop them. Return the error, or None."""
    if os.geteuid() != 0:
        try:
            answer = _ask(f"{verb} {project}\n")
        except (ClientError, OSError):
            pass  # an older installation, or not in the group: systemd may still allow it
        else:
            return None if answer == DONE else answer or "the helper ended without an answer"
    try:
        done = systemctl(*command(verb, project))
    except OSError as error:
        return f"systemctl: {os.strerror(error.errno or 0)}"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]


def _ask(line: str) -> str:
    """The helper's answer. Raises `ClientError` and OSError."""
    connection = connect(HELPER, paths.ENABLE_SOCKET, monotonic() + SECONDS, SECONDS)
    try:
        connection.settimeout(SECONDS)
        connection.sendall(line.encode("ascii"))
        answer = b""
        while len(answer) < MAX_ANSWER and (data := connection.recv(MAX_ANSWER)):
            answer += data
    finally:
        connection.close()
    return answer.decode("utf-8", "replace").strip()
