"""The outbox: what one turn of the loop has decided. Its audit records go out first, then its replies.

The end of the hot path is `Outbox.flush`: one datagram to journald for all records of a turn, one gathered write for each
reply.
"""

from __future__ import annotations

from remo_broker.broker import decisions
from remo_broker.protocol import records
from remo_broker.protocol.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Broker, Reply
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.projects import Grant
    from remo_broker.broker.sockets.connection import Connection

    # Of a record: which of the replies it belongs to, the peer's fields, and the grant if the reply hands out a secret.
    Audited: TypeAlias = tuple[int, bytes, Grant | None]


class Outbox:
    """Replies and records of the turn, for connections of any kind.

    `deny`: a secret is not handed out unless journald has received its record.
    """

    def __init__(self, loop: Loop, broker: Broker, trail: AuditTrail, *, deny: bool) -> None:
        self._loop = loop
        self._broker = broker
        self._trail = trail
        self._deny = deny
        self._replies: list[tuple[Connection, Reply]] = []
        self._records: list[bytes] = []
        self._audited: list[Audited] = []
        self._ends: list[Connection] = []

    # --- what connections put in

    def add(self, connection: Connection, reply: Reply, head: bytes, peer_fields: bytes, grant: Grant | None) -> None:
        """A reply with its audit record: `head`, then the peer's fields."""
        self._audited.append((len(self._replies), peer_fields, grant))
        self._records.append(head + peer_fields)
        self._replies.append((connection, reply))

    def reply(self, connection: Connection, line: bytes) -> None:
        """A reply that is not audited."""
        self._replies.append((connection, line))

    def end(self, connection: Connection) -> None:
        """The peer has sent all that it will: close once it has its replies."""
        self._ends.append(connection)

    # --- the end of the turn

    def flush(self) -> None:
        """Hand over the records, then write the replies."""
        replies, self._replies = self._replies, []
        if replies:
            try:
                if self._records:
                    self._hand_over(replies)
                snapshot = self._broker.store.snapshot
                for connection, reply in replies:
                    connection.send(reply, snapshot)
            except Exception:
                # A peer whose connection went on would take the next answer for the one that it did not get.
                for connection, _ in replies:
                    connection.close()
                raise
        if self._ends:
            ends, self._ends = self._ends, []
            for connection in ends:
                connection.end_of_requests()

    def _hand_over(self, replies: list[tuple[Connection, Reply]]) -> None:
        """Write the records of `replies`. A secret that may not be handed out without its record is denied in `replies`."""
        heads, self._records = self._records, []
        audited, self._audited = self._audited, []
        if self._deny and not self._trail.stored:
            self._deny_secrets(heads, audited, replies)
        latency = records.latency_field(int((monotonic() - self._loop.now) * 1e6))
        entries = self._trail.numbered(heads, latency)
        taken = self._trail.write(entries)
        if self._deny and not self._received(audited[:taken], replies):
            self._not_received(entries[:taken], audited[:taken], replies)
        if taken < len(entries):
            self._not_taken(entries[taken:], audited[taken:], replies)

    def _deny_secrets(
        self, heads: list[bytes], audited: list[Audited], replies: list[tuple[Connection, Reply]]
    ) -> None:
        """The journal does not store records: deny the secrets in `replies`, and say so in their records."""
        for place, (index, peer_fields, grant) in enumerate(audited):
            connection, reply = replies[index]
            if grant is not None and not isinstance(reply, bytes):
                replies[index] = (connection, decisions.AUDIT_UNAVAILABLE)
                heads[place] = self._broker.not_audited(grant, heads[place]) + peer_fields

    def _not_taken(self, entries: list[bytes], audited: list[Audited], replies: list[tuple[Connection, Reply]]) -> None:
        """The trail did not take `entries`: keep them. Where that denies a secret, deny it and say so in its record."""
        for record, (index, peer_fields, grant) in zip(entries, audited, strict=True):
            connection, reply = replies[index]
            kept = record
            if self._deny and grant is not None and not isinstance(reply, bytes):
                replies[index] = (connection, decisions.AUDIT_UNAVAILABLE)
                head = self._broker.not_audited(grant, record) + peer_fields
                kept = head + records.serial_of(record)
            self._trail.keep([kept])

    def _received(self, audited: list[Audited], replies: list[tuple[Connection, Reply]]) -> bool:
        """Whether no reply hands out a secret whose record may still get lost."""
        secret = any(grant is not None and not isinstance(replies[index][1], bytes) for index, _, grant in audited)
        return not secret or self._trail.received()

    def _not_received(
        self, entries: list[bytes], audited: list[Audited], replies: list[tuple[Connection, Reply]]
    ) -> None:
        """The trail took `entries`, but they may never be read: deny the secrets, and say so in records of their own."""
        for record, (index, peer_fields, grant) in zip(entries, audited, strict=True):
            connection, reply = replies[index]
            if grant is not None and not isinstance(reply, bytes):
                replies[index] = (connection, decisions.AUDIT_UNAVAILABLE)
                head = self._broker.not_audited(grant, record) + peer_fields
                self._trail.keep(self._trail.numbered([head], b""))
