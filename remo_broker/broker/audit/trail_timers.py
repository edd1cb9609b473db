"""When the audit trail tries again, and when it checks that records are written."""

from __future__ import annotations

from remo_broker.broker.audit.trail import RETRY_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.loop import Loop

# How often to check, while records are handed over, that journald has a file to write to. When its
# disks are full, the records of up to twice that time may be lost.
STORAGE_CHECK_SECONDS = 0.25


class TrailTimers:
    """While records wait, it retries, so that they are sent without a new request; while records
    are accepted, it checks that they are written. `changed` is called when the trail's health
    changes."""

    def __init__(self, loop: Loop, trail: AuditTrail, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._trail = trail
        self._changed = changed
        self._trouble: str | None = None
        self._retry_due = False
        self._check_due = False
        loop.turn_ends.append(self._end_of_turn)

    def _end_of_turn(self) -> None:
        trail = self._trail
        if self._check_due and trail.healthy and trail.stored and self._trouble is None:
            return  # as nearly always
        if trail.trouble != self._trouble:
            self._trouble = trail.trouble
            self._changed()
        if not trail.healthy and not self._retry_due:
            self._retry_due = True
            self._loop.after(RETRY_SECONDS, self._retry)
        if (trail.unseen or trail.unseen_before) and not self._check_due:
            self._check_due = True
            self._loop.after(STORAGE_CHECK_SECONDS, self._check_storage)

    def _retry(self) -> None:
        self._retry_due = False
        self._trail.retry()
        self._end_of_turn()

    def _check_storage(self) -> None:
        self._check_due = False
        self._trail.check_storage()
        self._end_of_turn()
