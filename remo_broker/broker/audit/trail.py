"""The audit trail: hands records to journald, keeps them while it accepts none, counts lost ones.

Rules:
- a record is handed over before its reply is sent;
- when journald's queue is full, the broker waits up to `SEND_SECONDS`. After that it does not
  wait again until journald has accepted a record;
- meanwhile up to `WAITING_RECORDS` records wait in memory with their own time; `waiting` decides
  which of them to drop;
- every record gets the next serial since the start, accepted or not: a gap in the journal is a lost
  record;
- the same applies when journald accepts records but cannot write them. Records accepted just before
  this was noticed count as lost.
"""

from __future__ import annotations

import os

from remo_broker.broker.audit.waiting import Waiting
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import PRIORITY_CONTROL, Event
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.names import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Transport(Protocol):
        """Accepts a datagram, or raises OSError. Several records in it are separated by an empty
        line; `max_batch` is its longest length, 0 for one record in each."""

        name: str
        namespace: str | None

        @property
        def max_batch(self) -> int: ...

        on_loss: Callable[[], None]
        """Called when records handed over may have been lost before they were received."""

        def send(self, datagram: bytes, timeout_seconds: float) -> None: ...

        def received(self, timeout_seconds: float) -> bool:
            """Whether all records handed over are received within `timeout_seconds`."""

        def can_write(self) -> bool:
            """Whether the receiver can probably write what it receives."""


# A healthy journald empties its queue within a millisecond, but a rotation or sync may take tens of
# them. All clients wait meanwhile, and a status must be answered within 200 ms.
SEND_SECONDS = 0.1
# The longest wait for all datagrams of one turn together.
TURN_SECONDS = 0.15
# How often to try journald while records wait.
RETRY_SECONDS = 0.25
# What is wrong with a trail, as shown in `status` and REMO_REASON.
NOT_TAKEN, NOT_STORED, UNCHECKED = audit_records.NOT_TAKEN, "not_stored", "unchecked"
# The most records that can be lost with journald's socket: a send buffer has 212,992 bytes, a
# record at least 350.
QUEUE_RECORDS = 600


class AuditTrail:
    """Hands records over in order, keeps those not accepted, and reports its health."""

    def __init__(self, transport: Transport, *, clock_usec: Callable[[], int], strict: bool = False) -> None:
        """`strict`: also unhealthy while records that were handed over have not been received; see
        `received`."""
        self._strict = strict
        self._transport = transport
        self._clock_usec = clock_usec
        self._waiting = Waiting()
        self.start_id = os.urandom(16).hex()
        """Distinguishes this start's serials from another's."""
        self.serial = 0
        """The last record's serial."""
        self._end = audit_records.end(self.start_id)
        self._end_of_get = audit_records.end_of_get(self.start_id)
        self.healthy = True
        """Whether records are accepted. `stored` says whether they are also stored."""
        self.stored = True
        """Whether accepted records are stored, as far as is known."""
        self._storage_was_missing = False
        self.dropped = 0
        """Records lost for good since the broker started."""
        self._dropped_before = 0
        """What `dropped` was when the trail was last healthy."""
        self._degraded: bytes | None = None
        """The `audit.degraded` record that has not been handed over yet. Kept apart from the queue,
        so that it is not dropped."""
        self.unseen = 0
        """Records handed over since the last `check_storage`."""
        self.unseen_before = 0
        self._misses = 0
        self._probed_at = 0.0
        self.waits: Callable[[int], None] = _nothing
        """Called with a serial when records begin to wait, and with 0 when all were accepted."""
        transport.on_loss = self._lost_a_queue

    @property
    def sink(self) -> str:
        return self._transport.name

    @property
    def namespace(self) -> str | None:
        """The journal namespace, None for the default one."""
        return self._transport.namespace

    @property
    def trouble(self) -> str | None:
        """What is wrong: `not_taken`, `not_stored`, or `unchecked` before it is known; None if
        nothing is wrong."""
        if not self.healthy:
            return NOT_TAKEN
        if self.stored:
            return None
        return NOT_STORED if self._storage_was_missing else UNCHECKED

    @property
    def withholds(self) -> bool:
        """Whether secrets are withheld because their records would be lost."""
        return self._strict and self.trouble is not None

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def numbered(self, heads: list[bytes], tail: bytes) -> list[bytes]:
        """Complete records: each of `heads` with `tail`, which all records of a turn share, and its
        own serial."""
        serial = self.serial
        entries = []
        for head in heads:
            serial += 1
            entries.append(head + self._end % (tail, serial))
        self.serial = serial
        return entries

    def write(self, records: list[bytes]) -> int:
        """Hand over `records`, which are `numbered`; return how many were accepted.

        The caller must `keep` the others, or deny what they allow.
        """
        if not self.healthy and not self.retry():
            return 0
        taken = 0
        try:
            if len(records) == 1:
                self._transport.send(records[0], SEND_SECONDS)
                taken = 1
            else:
                deadline = monotonic() + TURN_SECONDS
                timeout = SEND_SECONDS
                for batch in self._batches(records):
                    self._transport.send(b"\n".join(batch), timeout)
                    taken += len(batch)
                    timeout = min(timeout, max(0.0, deadline - monotonic()))
        except OSError:
            self._degrade("journald is not accepting audit records")
        self.unseen += taken
        return taken

    def write_next(self, head: bytes, peer_fields: bytes, microseconds: float) -> bytes:
        """The same for the only record of a turn, as nearly all are: empty if it was accepted, else
        the numbered record."""
        self.serial += 1
        record = b"".join((head, peer_fields, self._end_of_get % (int(microseconds), self.serial)))
        if self.healthy or self.retry():
            try:
                self._transport.send(record, SEND_SECONDS)
            except OSError:
                self._degrade("journald is not accepting audit records")
            else:
                self.unseen += 1
                return b""
        return record

    def check_storage(self) -> None:
        """Check that journald can write what it accepted."""
        if self._transport.can_write():
            # Records accepted just before the last check may still have been in the queue then.
            self.unseen_before, self.unseen = self.unseen, 0
            self._misses = 0
            return
        self._misses += 1
        if self._misses > 1:  # a single miss can be journald rotating its file
            # Also if it stopped accepting records first: those before may be lost with the disk.
            self._give_up_unseen()
            if self.healthy:
                self._degrade("The journal cannot be written: make room below /var/log and /run")

    def received(self) -> bool:
        """Wait up to `SEND_SECONDS` until everything handed over has been received; degrade if
        it is not."""
        if self._transport.received(SEND_SECONDS):
            return True
        self._degrade("journald is not accepting audit records")
        return False

    # --- whether records are stored, which `read_back` checks

    def probe(self) -> int:
        """Write a record like that of a fetch. Returns its serial, or 0 if it was not accepted."""
        record = audit_records.record(Event.PROBED, "Checking that the journal stores the records that it accepts.")
        entries = self.numbered([record + audit_records.own_fields()], b"")
        if self.write(entries):
            return self.serial
        self.keep(entries)
        return 0

    def wait_for_storage(self) -> None:
        """Treat records as not stored until it is known that they are."""
        self.stored = False

    def storage_found(self) -> None:
        was_missing, self._storage_was_missing = self._storage_was_missing, False
        self.stored = True
        if was_missing:
            text = "The journal stores audit records again."
            record = audit_records.record(Event.RECOVERED, text, dropped=0, reason=NOT_STORED)
            self.write_or_keep(record + audit_records.own_fields())

    def storage_unknown(self) -> None:
        """There was no answer: keep the last known result, and do not wait for a first answer."""
        if not self._storage_was_missing:
            self.stored = True

    def storage_missing(self, serial: int) -> None:
        """journald accepted the record `serial`, but the journal does not contain it."""
        self.stored = False
        if self._storage_was_missing:
            return
        self._storage_was_missing = True
        text = (
            f"The journal accepts audit records but does not store them, such as that with serial {serial}; see MaxLevelStore= "
            "and Storage= of journald.conf(5) and LogLevelMax= of the unit."
        )
        record = audit_records.record(Event.DEGRADED, text, dropped=self.dropped, reason=NOT_STORED)
        self.write_or_keep(record + audit_records.own_fields())

    def _lost_a_queue(self) -> None:
        if self.unseen or self.unseen_before:
            self._give_up_unseen(QUEUE_RECORDS)
            self._degrade("The socket of journald was replaced")

    def _give_up_unseen(self, at_the_most: int | None = None) -> None:
        """Count records as lost that may not have been written; there is no way to tell."""
        unseen = self.unseen + self.unseen_before
        self.dropped += unseen if at_the_most is None else min(unseen, at_the_most)
        self.unseen = self.unseen_before = 0

    def keep(self, records: list[bytes]) -> None:
        """Keep records until journald accepts them, each with the current time."""
        stamp = self._stamp()
        for record in records:
            self.dropped += self._waiting.add(record + stamp)

    def write_or_keep(self, record: bytes) -> None:
        """Give `record` its serial and hand it over, or keep it."""
        self._write_or_keep(self.numbered([record], b""))

    def log(self, priority: int, message: str) -> None:
        """Log a line that is not an audit record."""
        self._write_or_keep([audit_records.note(priority, message)])

    def _write_or_keep(self, records: list[bytes]) -> None:
        if not self.write(records):
            self.keep(records)

    def retry(self) -> bool:
        """Try to hand over the waiting records; return whether none wait any more.

        It does not block while the receiver is gone; once it is back, it blocks for up to
        `SEND_SECONDS`.
        """
        if self.healthy:
            return True
        if self._strict and not self._transport.received(0.0):
            return False
        now = monotonic()
        if not self._transport.can_write():
            if now >= self._probed_at + RETRY_SECONDS:
                self._probed_at = now
                # journald looks for room only when it has something to write. If there still is
                # none, this line is lost, which is not counted: it is no audit record.
                note = audit_records.note(PRIORITY_CONTROL, "Checking whether the journal can be written.")
                if self._try_to_send([note], 0.0):
                    self.unseen -= 1
            return False
        # Do not wait for the first record. Once it is accepted, a briefly full queue is no reason
        # to give up.
        timeout = 0.0
        if self._degraded is not None:
            if not self._try_to_send([self._degraded], timeout):
                return False
            self._degraded = None
            timeout = SEND_SECONDS
        while self._waiting or self._waiting.denied or self._waiting.missed:
            if not self._waiting:
                self._count_dropped()
            batch = self._waiting.batch(self._transport.max_batch)
            if not self._try_to_send(batch, timeout):
                return False
            self._waiting.done(len(batch))
            timeout = max(0.0, now + SEND_SECONDS - monotonic())
        dropped = self.dropped - self._dropped_before
        text = f"journald accepts audit records again; at most {dropped} records were lost."
        recovered = audit_records.record(Event.RECOVERED, text, dropped=dropped) + audit_records.own_fields()
        entries = self.numbered([recovered], b"")
        serial = self.serial
        sent = self._try_to_send(entries, timeout)
        if self.serial != serial:  # meanwhile a loss was noticed, whose record has the next serial
            if not sent:
                self.keep(entries)
            return False
        if not sent:
            self.serial -= 1  # the next attempt creates another record
            return False
        self.healthy = True
        self._dropped_before = self.dropped
        self._misses = 0
        self.waits(0)
        return True

    def _degrade(self, why: str) -> None:
        if self._degraded is None:
            record = audit_records.record(Event.DEGRADED, f"{why}; records wait in memory.", dropped=self.dropped)
            [self._degraded] = self.numbered([record], audit_records.own_fields() + self._stamp())
        if self.healthy:
            self.healthy = False
            self.waits(self.serial)

    def _count_dropped(self) -> None:
        """Add one record for each project with the number of its dropped denials, and one with that
        of its dropped misses."""
        waiting = self._waiting
        denied, waiting.denied = waiting.denied, {}
        missed, waiting.missed = waiting.missed, {}
        while_full = "while journald accepted no records"
        records = [
            audit_records.denials_counted(
                project,
                count,
                audit_records.NOT_TAKEN,
                f"Project {project} was denied {counted(count, 'more request')} {while_full}.",
            )
            for project, count in denied.items()
        ] + [
            audit_records.misses_counted(
                project,
                count,
                f"Project {project} made {counted(count, 'more request')}, for secrets that the broker does not hold, "
                f"{while_full}.",
            )
            for project, count in missed.items()
        ]
        for record in records:
            self.keep(self.numbered([record], audit_records.own_fields()))

    def _try_to_send(self, records: list[bytes], timeout_seconds: float) -> bool:
        try:
            self._transport.send(b"\n".join(records), timeout_seconds)
        except OSError:
            return False
        self.unseen += len(records)
        return True

    def _stamp(self) -> bytes:
        return audit_records.field(audit_records.EVENT_TIME_FIELD, self._clock_usec())

    def _batches(self, records: list[bytes]) -> list[list[bytes]]:
        """`records` in order, split into batches that the transport accepts. A single record always
        fits."""
        batches: list[list[bytes]] = []
        size = limit = self._transport.max_batch
        for record in records:
            size += len(record) + 1
            if size > limit:
                batches.append([])
                size = len(record) + 1
            batches[-1].append(record)
        return batches


def _nothing(serial: int) -> None:
    pass
