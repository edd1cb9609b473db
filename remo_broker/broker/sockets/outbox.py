"""The project sockets: one turn's audit records out, then the replies.

The end of the hot path is `ProjectPlane.fetch` and `flush`: one datagram to journald for all records of a turn, one gathered
write per reply.
"""

from __future__ import annotations

import time
from functools import partial

from remo_broker.broker import decisions
from remo_broker.broker.projects import SHARE
from remo_broker.broker.refusals import BUG
from remo_broker.broker.sockets.connection import PEER_SECONDS
from remo_broker.protocol import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Broker, Reply
    from remo_broker.broker.loop import Job, Loop
    from remo_broker.broker.projects import Grant, Project
    from remo_broker.broker.sockets.connection import Sweeper
    from remo_broker.broker.sockets.project import Client


class ProjectPlane:
    """All clients of all projects, and what one turn of the loop has answered them."""

    def __init__(self, loop: Loop, sweeper: Sweeper, the_broker: Broker, trail: AuditTrail, *, deny: bool) -> None:
        self.loop = loop
        self.sweeper = sweeper
        self.broker = the_broker
        self.trail = trail
        self.clients: set[Client] = set()
        self.queue: list[Client] = []
        """Clients that have whole lines left for the next turn."""
        self.drawn: list[Project] = []
        """Projects that have drawn on their share of this turn."""
        self._queue_runs = False
        self._deny = deny
        self._replies: list[tuple[Client, Reply]] = []
        self._records: list[bytes] = []
        self._audited: list[tuple[int, Grant | None]] = []
        """For each record, which of the replies it belongs to, and the grant if it hands out a secret."""
        self._ends: list[Client] = []
        loop.turn_ends.append(self.end_turn)

    # --- what clients add to the turn

    def fetch(self, client: Client, grant: Grant) -> None:
        """A get whose line is known: the hot path."""
        now = self.loop.now
        if not client.project.bucket.take(now):
            self.refuse_rate(client)
            return
        reply, head = self.broker.fetch(grant, now)
        self.add(client, reply, head, grant)

    def add(self, client: Client, reply: Reply, head: bytes | None, grant: Grant | None) -> None:
        if head is not None:
            self._audited.append((len(self._replies), grant))
            self._records.append(head + client.peer_fields)
        self._replies.append((client, reply))

    def reply(self, client: Client, line: bytes) -> None:
        self._replies.append((client, line))

    def refuse_rate(self, client: Client) -> None:
        project, bucket = client.project, client.project.bucket
        self.reply(client, self.broker.rate_limited(project))
        self._tell_refusals(project, client.peer_fields)
        if bucket.refused == 1:  # the first that waits to be told
            left = bucket.told_at + decisions.REFUSALS_SECONDS - self.loop.now
            self.loop.after(left, partial(self._tell_refusals, project, client.peer_fields))

    def _tell_refusals(self, project: Project, peer_fields: bytes) -> None:
        record = self.broker.rate_limited_record(project, self.loop.now)
        if record is not None:
            self.trail.write_or_keep(record + peer_fields)

    def finish(self, client: Client) -> None:
        """The client has said all; close when it is answered."""
        self._ends.append(client)

    def dismiss(self, project: Project | None = None) -> None:
        """Answer what clients (of one project, or all) have already sent, then close them; in `PEER_SECONDS` at most."""
        clients = [one for one in self.clients if project is None or one.project is project]
        for client in clients:
            client.take_no_more()

        def close() -> None:
            for client in clients:
                client.close()

        self.loop.after(PEER_SECONDS, close)

    # --- the end of the turn

    def end_turn(self) -> None:
        if self._replies or self._ends:
            self.flush()
        if self.drawn:
            for project in self.drawn:
                project.share = SHARE
            self.drawn.clear()
        if self.queue and not self._queue_runs:
            self._queue_runs = True
            self.loop.start(self._run_queue())

    def _run_queue(self) -> Job:
        """Once a turn, behind everybody else: serve those who wait, in order, as far as their projects' shares go."""
        try:
            while self.queue:
                yield None
                clients, self.queue = self.queue, []
                waiting = []
                for client in clients:
                    if client.has_to_wait:
                        waiting.append(client)
                    else:
                        try:
                            client.go_on()
                        except Exception as error:
                            self.loop.on_bug(error)
                            client.end_with(BUG.line())
                self.queue[:0] = waiting
                self.flush()
        finally:
            self._queue_runs = False

    def flush(self) -> None:
        """Hand over the records, then write the replies."""
        replies, self._replies = self._replies, []
        try:
            if self._records:
                self._hand_over(replies)
            snapshot = self.broker.store.snapshot
            for client, reply in replies:
                client.send(reply, snapshot)
        except Exception:
            # A client that went on would take the answer to its next request for the one that it has not got.
            for client, _ in replies:
                client.close()
            raise
        if self._ends:
            ends, self._ends = self._ends, []
            for client in ends:
                client.end()

    def _hand_over(self, replies: list[tuple[Client, Reply]]) -> None:
        """The records of `replies`; what may not be given out without its record is denied there."""
        heads, self._records = self._records, []
        audited, self._audited = self._audited, []
        latency = records.latency_field(int((time.monotonic() - self.loop.now) * 1e6))
        entries = self.trail.numbered(heads, latency)
        taken = self.trail.write(entries)
        if self._deny and not self._received(audited[:taken], replies):
            self._not_received(entries[:taken], audited[:taken], replies)
        if taken < len(entries):
            self._not_taken(entries, audited, taken, replies)

    def _not_taken(
        self,
        entries: list[bytes],
        audited: list[tuple[int, Grant | None]],
        taken: int,
        replies: list[tuple[Client, Reply]],
    ) -> None:
        """Some records were not taken: keep them, and where that denies a secret, deny it and say so in its record."""
        for record, (index, grant) in zip(entries[taken:], audited[taken:], strict=True):
            client, reply = replies[index]
            kept = record
            if self._deny and grant is not None and not isinstance(reply, bytes):
                replies[index] = (client, decisions.AUDIT_UNAVAILABLE)
                head = self.broker.not_audited(grant, record) + client.peer_fields
                kept = head + records.serial_of(record)
            self.trail.keep([kept])

    def _received(self, audited: list[tuple[int, Grant | None]], replies: list[tuple[Client, Reply]]) -> bool:
        """Whether no reply hands out a secret whose record may still get lost."""
        secret = any(grant is not None and not isinstance(replies[index][1], bytes) for index, grant in audited)
        return not secret or self.trail.received()

    def _not_received(
        self, entries: list[bytes], audited: list[tuple[int, Grant | None]], replies: list[tuple[Client, Reply]]
    ) -> None:
        """Records are on their way, but nobody may ever read them: deny the secrets, and say so in records of their own."""
        for record, (index, grant) in zip(entries, audited, strict=True):
            client, reply = replies[index]
            if grant is not None and not isinstance(reply, bytes):
                replies[index] = (client, decisions.AUDIT_UNAVAILABLE)
                head = self.broker.not_audited(grant, record) + client.peer_fields
                self.trail.keep(self.trail.numbered([head], b""))
