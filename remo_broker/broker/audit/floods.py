"""Denials of long names: after the first few per second they are only counted, because each record
takes a kilobyte of the journal."""

from __future__ import annotations

from functools import partial

from remo_broker.broker.rate import Bucket
from remo_broker.protocol import records
from remo_broker.protocol.names import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop

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
