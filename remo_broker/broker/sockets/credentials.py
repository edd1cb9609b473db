"""The credentials socket: systemd connects and reads one secret up to the end of the stream.

The protocol cannot signal an error: if the stream ends without data, even with a reset, systemd
starts the unit with an empty credential. systemd rejects only a reply of more than 1 MiB, so every
refusal is `REFUSAL_BYTES` long and begins with the reason as text. For the same reason every
connection stays in systemd's descriptor store until it is answered: if the broker is killed while
systemd waits, the connection stays open and the next broker answers it.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from functools import partial

from remo_broker.broker.audit import identity
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.plain import write_binary, write_field, write_string
from remo_broker.broker.sockets.connection import Connection, Peer
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
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.secrets.memory import Arena, Region
    from remo_broker.broker.secrets.store import Store
    from remo_broker.broker.sockets.connection import Sweeper
    from remo_broker.broker.systemd import Manager

# systemd reads at most 1 MiB (CREDENTIALS_TOTAL_SIZE_MAX) and fails the unit at step CREDENTIALS if
# there is more.
REFUSAL_BYTES = 1024 * 1024 + 1
# Concurrent connections. A unit requests one credential after another, so this many units may wait.
# Further connections are refused.
MAX_CONNECTIONS = 1024
# The kind of these connections in systemd's descriptor store.
KIND = "credential"

_unit_field = re.compile(rb"REMO_PEER_UNIT=([^\n]*)\n")

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
}


class CredentialConnection(Connection):
    """One credential that a unit is loading. Input from the peer is discarded."""

    __slots__ = ("_half_closed", "credential", "due", "identity", "name", "region", "server", "unit")

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
        """The deadline for a push to arrive, on the loop's clock."""
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

    def give(self, answer: bytes | memoryview) -> None:
        """Send the reply, then close."""
        self.ending = True
        self.send([b"", answer, b""])
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
            self.release()
            self.server.left(self)


class CredentialServer:
    """All connections on the credentials socket: those that wait for the first push, and those
    being answered."""

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
        self._manager.keep(KIND, asked.name, asked.fd)
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
        unit = _unit_field.search(asked.identity)
        # Any root process, such as one in a container, can bind any address. systemd's own runs in
        # the unit's control group.
        if unit is not None and unit[1] != printable(asked.unit).encode():
            return Reason.UNIT_MISMATCH
        return Reason.TOO_MANY_CONNECTIONS if len(self.connections) > MAX_CONNECTIONS else None

    def _decide(self, asked: CredentialConnection) -> None:
        verdict = self.credentials.verdict(asked.unit, asked.credential)
        if verdict.may_wait and self.loop.now < asked.due:
            if asked not in self._waiting:
                self._waiting.append(asked)
                self.loop.after(max(0.0, asked.due - self.loop.now), partial(self._overdue, asked))
            return
        if verdict.outcome is not Outcome.OK:
            self._refuse(asked, verdict.reason, verdict)
            return
        try:
            asked.region = self.arena.take()
        except Refused as refusal:
            self._refuse(asked, str(refusal.reason), verdict)
            return
        span = self._write(asked.region, verdict)
        if span is None:
            self._refuse(asked, Reason.NO_SUCH_FIELD.value, verdict)
        elif self._record(asked, verdict.decision, verdict.outcome, verdict.reason, verdict):
            self.credentials.served += 1
            asked.give(asked.region.view[slice(*span)])
        else:
            self._refuse(asked, Reason.AUDIT_UNAVAILABLE.value, verdict)

    def _write(self, region: Region, verdict: CredentialVerdict) -> tuple[int, int] | None:
        """Write the plain value into `region`. Returns its start and end there, or None if the
        bundle has no such field."""
        snapshot, rule = self._store.snapshot, verdict.rule
        assert snapshot is not None
        assert rule is not None
        index, start, end, binary = snapshot.secrets[rule.secret]
        data = snapshot.views[index]
        if rule.field is not None:
            return None if binary else write_field(region, data, start, end, rule.field)
        if binary:
            return 0, write_binary(region, data, start, end)
        return 0, write_string(region, 0, data, start, end)

    def _refuse(self, asked: CredentialConnection, reason: str, verdict: CredentialVerdict | None = None) -> None:
        asked.release()  # a refusal may wait for its peer, and the value must not wait with it
        self.credentials.refused += 1
        allowed = verdict is not None and verdict.rule is not None
        self._record(
            asked,
            Decision.ALLOW if allowed else Decision.DENY,
            Outcome.NOT_FOUND if allowed else Outcome.DENIED,
            reason,
            verdict,
        )
        why = _WHY.get(reason, reason)
        text = (
            f"remo-broker refused credential {asked.credential or '?'} of unit {asked.unit or '?'}: {why}. "
            "See: journalctl -u remo-broker.service\n"
        )
        asked.give(text.encode("ascii", "backslashreplace").ljust(REFUSAL_BYTES))

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
        """The store has changed: decide again on the connections that wait for the first push."""
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
        self._manager.drop(KIND, asked.name)

    def stop(self) -> None:
        """The broker is stopping: refuse waiting connections, because the descriptor store may be
        lost with the service."""
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            self._refuse(asked, Reason.NO_SNAPSHOT.value, self.credentials.verdict(asked.unit, asked.credential))
