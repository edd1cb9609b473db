"""The credentials socket: systemd connects and reads one secret up to the end of the stream.

The protocol cannot signal an error, so a refusal is a reply that systemd rejects: see
`credential_refusal`. For the same reason every connection stays in systemd's descriptor store until
it is answered: if the broker is killed while systemd waits, the connection stays open and the next
broker answers it.
"""

from __future__ import annotations

import itertools
import os
import socket
from functools import partial

from remo_broker.broker import credential_refusal
from remo_broker.broker.audit import identity
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Connection, Peer
from remo_broker.broker.systemd import CREDENTIAL
from remo_broker.protocol import records
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.credential_rules import peer_of
from remo_broker.protocol.names import printable
from remo_broker.protocol.records import Decision, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.credentials import Credentials, CredentialVerdict
    from remo_broker.broker.loop import Loop, Timer
    from remo_broker.broker.secrets.memory import Arena, Region
    from remo_broker.broker.secrets.store import Store
    from remo_broker.broker.sockets.connection import Sweeper
    from remo_broker.broker.systemd import Manager

# Concurrent connections. A unit requests one credential after another, so this many units may wait.
# Further connections are refused.
MAX_CONNECTIONS = 1024
_WHY = {
    Reason.NOT_IN_CONFIGURATION.value: "no rule in the broker's configuration gives this unit this credential",
    Reason.NO_SNAPSHOT.value: "nothing has been pushed to the broker in time",
    Reason.NOT_IN_SNAPSHOT.value: "the last push did not contain the secret",
    Reason.EXPIRED.value: "the secret has expired",
    Reason.NO_SUCH_FIELD.value: "the secret has no such field",
    Reason.AUDIT_UNAVAILABLE.value: "journald did not accept the audit record",
    Reason.UNIT_MISMATCH.value: "the peer does not run in the control group of the unit that it names",
    Reason.UID_NOT_ALLOWED.value: "only systemd may use this socket",
    Reason.BAD_VALUE.value: "the peer's address is not one that systemd connects from",
    Reason.TOO_MANY_CONNECTIONS.value: "too many credentials are being loaded",
    Reason.OUT_OF_MEMORY.value: "there is no secret memory left",
    Reason.NOT_STARTED.value: "the broker ended before it had answered",
}


class CredentialConnection(Connection):
    """One credential that a unit is loading. Input from the peer is discarded."""

    __slots__ = ("_half_closed", "credential", "due", "identity", "name", "region", "server", "timer", "unit")

    def __init__(self, server: CredentialServer, connection: Accepted, name: str) -> None:
        super().__init__(server.loop, server.sweeper, connection)
        self.server = server
        self.name = name
        """The connection's name in systemd's descriptor store."""
        self.unit = self.credential = ""
        self._half_closed = False
        self.identity = b""
        """The audit record's fields that identify the peer."""
        self.due = 0.0
        """How long it may wait, on the loop's clock."""
        self.timer: Timer | None = None
        """Ends the wait."""
        self.region: Region | None = None
        """Contains the reply that is being sent."""

    def readable(self) -> None:
        try:
            if self.discard():
                return
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._half_closed:  # now fully closed: the unit is no longer being started
            self.close()
            return
        # systemd sends nothing and shuts down its side before it reads. With no event registered,
        # epoll still reports when the connection is fully closed.
        self._half_closed = True
        self.loop.change(self.fd, 0)

    def timed_out(self) -> None:
        """Close only after the whole reply was sent. If the peer, a process of root, does not read,
        closing would cut a refusal short, and systemd would take it as a credential."""
        if self.ending and not self.pending:
            self.close()

    def give(self, value: memoryview) -> None:
        """Send the value, then close."""
        self.ending = True
        self.send([b"", value, b""])
        self._end_when_sent()

    def refuse(self, why: str) -> None:
        """Send a refusal, then close."""
        self.release()  # a refusal may wait for its peer, and the value must not wait with it
        self.ending = True
        for piece in credential_refusal.pieces(self.unit, self.credential, why):
            self.send([b"", piece, b""])
        self._end_when_sent()

    def _end_when_sent(self) -> None:
        if not self.closed and not self.pending:
            self.release()
            self.linger()

    def _finished_sending(self) -> None:
        super()._finished_sending()
        self.release()

    def release(self) -> None:
        """Overwrite the plain value, if there is one."""
        if self.region is not None:
            self.server.arena.give_back(self.region)
            self.region = None

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self.timer is not None:
                self.timer.cancel()
            self.release()
            self.server.left(self)


class CredentialServer:
    """All connections on the credentials socket: those that wait, and those being answered."""

    def __init__(
        self,
        loop: Loop,
        sweeper: Sweeper,
        arena: Arena,
        store: Store,
        credentials: Credentials,
        trail: AuditTrail,
        manager: Manager,
        *,
        wait_seconds: float,
        deny: bool,
    ) -> None:
        """`deny`: release a secret only if journald has received its record."""
        self.loop = loop
        self.sweeper = sweeper
        self.arena = arena
        self.credentials = credentials
        self.connections: set[CredentialConnection] = set()
        self.last_activity = loop.now
        """When systemd last connected, on the loop's clock."""
        self._store = store
        self._trail = trail
        self._manager = manager
        self._wait_seconds = wait_seconds
        self._deny = deny
        self._waiting: list[CredentialConnection] = []
        self._numbers = itertools.count(1)

    def accepted(self, connection: Accepted, peer: Peer) -> None:
        """Handle a new connection, from systemd or another process."""
        self.last_activity = self.loop.now
        self._take(CredentialConnection(self, connection, f"{os.getpid()}-{next(self._numbers)}"), peer)

    def restored(self, descriptor: int, name: str) -> None:
        """Resume a connection from systemd's descriptor store that an earlier broker did not
        answer."""
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        self._take(CredentialConnection(self, connection, name), Peer(connection))

    def _take(self, asked: CredentialConnection, peer: Peer) -> None:
        self.connections.add(asked)
        self._manager.keep(CREDENTIAL, asked.name, asked.fd)
        asked.identity = identity.peer_fields(asked.socket, peer.pid, peer.uid, peer.gid)
        who = peer_of(asked.socket.getpeername())
        if who is not None:
            asked.unit, asked.credential = who
        refusal = self._refusal(asked, peer, who is not None)
        if refusal is not None:
            self._refuse(asked, refusal.value)
            return
        asked.due = self.loop.now + self._wait_seconds
        self._decide(asked)

    def _refusal(self, asked: CredentialConnection, peer: Peer, is_systemd: bool) -> Reason | None:
        """The reason to refuse this peer any credential, or None."""
        if peer.uid != 0:
            return Reason.UID_NOT_ALLOWED
        if not is_systemd:
            return Reason.BAD_VALUE
        # Any root process, such as one in a container, can bind any address. systemd's own runs in
        # the unit's control group until it is answered.
        if identity.GONE in asked.identity or not identity.runs_in(peer.pid, asked.unit):
            return Reason.UNIT_MISMATCH
        # An earlier broker was killed while it answered, and what it sent is part of the reply.
        if credential_refusal.has_unread(asked.socket):
            return Reason.NOT_STARTED
        return Reason.TOO_MANY_CONNECTIONS if len(self.connections) > MAX_CONNECTIONS else None

    def _decide(self, asked: CredentialConnection) -> None:
        verdict = self.credentials.verdict(asked.unit, asked.credential)
        if verdict.may_wait:
            self._wait(asked, verdict, verdict.reason)
            return
        if verdict.outcome is not Outcome.OK:
            self._refuse(asked, verdict.reason, verdict)
            return
        if self._deny and self._trail.trouble is not None:
            self._wait(asked, verdict, Reason.AUDIT_UNAVAILABLE.value)
            return
        try:
            asked.region = self.arena.take()
        except Refused as refusal:
            self._refuse(asked, str(refusal.reason), verdict)
            return
        assert verdict.rule is not None
        span = self.credentials.write(asked.region, verdict.rule)
        if span is None:
            self._refuse(asked, Reason.NO_SUCH_FIELD.value, verdict)
        elif self._record(asked, verdict.decision, verdict.outcome, verdict.reason, verdict):
            self.credentials.served += 1
            asked.give(asked.region.view[slice(*span)])
        else:
            asked.release()
            self._wait(asked, verdict, Reason.AUDIT_UNAVAILABLE.value)

    def _wait(self, asked: CredentialConnection, verdict: CredentialVerdict, reason: str) -> None:
        """Let the unit wait for a push or for journald; past its deadline, refuse it for
        `reason`."""
        if self.loop.now >= asked.due:
            self._refuse(asked, reason, verdict)
            return
        self._waiting.append(asked)
        if asked.timer is None:
            asked.timer = self.loop.after(asked.due - self.loop.now, partial(self._overdue, asked))

    def _refuse(self, asked: CredentialConnection, reason: str, verdict: CredentialVerdict | None = None) -> None:
        self.credentials.refused += 1
        allowed = (
            verdict is not None and verdict.rule is not None and reason != Reason.AUDIT_UNAVAILABLE.value
        )  # as a fetch is recorded
        self._record(
            asked,
            Decision.ALLOW if allowed else Decision.DENY,
            Outcome.NOT_FOUND if allowed else Outcome.DENIED,
            reason,
            verdict,
        )
        asked.refuse(_WHY.get(reason, reason))

    def _record(
        self,
        asked: CredentialConnection,
        decision: Decision,
        outcome: Outcome,
        reason: str,
        verdict: CredentialVerdict | None,
    ) -> bool:
        """Hand over the audit record. Returns whether a secret may be released."""
        secret = verdict.rule.source if verdict is not None and verdict.rule is not None else ""
        head = records.credential_head(
            printable(asked.unit),
            printable(asked.credential),
            secret,
            decision,
            outcome,
            reason,
            self._store.generation,
        )
        entries = self._trail.numbered([head + asked.identity], records.latency_field(0))
        if self._trail.write(entries):
            return not self._deny or outcome is not Outcome.OK or self._trail.received()
        if self._deny and outcome is Outcome.OK:
            return False
        self._trail.keep(entries)
        return True

    def changed(self) -> None:
        """The store or the audit has changed: decide again on the connections that wait for it."""
        if self._waiting and self._store.snapshot is not None:
            waiting, self._waiting = self._waiting, []
            for asked in waiting:
                self._decide(asked)

    def _overdue(self, asked: CredentialConnection) -> None:
        if asked in self._waiting:
            self._waiting.remove(asked)
            asked.due = 0.0
            self._decide(asked)

    def left(self, asked: CredentialConnection) -> None:
        """The connection is closed."""
        self.connections.discard(asked)
        if asked in self._waiting:
            self._waiting.remove(asked)
        self._manager.drop(CREDENTIAL, asked.name)

    def stop(self) -> None:
        """The broker is stopping: refuse waiting connections, because the descriptor store may be
        lost with the service."""
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.due = 0.0
            self._decide(asked)
