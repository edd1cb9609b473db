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

    # A reply: to whom, what, its record if it is audited, the peer's fields, and the grant if it hands out a secret.
    Entry: TypeAlias = tuple[Connection, Reply, bytes | None, bytes, Grant | None]


class Outbox:
    """Replies and records of the turn, for connections of any kind.

    `deny`: a secret is not handed out unless journald has received its record.
    """

    def __init__(self, loop: Loop, broker: Broker, trail: AuditTrail, *, deny: bool) -> None:
        self._loop = loop
        self._broker = broker
        self._trail = trail
        self._deny = deny
        self.entries: list[Entry] = []
        """The replies of the turn, in their order."""
        self.ends: list[Connection] = []
        """Connections whose peers have sent all that they will."""

    # --- what connections put in

    def add(self, connection: Connection, reply: Reply, head: bytes, peer_fields: bytes, grant: Grant | None) -> None:
        """A reply with its audit record: `head`, then the peer's fields."""
        self.entries.append((connection, reply, head + peer_fields, peer_fields, grant))

    def reply(self, connection: Connection, line: bytes) -> None:
        """A reply that is not audited."""
        self.entries.append((connection, line, None, b"", None))

    def end(self, connection: Connection) -> None:
        """The peer has sent all that it will: close once it has its replies."""
        self.ends.append(connection)

    # --- the end of the turn

    def flush(self) -> None:
        """Hand over the records, then write the replies."""
        entries, self.entries = self.entries, []
        if entries:
            try:
                heads = [entry[2] for entry in entries if entry[2] is not None]
                if heads:
                    self._hand_over(entries, heads)
                snapshot = self._broker.store.snapshot
                for entry in entries:
                    entry[0].send(entry[1], snapshot)
            except Exception:
                # A peer whose connection went on would take the next answer for the one that it did not get.
                for entry in entries:
                    entry[0].close()
                raise
        if self.ends:
            ends, self.ends = self.ends, []
            for connection in ends:
                connection.end_of_requests()

    def _hand_over(self, entries: list[Entry], heads: list[bytes]) -> None:
        """Write the records of `entries`. A secret that may not be handed out without its record is denied there."""
        if self._deny and not self._trail.stored:
            heads = self._deny_secrets(entries)
        latency = records.latency_field(int((monotonic() - self._loop.now) * 1e6))
        written = self._trail.numbered(heads, latency)
        taken = self._trail.write(written)
        if not self._deny and taken == len(written):
            return
        audited = [index for index, entry in enumerate(entries) if entry[2] is not None]
        if self._deny and not self._received(entries, audited[:taken]):
            self._not_received(entries, written[:taken], audited[:taken])
        self._not_taken(entries, written[taken:], audited[taken:])

    def _deny_secrets(self, entries: list[Entry]) -> list[bytes]:
        """The journal does not store records: deny the secrets in `entries`, and say so in their records. All records."""
        heads = []
        for index, (connection, reply, head, peer_fields, grant) in enumerate(entries):
            if head is not None and grant is not None and not isinstance(reply, bytes):
                denied = self._broker.not_audited(grant, head) + peer_fields
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, denied, peer_fields, None)
                heads.append(denied)
            elif head is not None:
                heads.append(head)
        return heads

    def _not_taken(self, entries: list[Entry], written: list[bytes], audited: list[int]) -> None:
        """The trail did not take `written`: keep it. Where that denies a secret, deny it and say so in its record."""
        for record, index in zip(written, audited, strict=True):
            connection, reply, _, peer_fields, grant = entries[index]
            kept = record
            if self._deny and grant is not None and not isinstance(reply, bytes):
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, None, b"", None)
                kept = self._broker.not_audited(grant, record) + peer_fields + records.serial_of(record)
            self._trail.keep([kept])

    def _received(self, entries: list[Entry], audited: list[int]) -> bool:
        """Whether no reply hands out a secret whose record may still get lost."""
        secret = any(entries[index][4] is not None and not isinstance(entries[index][1], bytes) for index in audited)
        return not secret or self._trail.received()

    def _not_received(self, entries: list[Entry], written: list[bytes], audited: list[int]) -> None:
        """The trail took `written`, but it may never be read: deny the secrets, and say so in records of their own."""
        for record, index in zip(written, audited, strict=True):
            connection, reply, _, peer_fields, grant = entries[index]
            if grant is not None and not isinstance(reply, bytes):
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, None, b"", None)
                head = self._broker.not_audited(grant, record) + peer_fields
                self._trail.keep(self._trail.numbered([head], b""))
