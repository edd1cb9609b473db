"""What a flood of requests adds to the audit trail: few records, which count the requests.

Denials of long names are only counted after the first few per second, because each record takes a
kilobyte of the journal. Requests over the rate limit are recorded together.
"""

from __future__ import annotations

from functools import partial

from remo_broker.broker.rate import REFUSALS_SECONDS, Bucket
from remo_broker.protocol import records
from remo_broker.protocol.names import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.projects import Project

# Names of secrets are shorter in practice.
LONG_NAME = 64
# Denials of longer names that are recorded individually, per project.
LONG_NAMES_PER_SECOND = 5
LONG_NAMES_BURST = 10
# How often to report the number of the others.
REPORT_SECONDS = 1.0


class LongNames:
    """Decides which denials of long names to record, and counts the others for each project."""

    def __init__(self, loop: Loop, trail: AuditTrail) -> None:
        self._loop = loop
        self._trail = trail
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
        if bucket.refused == 1:
            self._loop.after(REPORT_SECONDS, partial(self._report, project, bucket, peer_fields))
        return False

    def _report(self, project: str, bucket: Bucket, peer_fields: bytes) -> None:
        count, bucket.refused = bucket.refused, 0
        message = f"Project {project} was denied {counted(count, 'more long name')}."
        self._trail.write_or_keep(records.denials_counted(project, count, records.LONG_NAMES, message) + peer_fields)


class RateLimitRecords:
    """Records the requests that exceeded a project's rate limit: the first at once, later ones
    together."""

    def __init__(self, loop: Loop, trail: AuditTrail, record_of: Callable[[Project, float], bytes | None]) -> None:
        """`record_of` returns the record that is due at a time of the loop's clock, if any."""
        self._loop = loop
        self._trail = trail
        self._record_of = record_of

    def add(self, project: Project, peer_fields: bytes) -> None:
        """A request was refused and counted in the project's bucket."""
        self._record(project, peer_fields)
        bucket = project.bucket
        if bucket.refused == 1:  # the first one that is not recorded yet
            left = bucket.reported_at + REFUSALS_SECONDS - self._loop.now
            self._loop.after(left, partial(self._record, project, peer_fields))

    def _record(self, project: Project, peer_fields: bytes) -> None:
        record = self._record_of(project, self._loop.now)
        if record is not None:
            self._trail.write_or_keep(record + peer_fields)
