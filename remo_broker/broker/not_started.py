"""If the broker cannot start, tells connected clients why, instead of letting them wait.

systemd tries again after half a second; that attempt answers later clients.
"""

from __future__ import annotations

import os
import socket

from remo_broker.broker.refusals import Refused
from remo_broker.broker.systemd import ADMIN, CREDENTIALS, listening_socket
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.limits import MAX_MESSAGE

# As systemd passes them: sd_listen_fds(3).
FIRST_DESCRIPTOR = 3
RETRY_AFTER_SECONDS = 1
# Connections answered in one attempt; the rest wait for the next.
MAX_ANSWERED = 1024


def answer_all(why: str) -> None:
    """Refuse every client that waits on an inherited socket. Only an operator learns `why`.

    Does not use systemd's own library, which may be what is missing.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    for number, name in zip(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count), names, strict=False):
        if name == CREDENTIALS:
            continue  # a unit would take the answer for its credential; it waits, and fails by its own time limit
        listening = listening_socket(number)
        if listening is not None:
            text = why if name == ADMIN else "an operator sees why with 'systemctl status remo-broker'"
            _answer(listening, f"the broker cannot start: {text}")


def _answer(listening: socket.socket, message: str) -> None:
    line = Refused(Code.INTERNAL_ERROR, Reason.NOT_STARTED, message, retry_after_seconds=RETRY_AFTER_SECONDS).line()
    for _ in range(MAX_ANSWERED):
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.setblocking(False)
            try:
                connection.send(line)
                # Unread data would turn the end of the stream into an error for the peer.
                connection.recv(MAX_MESSAGE)
            except OSError:
                pass  # the peer is gone, or has sent nothing yet
