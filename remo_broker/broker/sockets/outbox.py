"""The outbox: the results of one turn of the loop. It hands over the audit records first, then
sends the replies.

The hot path ends in `Outbox.flush`: one datagram to journald for all records of a turn, one
gathered write for each reply.
"""

from __future__ import annotations

from remo_broker.broker import decisions
from remo_broker.protocol import audit_records
from remo_broker.protocol.clock import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Decisions, Reply
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.projects import Grant
    from remo_broker.broker.sockets.connection import Connection

    # A reply: its connection, its content, the head of its record if it is audited, the peer's
    # fields, and the grant if there is one.
    Entry: TypeAlias = tuple[Connection, Reply, bytes | None, bytes, Grant | None]


class Outbox:
    """Replies and records of one turn, for all kinds of connections.

    `deny`: release a secret only if journald has received its record.
    """

    def __init__(self, loop: Loop, broker: Decisions, trail: AuditTrail, *, deny: bool) -> None:
        self._loop = loop
        self._broker = broker
        self._trail = trail
        self._deny = deny
        self.entries: list[Entry] = []
        """The turn's replies, in order."""
        self.ends: list[Connection] = []
        """Connections whose peers have sent their last request."""

    # --- for connections

    def add(self, connection: Connection, reply: Reply, head: bytes, peer_fields: bytes, grant: Grant | None) -> None:
        """Add a reply with its audit record: `head`, then the peer's fields."""
        self.entries.append((connection, reply, head, peer_fields, grant))

    def reply(self, connection: Connection, line: bytes) -> None:
        """Add a reply that is not audited."""
        self.entries.append((connection, line, None, b"", None))

    def end(self, connection: Connection) -> None:
        """The peer has sent its last request: close once its replies are sent."""
        self.ends.append(connection)

    # --- the end of the turn

    def flush(self) -> None:
        """Hand over the records, then write the replies."""
        entries, self.entries = self.entries, []
        if entries:
            try:
                if len(entries) == 1 and not self._deny:
                    _, _, head, peer_fields, _ = entries[0]
                    if head is not None:
                        kept = self._trail.write_next(head, peer_fields, (monotonic() - self._loop.now) * 1e6)
                        if kept:
                            self._not_taken(entries, [kept], [0])
                else:
                    heads = [entry[2] + entry[3] for entry in entries if entry[2] is not None]
                    if heads:
                        self._hand_over(entries, heads)
                snapshot = self._broker.store.snapshot
                for entry in entries:
                    entry[0].send(entry[1], snapshot)
            except Exception:
                # If the connection stayed open, the peer would take the next reply for the missing
                # one.
                for entry in entries:
                    entry[0].close()
                raise
        if self.ends:
            ends, self.ends = self.ends, []
            for connection in ends:
                connection.end_of_requests()

    def _hand_over(self, entries: list[Entry], heads: list[bytes]) -> None:
        """Write the records of `entries`. A secret that requires its record is denied there if the
        record is not accepted."""
        if self._deny and not self._trail.stored:
            heads = self._deny_secrets(entries)
        latency = audit_records.latency_field((monotonic() - self._loop.now) * 1e6)
        written = self._trail.numbered(heads, latency)
        taken = self._trail.write(written)
        if not self._deny and taken == len(written):
            return
        audited = [index for index, entry in enumerate(entries) if entry[2] is not None]
        if self._deny and not self._received(entries, audited[:taken]):
            self._not_received(entries, written[:taken], audited[:taken])
        self._not_taken(entries, written[taken:], audited[taken:])

    def _deny_secrets(self, entries: list[Entry]) -> list[bytes]:
        """The journal does not store records: deny the secrets in `entries` and note that in their
        records. Returns all records."""
        heads = []
        for index, (connection, reply, head, peer_fields, grant) in enumerate(entries):
            if head is not None and grant is not None and not isinstance(reply, bytes):
                denied = self._broker.not_audited(grant, head)
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, denied, peer_fields, None)
                heads.append(denied + peer_fields)
            elif head is not None:
                heads.append(head + peer_fields)
        return heads

    def _not_taken(self, entries: list[Entry], written: list[bytes], audited: list[int]) -> None:
        """The trail did not accept `written`: keep it. If a secret requires its record, deny the
        secret and note that in the record."""
        for record, index in zip(written, audited, strict=True):
            connection, reply, _, peer_fields, grant = entries[index]
            kept = record
            if self._deny and grant is not None and not isinstance(reply, bytes):
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, None, b"", None)
                kept = self._broker.not_audited(grant, record) + peer_fields + audit_records.serial_of(record)
            self._trail.keep([kept])

    def _received(self, entries: list[Entry], audited: list[int]) -> bool:
        """Whether the records of all secrets in the replies have been received."""
        secret = any(entries[index][4] is not None and not isinstance(entries[index][1], bytes) for index in audited)
        return not secret or self._trail.received()

    def _not_received(self, entries: list[Entry], written: list[bytes], audited: list[int]) -> None:
        """The trail accepted `written`, but journald may never read it: deny the secrets and add a
        record of each denial."""
        for record, index in zip(written, audited, strict=True):
            connection, reply, _, peer_fields, grant = entries[index]
            if grant is not None and not isinstance(reply, bytes):
                entries[index] = (connection, decisions.AUDIT_UNAVAILABLE, None, b"", None)
                head = self._broker.not_audited(grant, record) + peer_fields
                self._trail.keep(self._trail.numbered([head], b""))
