"""The credentials socket: systemd connects and reads one secret up to the end of the stream.

The protocol cannot signal an error, so a refusal is a reply that systemd rejects: see
`credential_refusal`. For the same reason every connection stays in systemd's descriptor store until
it is answered: if the broker is killed while systemd waits, the connection stays open and the next
broker answers it.
"""

from __future__ import annotations

import _socket
import itertools
import os
from functools import partial

from remo_broker.broker import credential_refusal
from remo_broker.broker.audit import identity
from remo_broker.broker.refusals import Refused
from remo_broker.broker.sockets.connection import Peer, hung_up
from remo_broker.broker.sockets.credential_connection import CredentialConnection, CredentialConnections
from remo_broker.broker.systemd import CREDENTIAL
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Decision, Outcome
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.credential_rules import peer_of
from remo_broker.protocol.names import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept returns
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.credentials import Credentials, CredentialVerdict
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.secrets.memory import Arena
    from remo_broker.broker.secrets.store import Store
    from remo_broker.broker.sockets.connection import Sweeper
    from remo_broker.broker.systemd import Manager

# Concurrent connections. A unit requests one credential after another, so this many units may wait.
# Further ones wait in the listener's queue: descriptors and systemd's store are needed by others.
MAX_CONNECTIONS = 1024
# Peers outside the unit's control group, such as another service manager's, whose refusals wait
# to be read past the deadline. Of more, the oldest is closed, though that cuts its refusal short.
MAX_SILENT = 64
INTERNAL_ERROR = Code.INTERNAL_ERROR.value
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
    Reason.OUT_OF_MEMORY.value: "there is no secret memory left",
    Reason.NOT_STARTED.value: "the broker ended before it had answered",
    INTERNAL_ERROR: "internal error",
}
# Refusals of peers that are not systemd. Cutting them short gives no unit a credential.
_NOT_SYSTEMD = (Reason.UID_NOT_ALLOWED, Reason.BAD_VALUE)


class CredentialServer(CredentialConnections):
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
        super().__init__(loop, sweeper, arena)
        self.credentials = credentials
        self.connections: set[CredentialConnection] = set()
        self.last_activity = loop.now
        """When systemd last connected, on the loop's clock."""
        self._store = store
        self._trail = trail
        self._manager = manager
        self._wait_seconds = wait_seconds
        self._deny = deny
        self._waiting: dict[CredentialConnection, None] = {}
        """In the order of their arrival."""
        self._silent: dict[CredentialConnection, None] = {}
        """See `MAX_SILENT`; the oldest first."""
        self._unwatched: list[Accepted] = []
        """Connections that only the next broker can answer: closed here, they would be empty
        credentials."""
        self._numbers = itertools.count(1)

    def may_accept(self) -> bool:
        """Whether to accept another connection. If this process were killed before systemd's store
        has the connection, its unit would start with an empty credential; one in the listener's
        queue is safe."""
        return len(self.connections) < MAX_CONNECTIONS and self._manager.has_room()

    def accepted(self, connection: Accepted, peer: Peer) -> None:
        """Handle a new connection, from systemd or another process."""
        self.last_activity = self.loop.now
        self._take(connection, f"{os.getpid()}-{next(self._numbers)}", peer)

    def restored(self, descriptor: int, name: str) -> None:
        """Resume a connection from systemd's descriptor store that an earlier broker did not
        answer."""
        connection = _socket.socket(fileno=descriptor)
        if hung_up(descriptor):  # the peer has closed, or the whole answer was sent
            connection.close()
            self._manager.drop(CREDENTIAL, name)
            return
        connection.setblocking(False)
        self._take(connection, name, Peer(connection))

    def _take(self, connection: Accepted, name: str, peer: Peer) -> None:
        try:
            asked = CredentialConnection(self, connection, name)
        except Exception as error:
            self._unwatched.append(connection)
            self._manager.hold(CREDENTIAL, name, connection.fileno())
            self.loop.on_bug(error)
            return
        self.connections.add(asked)
        self._attempt(asked, partial(self._admit, peer))

    def _admit(self, peer: Peer, asked: CredentialConnection) -> None:
        who = peer_of(asked.socket.getpeername())
        if who is not None:
            asked.unit, asked.credential = who
        asked.is_kept = peer.uid == 0 and who is not None
        if asked.is_kept:
            self._manager.hold(CREDENTIAL, asked.name, asked.fd)
        refusal = self._refusal(asked, peer)
        if refusal is not None:
            asked.is_outside = refusal is Reason.UNIT_MISMATCH
            self._refuse(asked, refusal.value)
            return
        asked.due = self.loop.now + self._wait_seconds
        self._decide(asked)

    def _refusal(self, asked: CredentialConnection, peer: Peer) -> Reason | None:
        """The reason to refuse this peer any credential, or None."""
        # Any root process, such as one in a container, can bind any address. systemd's own runs in
        # the unit's control group until it is answered. First, so that the look at whether the peer
        # has ended, which comes with its identity, covers it.
        runs_in_unit = asked.is_kept and identity.runs_in(peer.pid, asked.unit)
        asked.identity = identity.peer_fields(asked.socket, peer, self.loop.turns)
        if peer.uid != 0:
            return Reason.UID_NOT_ALLOWED
        if not asked.is_kept:
            return Reason.BAD_VALUE
        if not runs_in_unit or identity.GONE in asked.identity:
            return Reason.UNIT_MISMATCH
        # An earlier broker was killed while it answered, and what it sent is part of the reply.
        return Reason.NOT_STARTED if credential_refusal.has_begun(asked.socket) else None

    def _attempt(self, asked: CredentialConnection, step: Callable[[CredentialConnection], None]) -> None:
        """Take a step that must not end without an answer."""
        try:
            step(asked)
        except Exception as error:
            self.loop.on_bug(error)
            self.fail(asked)

    def fail(self, asked: CredentialConnection) -> None:
        self._waiting.pop(asked, None)
        try:
            self._refuse(asked, INTERNAL_ERROR)
        except Exception as error:
            self.loop.on_bug(error)
            asked.refuse(_WHY[INTERNAL_ERROR])

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
        self._waiting[asked] = None
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
        head = audit_records.credential_head(
            printable(asked.unit),
            printable(asked.credential),
            secret,
            decision,
            outcome,
            reason,
            self._store.generation,
        )
        entries = self._trail.numbered([head + asked.identity], audit_records.latency_field(0))
        if self._trail.write(entries):
            return not self._deny or outcome is not Outcome.OK or self._trail.received()
        if self._deny and outcome is Outcome.OK:
            return False
        self._trail.keep(entries)
        return True

    def changed(self) -> None:
        """The store or the audit has changed: decide again on the connections that wait for it."""
        if self._waiting and self._store.snapshot is not None:
            for asked in tuple(self._waiting):
                self._decide_again(asked)

    def _decide_again(self, asked: CredentialConnection) -> None:
        if asked in self._waiting:
            del self._waiting[asked]
            self._attempt(asked, self._decide)

    def _overdue(self, asked: CredentialConnection) -> None:
        asked.due = 0.0
        self._decide_again(asked)

    def silent(self, asked: CredentialConnection) -> None:
        self._silent[asked] = None
        if len(self._silent) > MAX_SILENT:
            next(iter(self._silent)).close()

    def left(self, asked: CredentialConnection) -> None:
        self.connections.discard(asked)
        self._waiting.pop(asked, None)
        self._silent.pop(asked, None)
        if asked.is_kept:
            self._manager.drop(CREDENTIAL, asked.name)

    def stop(self) -> None:
        """The broker is stopping: refuse waiting connections, because the descriptor store may be
        lost with the service."""
        for asked in tuple(self._waiting):
            self._overdue(asked)
