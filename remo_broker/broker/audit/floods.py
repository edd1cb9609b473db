"""Denials of long names: after the first few a second they are counted, as each of them costs the journal a kilobyte."""

from __future__ import annotations

from functools import partial

from remo_broker.broker.rate import Bucket
from remo_broker.protocol import records
from remo_broker.protocol.names import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop

# Names of secrets that anybody uses are shorter.
LONG_NAME = 64
# Denials of longer ones that are recorded one by one, of each project.
LONG_NAMES_PER_SECOND = 5
LONG_NAMES_BURST = 10
# How often the others are reported.
REPORT_SECONDS = 1.0


class LongNames:
    """What each project asked for by long names that it is denied."""

    def __init__(self, loop: Loop, trail: AuditTrail) -> None:
        self._loop = loop
        self._trail = trail
        # Unregistered projects stay in it: an entry has some hundred bytes, and a restart forgets them.
        self._buckets: dict[str, Bucket] = {}

    def recorded(self, project: str, name: str, peer_fields: bytes) -> bool:
        """Whether the denial of `name` has a record of its own; else it is counted here."""
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
