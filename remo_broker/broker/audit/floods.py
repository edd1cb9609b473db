"""What a flood of requests adds to the audit trail: few records, which count the requests.

Denials of long names are only counted after the first few per second, because each record takes a
kilobyte of the journal. Requests over the rate limit are counted too. Each peer's are counted by
themselves: one that sends a single request must not be recorded as the sender of another's flood.
"""

from __future__ import annotations

from functools import partial

from remo_broker.broker.rate import Bucket
from remo_broker.protocol import audit_records
from remo_broker.protocol.names import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop

# Names of secrets are shorter in practice.
LONG_NAME = 64
# Denials of longer names that are recorded individually, per project.
LONG_NAMES_PER_SECOND = 5
LONG_NAMES_BURST = 10
# How often to report the number of the others.
REPORT_SECONDS = 1.0
# Peers of one project whose requests are counted separately between two reports; those of further
# ones are counted together, in a record that names no peer.
MAX_PEERS = 16


class PeerCounts:
    """Requests that have no records of their own, by project and peer, reported once a second.

    `report` is called with the project, the number and the peer's record fields, if it is one
    peer.
    """

    def __init__(self, loop: Loop, report: Callable[[str, int, bytes], None]) -> None:
        self._loop = loop
        self._report = report
        self._counts: dict[str, dict[bytes, int]] = {}

    def begin(self, project: str) -> bool:
        """Begin to count the project's. False if that has begun and no second has passed."""
        if project in self._counts:
            return False
        self._counts[project] = {}
        self._loop.after(REPORT_SECONDS, partial(self._end, project))
        return True

    def add(self, project: str, peer_fields: bytes) -> None:
        self.begin(project)
        counts = self._counts[project]
        if peer_fields not in counts and len(counts) >= MAX_PEERS:
            peer_fields = b""
        counts[peer_fields] = counts.get(peer_fields, 0) + 1

    def report_all(self) -> None:
        """Do not wait for the second to pass, because the process ends."""
        for project, counts in self._counts.items():
            for peer_fields, count in counts.items():
                self._report(project, count, peer_fields)
            counts.clear()

    def _end(self, project: str) -> None:
        counts = self._counts.pop(project)
        if counts:
            self.begin(project)
        for peer_fields, count in counts.items():
            self._report(project, count, peer_fields)


class LongNames:
    """Decides which denials of long names to record, and counts the others."""

    def __init__(self, loop: Loop, trail: AuditTrail) -> None:
        self._loop = loop
        self._trail = trail
        self.counts = PeerCounts(loop, self._report)
        # Unregistered projects stay in it: an entry takes about a hundred bytes, and a restart
        # clears them.
        self._buckets: dict[str, Bucket] = {}

    def recorded(self, project: str, name: str, peer_fields: bytes) -> bool:
        """Whether to record the denial of `name` individually; otherwise it is counted here."""
        if len(name) <= LONG_NAME:
            return True
        bucket = self._buckets.get(project)
        if bucket is None:
            bucket = self._buckets[project] = Bucket(LONG_NAMES_PER_SECOND, LONG_NAMES_BURST)
        if bucket.take(self._loop.now):
            return True
        self.counts.add(project, peer_fields)
        return False

    def _report(self, project: str, count: int, peer_fields: bytes) -> None:
        message = f"Project {project} was denied {counted(count, 'more long name')}."
        self._trail.write_or_keep(
            audit_records.denials_counted(project, count, audit_records.LONG_NAMES, message) + peer_fields
        )


class RateLimitRecords:
    """Records the requests over a project's rate limit: the first at once, later ones together."""

    def __init__(self, loop: Loop, trail: AuditTrail) -> None:
        self._trail = trail
        self.counts = PeerCounts(loop, self._report)

    def add(self, project: str, peer_fields: bytes) -> None:
        if self.counts.begin(project):
            self._report(project, 1, peer_fields)
        else:
            self.counts.add(project, peer_fields)

    def _report(self, project: str, count: int, peer_fields: bytes) -> None:
        message = f"Project {project} exceeded its rate limit; {counted(count, 'request')} refused."
        record = audit_records.record(audit_records.Event.RATE_LIMITED, message, project=project, count=count)
        self._trail.write_or_keep(record + peer_fields)
