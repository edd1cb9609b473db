"""If the broker cannot start, tells connected clients why, instead of letting them wait.

systemd tries again after half a second; that attempt answers later clients.
"""

from __future__ import annotations

import _socket
import os
import select
import sys
import time

from remo_broker.broker import credential_refusal
from remo_broker.broker.audit import identity
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Peer, accept
from remo_broker.broker.systemd import ADMIN, CREDENTIAL, CREDENTIALS, RETRY_SECONDS, listening_socket
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Decision, Outcome
from remo_broker.protocol.clock import monotonic, now_usec
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.credential_rules import peer_of
from remo_broker.protocol.names import printable
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import Transport
    from remo_broker.broker.systemd import Manager

# As systemd passes them: sd_listen_fds(3).
FIRST_DESCRIPTOR = 3
RETRY_AFTER_SECONDS = 1
# Connections answered in one attempt; the rest wait for the next.
MAX_ANSWERED = 1024
# How long all peers of the credentials socket may take to read their refusals. systemd reads at
# once.
CREDENTIALS_SECONDS = 2.0
WHY = "the broker cannot start"


def answer_all(why: str, manager: Manager, transport: Transport) -> None:
    """Refuse every client that waits on an inherited socket. Only an operator learns `why`. The
    credentials' refusals are recorded.

    Does not use systemd's own library, which may be what is missing.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    units = _Units(manager, AuditTrail(transport, clock_usec=now_usec))
    for number, name in zip(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count), names, strict=False):
        if name.startswith(f"{CREDENTIAL}-"):
            units.resume(number, name.removeprefix(f"{CREDENTIAL}-"))
            continue
        listening = listening_socket(number)
        if listening is None:
            continue
        if name == CREDENTIALS:
            units.take_waiting(listening)
        else:
            text = why if name == ADMIN else "an operator sees why with 'systemctl status remo-broker'"
            _answer(listening, f"the broker cannot start: {text}")
    units.refuse_all()


class _Refusal:
    """One connection of the credentials socket, which systemd stores under `name`."""

    def __init__(self, connection: _socket.socket, name: str) -> None:
        connection.setblocking(False)
        credential_refusal.begin(connection)
        self.connection = connection
        self.name = name
        self.unit, self.credential = peer_of(connection.getpeername()) or ("?", "?")
        peer = Peer(connection)
        self.record = audit_records.credential_head(
            printable(self.unit),
            printable(self.credential),
            "",
            Decision.DENY,
            Outcome.DENIED,
            Reason.NOT_STARTED.value,
            generation=0,
        ) + identity.peer_fields(connection, peer, identity.NEVER)
        self._pieces = credential_refusal.pieces(self.unit, self.credential, WHY)
        self._left = memoryview(b"")

    def advance(self) -> bool:
        """Send as much as the peer takes now. Returns whether that was the last of it."""
        while True:
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    self.connection.shutdown(_socket.SHUT_WR)
                    return True
                self._left = memoryview(piece)
            try:
                self._left = self._left[self.connection.send(self._left) :]
            except OSError as error:
                if isinstance(error, BlockingIOError) or credential_refusal.is_short_of_memory(error):
                    return False
                raise


class _Units:
    """Refuses credentials, so that the units fail and systemd says so."""

    def __init__(self, manager: Manager, trail: AuditTrail) -> None:
        self._manager = manager
        self._trail = trail
        self._deadline = monotonic() + CREDENTIALS_SECONDS
        self._refusals: dict[int, _Refusal] = {}
        self._again: Callable[[], None] | None = None
        """Sends what the manager has not accepted."""
        manager.later = self._later

    def _later(self, _seconds: float, call: Callable[[], None]) -> None:
        self._again = call

    def _retry(self) -> None:
        time.sleep(RETRY_SECONDS)
        again, self._again = self._again, None
        if again is not None:
            again()

    def take_waiting(self, listening: _socket.socket) -> None:
        for number in range(MAX_ANSWERED):
            if not self._manager.has_room():
                return  # those that wait in the queue are systemd's until the next attempt
            try:
                connection = accept(listening)
            except OSError:
                return
            name = f"{os.getpid()}-{number}"
            # Half a refusal would be a credential. If the peer does not read all of it in time, or
            # this process is killed, systemd keeps the connection for the next attempt.
            self._manager.hold(CREDENTIAL, name, connection.fileno())
            while self._manager.lacks_listeners:
                self._retry()
            self._refusals[connection.fileno()] = _Refusal(connection, name)

    def resume(self, descriptor: int, name: str) -> None:
        """Take a connection that an earlier process has not answered."""
        try:
            self._refusals[descriptor] = _Refusal(_socket.socket(fileno=descriptor), name)
        except OSError:
            self._manager.drop(CREDENTIAL, name)  # closed by the peer, or before the start failed

    def refuse_all(self) -> None:
        writable = select.poll()
        for descriptor in self._refusals:
            writable.register(descriptor, select.POLLOUT)
        while self._refusals and (left := self._deadline - monotonic()) > 0:
            for descriptor, _ in writable.poll(left * 1000):
                refusal = self._refusals[descriptor]
                try:
                    if not refusal.advance():
                        continue
                except OSError:
                    pass  # the peer has closed
                else:
                    text = f"Credential {refusal.credential} of unit {printable(refusal.unit)} was refused: {WHY}."
                    print(f"remo-broker: {text}", file=sys.stderr)
                    self._trail.write(self._trail.numbered([refusal.record], audit_records.latency_field(0)))
                writable.unregister(descriptor)
                del self._refusals[descriptor]
                refusal.connection.close()
                self._manager.drop(CREDENTIAL, refusal.name)
        while self._again is not None and monotonic() < self._deadline:
            self._retry()
        # journald asks /proc for the unit of a record's sender, which must not have exited by then.
        self._trail.received()


def _answer(listening: _socket.socket, message: str) -> None:
    line = Refused(Code.INTERNAL_ERROR, Reason.NOT_STARTED, message, retry_after_seconds=RETRY_AFTER_SECONDS).line()
    for _ in range(MAX_ANSWERED):
        try:
            connection = accept(listening)
        except OSError:
            return
        connection.setblocking(False)
        try:
            connection.send(line)
            # Unread data would turn the end of the stream into an error for the peer.
            connection.recv(MAX_MESSAGE)
        except OSError:
            pass  # the peer has closed, or has sent nothing yet
        finally:
            connection.close()
